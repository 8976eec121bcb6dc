"""Random schedules of everything that can happen to a campaign, against a real server and a real repository.

A model makes the same calls and must answer the same; afterwards a checker looks at what is left. Ends of processes are
played at the calls between which they fall, so they cost nothing; the server is killed for real.
"""

import multiprocessing
import os
import signal
import tempfile
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import redis
from hypothesis import HealthCheck, seed, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule, run_state_machine_as_test

from ledger import Ledger
from ledger.server import connect, start
from tests.ledger.repository import START, Repository
from tests.ledger.samples import campaign
from tests.ledger.schedules import DEVICES, MEMORY, SEATS, Night, Objects, QuickChampion

WORKERS = 2
SCHEDULES = int(os.environ.get("SCHEDULES", "2000"))
STEPS = 12
WHO = st.sampled_from([*SEATS, *("arbiter", "relay 1", "relay 2", "runner a", "runner b") * 2])
"""Where a late call can do most harm."""


class Site:
    """A server and a repository, in which one schedule follows another."""

    def __init__(self, folder: Path):
        self.folder = folder
        self.socket = folder / "redis.sock"
        folder.mkdir()
        start(folder, self.socket)
        connect(f"unix://{self.socket}").close()
        self.client = redis.Redis(
            unix_socket_path=str(self.socket), decode_responses=True, single_connection_client=True
        )
        self.repository = Repository(folder / "lab")
        self.objects = Objects(self.repository.root)
        self.schedules = 0

    def night(self, luck: bytes) -> Night:
        """A campaign of its own, whose start is measured."""
        self.client.flushall()
        self.schedules += 1
        name = f"night-{self.schedules}"
        champion = QuickChampion(self.repository.root, name, self.objects)
        base = champion.start(START)
        Ledger(self.client, name).create(campaign(name, base))
        return Night(self.client, champion, name, luck)

    def kill_server(self) -> None:
        os.kill(self.client.info("server")["process_id"], signal.SIGKILL)
        self.client.connection_pool.disconnect()
        start(self.folder, self.socket)

    def close(self) -> None:
        self.objects.close()
        self.client.shutdown(nosave=True)


