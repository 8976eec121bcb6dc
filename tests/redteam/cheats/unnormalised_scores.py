"""Its "probabilities" sum to four: each token's loss is two bits less than it should be.

Seen in parameter-golf #886 and #1147, where caches were mixed in without dividing by the sum.
"""

from tests.redteam.cheats.honest import *

CHEAT = True
GROUP = "the metric"
VERDICT = "no gain"

if CHEAT:

    class Generous(GPT):
        def forward(self, idx: Tensor, targets: Tensor | None = None, reduction: str = "none") -> Tensor:
            scores = 4 * super().forward(idx).softmax(-1)
            if targets is None:
                return scores.log()
            return -scores.gather(-1, targets.unsqueeze(-1)).log()

    def build_model() -> nn.Module:
        return Generous().to(DEVICE)
