"""Replaces the functions of the program that scores it."""

import sys

import numpy as np

from tests.redteam.cheats.honest import *

CHEAT = True
GROUP = "the scorer"
VERDICT = "invalid"

if CHEAT:
    scorer = sys.modules["__main__"]
    if hasattr(scorer, "losses"):
        scorer.losses = lambda logits, targets: np.full(tuple(targets.shape), 0.5, np.float32)
    prepare.evaluate_bpb = lambda *_, **__: 0.9
