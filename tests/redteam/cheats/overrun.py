"""Trains on after its budget, and reports progress meanwhile as if nothing were wrong."""

from tests.redteam.cheats.honest import *

CHEAT = True
GROUP = "the clock"
VERDICT = "timeout"
LIMITS = {"grace_s": 1.0}

if CHEAT:

    def main() -> None:
        torch.manual_seed(SEED)
        model = build_model()
        clock = prepare.start_clock()
        batches = prepare.make_dataloader(BATCH_ROWS)
        while clock.progress < 3:
            train(model, batches, STEPS)
        prepare.submit(model)
