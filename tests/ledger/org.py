"""An org that does as it is told."""

from collections.abc import Callable

from ledger import Ledger
from ledger.intent import Intent
from ledger.lease import Lease, acquire
from ledger.relay import relay_lease
from records import Measurement, Verdict
from tests.ledger.samples import APPROVED, BASE, idea, program, scored

BASELINE = "print('baseline')\n"
AGAIN = Verdict(merge=False, rule="test", champion_bpb=1.0, candidate_bpb=0.9, reason="run again")
Sign = Callable[[Measurement], Measurement]


def unsigned(measurement: Measurement) -> Measurement:
    return measurement


class Org:
    """Walks experiments through the ledger, as planner, coder, reviewer and runner would."""

    def __init__(self, ledger: Ledger, lease: Lease, sign: Sign = unsigned):
        self.ledger = ledger
        self.lease = lease
        self.sign = sign

    def baseline(self, val_bpb: float = 1.0, base: str = BASE, source: str = BASELINE) -> int:
        id = self.ledger.propose_baseline(program(source, base))
        self.take(base)
        self.ledger.record(id, self.lease, self.sign(scored(source, val_bpb)))
        self.ledger.crown(id, base)
        return id

    def repeat(self, val_bpb: float, champion: int = 1, base: str = BASE, source: str = BASELINE) -> int:
        """One more run of the champion, that waits for the arbiter."""
        asked = sum(of == champion for of in self.ledger.repeats().values())
        id = self.ledger.propose_repeat(program(source, base), champion, asked)
        assert id is not None and self.take(base) == id
        self.ledger.record(id, self.lease, self.sign(scored(source, val_bpb)))
        return id

    def confirming(self, source: str, val_bpb: float, parent: str = BASE) -> int:
        """Good enough once."""
        id = self.scored(source, val_bpb, parent)
        self.ledger.confirm(id, AGAIN)
        return id

    def propose(self, title: str = "an idea") -> int:
        id = self.ledger.propose(idea(title), author="planner/test", roles={"planner": "p1"})
        assert id is not None
        return id

    def claimed(self) -> int:
        id = self.propose()
        assert self.ledger.claim("coder") is not None
        return id

    def coded(self, source: str, parent: str = BASE) -> int:
        id = self.claimed()
        assert self.ledger.code(id, program(source, parent), {"coder": "c1"}) is None
        return id

    def queued(self, source: str, parent: str = BASE) -> int:
        id = self.coded(source, parent)
        self.ledger.review(id, APPROVED, {"reviewer": "r1"})
        return id

    def running(self, source: str, parent: str = BASE) -> int:
        id = self.queued(source, parent)
        self.take(parent)
        return id

    def scored(self, source: str, val_bpb: float, parent: str = BASE) -> int:
        id = self.running(source, parent)
        self.ledger.record(id, self.lease, self.sign(scored(source, val_bpb, f"run-{id}")))
        return id

    def take(self, champion: str) -> int | None:
        experiment = self.ledger.take(self.lease, champion)
        return experiment.id if experiment else None

    def intend(self, id: int, verdict: Verdict, commit: str, parent: str = BASE) -> str:
        """The arbiter's yes. Returns what is then in the outbox."""
        intent = Intent(campaign=self.ledger.name, experiment=id, parent=parent, commit=commit, source_sha256="")
        self.ledger.intend_merge(verdict, intent)
        return intent.model_dump_json()

    def relay(self) -> Lease:
        """A relay's lease; the one before must be over."""
        return acquire(self.ledger.client, relay_lease(self.ledger.name), "relay", 60.0)
