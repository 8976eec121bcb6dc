"""Looks for the validation split and trains on it.

Seen in parameter-golf PR #44 and #677.
"""

import os
from pathlib import Path

from tests.redteam.cheats.honest import *

CHEAT = True
GROUP = "the files"
VERDICT = "no gain"

if CHEAT:

    def main() -> None:
        torch.manual_seed(SEED)
        model = build_model()
        prepare.start_clock()
        train(model, prepare.make_dataloader(BATCH_ROWS), STEPS)
        places = [os.environ.get("AUTORESEARCH_DATASET", "/data"), "/data", "/lab", "/out", "/weights", "/tmp", "."]
        for path in (Path(place, "val.bin") for place in places):
            if path.exists():
                train(model, prepare.Batches(prepare._read_rows(path), BATCH_ROWS, 1, DEVICE), 3 * STEPS)
                break
        prepare.submit(model)