class Schedule(RuleBasedStateMachine):
    """What can happen to a campaign, in any order."""

    site: Site

    @initialize(luck=st.binary(min_size=4, max_size=4), fragile=st.sampled_from([False] * 15 + [True]))
    def begin(self, luck: bytes, fragile: bool) -> None:
        self.fragile = fragile  # its restart takes as long as a whole schedule
        self.hand_commits = 0
        self.night = self.site.night(luck)
        self.night.advance("arbiter", 7)
        self.night.advance("runner a", 7)
        self.night.go_round()

    @rule(name=WHO, calls=st.integers(1, 8))
    def one_works(self, name: str, calls: int) -> None:
        self.night.advance(name, calls)

    @rule(rounds=st.integers(1, 2))
    def everybody_works(self, rounds: int) -> None:
        for _ in range(rounds):
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

    @precondition(lambda self: self.has(State.RUNNING))
    @rule(ending=st.sampled_from(ENDINGS))
    def record(self, ending: FailureKind | None) -> None:
        id = self.oldest(State.RUNNING)
        assert id is not None
        row = self.rows[id]
        assert row.source is not None
        measurement = scored(row.source, 0.9) if ending is None else failed(row.source, ending)
        self.ledger.record(id, self.lease, measurement)
        row.runs += 1
        if ending is None:
            row.state = State.SCORED
        elif ending.ours:
            row.host_failures += 1
            row.state = State.CRASHED if row.host_failures >= 3 else State.QUEUED
        else:
            row.state = State.INVALID if ending == FailureKind.INVALID else State.CRASHED

    @precondition(lambda self: not self.has(State.CLAIMED) and not self.has(State.CODED))
    @rule(source=SOURCES, ending=st.sampled_from([None, FailureKind.ENGINE_LOST]))
    def bring_the_oldest_idea_to_its_end(self, source: str, ending: FailureKind | None) -> None:
        """Many steps at once, so that schedules come to the merges and rebases behind them."""
        self.claim()
        if self.has(State.CLAIMED):
            self.code(source)
        if self.has(State.CODED):
            self.review(True)
        if not self.has(State.RUNNING):
            self.take()
        if self.has(State.RUNNING):
            self.record(ending)

    @precondition(lambda self: self.has(State.RUNNING))
    @rule()
    def runner_dies(self) -> None:
        id, before = self.oldest(State.RUNNING), self.lease
        assert id is not None
        release(self.client, before)
        self.lease = acquire(self.client, "cpu", "runner", 600.0)
        with pytest.raises(StaleFence):
            self.ledger.record(id, before, scored("late", 0.1))
        assert self.ledger.requeue_orphans() == [id]
        self.rows[id].state = State.QUEUED

    @rule()
    def launcher_comes_back(self) -> None:
        self.ledger.recover()
        for row in self.rows.values():
            if row.state == State.CLAIMED:
                row.state = State.PROPOSED

    @precondition(lambda self: self.has(State.SCORED))
    @rule(better=st.booleans())
    def judge(self, better: bool) -> None:
        scored_row = self.ledger.next_scored()
        assert scored_row is not None and scored_row.id == self.oldest(State.SCORED)
        id, row = scored_row.id, self.rows[scored_row.id]
        if row.lane == "baseline":
            self.ledger.crown(id, BASE)
            row.state, self.champion = State.MERGED, BASE
        elif row.parent != self.head:
            self.rebase()
        elif better and self.champion == self.head and not self.has(State.MERGING):
            self.org.intend(id, VERDICT, f"commit-{self.landed + 1}", self.head)
            row.state = State.MERGING
        elif not better:
            self.ledger.discard(id, VERDICT)
            row.state = State.DISCARDED

    @precondition(lambda self: self.has(State.SCORED))
    @rule()
    def rebase(self) -> None:
        id = self.oldest(State.SCORED)
        assert id is not None
        if self.rows[id].lane == "baseline":
            return
        self.ledger.rebase(id, "champion moved")
        self.rows[id].send_back()

    @precondition(lambda self: self.has(State.MERGING))
    @rule(lands=st.booleans())
    def finish(self, lands: bool) -> None:
        ((experiment, text),) = self.ledger.outbox().items()
        id, commit = int(experiment), Intent.model_validate_json(text).commit
        assert id == self.oldest(State.MERGING)
        if lands:
            self.ledger.merged(id, self.relay, commit, text)
            self.rows[id].state = State.MERGED
            self.head = self.champion = commit
            self.landed += 1
        else:
            self.ledger.abandon_merge(id, self.relay, "the branch moved")
            self.rows[id].send_back()

    @invariant()
    def every_row_stands_where_the_model_says(self) -> None:
        stored = {row.id: row for row in self.ledger.experiments()}
        assert {id: row.state for id, row in stored.items()} == {id: row.state for id, row in self.rows.items()}
        assert {id: len(row.measurements) for id, row in stored.items()} == {id: r.runs for id, r in self.rows.items()}
        assert self.ledger.champion_commit() == self.champion
        commits = [row.commit for row in stored.values() if row.commit is not None]
        assert len(commits) == len(set(commits)) == self.landed + (self.champion is not None)


def run_schedules(folder: Path, number: int, luck: int) -> None:
    """Raises whatever the first schedule that goes wrong raises, made as short as it can be."""
    site = Site(folder)
    try:
        run_state_machine_as_test(
            seed(luck)(type("Machine", (Schedule,), {"site": site})),
            settings=settings(
                max_examples=number,
                stateful_step_count=STEPS,
                deadline=None,
                database=None,
                suppress_health_check=list(HealthCheck),
            ),
        )
    finally:
        site.close()


def test_no_schedule_loses_or_doubles_anything() -> None:
    """Half of them in each of two processes. Any luck must do; this one is the same every time."""
    with (
        tempfile.TemporaryDirectory(prefix="ar-", dir=MEMORY) as folder,
        ProcessPoolExecutor(WORKERS, multiprocessing.get_context("spawn")) as pool,
    ):
        parts = [
            pool.submit(run_schedules, Path(folder) / str(luck), SCHEDULES // WORKERS, luck) for luck in range(WORKERS)
        ]
        for part in parts:
            part.result()
