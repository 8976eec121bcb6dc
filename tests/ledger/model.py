"""What a campaign should do, in plain Python: every transition of the ledger, without Redis, time or crashes.

Each method has the name, the arguments, the answer and the refusals of the one of `Ledger` or `ledger.lease` that it stands
for; of an experiment the answer is its id, of a lease its fence.
"""

from collections.abc import Callable
from typing import Any

from ledger import AlreadyRecorded, StaleFence, WrongState
from ledger.intent import Intent
from ledger.lease import Lease, LeaseHeld, LeaseLost
from ledger.store import MAX_REBASES, result_key
from records import (
    BadInput,
    Candidate,
    Experiment,
    FailureKind,
    Hypothesis,
    Measurement,
    Refusal,
    Review,
    State,
    Verdict,
)

OPEN = (State.PROPOSED, State.CLAIMED, State.CODED, State.QUEUED)


class Row:
    """One experiment."""

    def __init__(self, state: State, lane: str = "improve"):
        self.state = state
        self.lane = lane
        self.parent: str | None = None
        self.meaning: str | None = None
        self.lease: Lease | None = None
        self.commit: str | None = None
        self.runs: list[str] = []
        self.host_failures = 0
        self.rebases = 0


class Model:
    """A campaign and the leases beside it."""

    def __init__(self) -> None:
        self.rows: dict[int, Row] = {}
        self.owners: dict[str, int] = {}
        self.baselines: dict[str, int] = {}
        self.results: set[str] = set()
        self.champion: str | None = None
        self.sealed: dict[str, str] = {}
        """What is in the outbox."""
        self.leases: dict[str, Lease] = {}
        self.fences: dict[str, int] = {}

    # ---- looking -----------------------------------------------------------------------------------------------------

    def turn(self, id: int) -> tuple[int, str]:
        """Baselines first; of those, Redis puts equal turns in the order of their names."""
        return (0 if self.rows[id].lane == "baseline" else id, str(id))

    def all_in(self, *states: State) -> list[int]:
        return sorted((id for id, row in self.rows.items() if row.state in states), key=self.turn)

    def oldest(self, state: State) -> int | None:
        return next(iter(self.all_in(state)), None)

    def row(self, id: int, *states: State) -> Row:
        if id not in self.rows:
            raise BadInput
        if self.rows[id].state not in states:
            raise WrongState
        return self.rows[id]

    def next_coded(self) -> int | None:
        return self.oldest(State.CODED)

    def next_scored(self) -> int | None:
        return self.oldest(State.SCORED)

    def champion_commit(self) -> str | None:
        return self.champion

    def outbox(self) -> dict[str, str]:
        return dict(self.sealed)

    # ---- leases ------------------------------------------------------------------------------------------------------

    def current(self, lease: Lease) -> bool:
        return self.leases.get(lease.device) == lease

    def acquire(self, device: str, holder: str) -> int:
        if device in self.leases:
            raise LeaseHeld(device, holder, 0)
        self.fences[device] = self.fences.get(device, 0) + 1
        self.leases[device] = Lease(device, holder, self.fences[device])
        return self.fences[device]

    def renew(self, lease: Lease) -> None:
        if not self.current(lease):
            raise LeaseLost

    def release_lease(self, lease: Lease) -> None:
        if self.current(lease):
            del self.leases[lease.device]

    def expire(self, device: str) -> None:
        self.leases.pop(device, None)

    # ---- ideas -------------------------------------------------------------------------------------------------------

    def propose(self, hypothesis: Hypothesis, *, author: str, roles: dict[str, str], max_open: int) -> int | None:
        if len(self.all_in(*OPEN)) >= max_open:
            return None
        self.rows[id := len(self.rows) + 1] = Row(State.PROPOSED)
        return id

    def propose_baseline(self, candidate: Candidate, champion: str) -> int:
        if champion != (self.champion or "") or self.sealed:
            raise WrongState
        known = self.baselines.get(candidate.parent)
        if known is not None:
            state, is_champion = self.rows[known].state, self.champion == candidate.parent
            if state != State.DISCARDED and (state != State.MERGED or is_champion):
                return known
        self.rows[id := len(self.rows) + 1] = row = Row(State.QUEUED, "baseline")
        row.parent, row.meaning = candidate.parent, candidate.meaning_sha256
        self.baselines[candidate.parent] = id
        self.owners.setdefault(candidate.meaning_sha256, id)
        return id

    def claim(self, worker: str) -> int | None:
        id = self.oldest(State.PROPOSED)
        if id is not None:
            self.rows[id].state = State.CLAIMED
        return id

    def release(self, id: int) -> None:
        self.row(id, State.CLAIMED).state = State.PROPOSED

    def code(self, id: int, candidate: Candidate, roles: dict[str, str]) -> int | None:
        row, meaning = self.row(id, State.CLAIMED), candidate.meaning_sha256
        owner = self.owners.get(meaning)
        if row.meaning is not None and self.owners.get(row.meaning) == id:
            del self.owners[row.meaning]
        row.parent, row.meaning = candidate.parent, meaning
        if owner is not None and owner != id:
            row.state = State.DUPLICATE
            return owner
        row.state, self.owners[meaning] = State.CODED, id
        return None

    def refuse(self, id: int, note: str, roles: dict[str, str]) -> None:
        self.row(id, State.CLAIMED, State.CODED).state = State.REFUSED

    def review(self, id: int, review: Review, roles: dict[str, str]) -> None:
        self.row(id, State.CODED).state = State.QUEUED if review.approved else State.REFUSED

    # ---- runs --------------------------------------------------------------------------------------------------------

    def take(self, lease: Lease, champion: str) -> int | None:
        if not self.current(lease):
            raise StaleFence
        for id in self.all_in(State.RUNNING):
            if self.rows[id].lease == lease:
                return id
        for id in self.all_in(State.QUEUED):
            row = self.rows[id]
            if row.lane == "baseline" or row.parent == champion:
                row.state, row.lease = State.RUNNING, lease
                return id
            row.state = State.PROPOSED
        return None

    def record(self, id: int, lease: Lease, measurement: Measurement) -> None:
        row, result = self.rows[id], result_key(measurement)
        if result in self.results:
            raise AlreadyRecorded
        if not self.current(lease) or row.state != State.RUNNING or row.lease != lease:
            raise StaleFence
        row.runs.append(measurement.run_id)
        row.lease = None
        if measurement.failure is None:
            row.state = State.SCORED
            self.results.add(result)
        elif measurement.failure.kind.ours:
            row.host_failures += 1
            row.state = State.CRASHED if row.host_failures >= 3 else State.QUEUED
        else:
            row.state = State.INVALID if measurement.failure.kind == FailureKind.INVALID else State.CRASHED

    def requeue_orphans(self) -> list[int]:
        orphans = [id for id in self.all_in(State.RUNNING) if not self.current(self.lease_of(id))]
        for id in orphans:
            self.rows[id].state, self.rows[id].lease = State.QUEUED, None
        return orphans

    def lease_of(self, id: int) -> Lease:
        lease = self.rows[id].lease
        assert lease is not None, "what runs has a lease"
        return lease

    # ---- arbitration -------------------------------------------------------------------------------------------------

    def crown(self, id: int, commit: str) -> None:
        if self.baselines.get(commit) != id or self.sealed:
            raise WrongState
        row = self.row(id, State.SCORED)
        row.state, row.commit, self.champion = State.MERGED, commit, commit

    def discard(self, id: int, verdict: Verdict) -> None:
        self.row(id, State.SCORED).state = State.DISCARDED

    def rebase(self, id: int, note: str) -> None:
        self.send_back(self.row(id, State.SCORED))

    @staticmethod
    def send_back(row: Row) -> None:
        row.rebases += 1
        row.state = State.STALE if row.rebases > MAX_REBASES else State.PROPOSED

    def intend_merge(self, verdict: Verdict, intent: Intent) -> None:
        row = self.row(intent.experiment, State.SCORED)
        if self.sealed or row.commit is not None or self.champion != intent.parent:
            raise WrongState
        row.state, self.sealed[str(intent.experiment)] = State.MERGING, intent.model_dump_json()

    def merged(self, id: int, lease: Lease, commit: str, text: str) -> None:
        if not self.current(lease):
            raise StaleFence
        row = self.row(id, State.MERGING)
        if self.sealed.get(str(id)) != text:
            raise WrongState
        del self.sealed[str(id)]
        row.state, row.commit, self.champion = State.MERGED, commit, commit

    def abandon_merge(self, id: int | str, lease: Lease, note: str) -> None:
        if not self.current(lease):
            raise StaleFence
        if str(id) not in self.sealed:
            raise WrongState
        del self.sealed[str(id)]
        self.send_back(self.row(int(id), State.MERGING))


def outcome(act: Callable[[], Any]) -> Any:
    """What a call came to: its answer, or the type of its refusal."""
    try:
        return reduced(act())
    except Refusal as refusal:
        return type(refusal)


def reduced(answer: Any) -> Any:
    """Of an experiment the id, of a lease the fence."""
    return answer.fence if isinstance(answer, Lease) else answer.id if isinstance(answer, Experiment) else answer
