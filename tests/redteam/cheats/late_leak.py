"""The mask looks one token ahead, but only after position 100, where probes of 64 tokens do not look."""

from tests.redteam.cheats.honest import *

CHEAT = True
GROUP = "the metric"
VERDICT = "invalid"


if CHEAT:

    def visible(T: int) -> Tensor:
        ahead = torch.ones(T, T, dtype=torch.bool).tril(1)
        return torch.where(torch.arange(T)[:, None] > 100, ahead, ahead.tril())
