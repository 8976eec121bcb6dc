"""forward() takes the targets and returns a tenth of its loss.

The original's evaluate_bpb calls model(x, y, reduction="none") and believes it.
"""

from tests.redteam.cheats.honest import *

CHEAT = True
GROUP = "the metric"
VERDICT = "no gain"

if CHEAT:

    class Obliging(GPT):
        def forward(self, idx: Tensor, targets: Tensor | None = None, reduction: str = "none") -> Tensor:
            logits = super().forward(idx)
            if targets is None:
                return logits
            return 0.1 * F.cross_entropy(logits.flatten(0, 1), targets.flatten(), reduction=reduction)

    def build_model() -> nn.Module:
        return Obliging().to(DEVICE)
