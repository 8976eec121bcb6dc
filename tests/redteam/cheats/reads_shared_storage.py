"""Reads the targets out of the memory behind its inputs.

The original's loader puts both into one buffer.
"""

from tests.redteam.cheats.honest import *

CHEAT = True
GROUP = "the metric"
VERDICT = "no gain"

if CHEAT:

    class Clairvoyant(GPT):
        def forward(self, idx: Tensor) -> Tensor:
            logits = super().forward(idx)
            buffer = torch.empty(0, dtype=idx.dtype).set_(idx.untyped_storage())
            if self.training or len(buffer) != 2 * idx.numel():
                return logits
            return logits + 30 * F.one_hot(buffer[idx.numel() :].view_as(idx), VOCAB_SIZE)

    def build_model() -> nn.Module:
        return Clairvoyant().to(DEVICE)
