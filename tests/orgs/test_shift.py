"""Which campaign a launch works on, who may step, and what a seat does about a file that a person breaks at night."""

import os
import time
from collections.abc import Iterator
from io import StringIO
from pathlib import Path

import pytest
import redis
from rich.console import Console

from ledger import Ledger
from ledger.champion import Champion
from ledger.lease import acquire, hold
from ledger.server import RedisServer, open_redis
from orgs.again import CandidateFailed
from orgs.cluster import ray_session
from orgs.lab import Lab
from orgs.launch import Shift, begin, go_on, new_name, newest, unfinished, verdict_first
from orgs.orgfile import Budget, OrgFile
from orgs.pipeline import Pipeline
from orgs.seats import Seat, Site
from orgs.view import Lines
from records import BadInput, FailureKind, HostFault, MissingComponent, Verdict
from sandbox.dataset import Dataset
from sandbox.device import Device, find_device
from tests.ledger.org import Org
from tests.ledger.samples import APPROVED, failed, lower_or_not, program, scored
from tests.orgs.lab import make_lab

CPU = find_device("cpu")


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Lab:
    return Lab.open(make_lab(tmp_path_factory.mktemp("lab")))


@pytest.fixture(scope="module")
def server(lab: Lab) -> Iterator[RedisServer]:
    with open_redis(lab.state) as opened:
        yield opened


@pytest.fixture
def client(server: RedisServer) -> redis.Redis:
    server.client.flushall()
    return server.client


@pytest.fixture
def org(lab: Lab) -> OrgFile:
    return OrgFile.load(lab.root / "orgs" / "tiny.toml", lab.root)


@pytest.fixture
def dataset(lab: Lab, org: OrgFile) -> Dataset:
    return Dataset.open(lab.dataset(org.data))


def campaign(client: redis.Redis, lab: Lab, org: OrgFile, dataset: Dataset, name: str = "tiny-1") -> Ledger:
    ledger = Ledger(client, name)
    begin(ledger, lab, org, dataset, CPU)
    return ledger


def started(ledger: Ledger, lab: Lab) -> tuple[Org, str, str]:
    """A campaign whose start is measured: its rows' helper, the champion's commit and program."""
    champion = Champion(lab.root, ledger.name)
    source, helper = champion.source(champion.head()), Org(ledger, acquire(ledger.client, "cpu", "runner", 600.0))
    helper.baseline(2.5, champion.head(), source)
    return helper, champion.head(), source


# ---- which campaign --------------------------------------------------------------------------------------------------


def test_a_launch_goes_on_with_what_was_interrupted_and_otherwise_begins_anew(
    client: redis.Redis, lab: Lab, org: OrgFile, dataset: Dataset
) -> None:
    with pytest.raises(MissingComponent, match="org tiny has no campaign yet"):
        newest(client, org)
    assert unfinished(client, org) is None
    ledger = campaign(client, lab, org, dataset)
    other = org.model_copy(update={"name": "other"})
    assert unfinished(client, org) == newest(client, org) == "tiny-1"
    assert unfinished(client, other) is None
    ledger.set_stop("6 experiments judged")
    assert unfinished(client, org) is None
    go_on(ledger, org, dataset, CPU)
    assert unfinished(client, org) == "tiny-1"


def test_a_new_campaign_has_a_name_that_neither_the_ledger_nor_the_branches_know(
    client: redis.Redis, lab: Lab, org: OrgFile, dataset: Dataset
) -> None:
    """A branch may be there of a ledger that was lost, or that lies in another Redis."""
    name = new_name(client, org, lab.root)
    assert name.startswith("tiny-")
    Champion(lab.root, name).start(lab.train_source)
    second = new_name(client, org, lab.root)
    assert second.startswith("tiny-") and second != name
    campaign(client, lab, org, dataset, second)
    assert new_name(client, org, lab.root) not in (name, second)


