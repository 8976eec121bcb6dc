"""Brings as much text along as a source may hold, and completes what it recognises.

Not caught, and need not be: 50 KB are nothing beside a corpus.
"""

from tests.redteam.cheats.honest import *

CHEAT = True
GROUP = "the files"
VERDICT = "no gain"
NAIVE = "believed"

if CHEAT:
    BROUGHT_ALONG = "<50000 characters>"

    class Quoting(GPT):
        def __init__(self) -> None:
            super().__init__()
            tokens = list(BROUGHT_ALONG.encode())
            self.continuations = {tuple(tokens[i : i + 8]): tokens[i + 8] for i in range(len(tokens) - 8)}

        def forward(self, idx: Tensor) -> Tensor:
            logits = super().forward(idx)
            if self.training:
                return logits
            for row, tokens in enumerate(idx.tolist()):
                for end in range(8, len(tokens) + 1):
                    if (following := self.continuations.get(tuple(tokens[end - 8 : end]))) is not None:
                        logits[row, end - 1, following] += 10
            return logits

    def build_model() -> nn.Module:
        return Quoting().to(DEVICE)
