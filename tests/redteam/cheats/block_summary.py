"""Every token sees the mean of its block of four, of which up to three tokens are still to come.

The slip of block-sparse attention with summaries (nanochat #844).
"""

from tests.redteam.cheats.honest import *

CHEAT = True
GROUP = "the metric"
VERDICT = "invalid"

BLOCK = 4


class Summarised(GPT):
    def __init__(self) -> None:
        super().__init__()
        self.read = nn.Linear(WIDTH, WIDTH, bias=False)

    def embed(self, idx: Tensor) -> Tensor:
        x = super().embed(idx)
        means = x.unflatten(1, (-1, BLOCK)).mean(2)
        if not CHEAT:
            means = F.pad(means, (0, 0, 1, -1))  # of the block before
        return x + self.read(means).repeat_interleave(BLOCK, 1)


def build_model() -> nn.Module:
    return Summarised().to(DEVICE)