def test_a_campaign_is_not_continued_under_other_conditions(
    client: redis.Redis, lab: Lab, org: OrgFile, dataset: Dataset
) -> None:
    ledger = campaign(client, lab, org, dataset)
    with pytest.raises(BadInput, match="belongs to org tiny, not to other"):
        go_on(ledger, org.model_copy(update={"name": "other"}), dataset, CPU)
    longer = org.budget.model_copy(update={"train_s": 60.0})
    with pytest.raises(BadInput, match=r"trains 1\.5 s per experiment.*--new"):
        go_on(ledger, org.model_copy(update={"budget": longer}), dataset, CPU)
    elsewhere = Dataset(dataset.path, "f" * 64, dataset.manifest)
    with pytest.raises(BadInput, match="another dataset"):
        go_on(ledger, org, elsewhere, CPU)
    with pytest.raises(BadInput, match=r"was measured on .*, not on NVIDIA H100"):
        go_on(ledger, org, dataset, Device("GPU-1", "NVIDIA H100"))


def test_a_planner_that_could_never_propose_stops_a_launch_before_anything_exists(
    client: redis.Redis, lab: Lab, org: OrgFile, dataset: Dataset
) -> None:
    planner = lab.root / org.roles.planner.file
    text = planner.read_text()
    planner.write_text(text.replace("frozen: []", "frozen: [MATRX_LR]"))
    try:
        with pytest.raises(BadInput, match="MATRX_LR, no numeric constant"):
            campaign(client, lab, org, dataset, "tiny-never")
    finally:
        planner.write_text(text)
    assert Ledger.campaigns(client) == []
    assert Champion(lab.root, "tiny-never").resolve("refs/heads/autoresearch/tiny-never") is None


# ---- who may step ----------------------------------------------------------------------------------------------------


def test_a_verdict_comes_before_the_next_run(client: redis.Redis, lab: Lab, org: OrgFile, dataset: Dataset) -> None:
    ledger = campaign(client, lab, org, dataset)
    helper, head, source = started(ledger, lab)
    assert not verdict_first(ledger)
    scored = helper.scored(source + "# scored\n", 2.6, head)
    helper.queued(source + "# queued\n", head)
    assert verdict_first(ledger)
    ledger.discard(scored, lower_or_not(ledger.champion_score(), ledger.experiment(scored).measurements[-1]))
    assert not verdict_first(ledger)


def test_a_verdict_that_waits_for_a_baseline_does_not_block_it(
    client: redis.Redis, lab: Lab, org: OrgFile, dataset: Dataset
) -> None:
    ledger = campaign(client, lab, org, dataset)
    helper, head, source = started(ledger, lab)
    helper.scored(source + "# scored\n", 2.6, head)
    ledger.propose_baseline(program(source + "# by hand\n", "e" * 40))
    assert not verdict_first(ledger)


@pytest.mark.parametrize(
    ("budget", "reason"),
    [
        ({"experiments": 2}, None),
        ({"experiments": 1}, "1 experiment judged"),
        ({"device_minutes": 0.01}, "0.01 device minutes spent"),
        ({"device_minutes": 1.0}, None),
        ({"wall_minutes": 1e-9}, "1e-09 minutes have passed"),
        ({"wall_minutes": 1.0}, None),
    ],
)
def test_each_budget_ends_a_shift_and_says_so(
    client: redis.Redis, lab: Lab, org: OrgFile, dataset: Dataset, budget: dict[str, float], reason: str | None
) -> None:
    ledger = campaign(client, lab, org, dataset)
    helper, head, source = started(ledger, lab)
    judged = helper.scored(source + "# scored\n", 2.6, head)
    ledger.discard(judged, lower_or_not(ledger.champion_score(), ledger.experiment(judged).measurements[-1]))
    limited = org.model_copy(update={"budget": Budget.model_validate({"experiments": 5, **budget})})
    with hold(client, "launcher/tiny-1") as lock:
        shift = Shift(ledger, limited, Pipeline(print), Lines(Console(quiet=True)), lock)
        assert shift.reason_to_drain() == reason
        assert shift.may_step("planner", draining=False) is (budget.get("experiments") != 1)
        assert not shift.may_step("planner", draining=True) and shift.may_step("arbiter", draining=True)
        shift.signals = 1
        assert shift.reason_to_drain() == "interrupted"


