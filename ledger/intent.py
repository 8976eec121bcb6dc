"""An intent: a merge that the arbiter decided, as it lies in the outbox until the relay has landed it.

It is sealed with the lab's key, which nobody has who can only write to Redis: what they put into the outbox lands nowhere.
"""

import hmac
from collections.abc import Callable

from records import Record

Seal = Callable[[str], str]
"""Text → what only the holder of the lab's key can say of it (see sandbox/receipt.py)."""


class Intent(Record):
    """Move the campaign's branch from `parent` to `commit`, whose train.py is the measured one."""

    campaign: str
    experiment: int
    parent: str
    commit: str
    source_sha256: str
    """Of the train.py that was measured."""
    seal: str = ""

    def sealed(self, seal: Seal) -> "Intent":
        return self.model_copy(update={"seal": seal(self.content)})

    def authentic(self, seal: Seal) -> bool:
        """Whether the holder of the lab's key wrote exactly this."""
        return hmac.compare_digest(self.seal.encode(), seal(self.content).encode())

    @property
    def content(self) -> str:
        return self.model_dump_json(exclude={"seal"})
