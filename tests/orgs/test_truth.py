"""Campaigns whose truth is known, end to end: what is no better does not merge, what is better merges, after two runs.

benchmarks/campaigns.py has the same at length, with figures.
"""

import os
import shutil
import subprocess
from collections import Counter
from itertools import islice
from pathlib import Path

import pytest

from agents.knobs import resolve, set_knobs
from benchmarks.campaigns import count, decision, follow_script, judged, launch, merges, read_night, scores, verify
from benchmarks.equivalents import remarked, variants
from data.profiles import PROFILES
from records import Experiment, State
from tests.components import require
from tests.orgs.lab import make_lab

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
[merge]
rule = "two-run-min"
alpha = 0.002
noise_runs = 4
[upkeep]
combine = false
leave_one_out = false
"""
"""An error budget so small that no run of these tests sees a false merge."""


@pytest.fixture
def lab(tmp_path: Path) -> Path:
    require(
        os.geteuid() == 0 and shutil.which("runc") is not None,
        "campaigns here run under runc as root: apt-get install runc",
    )
    return make_lab(tmp_path)


def play(lab: Path, experiments: int) -> dict[str, Experiment]:
    """Launch the lab's script; what became of each idea, by its title."""
    (lab / "orgs" / "truth.toml").write_text(ORG.format(experiments=experiments))
    launch(lab, "truth")
    assert verify(lab)["verdicts"].startswith(f"{experiments} verdicts")
    return {e.hypothesis.title: e for e in read_night(lab) if e.lane == "improve"}


def landed(lab: Path, campaign: str) -> list[str]:
    """train.py of every commit on the campaign's branch since its start, oldest first."""
    branch = f"autoresearch/{campaign}"
    *commits, _ = git(lab, "rev-list", f"HEAD..{branch}").split()
    return [git(lab, "show", f"{commit}:train.py") for commit in reversed(commits)]


def git(lab: Path, *arguments: str) -> str:
    return subprocess.run(["git", *arguments], cwd=lab, check=True, capture_output=True, text=True).stdout


def test_where_nothing_is_better_nothing_merges_and_a_remark_is_no_experiment(lab: Path) -> None:
    start = (lab / "train.py").read_text()
    first, second = (variant.source for variant in islice(variants(start, seed=1), 2))
    programs = {
        "remark": remarked(start, "no change"),
        "first": first,
        "again": remarked(first, "the first one"),
        "second": second,
    }
    follow_script(lab, [decision(title, source, start) for title, source in programs.items()])
    ideas = play(lab, experiments=2)
    assert ideas["remark"].state == State.REFUSED and scores(ideas["remark"]) == []
    assert ideas["again"].state == State.DUPLICATE and scores(ideas["again"]) == []
    assert ideas["again"].note == f"same program as #{ideas['first'].id}"
    for title in ("first", "second"):
        verdict = ideas[title].verdict
        assert ideas[title].state in NO_GAIN and verdict is not None
        assert verdict.freedom == 3 and verdict.sigma_bpb is not None and verdict.sigma_bpb > 0
        assert verdict.p1 == pytest.approx(0.002 / 2)
    assert landed(lab, ideas["first"].campaign) == []


def test_of_four_programs_the_one_that_is_better_merges_after_two_runs(lab: Path) -> None:
    better, profile = (lab / "train.py").read_text(), PROFILES["cpu"]
    rates = {name: value for name, value in resolve(better, profile).items() if name in RATES}
    start = set_knobs(better, {name: value / 1000 for name, value in rates.items()}, profile)
    (lab / "train.py").write_text(start)
    # It begins far from uniform guesses, and at these rates never comes back.
    worse = start.replace("self.unembedding.weight.normal_(std=0.001)", "self.unembedding.weight.normal_(std=1.0)")
    assert worse != start
    same = next(variants(start, seed=2)).source
    programs = {"same": same, "worse": worse, "better": better}
    follow_script(lab, [decision(title, source, start) for title, source in programs.items()])
    ideas = play(lab, experiments=3)
    assert ideas["same"].state in NO_GAIN
    assert ideas["worse"].state == State.DISCARDED and len(scores(ideas["worse"])) == 1
    won = ideas["better"]
    assert won.state == State.MERGED and won.verdict is not None
    assert len(scores(won)) == len(won.verdict.candidate_runs) == 2
    assert won.verdict.champion_bpb is not None and won.verdict.threshold_bpb is not None
    assert max(scores(won)) <= won.verdict.champion_bpb - won.verdict.threshold_bpb
    assert landed(lab, won.campaign) == [better]

    night = read_night(lab)
    figures = count(night)
    assert (figures["judged"], figures["ended"]) == (len(judged(night)), dict(Counter(e.state for e in ideas.values())))
    assert figures["second runs"] == sum(len(scores(e)) > 1 for e in ideas.values()) >= 1
    assert [(merge["id"], merge["verdict"]) for merge in merges(night)] == [(won.id, 3)]