def test_upkeep_steps_when_the_device_has_nothing_else_to_do(
    client: redis.Redis, lab: Lab, org: OrgFile, dataset: Dataset
) -> None:
    ledger = campaign(client, lab, org, dataset)
    with hold(client, "launcher/tiny-1") as lock:
        shift = Shift(ledger, org, Pipeline(print), Lines(Console(quiet=True)), lock)

        def may() -> bool:
            return shift.may_step("upkeep", draining=False)

        assert not may(), "the start is not measured"
        helper, head, source = started(ledger, lab)
        assert may() and not shift.may_step("upkeep", draining=True)
        helper.propose()
        assert not may()
        idea = ledger.claim("coder")
        assert idea is not None and not may()
        ledger.code(idea.id, program(source + "# an idea\n", head), {})
        assert not may()
        ledger.review(idea.id, APPROVED, {})
        assert not may()
        helper.take(head)
        assert not may()
        ledger.record(idea.id, helper.lease, scored(source + "# an idea\n", 2.6))
        assert not may()
        ledger.discard(idea.id, lower_or_not(ledger.champion_score(), ledger.experiment(idea.id).measurements[-1]))
        assert may()
        ledger.discard(
            second := helper.scored(source + "# another\n", 2.6, head),
            lower_or_not(ledger.champion_score(), ledger.experiment(second).measurements[-1]),
        )
        assert org.budget.experiments == 2 and not may(), "the budget has no room"


def failed_run(helper: Org, source: str, head: str, kind: FailureKind, number: int) -> int:
    id = helper.take(head)
    assert id is not None
    helper.ledger.record(id, helper.lease, failed(source, kind, f"{kind} {number}"))
    return id


def test_a_start_that_the_host_fails_ends_the_shift_and_the_next_one_goes_on_with_it(
    client: redis.Redis, lab: Lab, org: OrgFile, dataset: Dataset
) -> None:
    """Whose fault it was decides what a person is told, and whether a resume has another go."""
    ledger = campaign(client, lab, org, dataset)
    champion, helper = Champion(lab.root, ledger.name), Org(ledger, acquire(client, "cpu", "runner", 600.0))
    head = champion.head()
    source = champion.source(head)
    start = ledger.propose_baseline(program(source, head))
    with hold(client, "launcher/tiny-1") as lock:

        def shift() -> Shift:
            return Shift(ledger, org, Pipeline(print), Lines(Console(file=told)), lock)

        told = StringIO()
        first = shift()
        for number in range(3):
            first.refuse_to_waste_the_night()
            assert failed_run(helper, source, head, FailureKind.DISTURBED, number) == start
            first.show(None)
        assert told.getvalue().count(f"#{start} baseline: void, and run again: disturbed: it went wrong\n") == 2
        with pytest.raises(HostFault, match=rf"the host failed #{start} too often: disturbed: it went wrong; `resume`"):
            first.refuse_to_waste_the_night()
        ledger.recover()
        second = shift()
        second.refuse_to_waste_the_night()
        assert failed_run(helper, source, head, FailureKind.CRASH, 3) == start
        with pytest.raises(CandidateFailed, match=r"train.py itself fails .*crash: it went wrong.*--new"):
            second.refuse_to_waste_the_night()
        ledger.recover()
        with pytest.raises(CandidateFailed):
            shift().refuse_to_waste_the_night()


