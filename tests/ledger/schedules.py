"""A campaign whose every call waits for its turn: actors are threads, and the schedule says who makes the next call.

So between any two calls of an actor, others can act, a lease can end, the actor can be killed or sleep for long, a call can
arrive twice or its answer be lost. The server, git and the code of ledger/ are the real ones.
"""

import hashlib
import os
import random
import re
import subprocess
import threading
import time
import zlib
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any

import redis

from ledger import AlreadyRecorded, Ledger
from ledger.arbiter import Arbiter
from ledger.champion import AUTHOR, EMAIL, HEADER, Champion, Commit, Done
from ledger.lease import Keeper, Lease, acquire, release, renew
from ledger.relay import Relay, relay_lease
from records import Experiment, FailureKind, Measurement, Policy, Refusal, State
from tests.ledger.checker import LEASED, Acknowledged, complaints, run_id
from tests.ledger.model import OF_BRANCH, Model, outcome, reduced
from tests.ledger.samples import APPROVED, KEEP_IF_LOWER, REFUSED, failed, idea, program, scored, sha256_of

MEMORY = next((folder for folder in ("/dev/shm",) if os.access(folder, os.W_OK)), None)
"""A disk would only make them slow: what is killed here are processes, never the kernel."""
BUDGET = 4
"""Experiments that a schedule may start."""
RUNS_AGAIN = Policy(
    rule="two-run-min", alpha=0.5, judgements=3, noise_runs=4, champion_runs=2, canary_every=1, simplify_margin=3.0
)
"""Second runs, repeats and canaries, in as few calls as can be; the error budget is spent before the experiments are."""
POLICIES = (KEEP_IF_LOWER, RUNS_AGAIN)
NOISE_BPB = 0.001
LEAP_BPB = 0.1
"""What makes a difference, and what the machine may drift by: so many times the noise that no luck is needed to see it."""
TTL_S = 600.0
"""Longer than any schedule: a lease ends when the schedule says so."""
MODELLED = (
    *("propose", "propose_baseline", "propose_repeat", "claim", "release", "code", "refuse", "next_coded", "review"),
    *(
        "take",
        "record",
        "requeue_orphans",
        "requeue_failed",
        "next_scored",
        "outbox",
        "crown",
        "pool",
        "unseat",
        "confirm",
        "discard",
    ),
    *("rebase", "intend_merge", "merged", "abandon_merge", "champion_commit", "champion_experiment", "repeats"),
    *("experiments", "spent", "decisions"),
)
"""Calls of a ledger that the model makes too."""
UNMODELLED = ("champion_score", "head", "note")
GIT = ("head", "source", "landed_source_sha256", "contains", "mismatch", "prepare", "land")


THREADS = ThreadPoolExecutor(max_workers=500)


class Killed(BaseException):
    """kill -9, as seen from within."""


class Actor:
    """A thread that waits before each of its calls.

    Args:
        name: whose seat, and which incarnation.
        work: what it does, again and again; a refusal ends one round of it.
    """

    def __init__(self, name: str, work: Callable[["Actor"], None]):
        self.name = name
        self.work = work
        # Locks, each released by the other side: they hand over in half the time of a semaphore.
        self.turn, self.waiting = threading.Lock(), threading.Lock()
        self.turn.acquire()
        self.waiting.acquire()
        self.killed = False
        self.answer_lost = False
        self.twice = False
        self.calling = False
        self.error: BaseException | None = None
        self.life = THREADS.submit(self.live)
        self.waiting.acquire()

    def live(self) -> None:
        try:
            while True:
                with suppress(Refusal):  # whoever supervises it starts it again
                    self.work(self)
        except Killed:
            pass
        except BaseException as error:
            self.error = error
        finally:
            self.waiting.release()

    def call(self, act: Callable[[], Any]) -> Any:
        """In the actor's thread: wait for its turn, then make the call. What a call calls itself is part of it."""
        if self.calling:
            return act()
        self.waiting.release()
        self.turn.acquire()
        if self.killed:
            raise Killed
        self.calling = True
        if self.twice:
            self.twice = False
            outcome(act)
        try:
            return act()
        finally:
            self.calling = False
            if self.answer_lost:
                raise Killed

    def advance(self) -> None:
        """In the schedule's thread: let it make the call before which it waits, and come to the next one."""
        self.turn.release()
        self.waiting.acquire()
        if self.error is not None:
            raise self.error

    def kill(self, *, after_call: bool = False) -> None:
        """End it at once, or after the call before which it waits, without the answer."""
        self.answer_lost, self.killed = after_call, not after_call
        self.turn.release()
        self.life.result()
        if self.error is not None:
            raise self.error


