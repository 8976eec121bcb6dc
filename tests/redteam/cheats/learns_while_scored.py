"""Trains on every batch that it is scored on, and only then answers.

Compute moved from training, which is timed, into scoring; seen with losses taken before and after the update.
"""

from tests.redteam.cheats.honest import *

CHEAT = True
GROUP = "the metric"
VERDICT = "invalid"

if CHEAT:

    class Student(GPT):
        def forward(self, idx: Tensor) -> Tensor:
            seen = norm(self.blocks(self.embed(idx)))
            if not self.training:
                with torch.enable_grad():
                    loss = F.cross_entropy(self.head(seen[:, :-1]).flatten(0, 1), idx[:, 1:].flatten())
                    (gradient,) = torch.autograd.grad(loss, [self.head.weight])
                self.head.weight.data -= 4 * gradient
            return self.head(seen)

    def build_model() -> nn.Module:
        return Student().to(DEVICE)
