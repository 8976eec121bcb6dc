"""results.tsv, in the five columns of the original's log."""

import os
from collections.abc import Sequence
from pathlib import Path

from records import Experiment, State

HEADER = "commit\tval_bpb\tmemory_gb\tstatus\tdescription"
STATUS = {
    State.MERGED: "keep",
    State.DISCARDED: "discard",
    State.STALE: "discard",
    State.CRASHED: "crash",
    State.INVALID: "crash",
}


def results_tsv(experiments: Sequence[Experiment]) -> str:
    """A line for each experiment that ended after a run, in the order given.

    `commit` is the merge, or the start of the source's hash for what never landed; `memory_gb` is in GiB, as the
    original prints it; both figures of a crash are 0.
    """
    ended = [e for e in experiments if e.state in STATUS and e.measurements]
    return "\n".join([HEADER, *(line(e) for e in ended)]) + "\n"


def line(experiment: Experiment) -> str:
    status = STATUS[experiment.state]
    score = experiment.score if status != "crash" else None
    source = experiment.candidate.source_sha256 if experiment.candidate else ""
    return "\t".join(
        [
            (experiment.commit or source)[:7],
            f"{score.val_bpb if score and score.val_bpb is not None else 0.0:.6f}",
            f"{(score.peak_memory_mb or 0.0) / 1024 if score else 0.0:.1f}",
            status,
            " ".join(experiment.hypothesis.title.split()),
        ]
    )


def write_results(path: Path, experiments: Sequence[Experiment]) -> None:
    """Write the file in one step: a reader sees the old one or the new one."""
    part = path.with_name(f".{path.name}.part")
    with part.open("w", encoding="utf-8") as file:
        file.write(results_tsv(experiments))
        file.flush()
        os.fsync(file.fileno())
    part.replace(path)