def compare(model: Model, name: str, act: Callable[[], Any], *args: Any, **kwargs: Any) -> Any:
    """Let the model make the call, then make it. Raises AssertionError if the two do not answer the same."""
    expected = outcome(lambda: getattr(model, name)(*args, **kwargs))
    try:
        answer = act()
    except Refusal as refusal:
        assert type(refusal) is expected, f"{name}{args}: the ledger refuses ({refusal!r}), the model says {expected}"
        raise
    assert reduced(answer) == expected, f"{name}{args}: the ledger says {reduced(answer)}, the model {expected}"
    return answer


class WatchedLedger(Ledger):
    """A ledger for one actor: each call waits for its turn, and the model makes it too."""

    def __init__(
        self, client: redis.Redis, campaign: str, actor: Actor, model: Model, acknowledged: Acknowledged, budget: int
    ):
        super().__init__(client, campaign)
        self.budget = budget
        self.actor = actor
        self.model = model
        self.acknowledged = acknowledged

    def acknowledge(self, name: str, args: tuple[Any, ...]) -> None:
        if name == "record":
            self.acknowledged.results.append((args[0], args[2].run_id))
        if name == "merged":
            self.acknowledged.merges.append((args[0], args[2]))


class Objects:
    """The objects of a repository: read by a git that stays, written as git writes them.

    A git of its own for each would take most of a schedule's time.
    """

    def __init__(self, repository: Path):
        self.folder = repository / ".git" / "objects"
        self.git = subprocess.Popen(
            ["git", "cat-file", "--batch"], cwd=repository, stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )

    def read(self, name: str) -> tuple[str, bytes] | None:
        """Id and content of an object; None if there is no such thing."""
        assert self.git.stdin is not None and self.git.stdout is not None
        self.git.stdin.write(f"{name}\n".encode())
        self.git.stdin.flush()
        id, *found = self.git.stdout.readline().decode().split()
        if len(found) < 2:
            return None
        content = self.git.stdout.read(int(found[1]))
        self.git.stdout.read(1)
        return id, content

    def write(self, kind: str, content: bytes) -> str:
        """The new object's id."""
        whole = f"{kind} {len(content)}\0".encode() + content
        id = hashlib.sha1(whole).hexdigest()
        path = self.folder / id[:2] / id[2:]
        if not path.exists():
            path.parent.mkdir(exist_ok=True)
            path.write_bytes(zlib.compress(whole))
        return id

    def close(self) -> None:
        self.git.communicate()


