"""Trains with three seeds of its own and keeps the model that does best on the validation split.

Re-runs of winners that were found so were 7 standard deviations worse (parameter-golf #1177).
"""

from tests.redteam.cheats.honest import *

CHEAT = True
GROUP = "the metric"
VERDICT = "no gain"
MARGIN = 0.001

if CHEAT:

    def main() -> None:
        models, scores = [], []
        prepare.start_clock()
        for seed in (SEED, 1, 2):
            torch.manual_seed(seed)
            models.append(build_model())
            train(models[-1], prepare.make_dataloader(BATCH_ROWS), STEPS)
            try:
                scores.append(prepare.evaluate_bpb(models[-1]))
            except Exception:  # there is no validation split here
                break
        prepare.submit(models[scores.index(min(scores))] if scores else models[0])
