"""What a campaign should do, in plain Python: every transition of the ledger, without Redis, time or crashes.

Each method has the name, the arguments, the answer and the refusals of the one of `Ledger` or `ledger.lease` that it stands
for; of an experiment the answer is its id, of a lease its fence.
"""

from collections.abc import Callable, Collection
from typing import Any

from ledger import AlreadyRecorded, StaleFence, WrongState
from ledger.intent import Intent
from ledger.lease import Lease, LeaseHeld, LeaseLost
from ledger.store import AT_WORK, MAX_REBASES, RESULTS, VERDICTS, Spent, result_key
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
OF_BRANCH = ("baseline", "repeat")


class Row:
    """One experiment."""

    def __init__(self, state: State, lane: str = "improve"):
        self.state = state
        self.lane = lane
        self.parent: str | None = None
        self.meaning: str | None = None
        self.repeats: int | None = None
        self.lease: Lease | None = None
        self.taken_from = State.QUEUED
        self.commit: str | None = None
        self.runs: list[str] = []
        self.host_failures = 0
        self.gave_up: State | None = None
        self.again = False
        self.rebases = 0


class Model:
    """A campaign and the leases beside it."""

    def __init__(self) -> None:
        self.rows: dict[int, Row] = {}
        self.owners: dict[str, int] = {}
        self.baselines: dict[str, int] = {}
        self.results: set[str] = set()
        self.champion: str | None = None
        self.champion_id: int | None = None
        self.decided = 0
        self.sealed: dict[str, str] = {}
        """What is in the outbox."""
        self.leases: dict[str, Lease] = {}
        self.fences: dict[str, int] = {}

    # ---- looking -----------------------------------------------------------------------------------------------------

    def turn(self, id: int) -> tuple[int, str]:
        """Baselines and repeats first; of those, Redis puts equal turns in the order of their names."""
        return (0 if self.rows[id].lane in OF_BRANCH else id, str(id))

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

    def champion_experiment(self) -> int | None:
        return self.champion_id

    def repeats(self) -> dict[int, int]:
        return {id: row.repeats for id, row in self.rows.items() if row.repeats is not None}

    def experiments(self, *, states: Collection[State]) -> list[int]:
        return sorted(self.all_in(*states))

    def decisions(self) -> str:
        return str(self.decided)

    def spent(self) -> Spent:
        ideas = [row.state for row in self.rows.values() if row.lane not in OF_BRANCH]
        judged, at_work = sum(s in RESULTS for s in ideas), sum(s in AT_WORK for s in ideas)
        unfinished = sum(not s.final for s in ideas)
        return Spent(judged + at_work, judged, sum(s in VERDICTS for s in ideas), unfinished - at_work, 0.0)

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

    def propose_repeat(self, candidate: Candidate, champion: int, number: int, category: str) -> int | None:
        if champion != self.champion_id or self.sealed:
            raise WrongState
        if number != sum(of == champion for of in self.repeats().values()):
            return None
        self.decided += 1
        self.rows[id := len(self.rows) + 1] = row = Row(State.QUEUED, "repeat")
        row.parent, row.repeats = candidate.parent, champion
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

    def take(self, lease: Lease, champion: str, *, new: bool) -> int | None:
        if not self.current(lease):
            raise StaleFence
        for id in self.all_in(State.RUNNING):
            if self.rows[id].lease == lease:
                return id
        queued = self.all_in(State.QUEUED)
        first = [id for id in queued[:1] if self.rows[id].lane in OF_BRANCH]
        for id in first + [id for id in self.all_in(State.CONFIRMING) if self.rows[id].parent == champion]:
            return self.begin(id, lease)
        for id in queued:
            if self.rows[id].parent != champion:
                self.rows[id].state = State.PROPOSED
            elif new:
                return self.begin(id, lease)
        return None

    def begin(self, id: int, lease: Lease) -> int:
        row = self.rows[id]
        row.taken_from, row.state, row.lease = row.state, State.RUNNING, lease
        return id

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
            row.state = row.taken_from
            if row.host_failures >= 3:
                row.host_failures, row.state, row.gave_up = 0, State.CRASHED, row.taken_from
        else:
            row.state = State.INVALID if measurement.failure.kind == FailureKind.INVALID else State.CRASHED

    def requeue_orphans(self) -> list[int]:
        orphans = [id for id in self.all_in(State.RUNNING) if not self.current(self.lease_of(id))]
        for id in orphans:
            self.rows[id].state, self.rows[id].lease = self.rows[id].taken_from, None
        return orphans

    def requeue_failed(self) -> list[int]:
        tried = [id for id in self.all_in(State.CRASHED) if self.rows[id].gave_up is not None and self.wanted(id)]
        for id in tried:
            row = self.rows[id]
            assert row.gave_up is not None
            row.state, row.gave_up, row.again = row.gave_up, None, True
        return tried

    def wanted(self, id: int) -> bool:
        row = self.rows[id]
        if row.lane == "repeat":
            return row.parent == self.champion
        return row.lane == "baseline" or not row.again

    def lease_of(self, id: int) -> Lease:
        lease = self.rows[id].lease
        assert lease is not None, "what runs has a lease"
        return lease

    # ---- arbitration -------------------------------------------------------------------------------------------------

    def crown(self, id: int, commit: str) -> None:
        if self.baselines.get(commit) != id or self.sealed:
            raise WrongState
        row = self.row(id, State.SCORED)
        self.decided += 1
        row.state, row.commit, self.champion, self.champion_id = State.MERGED, commit, commit, id

    def pool(self, id: int) -> None:
        if self.rows[id].repeats is None:
            raise WrongState
        self.row(id, State.SCORED).state = State.POOLED
        self.decided += 1

    def unseat(self, id: int, reason: str) -> None:
        if id != self.champion_id or self.sealed:
            raise WrongState
        self.decided += 1
        self.champion, self.champion_id = None, None

    def not_overtaken(self, decisions: str) -> None:
        if decisions not in ("*", str(self.decided)):
            raise WrongState

    def confirm(self, id: int, verdict: Verdict, decisions: str) -> None:
        self.not_overtaken(decisions)
        row = self.row(id, State.SCORED)
        if row.commit is not None:
            raise WrongState
        self.decided += 1
        row.state = State.CONFIRMING

    def discard(self, id: int, verdict: Verdict, decisions: str = "*") -> None:
        self.not_overtaken(decisions)
        self.row(id, State.SCORED).state = State.WITHIN_NOISE if verdict.within_noise else State.DISCARDED
        self.decided += 1

    def rebase(self, id: int, note: str) -> None:
        self.send_back(self.row(id, State.SCORED, State.CONFIRMING))

    def send_back(self, row: Row) -> None:
        self.decided += 1
        row.rebases += 1
        row.state = State.STALE if row.rebases > MAX_REBASES else State.PROPOSED

    def intend_merge(self, verdict: Verdict, intent: Intent, decisions: str) -> None:
        self.not_overtaken(decisions)
        row = self.row(intent.experiment, State.SCORED)
        if self.sealed or row.commit is not None or self.champion != intent.parent:
            raise WrongState
        self.decided += 1
        row.state, self.sealed[str(intent.experiment)] = State.MERGING, intent.model_dump_json()

    def merged(self, id: int, lease: Lease, commit: str, text: str) -> None:
        if not self.current(lease):
            raise StaleFence
        row = self.row(id, State.MERGING)
        if self.sealed.get(str(id)) != text:
            raise WrongState
        del self.sealed[str(id)]
        self.decided += 1
        row.state, row.commit, self.champion, self.champion_id = State.MERGED, commit, commit, id

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
    """Of an experiment the id, of a lease the fence; of what was used up all but the time."""
    match answer:
        case Lease():
            return answer.fence
        case Experiment():
            return answer.id
        case Spent():
            return answer._replace(device_s=0.0)
        case list():
            return [reduced(item) for item in answer]
        case _:
            return answer
