"""Champion against start: which runs count, what they say, and that none is lost, hidden or made twice."""

import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import redis
from scipy.stats import ttest_ind

from ledger import Ledger, Quarantined
from ledger.champion import Champion
from ledger.lease import acquire, quarantines
from ledger.noise import Noise
from ledger.server import open_redis
from orgs.again import CandidateFailed, Conditions
from orgs.headline import explain_headline, measure_headline, missing_runs, summarise_headline, why_none
from orgs.lab import Lab
from records import FailureKind, HeadlineRun, HostFault, Measurement
from sandbox.device import Device
from sandbox.score import Rigour
from tests.ledger.night import Night
from tests.ledger.repository import START, Repository
from tests.ledger.samples import campaign, failed, headline_run, scored

BASE, BEST, OLD = "b" * 40, "c" * 40, "d" * 40


def runs(start: list[float], champion: list[float]) -> list[HeadlineRun]:
    made = [headline_run("start", BASE, "start\n", bpb) for bpb in start]
    return made + [headline_run("champion", BEST, "best\n", bpb) for bpb in champion]


# ---- what they say ---------------------------------------------------------------------------------------------------


def test_the_interval_is_welchs() -> None:
    start, champion = [1.002, 1.0, 1.0013, 0.9995], [0.98, 0.9812, 0.979]
    found = summarise_headline(runs(start, champion), BASE, BEST)
    assert found is not None and found.interval_by == "Welch"
    low, high = ttest_ind(champion, start, equal_var=False).confidence_interval(0.95)
    assert found.low_bpb == pytest.approx(low) and found.high_bpb == pytest.approx(high)
    assert found.difference_bpb == pytest.approx(sum(champion) / 3 - sum(start) / 4)
    assert "by 3 and 4 runs, fresh seeds, sealed test split" in explain_headline(found)


def test_one_run_of_each_has_the_interval_of_the_known_noise_and_without_that_none() -> None:
    found = summarise_headline(runs([1.0], [0.9]), BASE, BEST, noise=Noise(0.01, 7))
    assert found is not None and found.interval_by == "noise" and found.high_bpb is not None
    assert found.high_bpb - found.difference_bpb == pytest.approx(2.364624 * 0.01 * 2**0.5)  # t of 7 degrees, 97.5 %
    unknown = summarise_headline(runs([1.0], [0.9]), BASE, BEST)
    assert unknown is not None and (unknown.low_bpb, unknown.interval_by) == (None, "")
    assert "95 %" not in explain_headline(unknown)


def test_only_runs_of_these_two_commits_that_compare_and_have_a_score_count() -> None:
    good = runs([1.0, 1.1], [0.9])
    other = headline_run("champion", OLD, "old\n", 0.1)
    slower = headline_run("start", BASE, "start\n", 0.2)
    slower = slower.model_copy(update={"measurement": slower.measurement.model_copy(update={"budget_s": 9.0})})
    broken = HeadlineRun(program="start", commit=BASE, measurement=failed("start\n", FailureKind.OOM))
    found = summarise_headline([other, slower, broken, *good], BASE, BEST)
    assert found is not None and (found.start_bpb, found.champion_bpb) == ([1.0, 1.1], [0.9])
    assert summarise_headline(good[:2], BASE, BEST) is None


def test_there_is_no_headline_without_a_champion_of_its_own() -> None:
    night = campaign("night", BASE)
    assert why_none(night, BASE) == "nothing merged: the champion is the start"
    assert why_none(night, None) is not None
    assert why_none(night, BEST) is None


def test_missing_runs_are_made_in_turns_and_those_that_are_there_count() -> None:
    one = scored("x\n", 1.0)
    assert missing_runs({"start": [], "champion": []}, 2) == ["start", "champion", "start", "champion"]
    assert missing_runs({"start": [one, one], "champion": [one]}, 3) == ["champion", "start", "champion"]
    assert missing_runs({"start": [one, one], "champion": [one, one]}, 1) == []


# ---- measuring -------------------------------------------------------------------------------------------------------


class Played(Conditions):
    """Measures as the test says: a score, or the kind of a failure, in this order."""

    def play(self, *results: float | FailureKind) -> "Played":
        self.__dict__.update(results=list(results), sources=[], cancel=threading.Event())
        return self

    def compare(self, receipt: Measurement) -> bool:
        return True

    def measure(self, source: str, seed: int, run_id: str, **more: Any) -> Measurement:
        more["unseal"]("test split read")
        self.__dict__["sources"].append(source)
        result = self.__dict__["results"].pop(0)
        if not self.__dict__["results"]:
            self.__dict__["last"]()
        if isinstance(result, FailureKind):
            return failed(source, result, run_id)
        return headline_run("start", "", source, result).measurement.model_copy(update={"run_id": run_id})


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> Iterator[redis.Redis]:
    with open_redis(tmp_path_factory.mktemp("r")) as server:
        yield server.client