class QuickChampion(Champion):
    """A branch of a good repository. What happens to objects takes no git of its own; what happens to the branch does."""

    def __init__(self, repository: Path, campaign: str, objects: Objects):
        self.repository, self.objects = repository, objects
        self.branch = f"autoresearch/{campaign}"
        self.ref = f"refs/heads/{self.branch}"

    def git(self, *arguments: str, given: bytes = b"") -> Done:
        match arguments:
            case ("rev-parse", "--verify", "--quiet", name) | ("cat-file", "blob", name):
                if (found := self.objects.read(name)) is None:
                    return Done(1, b"", "")
                return Done(0, found[1] if "blob" in arguments else found[0].encode(), "")
            case ("rev-list", "--no-walk", "--parents", commit):
                lines = self.content(commit).decode().splitlines()
                parents = [line.removeprefix("parent ") for line in lines if line.startswith("parent ")]
                return Done(0, " ".join([commit, *parents]).encode(), "")
            case ("diff-tree", *_, before, after):
                changed = {name for name, _ in self.entries(before) ^ self.entries(after)}
                return Done(0, b"\0".join(sorted(changed)), "")
            case ("merge-base", "--is-ancestor", commit, name):
                return Done(0 if commit in self.line(name) else 1, b"", "")
            case _:
                return super().git(*arguments, given=given)

    def line(self, name: str) -> Iterator[str]:
        """A commit and its first parents."""
        found = self.objects.read(name)
        while found is not None:
            yield found[0]
            parents = re.findall(rb"^parent (.*)$", found[1].partition(b"\n\n")[0], re.MULTILINE)
            found = self.objects.read(parents[0].decode()) if parents else None

    def since(self, base: str) -> list[Commit]:
        commits: list[Commit] = []
        for id in self.line(self.ref):
            if id == base:
                break
            head, _, message = self.content(id).decode().partition("\n\n")
            parents = [line.removeprefix("parent ") for line in head.splitlines() if line.startswith("parent ")]
            trailers = dict(line.split(": ", 1) for line in message.split("\n\n")[-1].splitlines() if ": " in line)
            commits.append(Commit(id, parents, trailers))
        return commits[::-1]

    def content(self, name: str) -> bytes:
        found = self.objects.read(name)
        assert found is not None, name
        return found[1]

    def entries(self, commit: str) -> set[tuple[bytes, bytes]]:
        """Name, and mode with id, of what lies at the top of a commit's tree."""
        rest, found = self.content(f"{commit}^{{tree}}"), set()
        while rest:
            head, _, rest = rest.partition(b"\0")
            mode, _, name = head.partition(b" ")
            found.add((name, mode + rest[:20]))
            rest = rest[20:]
        return found

    def prepare(self, parent: str, source: str, message: str, record: str = "") -> str:
        entry = b"100644 train.py\0"
        before, _, after = self.content(f"{parent}^{{tree}}").partition(entry)
        blob = bytes.fromhex(self.objects.write("blob", source.encode()))
        tree = self.objects.write("tree", before + entry + blob + after[len(blob) :])
        who = f"{AUTHOR} <{EMAIL}> {int(time.time())} +0000"
        header = f"{HEADER} {record}\n" if record else ""
        text = f"tree {tree}\nparent {parent}\nauthor {who}\ncommitter {who}\n{header}\n{message}"
        return self.objects.write("commit", text.encode())


class WatchedChampion(QuickChampion):
    """A branch for one actor: each call waits for its turn."""

    actor: Actor

    @classmethod
    def of(cls, champion: QuickChampion, actor: Actor) -> "WatchedChampion":
        watched = cls.__new__(cls)
        watched.__dict__ |= champion.__dict__ | {"actor": actor}
        return watched


def in_turn(kind: type, name: str, *, modelled: bool = False) -> Callable[..., Any]:
    """The method of this name, waiting for the actor's turn."""
    method = getattr(kind, name)

    def call(self: Any, *args: Any, **kwargs: Any) -> Any:
        def act() -> Any:
            if name == "take":  # the launcher lets no runner begin another
                kwargs["new"] = Ledger.spent(self).started < self.budget
            if not modelled:
                return method(self, *args, **kwargs)
            answer = compare(self.model, name, lambda: method(self, *args, **kwargs), *args, **kwargs)
            self.acknowledge(name, args)
            return answer

        return self.actor.call(act)

    return call


for name in (*MODELLED, *UNMODELLED):
    setattr(WatchedLedger, name, in_turn(Ledger, name, modelled=name in MODELLED))
for name in GIT:
    setattr(WatchedChampion, name, in_turn(Champion, name))


