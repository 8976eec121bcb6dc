"""64 clients at once, each a process with a connection of its own, in one campaign: then the checker looks at what is left."""

import multiprocessing
import random
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import redis

from ledger import Ledger
from ledger.arbiter import Arbiter
from ledger.champion import Champion
from ledger.lease import Keeper, Lease, acquire, release
from ledger.relay import Relay, relay_lease
from ledger.server import join, open_redis
from records import HostFault, Measurement, State
from tests.ledger.checker import LEASED, Acknowledged, complaints, run_id
from tests.ledger.repository import START, Repository
from tests.ledger.samples import APPROVED, campaign, idea, program, scored
from tests.ledger.schedules import MEMORY, seal, signature

CROWD = {"planner": 10, "coder": 16, "reviewer": 8, "runner": 16, "arbiter": 6, "relay": 6, "launcher": 2}
USERS = {"planner": "agent", "coder": "agent", "reviewer": "agent", "launcher": "owner"}
USERS |= {"runner": "runner", "arbiter": "arbiter", "relay": "arbiter"}
DEVICES = 8
MERGES = 12
TTL_S = 30.0


class AttentiveLedger(Ledger):
    """Remembers what it was told."""

    def __init__(self, client: redis.Redis, campaign: str, reader: redis.Redis):
        super().__init__(client, campaign, reader)
        self.acknowledged = Acknowledged([], [], [])

    def record(self, id: int, lease: Lease, measurement: Measurement, *, max_attempts: int = 3) -> None:
        super().record(id, lease, measurement, max_attempts=max_attempts)
        self.acknowledged.results.append((id, measurement.run_id))

    def merged(self, id: int, lease: Lease, commit: str, text: str) -> None:
        super().merged(id, lease, commit, text)
        self.acknowledged.merges.append((id, commit))


class Client:
    """One of the crowd.

    Args:
        logins: to the server, by user.
        repository: with the campaign's branch.
        number: tells it from the others.
    """

    def __init__(self, logins: dict[str, str], repository: Path, number: int, role: str):
        self.leases = join(logins["lease"])
        self.ledger = AttentiveLedger(join(logins[USERS[role]]), "crowd", join(logins["reader"]))
        self.champion = Champion(repository, "crowd")
        self.number = number
        self.name = f"client-{number}"
        self.random = random.Random(number)
        self.count = 0

    def work(self, role: str) -> Acknowledged:
        """Play the role from when there is a campaign until it is over."""
        step: Callable[[], object] = getattr(self, role)
        while not self.ledger.last_event():
            time.sleep(0.1)
        while self.ledger.stop_reason() is None:
            try:
                step()
            except HostFault:  # somebody else was first, or has the lease
                time.sleep(0.05)
        return self.ledger.acknowledged

    def unique(self) -> int:
        self.count += 1
        return self.number * 100_000 + self.count

    def planner(self) -> None:
        # As the launcher has it: first the start is measured.
        if (
            self.ledger.champion_commit() is None
            or self.ledger.propose(idea(), author=self.name, roles={"planner": "p"}, max_open=30) is None
        ):
            time.sleep(0.05)

    def coder(self) -> None:
        if (claimed := self.ledger.claim(self.name)) is None:
            time.sleep(0.05)
            return
        # Some write what others wrote: the ledger takes it once.
        number = self.random.randrange(20) if self.random.random() < 0.1 else self.unique()
        self.ledger.code(claimed.id, program(f"LR = {number}\n", self.champion.head()), {"coder": "c"})

    def reviewer(self) -> None:
        if (coded := self.ledger.next_coded()) is None:
            time.sleep(0.05)
            return
        self.ledger.review(coded.id, APPROVED, {"reviewer": "r"})

    def runner(self) -> None:
        with Held(self, f"gpu-{self.number % DEVICES}") as lease:
            self.ledger.note(LEASED, f"{lease.device}/{lease.fence}")
            self.ledger.requeue_orphans()
            for _ in range(3):
                if (taken := self.ledger.take(lease, self.champion.head())) is None:
                    continue
                time.sleep(0.2)  # a run, so that not all is scored before the first verdict
                assert taken.candidate is not None
                number = self.unique()
                found = scored(taken.candidate.source, 2.0 - time.time() / 1e10, run_id(lease, number))
                self.ledger.record(taken.id, lease, found.model_copy(update={"seed": number}))

    def arbiter(self) -> None:
        if not Arbiter(self.ledger, self.champion, signature, seal).step():
            time.sleep(0.05)

    def relay(self) -> None:
        with Held(self, relay_lease("crowd")) as lease, Keeper(self.leases, lease, TTL_S) as keeper:
            Relay(self.ledger, self.champion, keeper, seal).step()

    def launcher(self) -> None:
        with Held(self, "launcher/crowd"):
            self.ledger.recover()
            time.sleep(0.5)


class Held:
    """A lease of a few calls."""

    def __init__(self, client: Client, device: str):
        self.client = client
        self.device = device

    def __enter__(self) -> Lease:
        self.lease = acquire(self.client.leases, self.device, self.client.name, TTL_S)
        return self.lease

    def __exit__(self, *error: object) -> None:
        release(self.client.leases, self.lease)


def play(logins: dict[str, str], repository: Path, number: int, role: str) -> Acknowledged:
    return Client(logins, repository, number, role).work(role)


def test_64_clients_at_once_lose_and_double_nothing() -> None:
    roles = [role for role, seats in CROWD.items() for _ in range(seats)]
    assert len(roles) == 64
    forks = multiprocessing.get_context("forkserver")
    forks.set_forkserver_preload([__name__])
    with tempfile.TemporaryDirectory(prefix="ar-", dir=MEMORY) as folder, open_redis(Path(folder)) as server:
        repository = Repository(Path(folder) / "lab").root
        champion, ledger = Champion(repository, "crowd"), Ledger(server.client, "crowd")
        base, logins = champion.start(START), server.logins | {"owner": server.url}
        with ProcessPoolExecutor(len(roles), forks) as pool:
            clients = [pool.submit(play, logins, repository, number, role) for number, role in enumerate(roles)]
            try:
                while len(server.client.client_list()) <= len(roles):  # until all are there
                    time.sleep(0.1)
                ledger.create(campaign("crowd", base))
                while ledger.counts().get(State.MERGED, 0) <= MERGES:
                    time.sleep(0.1)
                    for client in clients:
                        if client.done():
                            raise AssertionError("somebody left") from client.exception()
            finally:
                ledger.set_stop("enough")
            told = [client.result() for client in clients]
        acknowledged = Acknowledged([r for a in told for r in a.results], [m for a in told for m in a.merges], [])
        assert complaints(ledger, champion, acknowledged, signature, 10**6) == []
        assert len(acknowledged.merges) >= MERGES
