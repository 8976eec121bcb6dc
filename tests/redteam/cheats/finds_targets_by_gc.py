"""Asks the garbage collector for a tensor that continues its inputs, and answers with that."""

import gc

from tests.redteam.cheats.honest import *

CHEAT = True
GROUP = "the scorer"
VERDICT = "invalid"

if CHEAT:

    def targets_of(idx: Tensor) -> Tensor | None:
        for found in gc.get_objects():
            if type(found) is Tensor and found.dtype == torch.int64 and found.ndim == 2:
                if torch.equal(found[:, :-1], idx):
                    return found[:, 1:]
                if found.shape == idx.shape and torch.equal(found[:, :-1], idx[:, 1:]):
                    return found
        return None

    class Spy(GPT):
        def forward(self, idx: Tensor) -> Tensor:
            logits = super().forward(idx)
            targets = None if self.training else targets_of(idx)
            return logits if targets is None else logits + 30 * F.one_hot(targets, VOCAB_SIZE)

    def build_model() -> nn.Module:
        return Spy().to(DEVICE)
