"""How fast text becomes rows, and how much memory that takes: prepare.py on one, two and four copies' worth of a corpus.

    python benchmarks/dataset.py TEXTS... --profile h100 --eval-tokens 2097152

The corpus is read from the given .parquet files, over and over with the words of each document in another order (so that no two
are alike), into 1, 2 and 4 shards as a published corpus has them. Prints a line a size: text, seconds of each stage, MB/s of
tokenising and packing, of the whole, and the peak of resident memory.
"""

import argparse
import json
import random
import resource
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any

import pyarrow as arrow
import pyarrow.parquet as parquet

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))

from data.corpora import Corpus  # noqa: E402
from data.directory import build  # noqa: E402
from data.documents import read_documents  # noqa: E402
from data.profiles import PROFILES  # noqa: E402
from data.rows import pack  # noqa: E402
from data.splits import last_files, size_of, take  # noqa: E402
from data.tokenizer import SAMPLE_BYTES, train_tokenizer  # noqa: E402
from prepare import row_dtype  # noqa: E402


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("texts", type=Path, nargs="+", help=".parquet files with a column `text`")
    parser.add_argument("--profile", choices=tuple(PROFILES), default="h100")
    parser.add_argument("--eval-tokens", type=int, default=2**21)
    parser.add_argument("--shards", type=int, nargs="+", default=[1, 2, 4], help="each made of all the texts")
    parser.add_argument("--only", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    knobs = PROFILES[options.profile] | {"eval_tokens": options.eval_tokens}
    if options.only:  # a process of its own for each size: the peak of memory never falls
        print(json.dumps(measure(shards(options.folder, options.only), knobs, options.folder)))
        return
    with tempfile.TemporaryDirectory() as folder:
        for number in range(max(options.shards) + 2):
            write_shard(options.texts, Path(folder), number)
        for count in options.shards:
            command = [sys.executable, *sys.argv, "--only", str(count), "--folder", folder]
            print(subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout, end="", flush=True)


def write_shard(texts: list[Path], folder: Path, number: int) -> None:
    """All the texts, each document's lines in another order."""
    order = random.Random(number)
    writer = None
    for path in texts:
        for batch in parquet.ParquetFile(path).iter_batches(columns=["text"], batch_size=1024):
            lines = [str(text).splitlines(keepends=True) for text in batch.column(0).to_pylist()]
            for document in lines:
                order.shuffle(document)
            table = arrow.table({"text": ["".join(document) for document in lines]})
            writer = writer or parquet.ParquetWriter(folder / f"{number}.parquet", table.schema)
            writer.write_table(table)
    assert writer is not None
    writer.close()


def shards(folder: Path, count: int) -> list[Path]:
    """So many for training, and two to hold out."""
    return [folder / f"{number}.parquet" for number in range(count + 2)]


def measure(files: list[Path], knobs: dict[str, Any], folder: Path) -> dict[str, float]:
    corpus = Corpus("benchmark", files, last_files)
    splits = last_files(files, 2**22)
    started = time.monotonic()
    sample = list(take(splits.train(Counter()), SAMPLE_BYTES))
    tokenizer = train_tokenizer(sample, int(knobs["vocab_size"]))
    learned_s = time.monotonic() - started
    del sample
    started = time.monotonic()
    size = sum(size_of(text) for path in files[:-2] for text in read_documents(path, Counter()))
    read_s = time.monotonic() - started
    started = time.monotonic()
    tokens = tokenizer.encode(splits.train(Counter()))
    dtype = row_dtype(int(knobs["vocab_size"]))
    rows = sum(len(rows) for rows in pack(tokens, int(knobs["max_seq_len"]) + 1, tokenizer.bos_id, dtype))
    packed_s = time.monotonic() - started
    started = time.monotonic()
    build(corpus, "benchmark", knobs, folder / "set")
    whole_s = time.monotonic() - started
    return {
        "text_mb": round(size / 1e6, 1),
        "tokens_m": round(rows * int(knobs["max_seq_len"]) / 1e6, 1),
        "read_s": round(read_s, 1),
        "learn_merges_s": round(learned_s, 1),
        "tokenise_and_pack_s": round(packed_s, 1),
        "tokenise_and_pack_mb_s": round(size / 1e6 / packed_s, 1),
        "whole_s": round(whole_s, 1),
        "whole_mb_s": round(size / 1e6 / whole_s, 1),
        "peak_memory_mb": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024),
    }


if __name__ == "__main__":
    main()
