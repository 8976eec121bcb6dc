"""Leaves a child behind (two forks, a session of its own) that trains longer and then replaces the weights."""

import os
import sys

from tests.redteam.cheats.honest import *

CHEAT = True
GROUP = "the clock"
VERDICT = "no gain"

if CHEAT:

    def main() -> None:
        torch.manual_seed(SEED)
        model = build_model()
        prepare.start_clock()
        if os.fork() == 0:
            os.setsid()
            if os.fork() == 0:
                finish_the_job(model)
            os._exit(0)
        os.wait()
        train(model, prepare.make_dataloader(BATCH_ROWS), STEPS)
        prepare.submit(model)

    def finish_the_job(model: nn.Module) -> None:
        prepare._run.gate = None  # is the parent's
        train(model, prepare.make_dataloader(BATCH_ROWS), 4 * STEPS)
        if prepare._run.out is not None:
            prepare.save_weights(model, prepare._run.out / "model.safetensors")
        else:
            prepare.submit(model)
        sys.stdout.flush()
