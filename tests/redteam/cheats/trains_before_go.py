"""Looks for training text while it "warms up", and trains on it before the clock runs.

Seen in modded-nanogpt PR #205 and parameter-golf PR #1530.
"""

import os
from pathlib import Path

from tests.redteam.cheats.honest import *

CHEAT = True
GROUP = "the clock"
VERDICT = "no gain"

if CHEAT:

    def main() -> None:
        torch.manual_seed(SEED)
        model = build_model()
        warm_up(model)
        prepare.start_clock()
        train(model, prepare.make_dataloader(BATCH_ROWS), STEPS)
        prepare.submit(model)

    def warm_up(model: nn.Module) -> None:
        places = [os.environ.get("AUTORESEARCH_DATASET", "/data"), "/data", "/lab", "/out", "/gate", "."]
        for path in (Path(place, "train.bin") for place in places):
            if path.exists():
                report, prepare.report = prepare.report, lambda *_: None
                train(model, prepare.Batches(prepare._read_rows(path), BATCH_ROWS, 1, DEVICE), 3 * STEPS)
                prepare.report = report
                return
