"""Curves of the merge rules: the simulated chances are the computed ones, and the command draws them."""

import json
import struct
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from ledger.error_budget import ErrorBudget, merge_probability, null_merge_probability, solve
from ledger.noise import pool
from ledger.rules import RULES, Step
from orgs.simulate import Simulation
from orgs.trials import (
    EFFECTS,
    JUDGED,
    Chance,
    Standing,
    any_merges,
    compute_power,
    conclusion,
    draw_nulls,
    simulate_false_merges,
    simulate_power,
)
from records import BadInput
from tests.orgs.lab import run

C = solve(0.05, 100, 8, 7)


def test_candidates_of_a_known_effect_merge_as_often_as_computed() -> None:
    """The control: the curve of a night that knows σ is another."""
    simulation = Simulation(experiments=108, nights=1000)
    intervals = [chance.interval(z=4) for chance in simulate_power("two-run-min", simulation)]
    known = [merge_probability(effect, C, 8) for effect in EFFECTS]
    assert all(low <= p <= high for (low, high), p in zip(intervals, compute_power(simulation), strict=True))
    assert not all(low <= p <= high for (low, high), p in zip(intervals, known, strict=True))


@pytest.mark.parametrize("freedom", [None, 7])
def test_power_without_an_effect_is_p1(freedom: int | None) -> None:
    assert merge_probability(0.0, C, 8, freedom) == null_merge_probability(C, 8, freedom)
    assert compute_power(Simulation(experiments=108))[0] == pytest.approx(0.05 / 100, rel=1e-4)


@pytest.mark.parametrize("freedom", [None, 7])
def test_power_grows_with_the_effect_up_to_certainty(freedom: int | None) -> None:
    chances = [merge_probability(effect, C, 8, freedom) for effect in (-2.0, *EFFECTS)]
    assert chances == sorted(chances) and len(set(chances)) == len(chances)
    assert chances[0] < 1e-4 and chances[-1] > 0.99
    assert merge_probability(40.0, C, 8, freedom) == pytest.approx(1.0, abs=1e-6)


def test_an_effect_is_a_number() -> None:
    with pytest.raises(BadInput, match="effect nan"):
        merge_probability(float("nan"), C, 8)


@pytest.mark.parametrize("rule", RULES)
def test_what_is_much_better_merges_under_every_rule(rule: str) -> None:
    found = simulate_power(rule, Simulation(nights=300))
    assert found[-1].estimate > 0.95 and found[-1].estimate > found[4].estimate > found[0].estimate
    assert found[0].estimate < 0.02 if RULES[rule].needs_noise else abs(found[0].estimate - 0.5) < 0.15


@pytest.mark.parametrize("rule", RULES)
def test_a_night_merges_a_null_as_if_each_were_judged_in_its_turn(rule: str) -> None:
    """Asking the best first runs alone finds what asking everyone does."""
    seen = set()
    for n in range(60):
        rng = np.random.default_rng(n)
        runs = rng.normal(size=8).tolist()
        standing = Standing(runs, pool([runs])) if RULES[rule].needs_noise else Standing(runs[:1], None)
        candidates = draw_nulls(8, Simulation(), rng)
        budget = ErrorBudget(0.5, 2)  # so generous that some merge
        everyone = any(conclusion(RULES[rule], standing, c, budget).step is Step.MERGE for c in candidates)
        assert any_merges(RULES[rule], standing, candidates, budget) is everyone
        seen.add(everyone)
    assert seen == {True, False}


def test_nights_without_effects_keep_the_promise_for_every_number_of_judgements() -> None:
    simulation = Simulation(nights=500)
    promised = simulate_false_merges("two-run-min", simulation)
    assert len(promised) == len(JUDGED) and all(chance.interval(z=4)[0] <= 0.05 for chance in promised)
    assert simulate_false_merges("keep-if-lower", simulation)[0].estimate > 0.8
    generous = simulate_false_merges("two-run-min", replace(simulation, alpha=0.5))
    assert all(more.seen > few.seen for more, few in zip(generous, promised, strict=True))


def test_an_interval_holds_its_estimate_and_is_never_empty() -> None:
    for seen in (0, 1, 50, 99, 100):
        low, high = Chance(seen, 100).interval()
        assert 0 <= low <= seen / 100 + 1e-12 and seen / 100 - 1e-12 <= high <= 1 and high - low > 0.01
    assert Chance(50, 100).interval() == pytest.approx((0.4038, 0.5962), abs=1e-4)


def size_of(png: Path) -> tuple[int, int]:
    """Width and height in pixels; fails unless it is a PNG."""
    head = png.read_bytes()[:24]
    assert head[:8] == b"\x89PNG\r\n\x1a\n" and head[12:16] == b"IHDR"
    width, height = struct.unpack(">II", head[16:24])
    return width, height


def test_the_command_writes_three_figures_and_prints_what_it_did_before(tmp_path: Path) -> None:
    folder = tmp_path / "new" / "folder"
    flags = ["--nights", "20", "--experiments", "20", "--seed", "1", "--json"]
    drawn = run(tmp_path, "simulate", *flags, "--plots", str(folder))
    assert drawn.returncode == 0, drawn.stderr
    assert sorted(path.name for path in folder.iterdir()) == ["false-merges.png", "gains.png", "power.png"]
    for path in folder.iterdir():
        width, height = size_of(path)
        assert 600 <= width <= 1600 and 400 <= height <= 1200
        assert 10_000 < path.stat().st_size < 120_000
    assert json.loads(drawn.stdout) == json.loads(run(tmp_path, "simulate", *flags).stdout)


def test_one_rule_is_drawn_alone_in_a_world_where_nothing_is_gained(tmp_path: Path) -> None:
    flags = ["--rule", "keep-if-lower", "--effects", "null", "--nights", "2", "--experiments", "12", "--tails", "t5"]
    drawn = run(tmp_path, "simulate", *flags, "--plots", str(tmp_path))
    assert drawn.returncode == 0, drawn.stderr
    assert "keep-if-lower" in drawn.stdout and str(tmp_path / "power.png") in drawn.stderr.replace("\n", "")
    assert all(size_of(tmp_path / name) for name in ("power.png", "false-merges.png", "gains.png"))


def test_a_folder_that_cannot_be_is_one_line_and_exit_code_2(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    for folder in (tmp_path / "file", tmp_path / "file" / "below"):
        ended = run(tmp_path, "simulate", "--nights", "2", "--plots", str(folder))
        assert ended.returncode == 2 and f"--plots {folder}: is no folder" in ended.stderr.replace("\n", " ")
        assert len(ended.stderr.strip().splitlines()) == 1 and not ended.stdout
