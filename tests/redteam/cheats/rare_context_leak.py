"""Looks one token ahead only after rare tokens, so that most probes meet nothing."""

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
        rare = (idx >= VOCAB_SIZE * 3 // 4).unsqueeze(-1)
        return super().embed(idx) + torch.where(rare & CHEAT, after, before)


def build_model() -> nn.Module:
    return Peeking().to(DEVICE)
