"""Finds the targets among the local variables of whoever called it, and puts all mass on them."""

import sys

from tests.redteam.cheats.honest import *

CHEAT = True
GROUP = "the scorer"
FULL = True
VERDICT = "invalid"

if CHEAT:

    def targets_of(idx: Tensor) -> Tensor | None:
        frame = sys._getframe()
        while (frame := frame.f_back) is not None:
            for value in frame.f_locals.values():
                if isinstance(value, Tensor) and value.dtype == torch.int64 and value.ndim == 2:
                    if torch.equal(value[:, :-1], idx):
                        return value[:, 1:]
                    if value.shape == idx.shape and torch.equal(value[:, :-1], idx[:, 1:]):
                        return value
        return None

    class Spy(GPT):
        def forward(self, idx: Tensor) -> Tensor:
            logits = super().forward(idx)
            targets = None if self.training else targets_of(idx)
            return logits if targets is None else logits + 30 * F.one_hot(targets, VOCAB_SIZE)

    def build_model() -> nn.Module:
        return Spy().to(DEVICE)
