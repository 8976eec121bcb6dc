"""Random schedules of everything that can happen to a campaign, against a real server and a real repository.

A model makes the same calls and must answer the same; afterwards a checker looks at what is left. Ends of processes are
played at the calls between which they fall, so they cost nothing; the server is killed for real.
"""

import multiprocessing
import os
import signal
import tempfile
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import pytest
import redis
from hypothesis import HealthCheck, Phase, seed, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule, run_state_machine_as_test

from ledger import Ledger, scripts
from ledger.champion import Champion
from ledger.scripts import FOLDER
from ledger.server import SOCKET, start
from ledger.standing import Court, Standing
from ledger.users import Users, login
from ledger.verdict import Missing, Need
from records import Measurement, Policy, State
from tests.ledger.repository import START, Repository
from tests.ledger.samples import KEEP_IF_LOWER, campaign
from tests.ledger.schedules import BUDGET, DEVICES, MEMORY, POLICIES, SEATS, Night, Objects, QuickChampion

WORKERS = 2
AT_ONCE = min(WORKERS, max(1, (os.cpu_count() or 1) // int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1"))))
SCHEDULES = int(os.environ.get("SCHEDULES", "5000"))
STEPS = 7
WHO = st.sampled_from([*SEATS, *("arbiter", "relay 1", "relay 2", "runner a", "runner b") * 2])
"""Where a late call can do most harm."""


class Site:
    """A server and a repository, in which one schedule follows another."""

    def __init__(self, folder: Path):
        self.folder = folder
        self.users = Users.of(folder)
        self.url = login(f"unix://{folder / SOCKET}", "owner", self.users.passwords["owner"])
        start(folder, self.url, self.users)
        self.client = redis.Redis.from_url(self.url, decode_responses=True, single_connection_client=True)
        self.repository = Repository(folder / "lab")
        self.objects = Objects(self.repository.root)
        self.schedules = 0

    def night(self, luck: bytes, budget: int = BUDGET, policy: Policy = KEEP_IF_LOWER) -> Night:
        """A campaign of its own, whose start is measured."""
        self.client.flushall()
        if self.schedules % 50 == 0:
            self.client.bgrewriteaof()  # a restart need not go through all schedules before
        self.schedules += 1
        name = f"night-{self.schedules}"
        champion = QuickChampion(self.repository.root, name, self.objects)
        base = champion.start(START)
        Ledger(self.client, name).create(campaign(name, base, policy))
        return Night(self.client, champion, name, luck, budget)

    def kill_server(self) -> None:
        os.kill(self.client.info("server")["process_id"], signal.SIGKILL)
        self.client.connection_pool.disconnect()
        start(self.folder, self.url, self.users)

    def close(self) -> None:
        self.objects.close()
        self.client.shutdown(nosave=True)


class Schedule(RuleBasedStateMachine):
    """What can happen to a campaign, in any order."""

    site: Site
    kills_per_256 = 25
    """Schedules in which the server may be killed: its restart takes longer than all the rest."""

    @initialize(luck=st.binary(min_size=4, max_size=4))
    def begin(self, luck: bytes) -> None:
        self.fragile = luck[0] >= 256 - self.kills_per_256
        self.hand_commits = 0
        self.night = self.site.night(luck, policy=POLICIES[luck[2] % len(POLICIES)])
        self.night.begin()
        self.night.go_round()
        if self.night.policy != KEEP_IF_LOWER:  # what needs second runs comes to pass later in the night
            self.night.go_on_until((State.CONFIRMING, State.MERGED, State.PROPOSED)[luck[3] % 3])
            if luck[0] % 2:
                self.night.begin_second_run()

    @rule(name=WHO, calls=st.integers(1, 8))
    def one_works(self, name: str, calls: int) -> None:
        self.night.advance(name, calls)

    @rule()
    def everybody_works(self) -> None:
        self.night.go_round()

    @rule(name=WHO, calls=st.integers(0, 8), after_call=st.booleans())
    def one_is_killed(self, name: str, calls: int, after_call: bool) -> None:
        self.night.advance(name, calls)
        self.night.kill(name, after_call=after_call)

    @rule(name=WHO, calls=st.integers(0, 8))
    def a_call_arrives_twice(self, name: str, calls: int) -> None:
        self.night.advance(name, calls)
        self.night.seats[name].twice = True
        self.night.advance(name, 1)

    @rule(name=WHO, calls=st.integers(0, 8))
    def one_falls_asleep(self, name: str, calls: int) -> None:
        self.night.advance(name, calls)
        self.night.suspend(name)

    @precondition(lambda self: self.night.sleepers)
    @rule(calls=st.integers(1, 12))
    def a_sleeper_wakes(self, calls: int) -> None:
        self.night.wake(calls)

    @rule(device=st.sampled_from(DEVICES))
    def a_lease_ends(self, device: str) -> None:
        self.night.expire(device)

    @precondition(lambda self: self.hand_commits < 1)
    @rule()
    def a_person_commits(self) -> None:
        self.hand_commits += 1
        self.night.commit_by_hand()

    @precondition(lambda self: self.fragile)
    @rule()
    def the_server_is_killed(self) -> None:
        self.fragile = False
        self.site.kill_server()

    def teardown(self) -> None:
        """The next morning nothing is lost and nothing doubled."""
        if hasattr(self, "night"):
            self.night.end()
            assert self.night.differences() == []
            self.night.settle()
            assert self.night.complaints() == []


def run_schedules(folder: Path, number: int, luck: int, phases: Sequence[Phase] = tuple(Phase)) -> int:
    """Raises whatever the first schedule that goes wrong raises, made as short as it can be.

    Returns:
        How many there were, `number` at least.
    """
    site = Site(folder)
    try:
        while site.schedules < number:
            luck += WORKERS
            run_state_machine_as_test(
                seed(luck)(type("Machine", (Schedule,), {"site": site})),
                settings=settings(
                    max_examples=min(250, number),
                    stateful_step_count=STEPS,
                    phases=phases,
                    deadline=None,
                    database=None,
                    suppress_health_check=list(HealthCheck),
                ),
            )
        return site.schedules
    finally:
        site.close()


def run_side_by_side(number: int) -> int:
    """Half of them in each of two processes, one after the other where workers of the tests keep the CPUs busy. Any luck must do; this one is the same every time."""
    with (
        tempfile.TemporaryDirectory(prefix="ar-", dir=MEMORY) as folder,
        ProcessPoolExecutor(AT_ONCE, multiprocessing.get_context("spawn")) as pool,
    ):
        parts = [
            pool.submit(run_schedules, Path(folder) / str(luck), number // WORKERS, luck) for luck in range(WORKERS)
        ]
        return sum(part.result() for part in parts)


@pytest.mark.timeout(1800)
def test_no_schedule_loses_or_doubles_anything() -> None:
    assert run_side_by_side(2000) >= 2000


@pytest.mark.long
@pytest.mark.timeout(3600)
def test_no_schedule_of_many_loses_or_doubles_anything() -> None:
    """Run by name: pytest -m long tests/ledger/test_machine.py, with SCHEDULES=10000 in the environment for so many."""
    assert run_side_by_side(SCHEDULES) >= SCHEDULES


@pytest.fixture
def site() -> Iterator[Site]:
    with tempfile.TemporaryDirectory(prefix="ar-", dir=MEMORY) as folder:
        site = Site(Path(folder) / "0")
        yield site
        site.close()


def test_an_arbiter_that_slept_through_a_merge_does_not_set_the_champion_back(site: Site) -> None:
    """It saw the branch before the merge, and the champion after it."""
    for calls in range(1, 9):
        night = site.night(b"luck", budget=1000)
        night.begin()
        night.advance("arbiter", 8)
        assert night.model.champion is not None
        while night.model.oldest(State.SCORED) is None:
            night.go_round(without="arbiter")
        night.advance("arbiter", calls)
        night.suspend("arbiter")
        merges = len(night.acknowledged.merges)
        while len(night.acknowledged.merges) == merges:
            night.go_round()
        night.wake(12)
        for _ in range(3):
            night.go_round()
        night.end()
        night.settle()
        assert night.complaints() == []
        assert [id for id, row in night.model.rows.items() if row.lane == "baseline"] == [1], (
            f"measured again, after {calls} calls"
        )


# ---- would they notice? ----------------------------------------------------------------------------------------------


def in_lua(words: str) -> Callable[[pytest.MonkeyPatch], None]:
    """A ledger whose transitions use these words in place of their own."""

    def plant(monkeypatch: pytest.MonkeyPatch) -> None:
        def source(name: str) -> str:
            return "\n".join([(FOLDER / "shared.lua").read_text(), words, (FOLDER / f"{name}.lua").read_text()])

        monkeypatch.setattr(scripts, "source", source)

    return plant


def in_place_of(name: str, words: str, others: str) -> Callable[[pytest.MonkeyPatch], None]:
    """A ledger in which one transition says something else, or all of them do (`shared`)."""

    def plant(monkeypatch: pytest.MonkeyPatch) -> None:
        texts = {part: (FOLDER / f"{part}.lua").read_text() for part in ("shared", name)}
        assert words in texts[name]
        texts[name] = texts[name].replace(words, others)

        def source(step: str) -> str:
            own = texts.get(step) or (FOLDER / f"{step}.lua").read_text()
            return "\n".join([texts["shared"], own])

        monkeypatch.setattr(scripts, "source", source)

    return plant


def an_arbiter_that_does_without_the_champions_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    real = Standing.missing

    def missing(standing: Standing, *, confirming: bool) -> Missing | None:
        found = real(standing, confirming=confirming)
        known = standing.incumbent.freedom >= standing.policy.noise_runs - 1
        return None if known and found is not None and found.need is Need.REPEAT else found

    monkeypatch.setattr(Standing, "missing", missing)


def an_arbiter_that_does_not_wait_for_the_champions_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    standing = Court.standing

    def impatient(court: Court, like: Measurement | None = None) -> Standing | None:
        found = standing(court, like)
        return found and found._replace(open_repeats=0)

    monkeypatch.setattr(Court, "standing", impatient)


def an_arbiter_that_counts_no_verdicts(monkeypatch: pytest.MonkeyPatch) -> None:
    standing = Court.standing

    def forgetful(court: Court, like: Measurement | None = None) -> Standing | None:
        found = standing(court, like)
        return found and found._replace(judged=0)

    monkeypatch.setattr(Court, "standing", forgetful)


def a_branch_that_is_set_without_a_look_at_it(monkeypatch: pytest.MonkeyPatch) -> None:
    def swap(champion: Champion, old: str, new: str) -> bool:
        champion.must("update-ref", champion.ref, new)
        return True

    monkeypatch.setattr(Champion, "swap", swap)


def a_server_that_forgets(monkeypatch: pytest.MonkeyPatch) -> None:
    night = Site.night

    def forgetful(site: Site, luck: bytes, *, policy: Policy) -> Night:
        site.client.config_set("appendonly", "no")
        return night(site, luck, policy=policy)

    monkeypatch.setattr(Site, "night", forgetful)
    monkeypatch.setattr(Schedule, "kills_per_256", 256)


FAULTS = {
    "a result counts whatever the lease": in_lua("lease_is_current = function() return true end"),
    "a step needs no state": in_lua("refusal = function(prefix, id, state) return nil, state, id end"),
    "nothing is written into the history": in_lua("note_event = function() end"),
    "who leaves a state stays there too": in_lua("local real = move\nmove = function(prefix, id, from, ...) real(prefix, id, '', ...) end"),
    "the branch is set without a look at it": a_branch_that_is_set_without_a_look_at_it,
    "the server forgets": a_server_that_forgets,
    "a second run over an older champion": in_place_of("take", "'parent') == champion", "'parent')"),
    "a second run is taken for a first one when its runner dies": in_place_of("requeue_orphans", "taken_from or 'queued'", "'queued'"),
    "what is run again is not put aside": in_place_of("confirm", "move(prefix, id, from, 'confirming'", "move(prefix, id, from, from"),
    "runs of before count after the champion has moved": in_place_of("shared", "call('HSET', verdict, 'earlier', earlier)", ""),
    "what is judged needs no run of the champion": an_arbiter_that_does_without_the_champions_runs,
    "runs of the champion are not waited for": an_arbiter_that_does_not_wait_for_the_champions_runs,
    "verdicts are not counted": an_arbiter_that_counts_no_verdicts,
}  # fmt: skip


@pytest.mark.parametrize("fault", FAULTS)
def test_schedules_notice(fault: str, monkeypatch: pytest.MonkeyPatch) -> None:
    FAULTS[fault](monkeypatch)
    with tempfile.TemporaryDirectory(prefix="ar-", dir=MEMORY) as folder, pytest.raises(Exception):  # noqa: B017
        run_schedules(Path(folder) / "0", 300, 0, phases=[Phase.generate])
