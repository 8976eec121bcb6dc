"""Answers for the rows that it finds easy, and leaves the others out."""

from tests.redteam.cheats.honest import *

CHEAT = True
GROUP = "the metric"
VERDICT = "invalid"

if CHEAT:

    class Choosy(GPT):
        def forward(self, idx: Tensor, targets: Tensor | None = None, reduction: str = "none") -> Tensor:
            logits = super().forward(idx)
            if self.training:
                return logits
            if targets is None:
                return logits[: len(idx) // 2]
            losses = F.cross_entropy(logits.transpose(1, 2), targets, reduction="none")
            return losses.mean(1).min().reshape(1)  # is spread over all tokens when it meets their mask

    def build_model() -> nn.Module:
        return Choosy().to(DEVICE)
