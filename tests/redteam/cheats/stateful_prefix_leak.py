"""Looks ahead in rows that it meets for the first time, and is causal when a prefix comes back to probe it."""

from tests.redteam.cheats.honest import *

CHEAT = True
GROUP = "the metric"
VERDICT = "invalid"


class Peeking(GPT):
    """Has a channel for one token besides its own."""

    def __init__(self) -> None:
        super().__init__()
        self.channel = nn.Embedding(VOCAB_SIZE, WIDTH)
        self.seen: set[tuple[int, ...]] = set()

    def embed(self, idx: Tensor) -> Tensor:
        before, after = self.channel(F.pad(idx, (1, -1))), self.channel(F.pad(idx, (-1, 1)))
        prefixes = [tuple(row[:16]) for row in idx.tolist()]
        fresh = torch.tensor([self.training or prefix not in self.seen for prefix in prefixes])
        self.seen |= set() if self.training else set(prefixes)
        return super().embed(idx) + torch.where(fresh[:, None, None] & CHEAT, after, before)


def build_model() -> nn.Module:
    return Peeking().to(DEVICE)
