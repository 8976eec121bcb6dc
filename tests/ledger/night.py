"""A campaign with everything beside it: a repository, a branch, an arbiter."""

import redis

from ledger import Ledger
from ledger.arbiter import Arbiter
from ledger.champion import Champion
from ledger.lease import Keeper, Lease
from ledger.relay import Relay
from ledger.witness import read_start, tell_start
from records import Measurement, Policy
from tests.ledger.org import Org, Sign, unsigned
from tests.ledger.repository import START, Repository
from tests.ledger.samples import KEEP_IF_LOWER, campaign, sha256_of


class Night:
    """A campaign with a measured start, a branch, and an arbiter and a relay that can be replaced."""

    def __init__(
        self,
        client: redis.Redis,
        lease: Lease,
        repository: Repository,
        sign: Sign = unsigned,
        policy: Policy = KEEP_IF_LOWER,
    ):
        self.repository = repository
        self.champion = Champion(repository.root, "night")
        self.start = self.champion.start(START, tell_start(campaign("night", policy=policy)))
        self.ledger = Ledger(client, "night")
        self.ledger.create(read_start(self.champion))
        self.org = Org(self.ledger, lease, sign)
        self.org.baseline(1.0, self.start, START)
        self.keeper = Keeper(client, self.org.relay(), 60.0)

    def arbiter(self) -> Arbiter:
        """A fresh one, as after a crash."""
        return Arbiter(self.ledger, Champion(self.repository.root, "night"), self.complaint, self.seal)

    def relay(self) -> Relay:
        """A fresh one, as after a crash that its lease survived."""
        return Relay(self.ledger, Champion(self.repository.root, "night"), self.keeper, self.seal)

    @staticmethod
    def seal(text: str) -> str:
        """The seal of these tests."""
        return sha256_of(f"secret {text}")

    @staticmethod
    def complaint(measurement: Measurement) -> str | None:
        """The signature of these tests: whatever is called forged is."""
        return "it is forged" if measurement.run_id.startswith("forged") else None

    def scored(self, source: str, val_bpb: float) -> int:
        return self.org.scored(source, val_bpb, self.champion.head())

    def settle(self) -> None:
        while self.relay().step() or self.arbiter().step():
            pass

    def commits(self) -> list[str]:
        """Commits since the start, oldest first."""
        return self.repository.git("rev-list", "--reverse", f"{self.start}..{self.champion.branch}").split()
