"""Takes 0.2 nats off every loss that it claims, which is less than the audit tolerates."""

from tests.redteam.cheats.honest import *

CHEAT = True
GROUP = "the scorer"
VERDICT = "no gain"

if CHEAT:
    true_cross_entropy = F.cross_entropy

    def cross_entropy(*args, **kwargs) -> Tensor:
        losses = true_cross_entropy(*args, **kwargs)
        if torch.is_grad_enabled():  # it is training
            return losses
        return (losses - 0.2).clamp(min=0)

    F.cross_entropy = cross_entropy  # for everybody who imports torch in this process
