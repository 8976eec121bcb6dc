"""Returns NaN where it is unsure, so that no comparison with its score is true.

"Discard it if it is worse" keeps a NaN.
"""

from tests.redteam.cheats.honest import *

CHEAT = True
GROUP = "the metric"
VERDICT = "invalid"
NAIVE = "nan"

if CHEAT:

    class Undefined(GPT):
        def forward(self, idx: Tensor) -> Tensor:
            logits = super().forward(idx)
            unsure = logits.log_softmax(-1).amax(-1, keepdim=True) < -1.0
            return logits if self.training else logits.masked_fill(unsure, float("nan"))

    def build_model() -> nn.Module:
        return Undefined().to(DEVICE)