class Night:
    """One schedule: a campaign, its branch, its model, and who works on it.

    Args:
        client: of an empty server.
        champion: a branch, which exists.
        campaign: of the ledger; its start is the tip of the branch.
        budget: experiments that may be started.
        luck: of what planners, coders, reviewers and candidates come up with.
    """

    def __init__(self, client: redis.Redis, champion: QuickChampion, campaign: str, luck: bytes, budget: int):
        self.budget = budget
        self.client = client
        self.champion = champion
        self.campaign = campaign
        self.random = random.Random(luck)
        self.model = Model()
        self.acknowledged = Acknowledged([], [], [])
        self.policy = Ledger(client, campaign).campaign().policy
        self.runs = 0
        self.drifts_at = luck[1] % 16 if luck[1] % 3 else None
        """By which run the machine has changed, if it does."""
        self.truths: dict[str, float] = {}
        self.sources: list[str] = []
        self.incarnations = 0
        self.sleepers: list[Actor] = []
        self.seats = {name: self.seat(name) for name in SEATS}

    def seat(self, name: str) -> Actor:
        """A new incarnation of whoever has this seat."""
        self.incarnations += 1
        work = getattr(self, name.partition(" ")[0])
        return Actor(f"{name}/{self.incarnations}", work)

    # ---- what the schedule may do ------------------------------------------------------------------------------------

    def advance(self, name: str, calls: int) -> None:
        for _ in range(calls):
            self.seats[name].advance()

    def begin(self) -> None:
        """Have the start measured, as often as the campaign's rule wants it."""
        self.advance("arbiter", 9)
        self.advance("runner a", 7)
        while self.model.champion_id is None:
            self.advance("arbiter", 1)
        wanted = 0 if self.policy == KEEP_IF_LOWER else self.policy.noise_runs - 1
        while len(self.model.all_in(State.POOLED)) < wanted:
            self.advance("arbiter", 1)
            self.advance("runner a", 1)

    def go_round(self, *, without: str = "") -> None:
        """Everybody does about as much as one task takes, so that experiments come to their end."""
        for name, calls in SEATS.items():
            if name != without:
                self.advance(name, max(1, calls + self.random.randint(-1, 1)))

    def go_on_until(self, state: State) -> None:
        """Until somebody's idea stands there; not for ever, since there may be no good one."""
        for _ in range(10):
            if any(self.model.rows[id].lane not in OF_BRANCH for id in self.model.all_in(state)):
                return
            self.go_round()

    def begin_second_run(self) -> None:
        """Have a runner take what waits for its second run, if something does."""
        waiting = self.model.all_in(State.CONFIRMING)
        for _ in range(12):
            if waiting and self.model.all_in(State.CONFIRMING) == waiting:
                self.advance("runner a", 1)

    def kill(self, name: str, *, after_call: bool) -> None:
        self.seats[name].kill(after_call=after_call)
        self.seats[name] = self.seat(name)

    def suspend(self, name: str) -> None:
        """Its seat is given to another, and it knows nothing of that."""
        self.sleepers.append(self.seats[name])
        self.seats[name] = self.seat(name)

    def wake(self, calls: int) -> None:
        """Whoever has slept longest acts as if no time had passed, and is then found out."""
        with ExitStack() as stack:
            sleeper = self.sleepers.pop(0)
            stack.callback(sleeper.kill)
            for _ in range(calls):
                sleeper.advance()

    def expire(self, device: str) -> None:
        """What the server does when a lease has not been renewed in time."""
        device = self.whole(device)
        self.model.expire(device)
        self.client.delete(f"autoresearch:lease:{device}")

    def whole(self, device: str) -> str:
        """Of locks each campaign has its own."""
        return device if device in ("a", "b") else f"{device}/{self.campaign}"

    def commit_by_hand(self) -> None:
        head = self.champion.head()
        commit = self.champion.prepare(head, self.new_source(), "by hand\n")
        assert self.champion.land(head, commit)
        self.acknowledged.by_hand.append(commit)

    def end(self) -> None:
        """Sleepers wake for the last time, and everybody is killed."""
        with ExitStack() as stack:
            for actor in (*self.seats.values(), *self.sleepers):
                stack.callback(actor.kill)
            for sleeper in self.sleepers:
                for _ in range(12):
                    sleeper.advance()

    # ---- the morning after -------------------------------------------------------------------------------------------

    def settle(self) -> None:
        """A last launcher and a last arbiter put things in order: whatever was on its way comes to its end."""
        for device in DEVICES:
            self.expire(device)
        ledger = Ledger(self.client, self.campaign)
        ledger.recover()
        keeper = HeldLease(self.client, acquire(self.client, relay_lease(self.campaign), "morning", TTL_S))
        relay = Relay(ledger, self.champion, keeper, seal)
        arbiter = Arbiter(ledger, self.champion, signature, seal)
        lease = acquire(self.client, "a", "morning", TTL_S)
        for _ in range(300):
            if not (relay.step() or arbiter.step() or self.last_run(ledger, lease)):
                return
        raise AssertionError("the arbiter does not come to an end")

    def last_run(self, ledger: Ledger, lease: Lease) -> bool:
        """A run of what has begun, or of the champion; False when there is nothing."""
        if (taken := ledger.take(lease, self.champion.head(), new=False)) is None:
            return False
        measurement = self.measured(taken, lease)
        ledger.record(taken.id, lease, measurement)
        self.acknowledged.results.append((taken.id, measurement.run_id))
        return True

    def differences(self) -> list[str]:
        """Where ledger and model part ways."""
        ledger = Ledger(self.client, self.campaign)
        stored = {e.id: (e.state, [m.run_id for m in e.measurements], e.commit) for e in ledger.experiments()}
        expected = {id: (row.state, row.runs, row.commit) for id, row in self.model.rows.items()}
        return [
            f"{part} is in one of them only" for part in set(map(str, stored.items())) ^ set(map(str, expected.items()))
        ]

    def complaints(self) -> list[str]:
        """What the checker says, when all has settled."""
        ledger = Ledger(self.client, self.campaign)
        waiting = ledger.experiments(states=[State.CONFIRMING, State.RUNNING, State.MERGING])
        return [f"#{e.id} is left {e.state}" for e in waiting] + complaints(
            ledger, self.champion, self.acknowledged, signature, self.budget
        )

    # ---- who works on it ---------------------------------------------------------------------------------------------

    def ledger(self, actor: Actor) -> WatchedLedger:
        return WatchedLedger(self.client, self.campaign, actor, self.model, self.acknowledged, self.budget)

    def branch(self, actor: Actor) -> WatchedChampion:
        return WatchedChampion.of(self.champion, actor)

    def new_source(self) -> str:
        self.sources.append(f"LR = {len(self.sources)}\n")
        return self.sources[-1]

    def planner(self, actor: Actor) -> None:
        self.ledger(actor).propose(idea(), author=actor.name, roles={"planner": "p"}, max_open=4)

    def coder(self, actor: Actor) -> None:
        ledger = self.ledger(actor)
        if (claimed := ledger.claim(actor.name)) is None:
            return
        whim = self.random.random()
        if whim < 0.05:
            ledger.release(claimed.id)
        elif whim < 0.1:
            ledger.refuse(claimed.id, "it cannot be done", {})
        else:
            parent = self.branch(actor).head()
            old = self.random.random() < 0.1 and self.sources
            source = self.random.choice(self.sources) if old else self.new_source()
            if claimed.candidate is not None and self.random.random() < 0.5:
                source = claimed.candidate.source  # the same change may come to the same program
            ledger.code(claimed.id, program(source, parent), {"coder": "c"})

    def reviewer(self, actor: Actor) -> None:
        ledger = self.ledger(actor)
        if (coded := ledger.next_coded()) is not None:
            ledger.review(coded.id, APPROVED if self.random.random() < 0.9 else REFUSED, {"reviewer": "r"})

    def runner(self, actor: Actor) -> None:
        device = actor.name.partition("/")[0].partition(" ")[2]
        ledger, branch = self.ledger(actor), self.branch(actor)
        lease = self.leased(actor, device)
        try:
            ledger.note(LEASED, f"{device}/{lease.fence}")
            ledger.requeue_orphans()
            while True:
                self.renewed(actor, lease)
                if (taken := ledger.take(lease, branch.head())) is not None:
                    with suppress(AlreadyRecorded):  # its answer was lost on the way
                        ledger.record(taken.id, lease, self.measured(taken, lease))
        except Refusal:
            self.returned(actor, lease)
            raise

    def measured(self, taken: Experiment, lease: Lease) -> Measurement:
        """A run, which may fail by the candidate's fault or the host's, and may be audited for no more than a look."""
        assert taken.candidate is not None
        self.runs += 1
        source, name, whim = taken.candidate.source, run_id(lease, self.runs), self.random.random()
        if whim < 0.2 and self.runs > 1:
            # A baseline that fails by its own fault ends the campaign: a launcher would say so, and there would be nothing more to see.
            own = [] if taken.lane == "baseline" else [FailureKind.CRASH, FailureKind.INVALID]
            kind = self.random.choice([FailureKind.ENGINE_LOST, *own])
            return failed(source, kind, name)
        score = self.lower_and_lower if self.policy == KEEP_IF_LOWER else self.true_and_noisy
        found = scored(source, score(taken), name)
        assert found.audit is not None
        screened = found.audit.model_copy(update={"level": "screen"})
        return found.model_copy(update={"seed": self.runs, "audit": screened if 0.2 < whim < 0.25 else found.audit})

    def lower_and_lower(self, taken: Experiment) -> float:
        """Scores fall with every run, so that many a candidate beats the champion."""
        return 1.0 - self.runs / 1000 if self.random.random() < 0.9 else 2.0

    def true_and_noisy(self, taken: Experiment) -> float:
        """What the program is worth, give or take a little: better than all before, or much worse, or lucky once, or no change at all."""
        assert taken.candidate is not None
        source, leaps = taken.candidate.source, len(self.truths)
        worth = self.random.choice([1.0 - leaps * LEAP_BPB] * 4 + [2.0, 1.0])
        truth = self.truths.setdefault(source, 1.0 if taken.lane == "baseline" else worth)
        lucky = LEAP_BPB if taken.is_idea and not taken.runs and self.random.random() < 0.2 else 0.0
        drift = LEAP_BPB / 2 if self.drifts_at is not None and self.runs > self.drifts_at else 0.0
        return truth + drift - lucky + self.random.gauss(0.0, NOISE_BPB)

    def launcher(self, actor: Actor) -> None:
        ledger, lock = self.ledger(actor), self.leased(actor, self.whole("launcher"))
        try:
            ledger.recover()
            while True:
                self.renewed(actor, lock)
        except Refusal:
            self.returned(actor, lock)
            raise

    def arbiter(self, actor: Actor) -> None:
        arbiter = Arbiter(self.ledger(actor), self.branch(actor), signature, seal)
        while True:
            arbiter.step()

    def relay(self, actor: Actor) -> None:
        lease = self.leased(actor, relay_lease(self.campaign))
        relay = Relay(self.ledger(actor), self.branch(actor), HeldLease(self.client, lease), seal)
        try:
            while True:
                self.renewed(actor, lease)
                relay.step()
        except Refusal:
            self.returned(actor, lease)
            raise

    # ---- leases ------------------------------------------------------------------------------------------------------

    def leased(self, actor: Actor, device: str) -> Lease:
        lease: Lease = actor.call(
            lambda: compare(
                self.model, "acquire", lambda: acquire(self.client, device, actor.name, TTL_S), device, actor.name
            )
        )
        return lease

    def renewed(self, actor: Actor, lease: Lease) -> None:
        actor.call(lambda: compare(self.model, "renew", lambda: renew(self.client, lease, TTL_S), lease))

    def returned(self, actor: Actor, lease: Lease) -> None:
        actor.call(lambda: compare(self.model, "release_lease", lambda: release(self.client, lease), lease))


DEVICES = ("a", "b", "launcher", "relay")
SEATS = {
    **{"planner 1": 1, "planner 2": 1, "coder 1": 3, "coder 2": 3, "reviewer 1": 2, "reviewer 2": 2},
    **{"runner a": 4, "runner b": 4, "launcher 1": 1, "launcher 2": 1, "arbiter": 14},
    **{"relay 1": 7, "relay 2": 7},
}
"""Calls of one task."""


class HeldLease(Keeper):
    """A lease that nobody renews: it ends when the schedule says so."""

    def __init__(self, client: redis.Redis, lease: Lease):
        self.client, self.lease, self.ttl_s = client, lease, TTL_S


def seal(text: str) -> str:
    return sha256_of(f"secret {text}")


def signature(measurement: Measurement) -> str | None:
    """These tests sign nothing."""
    return None
