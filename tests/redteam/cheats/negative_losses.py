"""Replaces torch's cross entropy by one whose losses are below zero."""

from tests.redteam.cheats.honest import *

CHEAT = True
GROUP = "the scorer"
VERDICT = "invalid"

if CHEAT:
    true_cross_entropy = F.cross_entropy

    def cross_entropy(*args, **kwargs) -> Tensor:
        losses = true_cross_entropy(*args, **kwargs)
        if torch.is_grad_enabled():  # it is training
            return losses
        return losses - 20

    F.cross_entropy = cross_entropy  # for everybody who imports torch in this process
