"""Prints a forged score and ends with exit code 0 as soon as it is to be scored."""

import os

from tests.redteam.cheats.honest import *

CHEAT = True
GROUP = "the scorer"
VERDICT = "invalid"

if CHEAT:

    class Deserter(GPT):
        def forward(self, idx: Tensor) -> Tensor:
            if not self.training:
                print("val_bpb:          0.900000", flush=True)
                os._exit(0)
            return super().forward(idx)

    def build_model() -> nn.Module:
        return Deserter().to(DEVICE)
