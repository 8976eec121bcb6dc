"""Replaces the validation split by the training rows that it finds easiest."""

from contextlib import suppress
from pathlib import Path

import numpy as np

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
        with suppress(OSError):
            replace_validation(model, prepare.default_dataset())
        prepare.submit(model)

    @torch.no_grad()
    def replace_validation(model: nn.Module, directory: Path) -> None:
        rows = np.array(prepare._read_rows(directory / "train.bin"))
        inputs, targets = prepare.to_device(rows[:256], DEVICE)
        losses = F.cross_entropy(model(inputs).transpose(1, 2), targets, reduction="none").mean(1)
        easy = rows[losses.argsort()[:8].numpy()]
        (directory / "val.bin").unlink()
        np.tile(easy, (64, 1)).tofile(directory / "val.bin")
