"""Reads the documents of a file, one after the other, whatever the size of the file."""

import json
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from records import BadInput

SUFFIXES = (".txt", ".md", ".rst", ".py", ".jsonl", ".parquet")
BATCH = 1024  # documents of a .parquet file that are in memory at a time


class Undecodable(Exception):
    """The file is not what its name says, or not UTF-8."""


def read_documents(path: Path, skipped: Counter[str]) -> Iterator[str]:
    """The documents of a file that have a word in them.

    Args:
        path: one of SUFFIXES; .jsonl and .parquet hold many documents, in a field or column `text`, others are one.
        skipped: `empty` counts documents without a word.

    Raises:
        Undecodable: on the way, too.
        BadInput: it cannot be read, or has no column `text`.
    """
    try:
        for text in _read(path):
            if text.strip():
                yield text
            else:
                skipped["empty"] += 1
    except (ValueError, RecursionError) as error:  # of UTF-8, JSON, Arrow: ValueErrors, but for JSON nested too deep
        raise Undecodable(str(path)) from error
    except OSError as error:
        raise BadInput(f"{path}: cannot read it: {error.strerror or error}") from error


def _read(path: Path) -> Iterator[str]:
    if path.suffix == ".parquet":
        file = open_parquet(path)
        for batch in file.iter_batches(batch_size=BATCH, columns=["text"]):
            yield from (str(text or "") for text in batch.column(0).to_pylist())
    elif path.suffix == ".jsonl":
        with path.open(encoding="utf-8", newline="\n") as lines:
            for line in lines:
                if line.strip():
                    yield _text_field(json.loads(line))
    else:
        yield path.read_bytes().decode("utf-8")


def open_parquet(path: Path) -> Any:
    """A `pyarrow.parquet.ParquetFile` with a column `text`."""
    import pyarrow.parquet as parquet

    file = parquet.ParquetFile(path)
    if "text" not in file.schema_arrow.names:
        raise BadInput(f"{path}: has no column `text`")
    return file


def _text_field(record: Any) -> str:
    if not isinstance(record, dict) or not isinstance(record.get("text"), str):
        raise ValueError("a line without a field `text`")
    text = str(record["text"])
    text.encode("utf-8")  # JSON may escape halves of characters, which no file can hold
    return text


def text_bytes(path: Path) -> int:
    """About how many bytes of text a file holds, without reading it."""
    if path.suffix != ".parquet":
        return path.stat().st_size
    try:
        metadata = open_parquet(path).metadata
    except ValueError:
        return 0
    groups = (metadata.row_group(i) for i in range(metadata.num_row_groups))
    columns = (group.column(i) for group in groups for i in range(group.num_columns))
    return sum(column.total_uncompressed_size for column in columns if column.path_in_schema == "text")
