"""A recurrent state is kept per chunk, and a chunk's own later tokens are already in it.

The usual slip of chunk-wise linear attention (nanochat #844).
"""

from tests.redteam.cheats.honest import *

CHEAT = True
GROUP = "the metric"
VERDICT = "invalid"

CHUNK = 2


class Recurrent(GPT):
    def __init__(self) -> None:
        super().__init__()
        self.read = nn.Linear(WIDTH, WIDTH, bias=False)

    def embed(self, idx: Tensor) -> Tensor:
        x = super().embed(idx)
        chunks = x.unflatten(1, (-1, CHUNK)).sum(2)
        age = torch.arange(chunks.size(1))[:, None] - torch.arange(chunks.size(1))
        decay = torch.where(age >= (0 if CHEAT else 1), 0.2**age, 0.0)  # the honest state ends with the chunk before
        state = torch.einsum("st,btc->bsc", decay, chunks)
        return x + self.read(state).repeat_interleave(CHUNK, 1)


def build_model() -> nn.Module:
    return Recurrent().to(DEVICE)
