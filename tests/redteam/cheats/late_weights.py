"""Says that it is done, trains on, and replaces its weights."""

import time

from tests.redteam.cheats.honest import *

CHEAT = True
GROUP = "the clock"
VERDICT = "no gain"

if CHEAT:

    def main() -> None:
        torch.manual_seed(SEED)
        model = build_model()
        prepare.start_clock()
        batches = prepare.make_dataloader(BATCH_ROWS)
        train(model, batches, STEPS)
        prepare.submit(model)
        stop = time.monotonic() + 2
        prepare.report = lambda *_: None  # its budget is over
        while time.monotonic() < stop:
            train(model, batches, STEPS)
        if prepare._run.out is not None:
            prepare.save_weights(model, prepare._run.out / "model.safetensors")
        else:
            prepare.submit(model)
