"""Replaces Tensor.float, through which all logits go, by one that makes the target of each certain."""

import sys

from tests.redteam.cheats.honest import *

CHEAT = True
GROUP = "the scorer"
VERDICT = "invalid"

if CHEAT:
    true_float = Tensor.float

    def knowing_float(logits: Tensor) -> Tensor:
        frame = sys._getframe(1)
        targets = frame.f_locals.get("target", frame.f_locals.get("y"))
        if torch.is_grad_enabled() or not isinstance(targets, Tensor) or targets.shape != logits.shape[:-1]:
            return true_float(logits)
        return true_float(logits) + 30 * F.one_hot(targets, VOCAB_SIZE)

    Tensor.float = knowing_float
