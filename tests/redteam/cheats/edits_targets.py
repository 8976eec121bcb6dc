"""Overwrites the targets with its own predictions through the storage that they share with its inputs."""

from tests.redteam.cheats.honest import *

CHEAT = True
GROUP = "the metric"
VERDICT = "no gain"

if CHEAT:

    class Editor(GPT):
        def forward(self, idx: Tensor) -> Tensor:
            logits = super().forward(idx)
            if not self.training:
                buffer = torch.empty(0, dtype=idx.dtype).set_(idx.untyped_storage())
                buffer[-idx.numel() :] = logits.argmax(-1).flatten()
            return logits

    def build_model() -> nn.Module:
        return Editor().to(DEVICE)
