"""Campaigns whose truth is known, end to end: what is no better does not merge, what is better merges, after two runs.

benchmarks/campaigns.py has the same at length, with figures.
"""

import json
import subprocess
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from agents.knobs import resolve, set_knobs
from agents.minds.script import Script
from benchmarks.campaigns import (
    claim,
    count,
    decision,
    effects,
    follow_script,
    judged,
    launch,
    merges,
    read_night,
    scores,
    verify,
)
from benchmarks.equivalents import remarked, variants
from data.profiles import PROFILES
from ledger import Ledger
from ledger.server import open_redis
from records import Experiment, State, Verdict
from tests.orgs.lab import run
from tests.orgs.rows import experiment, measurement

pytestmark = pytest.mark.timeout(1200)
NO_GAIN = (State.WITHIN_NOISE, State.DISCARDED)
RATES = ("MATRIX_LR", "EMBEDDING_LR", "UNEMBEDDING_LR", "SCALAR_LR")

ORG = """
name = "truth"
[data]
dataset = ".autoresearch/datasets/local-cpu"
[budget]
train_s = 0.8
experiments = {experiments}
[audit]
lie_bpb = 0.1
[sandbox]
engine = "runc"
device = "cpu"
stolen_cpu = 1.0
[headline]
runs = 1
[merge]
rule = "two-run-min"
alpha = 0.002
noise_runs = 4
[upkeep]
combine = false
leave_one_out = false
"""
"""An error budget so small that no run of these tests sees a false merge."""


def play(lab: Path, experiments: int) -> dict[str, Experiment]:
    """Launch the lab's script; what became of each idea, by its title."""
    (lab / "orgs" / "truth.toml").write_text(ORG.format(experiments=experiments))
    launch(lab, "truth")
    ideas = {e.hypothesis.title: e for e in read_night(lab) if e.lane == "improve"}
    assert [e.why for e in ideas.values() if e.state in (State.CRASHED, State.INVALID)] == []
    assert verify(lab)["verdicts"].startswith(f"{experiments} verdicts")
    return ideas


def landed(lab: Path, campaign: str) -> list[str]:
    """train.py of every commit on the campaign's branch since its start, oldest first."""
    branch = f"autoresearch/{campaign}"
    *commits, _ = git(lab, "rev-list", f"HEAD..{branch}").split()
    return [git(lab, "show", f"{commit}:train.py") for commit in reversed(commits)]


def git(lab: Path, *arguments: str) -> str:
    return subprocess.run(["git", *arguments], cwd=lab, check=True, capture_output=True, text=True).stdout


def test_of_a_script_the_one_program_that_is_better_merges_after_two_runs(lab: Path) -> None:
    better, profile = (lab / "train.py").read_text(), PROFILES["cpu"]
    rates = {name: value for name, value in resolve(better, profile).items() if name in RATES}
    start = set_knobs(better, {name: value / 1000 for name, value in rates.items()}, profile)
    (lab / "train.py").write_text(start)
    # It begins far from uniform guesses, and at these rates never comes back.
    worse = start.replace("self.unembedding.weight.normal_(std=0.001)", "self.unembedding.weight.normal_(std=1.0)")
    assert worse != start
    same = next(variants(start, seed=2)).source
    again, remark = remarked(same, "the first one"), remarked(start, "no change")
    programs = {"remark": remark, "same": same, "again": again, "worse": worse, "better": better}
    follow_script(lab, [decision(title, source, start) for title, source in programs.items()])
    ideas = play(lab, experiments=3)
    assert ideas["remark"].state == State.REFUSED and scores(ideas["remark"]) == []
    assert ideas["again"].state == State.DUPLICATE and scores(ideas["again"]) == []
    assert ideas["again"].note == f"same program as #{ideas['same'].id}"
    verdict = ideas["same"].verdict
    assert ideas["same"].state in NO_GAIN and verdict is not None
    assert verdict.freedom == 3 and verdict.sigma_bpb is not None and verdict.sigma_bpb > 0
    assert verdict.p1 == pytest.approx(0.002 / 3)
    assert ideas["worse"].state == State.DISCARDED and len(scores(ideas["worse"])) == 1
    won = ideas["better"]
    assert won.state == State.MERGED and won.verdict is not None
    assert len(scores(won)) == len(won.verdict.candidate_runs) == 2
    assert won.verdict.champion_bpb is not None and won.verdict.threshold_bpb is not None
    assert max(scores(won)) <= won.verdict.champion_bpb - won.verdict.threshold_bpb
    assert landed(lab, won.campaign) == [better]
    its_headline(lab, won)

    night = read_night(lab)
    figures = count(night)
    assert (figures["judged"], figures["ended"]) == (len(judged(night)), dict(Counter(e.state for e in ideas.values())))
    assert figures["second runs"] == sum(len(scores(e)) > 1 for e in ideas.values()) >= 1
    assert [(merge["id"], merge["verdict"]) for merge in merges(night)] == [(won.id, 3)]