class Evening:
    """A campaign whose one merge has landed, and whose headline is to be measured."""

    def __init__(self, client: redis.Redis, root: Path):
        client.flushall()
        self.night = Night(client, acquire(client, "other", "runner", 600.0), Repository(root / "lab"))
        self.night.scored("LR = 0.5\n", 0.9)
        self.night.settle()
        unused: Any = None
        device = Device("cpu", "2 × CPU")
        self.conditions = Played(Lab(root / "lab"), unused, device, unused, unused, 1.0, Rigour())
        self.said: list[str] = []

    def measure(self, *results: float | FailureKind, runs: int = 2, cancelled: bool = False) -> bool:
        conditions, cancel = self.conditions.play(*results), threading.Event()
        conditions.__dict__["last"] = cancel.set if cancelled else lambda: None
        ledger, champion = self.night.ledger, Champion(self.night.repository.root, "night")
        return measure_headline(
            ledger, champion, ledger.client, conditions, runs,
            complaint=Night.complaint, by="test", say=self.said.append, on_phase=lambda _: None, cancel=cancel,
        )  # fmt: skip

    @property
    def kept(self) -> list[tuple[str, float | None]]:
        return [(run.program, run.measurement.val_bpb) for run in self.night.ledger.headline_runs()]

    @property
    def looks(self) -> int:
        return sum(event.kind == "test split" for event in self.night.ledger.events())


@pytest.fixture
def evening(client: redis.Redis, tmp_path: Path) -> Evening:
    return Evening(client, tmp_path)


def test_both_programs_are_measured_as_they_landed_and_every_look_is_told(evening: Evening) -> None:
    assert evening.measure(1.0, 0.9, 1.1, 0.8)
    assert evening.kept == [("start", 1.0), ("champion", 0.9), ("start", 1.1), ("champion", 0.8)]
    assert evening.conditions.__dict__["sources"] == [START, "LR = 0.5\n"] * 2
    assert {run.commit for run in evening.night.ledger.headline_runs()} == {
        evening.night.start,
        evening.night.champion.head(),
    }
    assert evening.looks == 4 and len(evening.said) == 4


def test_a_headline_that_was_interrupted_goes_on_with_the_runs_that_are_missing(evening: Evening) -> None:
    assert not evening.measure(1.0, 0.9, FailureKind.HOST_ERROR, cancelled=True)
    assert evening.kept == [("start", 1.0), ("champion", 0.9)]
    assert evening.measure(1.1, 0.8)
    assert evening.kept == [("start", 1.0), ("champion", 0.9), ("start", 1.1), ("champion", 0.8)]
    assert evening.measure() and evening.looks == 5


def test_a_run_that_the_host_spoilt_is_made_again_and_not_for_ever(evening: Evening) -> None:
    assert evening.measure(FailureKind.ENGINE_LOST, 1.0, 0.9, runs=1)
    assert evening.kept == [("start", 1.0), ("champion", 0.9)]
    with pytest.raises(HostFault, match="the host failed 3 runs of the headline"):
        evening.measure(*[FailureKind.HOST_ERROR] * 3)


def test_a_run_that_failed_by_itself_is_kept_and_ends_it(evening: Evening) -> None:
    with pytest.raises(CandidateFailed, match="run 2 of 4: champion: oom"):
        evening.measure(1.0, FailureKind.OOM)
    assert evening.kept == [("start", 1.0), ("champion", None)]


def test_a_gpu_that_is_not_left_clean_is_in_quarantine(evening: Evening) -> None:
    with pytest.raises(Quarantined):
        evening.measure(FailureKind.GPU_DIRTY)
    client: Any = evening.night.ledger.client
    assert list(quarantines(client)) == ["cpu"] and evening.kept == []


def test_the_runner_may_keep_a_run_that_the_ledger_can_then_show(evening: Evening) -> None:
    assert evening.measure(1.0, 0.9, runs=1)
    ledger: Ledger = evening.night.ledger
    (first, second) = [event for event in ledger.events() if event.record == "headline"]
    assert first.detail == f"start {evening.night.start[:10]} on test: 1.000000 bpb"
    assert second.detail.startswith("champion ")
