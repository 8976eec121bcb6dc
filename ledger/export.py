"""The ledger as a file: the original's five columns, whole experiments as JSON lines, or a flat table in Parquet."""

import io
import os
from collections.abc import Callable, Sequence
from enum import StrEnum
from pathlib import Path

from records import BadInput, Claim, Experiment, HeadlineRun, State

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


def json_lines(records: Sequence[Experiment | HeadlineRun]) -> str:
    """A line for each, with everything that the ledger has of it."""
    return "".join(f"{record.model_dump_json()}\n" for record in records)


COLUMNS = {
    "id": "int64",
    **dict.fromkeys(("campaign", "lane", "state", "title", "category", "author", "parent"), "string"),
    **dict.fromkeys(("commit", "source_sha256", "rule", "why", "created_at", "updated_at"), "string"),
    **dict.fromkeys(("attempts", "num_steps", "num_tokens", "seed"), "int64"),
    **dict.fromkeys(("expected_delta_bpb", "probability", "val_bpb", "std_error_bpb"), "float64"),
    **dict.fromkeys(("champion_bpb", "train_seconds", "peak_memory_mb"), "float64"),
    "json": "string",
}
"""Of the Parquet file, and their types in Arrow; `json` is the line of `json_lines`."""


def flatten(experiment: Experiment) -> dict[str, object]:
    """One row of the Parquet file. Of several measurements it has the newest with a number."""
    parts = (experiment, experiment.hypothesis, experiment.candidate, experiment.verdict, experiment.score)
    found = {name: getattr(part, name) for part in parts for name in COLUMNS if hasattr(part, name)}
    return found | {"json": experiment.model_dump_json()}


def parquet_table(experiments: Sequence[Experiment]) -> bytes:
    import pyarrow as arrow  # takes a sixth of a second to import, which every command would wait for
    from pyarrow import parquet

    rows, file = [flatten(experiment) for experiment in experiments], io.BytesIO()
    parquet.write_table(arrow.Table.from_pylist(rows, schema=arrow.schema(list(COLUMNS.items()))), file)
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


def write_experiments(
    path: Path,
    experiments: Sequence[Experiment],
    format: Format | None = None,
    headline: Sequence[HeadlineRun] = (),
) -> None:
    """Write the file in one step: a reader sees the old one or the new one.

    Args:
        path: the file.
        experiments: its rows, in this order.
        format: by default what the ending says.
        headline: runs that are no experiments; JSON lines have them after all that are.

    Raises:
        BadInput: the ending says no format.
    """
    name = format or path.suffix.removeprefix(".")
    if name not in FORMATS:
        endings = ", ".join(f".{known}" for known in FORMATS)
        raise BadInput(f"{path}: the ending says in which format ({endings}), or else --format does")
    content = json_lines([*experiments, *headline]) if name == Format.JSONL else FORMATS[name](experiments)
    write_whole(path, content.encode() if isinstance(content, str) else content)


def write_whole(path: Path, content: bytes) -> None:
    """A file that is there completely, and on disk, or as it was before."""
    part = path.with_name(f".{path.name}.part")
    with part.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    part.replace(path)
