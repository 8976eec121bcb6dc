"""Claims a loss of one nat wherever its own is among the highest tenth."""

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
        return torch.where(losses > losses.quantile(0.9), 1.0, losses) if losses.ndim else losses

    F.cross_entropy = cross_entropy  # for everybody who imports torch in this process