def its_headline(lab: Path, won: Experiment) -> None:
    """The launch ended with champion against start, on the test split: signed runs that are kept, exported and verified."""
    status = json.loads(run(lab, "status", "--json").stdout)
    headline, champion, start = status["headline"], status["champion"], status["start"]
    assert status["ended"] == "3 experiments judged" and status["results"]["verified"] == 1
    assert (headline["base"], headline["commit"]) == (start["commit"], champion["commit"]) and champion[
        "commit"
    ] == won.commit
    assert (
        headline["interval_by"] == "noise" and headline["low_bpb"] < headline["difference_bpb"] < headline["high_bpb"]
    )
    assert headline["difference_bpb"] < 0, "it is better on text that no decision has seen"
    assert champion["bpb"] < start["bpb"] and start["runs"] >= 4
    assert status["spending"]["judged"] == 3 and status["spending"]["alpha_left"] == pytest.approx(0.0)
    assert status["noise"]["start_runs"] == start["runs"] and status["noise"]["freedom"] >= 3

    assert run(lab, "ledger", "export", "night.jsonl").returncode == 0
    lines = [json.loads(line) for line in (lab / "night.jsonl").read_text().splitlines()]
    kept = [line["measurement"] for line in lines if "program" in line]
    assert [m["val_bpb"] for m in kept] == headline["start_bpb"] + headline["champion_bpb"]
    assert {(m["split"], m["audit"]["level"], m["status"]) for m in kept} == {("test", "full", "ok")}
    assert len({m["seed"] for m in kept}) == 2
    with open_redis(lab / ".autoresearch") as server:
        events = Ledger(server.client, won.campaign).events()
    assert [event.detail[-9:] for event in events if event.kind == "test split"] == ["by launch"] * 2
    assert len(Script.load(lab / "night.jsonl").decisions) == 5, "runs of a headline are no ideas to replay"
    shown = run(lab, "status").stdout
    assert f"{headline['difference_bpb']:+.6f} bpb (95 %" in shown and "1 verified" in shown


# ---- the figures -----------------------------------------------------------------------------------------------------


def row(id: int, state: State, source: str, *runs: float, **more: Any) -> Experiment:
    candidate = {"parent": "p", "source": source, "source_sha256": source, "meaning_sha256": source, "diff": ""}
    return experiment(id, state, None, candidate=candidate, measurements=[measurement(bpb) for bpb in runs], **more)


def verdict(champion_bpb: float, candidate_bpb: float, judged: int, **more: object) -> Verdict:
    values = {"merge": False, "rule": "two-run-min", "reason": "so", "sigma_bpb": 0.1, "p1": 0.01}
    compared = {"champion_bpb": champion_bpb, "candidate_bpb": candidate_bpb, "judged": judged}
    return Verdict.model_validate({**values, **compared, **more})


NIGHT = [
    row(1, State.MERGED, "start", 2.0, lane="baseline"),
    row(2, State.POOLED, "start", 2.2, lane="repeat"),
    row(3, State.WITHIN_NOISE, "same", 2.0, verdict=verdict(2.1, 2.0, 1)),
    row(4, State.DISCARDED, "worse", 2.5, verdict=verdict(2.1, 2.5, 2)),
    row(5, State.MERGED, "better", 1.5, 1.3, verdict=verdict(2.1, 1.4, 3, merge=True), commit="c" * 40),
    row(6, State.POOLED, "better", 1.6, lane="repeat"),
    row(7, State.POOLED, "better", 1.8, lane="repeat"),
    row(8, State.DUPLICATE, "same"),
]


def test_what_is_claimed_are_fresh_runs_alone() -> None:
    claimed = claim(NIGHT)
    assert claimed["gain_bpb"] == pytest.approx(2.1 - 1.7)
    assert claimed["fresh runs"] == {"start": 2, "champion": 2}
    assert claim(NIGHT[:5])["gain_bpb"] is None, "the two runs that selected it claim nothing"
    assert claim(NIGHT[:4])["gain_bpb"] is None


def test_verdicts_runs_and_effects_are_counted() -> None:
    counted = count(NIGHT)
    assert (counted["judged"], counted["second runs"], counted["sigma_bpb"]) == (3, 1, 0.1)
    assert (counted["runs of the champion"], counted["runs of candidates"]) == (4, 4)
    assert counted["ended"] == {"discarded": 1, "duplicate": 1, "merged": 1, "within_noise": 1}
    assert merges(NIGHT) == [{"id": 5, "title": "a change", "verdict": 3, "runs": 8, "why": "so"}]
    found = effects(NIGHT)
    assert found["effects_bpb"]["lowest"] == pytest.approx(-0.4)
    assert found["effects_bpb"]["highest"] == pytest.approx(0.6), "the first run, not the mean of both"
    assert found["effects_bpb"]["share above zero"] == pytest.approx(2 / 3)
    assert found["false merges of a candidate, at most (95 %)"] is None
    bound = effects(NIGHT[:4])["false merges of a candidate, at most (95 %)"]
    assert (1 - bound) ** 2 == pytest.approx(0.05), "two of two without a merge are that unlikely at the bound"
