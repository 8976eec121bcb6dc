"""Which runs an early stop would end, by curves of real runs; and how often noise alone would.

    python benchmarks/early_stop.py

loss_curves.jsonl: what train.py reported in 20 runs of 40 s on one H100 each (depth 6, 65,536 tokens a step, 4,096 word pieces of Python
sources; 2026-11-26). Four differ in their seed alone; each other one has a constant changed.
"""

import json
import random
from collections.abc import Sequence
from itertools import combinations
from pathlib import Path
from statistics import fmean
from typing import NamedTuple

from orgs.hopeless import PATIENCE, Band, Curve, hopeless, interpolated, losses_at
from records import Hashes, Measurement, Progress
from sandbox.measure import thinned

CURVES = Path(__file__).with_name("loss_curves.jsonl")
BUDGET_S = 40.0
AFTER = 0.3
MARGINS = (1.0, 2.0, 3.0, 4.0, 6.0, 8.0, 12.0)
NULL_RUNS = 300


class Run(NamedTuple):
    name: str
    reports: list[Progress]

    @property
    def final(self) -> float:
        """Mean loss of the last twentieth of the budget, in nats."""
        return fmean(report.nats for report in self.reports if report.elapsed_s > 0.95 * BUDGET_S)


def main() -> None:
    runs = [read_run(line) for line in CURVES.read_text().splitlines()]
    seeds, changed = [run for run in runs if "SEED" in run.name], [run for run in runs if "SEED" not in run.name]
    good = fmean(run.final for run in seeds)
    print(
        "largest lead over the highest of any two of the start's runs, held for three reports, from some share of the budget on (nats)"
    )
    for run in sorted(changed, key=lambda run: run.final):
        leads = "  ".join(f"{after}: {lead(run, seeds, after):+.3f}" for after in (0.1, 0.2, 0.3))
        print(f"{run.name:28} ends {run.final - good:+.3f}   {leads}")
    print()
    print(
        "margin: runs that are stopped, at the earliest by any two of the start's runs (their final loss above the start's)"
    )
    for margin in MARGINS:
        stops = [(run, at) for run in changed if (at := earliest_stop(run, seeds, margin)) is not None]
        told = "; ".join(f"{run.name} after {at:.1f} s ({run.final - good:+.3f})" for run, at in stops)
        saved = sum(BUDGET_S - at for _, at in stops) / (BUDGET_S * len(changed))
        print(f"{margin:4g}: {told or 'none'}; {100 * saved:.1f} % of the time saved")
    print(f"\nspread of the four: {spread_of(seeds):.4f} nats")
    print(
        "noise alone, a nat of it so that LEAST_NATS has no say: runs of the champion's own source that are stopped by two others"
    )
    curve = smooth(seeds)
    for margin in MARGINS:
        print(f"{margin:4g}: {false_stops(curve, 1.0, margin)} of {NULL_RUNS}")


def read_run(line: str) -> Run:
    row = json.loads(line)
    name = ", ".join(f"{constant} = {value}" for constant, value in row["changes"].items())
    return Run(
        name, [Progress(step=i, tokens=0, loss=loss, elapsed_s=at) for i, (at, loss) in enumerate(row["reports"])]
    )


def receipt(reports: Sequence[Progress]) -> Measurement:
    nothing = Hashes(source="", prepare="", image="", dataset="", tokenizer="", scorer="")
    return Measurement(run_id="", status="ok", budget_s=BUDGET_S, seed=0, engine="", device="", hashes=nothing, started_at="", curve=thinned(reports))  # fmt: skip


def stopped_at(run: Sequence[Progress], band: Band | None, margin: float) -> float | None:
    """When the run would have been ended, in seconds."""
    for end in range(1, len(run) + 1):
        if hopeless(band, run[:end], budget_s=BUDGET_S, after=AFTER, margin=margin) is not None:
            return run[end - 1].elapsed_s
    return None


def earliest_stop(run: Run, seeds: Sequence[Run], margin: float) -> float | None:
    found = []
    for pair in combinations(seeds, 2):
        champion = [receipt(one.reports) for one in pair]
        at = stopped_at(run.reports, Band.of(champion, champion, AFTER * BUDGET_S), margin)
        found += [] if at is None else [at]
    return min(found, default=None)


def lead(run: Run, seeds: Sequence[Run], after: float) -> float:
    """The largest distance above any pair of the start's runs that held for PATIENCE reports, in nats."""
    found = []
    for pair in combinations(seeds, 2):
        champion = [receipt(one.reports) for one in pair]
        band = Band.of(champion, champion, after * BUDGET_S)
        assert band is not None
        judged = [report for report in run.reports if report.elapsed_s >= after * BUDGET_S]
        above = [r.nats - top for r in judged if (top := band.highest(r.elapsed_s)) is not None]
        found += [min(above[i : i + PATIENCE]) for i in range(len(above) - PATIENCE + 1)]
    return max(found)


# ---- noise alone -----------------------------------------------------------------------------------------------------


def smooth(runs: Sequence[Run]) -> Curve:
    """Mean of the runs, in steps of a second."""
    curves = [[(r.elapsed_s, r.nats) for r in run.reports] for run in runs]
    near = [[losses_at(curves, at + i / 4) for i in range(-2, 3)] for at in range(2, int(BUDGET_S) - 1)]
    return [(float(at), fmean(loss for losses in five for loss in losses)) for at, five in enumerate(near, 2)]


def spread_of(runs: Sequence[Run]) -> float:
    measured = [receipt(run.reports) for run in runs]
    band = Band.of(measured, measured, AFTER * BUDGET_S)
    assert band is not None
    return band.spread


def false_stops(curve: Curve, spread: float, margin: float) -> int:
    """Of NULL_RUNS runs with nothing but noise of this spread, independent from report to report."""
    chance, stopped = random.Random(7), 0

    def run() -> list[Progress]:
        times = [2 + i / 4 for i in range(4 * int(BUDGET_S - 3))]
        losses = [(interpolated(curve, at) or 0.0) + chance.gauss(0, spread) for at in times]
        return [Progress(step=0, tokens=0, loss=loss, elapsed_s=at) for at, loss in zip(times, losses, strict=True)]

    for _ in range(NULL_RUNS):
        champion = [receipt(run()) for _ in range(2)]
        band = Band.of(champion, champion, AFTER * BUDGET_S)
        stopped += stopped_at(run(), band, margin) is not None
    return stopped


if __name__ == "__main__":
    main()