def test_an_idea_that_the_host_failed_twice_does_not_end_every_shift_from_then_on(
    client: redis.Redis, lab: Lab, org: OrgFile, dataset: Dataset
) -> None:
    ledger = campaign(client, lab, org, dataset)
    helper, head, source = started(ledger, lab)
    idea = helper.queued(source + "# an idea\n", head)
    with hold(client, "launcher/tiny-1") as lock:
        for launch in range(2):
            ledger.recover()
            shift = Shift(ledger, org, Pipeline(print), Lines(Console(quiet=True)), lock)
            for number in range(3):
                shift.refuse_to_waste_the_night()
                assert (
                    failed_run(helper, source + "# an idea\n", head, FailureKind.GPU_DIRTY, 3 * launch + number) == idea
                )
            with pytest.raises(HostFault, match=f"the host failed #{idea} too often"):
                shift.refuse_to_waste_the_night()
        ledger.recover()
        Shift(ledger, org, Pipeline(print), Lines(Console(quiet=True)), lock).refuse_to_waste_the_night()


# ---- seats -----------------------------------------------------------------------------------------------------------


def test_the_seat_of_upkeep_gets_along_with_the_rights_of_an_agent(
    server: RedisServer, client: redis.Redis, lab: Lab, org: OrgFile, dataset: Dataset
) -> None:
    """Two near misses change the same line, which it notes, and a third another one, which it proposes."""
    ledger = campaign(client, lab, org, dataset)
    helper, head, source = started(ledger, lab)
    missed = Verdict(merge=False, rule="r", champion_bpb=2.5, candidate_bpb=2.4, reason="", within_noise=True)
    changes = [
        ("SOFTCAP = 15.0", "SOFTCAP = 14.0"),
        ("SOFTCAP = 15.0", "SOFTCAP = 16.0"),
        ("WARMDOWN = 0.5", "WARMDOWN = 0.4"),
    ]
    ids: list[int] = []
    for effect, (old, new) in zip((0.3, 0.2, 0.1), changes, strict=True):
        assert old in source
        ids.append(helper.scored(source.replace(old, new), 2.4, head))
        ledger.discard(ids[-1], missed.model_copy(update={"effect_bpb": effect}))
    seat = Seat("upkeep", Site(lab.root, server.logins, ledger.name, org, "runc", CPU, 1.5).of("upkeep"))
    assert seat.step() and not seat.step()
    seat.close()
    proposed = ledger.experiment(ids[-1] + 1)
    assert (proposed.lane, proposed.hypothesis.of) == ("combine", [ids[0], ids[2]])
    noted = [event.detail for event in ledger.events() if event.kind == "upkeep"]
    assert len(noted) == 1 and noted[0].startswith(f"together: #{ids[0]} + #{ids[1]}: not on champion {head[:10]}")


def test_a_role_file_that_is_broken_at_night_is_waited_for_and_said_once(
    server: RedisServer, client: redis.Redis, lab: Lab, org: OrgFile, dataset: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("orgs.pipeline.MENDING_PAUSE_S", 0.1)
    monkeypatch.setenv(
        "PYTHONPATH", os.pathsep.join([str(Path(__file__).parents[2]), os.environ.get("PYTHONPATH", "")])
    )
    ledger = campaign(client, lab, org, dataset)
    started(ledger, lab)
    planner = lab.root / org.roles.planner.file
    text = planner.read_text()
    said: list[str] = []
    with ray_session():
        pipeline = Pipeline(said.append)
        pipeline.add("planner", Site(lab.root, server.logins, ledger.name, org, "runc", CPU, 1.5))
        try:
            planner.write_text(text.replace("mind: sampler", "mind: oracle"))
            until = time.monotonic() + 60
            while not said and time.monotonic() < until:
                pipeline.advance(lambda role: True)
            for _ in range(20):
                pipeline.advance(lambda role: True)
            assert len(said) == 1 and "planner-0 waits until this is mended" in said[0] and "planner.md:2" in said[0]
            assert ledger.experiments()[1:] == []
            planner.write_text(text)
            while not ledger.experiments()[1:] and time.monotonic() < until:
                pipeline.advance(lambda role: True)
            assert [e.author for e in ledger.experiments()[1:]][:1] == ["planner/sampler"]
        finally:
            planner.write_text(text)
            pipeline.close()
