"""Nights on a virtual GPU: the promise holds where nothing works, gains are found where something does."""

import json
import math
import os
from pathlib import Path

import numpy as np
import pytest

from ledger.rules import RULES
from orgs.effects import MAR8, WORLDS, draw, read_effects
from orgs.simulate import Simulation, Summary, draw_noise, one_night, simulate
from records import BadInput
from tests.components import require
from tests.orgs.lab import run


def one(rule: str, simulation: Simulation) -> Summary:
    return simulate([rule], simulation)[0]


@pytest.mark.parametrize("tails", ["normal", "t5"])
def test_where_nothing_works_a_night_merges_anything_in_5_percent_at_most(tails: str) -> None:
    """108 runs: 8 for the noise, and an error budget of 100 judgements. The control is the original's rule."""
    null = Simulation(effects="null", tails=tails, nights=400, experiments=108)
    for rule in RULES:
        found = one(rule, null)
        if rule == "keep-if-lower":
            assert found.any_false_merge > 0.9 and found.false_merges > 3
        else:
            assert found.any_false_merge <= 0.05 + 3 * math.sqrt(0.05 * 0.95 / 400)
            assert found.gain_bpb == 0.0


def test_a_world_where_some_ideas_work_is_harvested_and_the_claim_is_true() -> None:
    mixed = Simulation(effects="mixed", nights=300)
    ours, theirs = one("two-run-min", mixed), one("keep-if-lower", mixed)
    assert ours.gain_bpb > 0.5 * theirs.gain_bpb > 0
    assert ours.false_merges < 0.1 < 3 < theirs.false_merges
    assert abs(ours.inflation_bpb) < 0.05 * ours.gain_bpb
    assert theirs.inflation_bpb > 5 * theirs.inflation_bpb_se


def test_two_run_min_finds_9_tenths_of_what_any_rule_of_the_same_promise_finds() -> None:
    mixed = Simulation(effects="mixed", nights=400)
    gains = {name: one(name, mixed).gain_bpb for name, rule in RULES.items() if rule.needs_noise}
    assert gains["two-run-min"] >= 0.9 * max(gains.values())


def test_a_night_pays_for_everything_from_the_same_runs() -> None:
    simulation = Simulation(effects="mixed", experiments=60)
    for name, rule in RULES.items():
        night = one_night(rule, simulation, np.random.default_rng(3))
        assert night.runs == 60
        spare = 60 - night.judged
        assert spare == 1 if name == "keep-if-lower" else spare >= simulation.baseline_runs


def test_the_same_seed_gives_the_same_figures_on_any_number_of_cores() -> None:
    simulation = Simulation(effects="late", nights=120, experiments=30)
    allowed = os.sched_getaffinity(0)
    require(len(allowed) > 1, "this test needs two cores")
    everywhere = simulate(["two-run-min"], simulation)
    try:
        os.sched_setaffinity(0, {min(allowed)})
        assert simulate(["two-run-min"], simulation) == everywhere
    finally:
        os.sched_setaffinity(0, allowed)
    assert simulate(["two-run-min"], Simulation(effects="late", nights=120, experiments=30, seed=1)) != everywhere


def test_tails_change_the_shape_of_the_noise_and_not_its_size() -> None:
    for tails, kurtosis in (("normal", 3.0), ("t5", 9.0)):
        simulation = Simulation(tails=tails, sigma=0.01, experiments=400_000)
        noise = draw_noise(simulation, np.random.default_rng(1))
        assert noise.std() == pytest.approx(0.01, rel=0.02)
        assert (noise**4).mean() / noise.var() ** 2 == pytest.approx(kurtosis, rel=0.4 if tails == "t5" else 0.02)


def test_the_published_session_is_23_improvements_of_124() -> None:
    assert len(MAR8) == 124 and sum(effect > 0 for effect in MAR8) == 23
    assert sum(effect for effect in MAR8 if effect > 0) == pytest.approx(0.9979 - 0.969686, abs=1e-9)


@pytest.mark.parametrize("world", WORLDS)
def test_every_world_has_as_many_ideas_as_asked_for(world: str) -> None:
    effects = draw(world, 0.001, 300, np.random.default_rng(0))
    assert effects.shape == (300,) and bool(np.isfinite(effects).all())
    assert bool((effects > 0).any()) is (world != "null")
    if world == "late":
        assert not effects[:225].any()


def test_effects_of_a_file_are_each_drawn_once_before_any_comes_again(tmp_path: Path) -> None:
    path = tmp_path / "effects.txt"
    path.write_text("# better\n0.003\n\n-0.001  # worse\n0\n")
    effects = read_effects(str(path))
    assert effects == (0.003, -0.001, 0.0)
    assert sorted(draw(effects, 1.0, 6, np.random.default_rng(0)).tolist()) == [-0.001, -0.001, 0.0, 0.0, 0.003, 0.003]


def test_a_file_with_anything_else_is_refused_with_its_line(tmp_path: Path) -> None:
    path = tmp_path / "effects.txt"
    for text, where in (("0.1\nlots\n", "line 2"), ("nan\n", "line 1"), ("# none\n", "no effects")):
        path.write_text(text)
        with pytest.raises(BadInput, match=where):
            read_effects(str(path))
    with pytest.raises(BadInput, match="cannot be read"):
        read_effects(str(tmp_path))


def test_the_command_prints_all_rules_side_by_side_or_one_as_json(tmp_path: Path) -> None:
    table = run(tmp_path, "simulate", "--nights", "3", "--experiments", "20")
    assert table.returncode == 0, table.stderr
    assert all(rule in table.stdout for rule in RULES)
    path = tmp_path / "effects.txt"
    path.write_text("0.1\n")
    printed = run(tmp_path, "simulate", "--rule", "two-run-min", "--effects", str(path), "--nights", "3", "--json")
    (found,) = json.loads(printed.stdout)
    assert found["rule"] == "two-run-min" and found["nights"] == 3 and found["gain_bpb"] > 1


@pytest.mark.parametrize(
    ("flag", "value"),
    [
        ("rule", "best"),
        ("effects", "none-such"),
        ("sigma", "0"),
        ("sigma", "nan"),
        ("tails", "cauchy"),
        ("nights", "0"),
        ("experiments", "8"),
        ("baseline_runs", "3"),
        ("alpha", "1"),
        ("seed", "-1"),
    ],
)
def test_a_value_that_makes_no_sense_is_one_line(flag: str, value: str) -> None:
    with pytest.raises(BadInput) as refused:
        if flag == "rule":
            simulate([value], Simulation())
        elif flag == "effects":
            read_effects(value)
        else:
            kind = {"sigma": float, "alpha": float, "tails": str}.get(flag, int)
            Simulation(**{flag: kind(value)})
    assert flag.replace("_", "-") in str(refused.value) and "\n" not in str(refused.value)


def test_the_command_ends_with_that_line_and_exit_code_2(tmp_path: Path) -> None:
    ended = run(tmp_path, "simulate", "--rule", "best")
    assert ended.returncode == 2 and "--rule best: allowed are two-run-min" in ended.stderr
    assert "Traceback" not in ended.stderr
