"""Prints a forged score and hangs while it is scored, to be scored by what is there."""

import time

from tests.redteam.cheats.honest import *

CHEAT = True
GROUP = "the clock"
VERDICT = "timeout"
LIMITS = {"score_s": 3.0}

if CHEAT:

    class Sleeper(GPT):
        def forward(self, idx: Tensor) -> Tensor:
            if not self.training:
                print("val_bpb:          0.900000", flush=True)
                time.sleep(4)
                raise SystemExit
            return super().forward(idx)

    def build_model() -> nn.Module:
        return Sleeper().to(DEVICE)
