"""Random schedules of steps against a real server, with a model of the rules beside it."""

import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import redis
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from ledger import Ledger, StaleFence
from ledger.intent import Intent
from ledger.lease import acquire, release
from ledger.server import open_redis
from records import FailureKind, State, Verdict
from tests.ledger.org import BASELINE, Org
from tests.ledger.samples import APPROVED, BASE, REFUSED, campaign, failed, idea, program, scored

ENDINGS = [None, FailureKind.ENGINE_LOST, FailureKind.ENGINE_LOST, FailureKind.CRASH, FailureKind.INVALID]
SOURCES = st.integers(0, 40).map(str)
VERDICT = Verdict(merge=True, rule="test", champion_bpb=1.0, candidate_bpb=0.9, reason="as the schedule says")


class Row:
    """What the model knows of one experiment."""

    def __init__(self, lane: str = "improve"):
        self.lane = lane
        self.state = State.PROPOSED
        self.source: str | None = None
        self.parent: str | None = None
        self.runs = 0
        self.host_failures = 0
        self.rebases = 0

    def send_back(self) -> None:
        self.rebases += 1
        self.state = State.STALE if self.rebases > 3 else State.PROPOSED


class LedgerMachine(RuleBasedStateMachine):
    """One org of one coder, one reviewer, one runner and one arbiter that take their steps in any order."""

    client: redis.Redis

    @initialize()
    def begin(self) -> None:
        self.client.flushall()
        self.ledger = Ledger(self.client, "night")
        self.ledger.create(campaign("night"))
        self.lease = acquire(self.client, "cpu", "runner", 600.0)
        self.org = Org(self.ledger, self.lease)
        self.relay = self.org.relay()
        self.rows: dict[int, Row] = {}
        self.owners: dict[str, int] = {}
        self.head, self.landed = BASE, 0
        self.rows[self.ledger.propose_baseline(program(BASELINE))] = baseline = Row("baseline")
        baseline.state, baseline.source, baseline.parent = State.QUEUED, BASELINE, BASE
        self.owners[BASELINE] = 1
        self.champion: str | None = None

    def oldest(self, state: State) -> int | None:
        """By turn: a baseline comes first."""
        return min((id for id, row in self.rows.items() if row.state == state), default=None)

    def has(self, state: State) -> bool:
        return self.oldest(state) is not None

    @rule(limit=st.integers(1, 6))
    def propose(self, limit: int) -> None:
        waiting = (State.PROPOSED, State.CLAIMED, State.CODED, State.QUEUED)
        full = sum(row.state in waiting for row in self.rows.values()) >= limit
        id = self.ledger.propose(idea(), author="p", roles={}, max_open=limit)
        assert (id is None) is full
        if id is not None:
            assert id not in self.rows
            self.rows[id] = Row()

    @rule()
    def claim(self) -> None:
        claimed = self.ledger.claim("coder")
        assert (claimed and claimed.id) == self.oldest(State.PROPOSED)
        if claimed:
            self.rows[claimed.id].state = State.CLAIMED

    @precondition(lambda self: self.has(State.CLAIMED))
    @rule(source=SOURCES)
    def code(self, source: str) -> None:
        id = self.oldest(State.CLAIMED)
        assert id is not None
        row, owner = self.rows[id], self.owners.get(source)
        if row.source is not None and self.owners.get(row.source) == id:
            del self.owners[row.source]
        row.source, row.parent = source, self.head
        answer = self.ledger.code(id, program(source, self.head), {})
        if owner is not None and owner != id:
            assert answer == owner
            row.state = State.DUPLICATE
        else:
            assert answer is None
            row.state, self.owners[source] = State.CODED, id

    @precondition(lambda self: self.has(State.CODED))
    @rule(approved=st.booleans())
    def review(self, approved: bool) -> None:
        coded = self.ledger.next_coded()
        assert coded is not None and coded.id == self.oldest(State.CODED)
        self.ledger.review(coded.id, APPROVED if approved else REFUSED, {})
        self.rows[coded.id].state = State.QUEUED if approved else State.REFUSED

    @precondition(lambda self: not self.has(State.RUNNING))
    @rule()
    def take(self) -> None:
        expected = None
        for id, row in sorted(self.rows.items(), key=lambda item: (item[1].lane != "baseline", item[0])):
            if row.state != State.QUEUED:
                continue
            if row.lane == "baseline" or row.parent == self.head:
                expected, row.state = id, State.RUNNING
                break
            row.state = State.PROPOSED
        taken = self.ledger.take(self.lease, self.head)
        assert (taken and taken.id) == expected

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


@pytest.fixture
def server() -> Iterator[Any]:
    with tempfile.TemporaryDirectory(prefix="ar-") as folder, open_redis(Path(folder)) as server:
        yield server


def test_no_schedule_of_steps_leads_the_ledger_astray(server: Any) -> None:
    machine = type("Machine", (LedgerMachine,), {"client": server.client})
    run_state_machine_as_test(
        machine,
        settings=settings(
            max_examples=150,
            stateful_step_count=60,
            deadline=None,
            derandomize=True,
            database=None,
            suppress_health_check=list(HealthCheck),
        ),
    )
