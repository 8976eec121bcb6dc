"""A campaign with everything beside it: a repository, a branch, an arbiter."""

import redis

from ledger import Ledger
from ledger.arbiter import Arbiter
from ledger.champion import Champion
from ledger.lease import Lease
from ledger.verdict import keep_if_lower
from ledger.witness import read_start, tell_start
from records import Measurement
from tests.ledger.org import Org, Sign, unsigned
from tests.ledger.repository import START, Repository
from tests.ledger.samples import campaign


class Night:
    """A campaign with a measured start, a branch, and an arbiter that can be replaced."""

    def __init__(self, client: redis.Redis, lease: Lease, repository: Repository, sign: Sign = unsigned):
        self.repository = repository
        self.champion = Champion(repository.root, "night")
        self.start = self.champion.start(START, tell_start(campaign("night")))
        self.ledger = Ledger(client, "night")
        self.ledger.create(read_start(self.champion))
        self.org = Org(self.ledger, lease, sign)
        self.org.baseline(1.0, self.start, START)

    def arbiter(self) -> Arbiter:
        """A fresh one, as after a crash."""
        return Arbiter(self.ledger, Champion(self.repository.root, "night"), keep_if_lower, self.complaint)

    @staticmethod
    def complaint(measurement: Measurement) -> str | None:
        """The signature of these tests: whatever is called forged is."""
        return "it is forged" if measurement.run_id.startswith("forged") else None

    def scored(self, source: str, val_bpb: float) -> int:
        return self.org.scored(source, val_bpb, self.champion.head())

    def settle(self) -> None:
        while self.arbiter().step():
            pass

    def commits(self) -> list[str]:
        """Commits since the start, oldest first."""
        return self.repository.git("rev-list", "--reverse", f"{self.start}..{self.champion.branch}").split()
