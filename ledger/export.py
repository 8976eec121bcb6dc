"""The ledger as a file: the original's five columns, whole experiments as JSON lines, or a flat table in Parquet."""

import io
import os
from collections.abc import Callable, Sequence
from enum import StrEnum
from pathlib import Path

import pyarrow as arrow
from pyarrow import parquet

from records import BadInput, Claim, Experiment, State

HEADER = "\t".join(Claim.model_fields)
"""The original's five columns."""
STATUS = {
    State.MERGED: "keep",
    State.WITHIN_NOISE: "discard",
    State.DISCARDED: "discard",
    State.STALE: "discard",
    State.CRASHED: "crash",
    State.INVALID: "crash",
}


def results_tsv(experiments: Sequence[Experiment]) -> str:
    """A line for each experiment that ended after a run, and for each that was imported, in the order given.

    `commit` is the merge, or the start of the source's hash for what never landed; `memory_gb` is in GiB, as the
    original prints it; both figures of a crash are 0.
    """
    ended = [e for e in experiments if e.claim is not None or (e.state in STATUS and e.measurements)]
    return "\n".join([HEADER, *(line(e) for e in ended)]) + "\n"


def line(experiment: Experiment) -> str:
    if (claim := experiment.claim) is not None:
        figures = (f"{figure:f}" for figure in (claim.val_bpb, claim.memory_gb))
        return "\t".join([claim.commit, *figures, claim.status, claim.description])
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


def json_lines(experiments: Sequence[Experiment]) -> str:
    """A line for each experiment, with everything that the ledger has of it."""
    return "".join(f"{experiment.model_dump_json()}\n" for experiment in experiments)


COLUMNS = arrow.schema(
    [
        ("id", arrow.int64()),
        *((name, arrow.string()) for name in ("campaign", "lane", "state", "title", "category", "author", "parent")),
        *((name, arrow.string()) for name in ("commit", "source_sha256", "rule", "why", "created_at", "updated_at")),
        *((name, arrow.int64()) for name in ("attempts", "num_steps", "num_tokens", "seed")),
        *((name, arrow.float64()) for name in ("expected_delta_bpb", "probability", "val_bpb", "std_error_bpb")),
        *((name, arrow.float64()) for name in ("champion_bpb", "train_seconds", "peak_memory_mb")),
        ("json", arrow.string()),
    ]
)
"""Of the Parquet file; `json` is the line of `json_lines`."""


def flatten(experiment: Experiment) -> dict[str, object]:
    """One row of the Parquet file. Of several measurements it has the newest with a number."""
    parts = (experiment, experiment.hypothesis, experiment.candidate, experiment.verdict, experiment.score)
    found = {name: getattr(part, name) for part in parts for name in COLUMNS.names if hasattr(part, name)}
    return found | {"json": experiment.model_dump_json()}


def parquet_table(experiments: Sequence[Experiment]) -> bytes:
    file = io.BytesIO()
    parquet.write_table(arrow.Table.from_pylist([flatten(e) for e in experiments], schema=COLUMNS), file)
    return file.getvalue()


class Format(StrEnum):
    TSV = "tsv"
    JSONL = "jsonl"
    PARQUET = "parquet"


FORMATS: dict[str, Callable[[Sequence[Experiment]], str | bytes]] = {
    Format.TSV: results_tsv,
    Format.JSONL: json_lines,
    Format.PARQUET: parquet_table,
}


def write_experiments(path: Path, experiments: Sequence[Experiment], format: Format | None = None) -> None:
    """Write the file in one step: a reader sees the old one or the new one.

    Args:
        path: the file.
        experiments: its rows, in this order.
        format: by default what the ending says.

    Raises:
        BadInput: the ending says no format.
    """
    name = format or path.suffix.removeprefix(".")
    if name not in FORMATS:
        endings = ", ".join(f".{known}" for known in FORMATS)
        raise BadInput(f"{path}: the ending says in which format ({endings}), or else --format does")
    content = FORMATS[name](experiments)
    write_whole(path, content.encode() if isinstance(content, str) else content)


def write_whole(path: Path, content: bytes) -> None:
    """A file that is there completely, and on disk, or as it was before."""
    part = path.with_name(f".{path.name}.part")
    with part.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    part.replace(path)
