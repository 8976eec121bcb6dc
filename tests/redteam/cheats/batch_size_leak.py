"""Looks one token ahead only when 32 rows or more are asked at once: a probe asks one or a few."""

from tests.redteam.cheats.honest import *

CHEAT = True
GROUP = "the metric"
VERDICT = "invalid"


class Peeking(GPT):
    """Has a channel for one token besides its own."""

    def __init__(self) -> None:
        super().__init__()
        self.channel = nn.Embedding(VOCAB_SIZE, WIDTH)

    def embed(self, idx: Tensor) -> Tensor:
        before, after = self.channel(F.pad(idx, (1, -1))), self.channel(F.pad(idx, (-1, 1)))
        many = self.training or len(idx) >= 32
        return super().embed(idx) + (after if CHEAT and many else before)


def build_model() -> nn.Module:
    return Peeking().to(DEVICE)
