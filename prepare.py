"""Data, tokenizer, dataloader, clock and metric: fixed, and never edited by the org.

Two halves in one file. The upper half makes a dataset directory, once:

    python prepare.py --corpus python --profile cpu
    python prepare.py --corpus local ~/texts notes.md --profile h100 --eval-tokens 4194304

The lower half is what train.py imports. By hand it works on the dataset made last; in the sandbox there is no data until
the host has started the clock, and the score is computed elsewhere. Torch and numpy are all it needs there, so what only
the upper half needs (tiktoken, rustbpe, pyarrow, rich) is imported where it is used.
"""

import argparse
import base64
import fcntl
import hashlib
import io
import json
import math
import os
import shutil
import socket
import sys
import sysconfig
import time
from array import array
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import cache
from importlib.util import find_spec
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray

Rows = NDArray[Any]
"""Tokens, [rows, max_seq_len + 1], uint16 or uint32: inputs are [:, :-1], targets are [:, 1:]."""
Knob = int | float | str

# ----------------------------------------------------------------------------------------------------------------------
# Profiles: every size that follows from how much compute there is. One command-line flag per knob overrides it.

PROFILES: dict[str, dict[str, Knob]] = {
    "cpu": {  # two cores, seconds
        "max_seq_len": 256,
        "vocab_size": 1024,
        "eval_tokens": 2**17,
        "time_budget_s": 20.0,
        "depth": 2,
        "aspect_ratio": 64,
        "head_dim": 64,
        "window_pattern": "L",
        "device_batch_size": 8,
        "total_batch_tokens": 2**11,
    },
    "small": {  # one consumer GPU of 8 to 24 GB
        "max_seq_len": 1024,
        "vocab_size": 4096,
        "eval_tokens": 2**21,
        "time_budget_s": 300.0,
        "depth": 6,
        "aspect_ratio": 64,
        "head_dim": 64,
        "window_pattern": "L",
        "device_batch_size": 16,
        "total_batch_tokens": 2**16,
    },
    "h100": {  # the constants of karpathy/autoresearch
        "max_seq_len": 2048,
        "vocab_size": 8192,
        "eval_tokens": 40 * 2**19,
        "time_budget_s": 300.0,
        "depth": 8,
        "aspect_ratio": 64,
        "head_dim": 128,
        "window_pattern": "SSSL",
        "device_batch_size": 128,
        "total_batch_tokens": 2**19,
    },
}

FORMAT = 1  # of the dataset directory
BOS = "<|bos|>"
SUFFIXES = (".txt", ".md", ".rst", ".py", ".jsonl", ".parquet")
TOKENIZER_SAMPLE_BYTES = 64 * 2**20  # merges change little beyond; more only costs minutes
# GPT-4's split pattern, but at most two digits in a token: small vocabularies have no room for numbers of three.
SPLIT_PATTERN = (
    r"'(?i:[sdmt]|ll|ve|re)|[^\r\n\p{L}\p{N}]?+\p{L}+|\p{N}{1,2}| ?[^\s\p{L}\p{N}]++[\r\n]*|\s*[\r\n]|\s+(?!\S)|\s+"
)
BUILD_HINT = "run `python prepare.py --corpus python --profile cpu`"


class BadInput(Exception):
    """A flag, a corpus or a dataset on disk is wrong: one line that says what to do. (The sandbox ships this file alone.)"""

    exit_code = 2


class HostFault(Exception):
    """The machine failed us: one line."""

    exit_code = 4


# ----------------------------------------------------------------------------------------------------------------------
# Corpus: files in a fixed order → documents


class Corpus(NamedTuple):
    documents: list[str]
    skipped: dict[str, int]
    """Files that are no text (`undecodable`) and documents without a word (`empty`)."""
    sha256: str
    """Over all documents, in order: tells whether a dataset was made from this text."""


def find_sources(corpus: str, paths: Sequence[Path]) -> list[Path]:
    """The corpus' files, in an order that depends on names below each given path only."""
    if corpus == "python":
        # By prefix, not by absolute part: the interpreter itself may live below a folder of that name.
        root = Path(sysconfig.get_path("stdlib"))
        files = (path for path in root.rglob("*.py") if path.is_file())
        return sorted(f for f in files if not {"site-packages", "dist-packages"} & set(f.relative_to(root).parts))
    if not paths:
        raise BadInput("--corpus local needs at least one PATH (a folder, or a file: " + " ".join(SUFFIXES) + ")")
    return [source for path in paths for source in _sources_below(path)]


def _sources_below(path: Path) -> list[Path]:
    if path.is_dir():
        return sorted(file for file in path.rglob("*") if file.suffix in SUFFIXES and file.is_file())
    if not path.is_file():
        raise BadInput(f"{path}: no such file or folder")
    if path.suffix not in SUFFIXES:
        raise BadInput(f"{path}: unknown kind of file; known are {' '.join(SUFFIXES)}")
    return [path]


def read_corpus(sources: Sequence[Path]) -> Corpus:
    """Read all documents; a file that does not decode is skipped and counted."""
    skipped = Counter({"undecodable": 0, "empty": 0})
    documents: list[str] = []
    digest = hashlib.sha256()
    for source in track(sources, "reading"):
        try:
            found = list(_read_documents(source))
            digests = [_digest(text) for text in found]
        except (ValueError, RecursionError):  # of UTF-8, of JSON, of Arrow: ValueErrors, but for JSON nested too deep
            skipped["undecodable"] += 1
            continue
        except OSError as error:
            raise BadInput(f"{source}: cannot read it: {error.strerror}") from error
        skipped["empty"] += sum(not text.strip() for text in found)
        documents += [text for text in found if text.strip()]
        digest.update(b"".join(digests))
    return Corpus(documents, dict(skipped), digest.hexdigest())


def _read_documents(source: Path) -> Iterator[str]:
    if source.suffix == ".parquet":
        import pyarrow.parquet as parquet

        table = parquet.ParquetFile(source)
        if "text" not in table.schema_arrow.names:
            raise BadInput(f"{source}: has no column `text`")
        for batch in table.iter_batches(columns=["text"]):
            yield from (str(text or "") for text in batch.column(0).to_pylist())
    elif source.suffix == ".jsonl":
        for line in source.read_bytes().decode("utf-8").split("\n"):
            if line.strip():
                yield _text_field(json.loads(line))
    else:
        yield source.read_bytes().decode("utf-8")


def _text_field(record: Any) -> str:
    if not isinstance(record, dict) or not isinstance(record.get("text"), str):
        raise ValueError("a line without a field `text`")
    return str(record["text"])


def _digest(text: str) -> bytes:
    return hashlib.sha256(text.encode("utf-8")).digest()


Item = TypeVar("Item")


def track(items: Sequence[Item], what: str) -> Iterator[Item]:
    """Show progress on stderr: a bar for people at a terminal, one line for log files."""
    if sys.stderr.isatty() and find_spec("rich"):
        from rich.console import Console
        from rich.progress import track as bar

        yield from bar(items, what, console=Console(stderr=True))
    else:
        print(f"{what} ({len(items):,}) ...", file=sys.stderr)
        yield from items


# ----------------------------------------------------------------------------------------------------------------------
# Splits: by document, near-duplicates on one side

SPLITS = ("train", "val", "test")
NEIGHBOURS = 8  # a line's documents are compared with so many next ones; longer chains join up through their links
SHARED = 0.5  # documents that share more than this part of the shorter one's text are near-duplicates


def group_documents(documents: Sequence[str]) -> list[list[int]]:
    """Group near-duplicates: documents whose distinct lines, weighed by length, are mostly the same.

    A line that very many documents have (a licence, an import) links only neighbours in corpus order, so the work is
    linear in the number of lines, and boilerplate alone does not reach `SHARED`.
    """
    lengths, hashes, owners = _distinct_lines(documents)
    order = np.lexsort((owners, hashes))
    lengths, hashes, owners = lengths[order], hashes[order], owners[order]
    weight = np.bincount(owners, lengths, len(documents))
    keys: list[NDArray[np.int64]] = []
    shared: list[NDArray[np.int64]] = []
    for distance in range(1, NEIGHBOURS + 1):
        same = hashes[:-distance] == hashes[distance:]
        keys.append(owners[:-distance][same] * len(documents) + owners[distance:][same])
        shared.append(lengths[:-distance][same])
    pairs, inverse = np.unique(np.concatenate(keys), return_inverse=True)
    overlap = np.bincount(inverse, np.concatenate(shared), len(pairs))
    left, right = np.divmod(pairs, len(documents))
    close = overlap > SHARED * np.minimum(weight[left], weight[right])
    return _connected(len(documents), zip(left[close].tolist(), right[close].tolist(), strict=True))


def _distinct_lines(documents: Sequence[str]) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
    """Length, hash and document of every distinct line of every document."""
    lengths, hashes, owners = array("q"), array("q"), array("q")
    for index, text in enumerate(documents):
        for line in {line.strip() for line in text.splitlines()} - {""}:
            lengths.append(len(line))
            hashes.append(hash(line))  # salted anew in every process, but only ever compared for equality
            owners.append(index)
    return np.array(lengths, np.int64), np.array(hashes, np.int64), np.array(owners, np.int64)


def _connected(count: int, links: Iterable[tuple[int, int]]) -> list[list[int]]:
    parent = list(range(count))

    def root(node: int) -> int:
        while parent[node] != node:
            parent[node] = parent[parent[node]]
            node = parent[node]
        return node

    for one, other in links:
        parent[root(one)] = root(other)
    groups: dict[int, list[int]] = {}
    for node in range(count):
        groups.setdefault(root(node), []).append(node)
    return list(groups.values())


def split_documents(documents: Sequence[str], reserve_bytes: int) -> dict[str, list[str]]:
    """Give `reserve_bytes` of text each to val and test and the rest to train, in the order of the groups' hashes.

    A group larger than a quarter of the reserve goes to train: it would be most of an evaluation.
    """
    sizes = [len(text.encode("utf-8")) for text in documents]
    digests = [_digest(text) for text in documents]
    splits: dict[str, list[str]] = {split: [] for split in SPLITS}
    filled = {"val": 0, "test": 0}
    for group in sorted(group_documents(documents), key=lambda group: min(digests[i] for i in group)):
        size = sum(sizes[i] for i in group)
        split = next((name for name, done in filled.items() if done < reserve_bytes), "train")
        if split != "train" and size > reserve_bytes / 4:
            split = "train"
        if split != "train":
            filled[split] += size
        splits[split] += [documents[i] for i in group]
    return splits


# ----------------------------------------------------------------------------------------------------------------------
# Tokenizer: byte-pair merges learned on the training split only


class Tokenizer(NamedTuple):
    tokens: list[bytes]
    """Bytes of every mergeable token, in the order of their merges."""
    pattern: str
    bos_id: int
    """The last id of the vocabulary; the ids between, if the text had too few merges, are never used."""

    def encoding(self) -> Any:
        """The `tiktoken.Encoding` of this vocabulary."""
        import tiktoken

        ranks = {token: rank for rank, token in enumerate(self.tokens)}
        return tiktoken.Encoding(
            "dataset", pat_str=self.pattern, mergeable_ranks=ranks, special_tokens={BOS: self.bos_id}
        )

    def token_bytes(self) -> NDArray[np.int32]:
        """Bytes per token, int32 [vocab_size], 0 for BOS. Of the token itself: decoding a part of a character would
        give U+FFFD, three bytes long."""
        table = np.zeros(self.bos_id + 1, np.int32)
        table[: len(self.tokens)] = [len(token) for token in self.tokens]
        return table

    def to_json(self) -> str:
        tokens = [base64.b64encode(token).decode("ascii") for token in self.tokens]
        return json.dumps({"pattern": self.pattern, "special_tokens": {BOS: self.bos_id}, "mergeable_ranks": tokens})

    @classmethod
    def from_json(cls, text: str) -> "Tokenizer":
        fields = json.loads(text)
        tokens = [base64.b64decode(token) for token in fields["mergeable_ranks"]]
        return cls(tokens, fields["pattern"], fields["special_tokens"][BOS])


def train_tokenizer(documents: Sequence[str], vocab_size: int) -> Tokenizer:
    import rustbpe

    trainer = rustbpe.Tokenizer()
    trainer.train_from_iterator(_sample(documents), vocab_size - 1, pattern=SPLIT_PATTERN)
    ranks = sorted(trainer.get_mergeable_ranks(), key=lambda pair: pair[1])
    return Tokenizer([bytes(token) for token, _ in ranks], SPLIT_PATTERN, vocab_size - 1)


def _sample(documents: Iterable[str]) -> Iterator[str]:
    size = 0
    for text in documents:
        if size >= TOKENIZER_SAMPLE_BYTES:
            return
        size += len(text)
        yield text


# ----------------------------------------------------------------------------------------------------------------------
# Packing: documents → full rows, each starting with BOS


def pack_documents(documents: Sequence[str], tokenizer: Tokenizer, max_seq_len: int, dtype: np.dtype[Any]) -> Rows:
    """Cut documents into rows of BOS + max_seq_len tokens, and pack what remains of each best-fit into further rows."""
    encoding = tokenizer.encoding()
    whole: list[Rows] = []
    tails: list[Rows] = []
    batches = [documents[start : start + 256] for start in range(0, len(documents), 256)]
    for batch in track(batches, "tokenising"):
        for ids in encoding.encode_ordinary_batch(list(batch), num_threads=os.cpu_count() or 1):
            tokens = np.array(ids, dtype)
            full = len(tokens) // max_seq_len * max_seq_len
            whole.append(tokens[:full].reshape(-1, max_seq_len))
            tails.append(tokens[full:])
    long = np.concatenate(whole) if whole else np.empty((0, max_seq_len), dtype)
    long = np.insert(long, 0, tokenizer.bos_id, axis=1)
    return np.concatenate([long, pack_best_fit(tails, max_seq_len + 1, tokenizer.bos_id, dtype)])


def pack_best_fit(tails: Sequence[Rows], row_len: int, bos_id: int, dtype: np.dtype[Any]) -> Rows:
    """Fill rows of `row_len` with BOS + tail, always the longest that fits; where none does, the shortest is cropped.

    No padding: the tails that do not make a whole row in the end are dropped.
    """
    shelves: list[list[Rows]] = [[] for _ in range(row_len + 1)]  # by length with BOS
    stocked = 0  # bit n is set while shelf n is not empty, so that a best fit is two operations on one integer
    for tail in tails:
        if len(tail):
            shelves[len(tail) + 1].append(tail)
            stocked |= 1 << (len(tail) + 1)
    left = sum(n * len(shelf) for n, shelf in enumerate(shelves))
    rows: list[Rows] = []
    while left >= row_len:
        row, at = np.full(row_len, bos_id, dtype), 0
        while at < row_len:
            fitting = stocked & ((2 << (row_len - at)) - 1)
            length = (fitting or stocked & -stocked).bit_length() - 1
            tail = shelves[length].pop()
            stocked ^= 0 if shelves[length] else 1 << length
            left -= length
            row[at + 1 : at + length] = tail[: row_len - at - 1]
            at += length
        rows.append(row)
    return np.stack(rows) if rows else np.empty((0, row_len), dtype)


# ----------------------------------------------------------------------------------------------------------------------
# Dataset directory: built aside, renamed whole, verified by hash


def build(corpus: Corpus, name: str, profile: str, knobs: Mapping[str, Knob], directory: Path) -> dict[str, Any]:
    """Write the dataset directory and return its manifest.

    Raises:
        BadInput: the corpus is too small for the splits.
        HostFault: no space.
    """
    seq_len, vocab_size, eval_tokens = (int(knobs[k]) for k in ("max_seq_len", "vocab_size", "eval_tokens"))
    # A token of BPE on English or code is 2.7 bytes at 2^10 entries, 3.9 at 2^13; a third more is held back.
    reserve_bytes = int(eval_tokens * math.log2(vocab_size) / 2.5)
    splits = split_documents(corpus.documents, reserve_bytes)
    _require_tokens(sum(len(text) for text in splits["train"]), eval_tokens, "train")
    tokenizer = train_tokenizer(splits["train"], vocab_size)
    dtype = row_dtype(vocab_size)
    rows: dict[str, Rows] = {}
    for split in SPLITS:
        packed = pack_documents(splits[split], tokenizer, seq_len, dtype)
        _require_tokens(len(packed) * seq_len, eval_tokens, split)
        # Shuffled, so that the rows an evaluation takes are a fair sample of its documents; train is shuffled by seed later.
        shuffled = np.random.default_rng(0).permutation(len(packed))[: math.ceil(eval_tokens / seq_len)]
        rows[split] = packed if split == "train" else packed[shuffled]
    contents: dict[str, Rows | bytes] = {f"{split}.bin": rows[split] for split in SPLITS}
    contents["token_bytes.npy"] = _npy(tokenizer.token_bytes())
    contents["tokenizer.json"] = tokenizer.to_json().encode()
    manifest: dict[str, Any] = {
        "format": FORMAT,
        "corpus": name,
        "profile": profile,
        "knobs": dict(knobs),
        "dtype": dtype.name,
        "bos_id": tokenizer.bos_id,
        "rows": {split: len(rows[split]) for split in SPLITS},
        "documents": {split: len(splits[split]) for split in SPLITS},
        "bytes": {split: sum(len(text.encode("utf-8")) for text in splits[split]) for split in SPLITS},
        "skipped": corpus.skipped,
        "corpus_sha256": corpus.sha256,
    }
    _write_directory(directory, contents, manifest)
    return manifest


def row_dtype(vocab_size: int) -> np.dtype[Any]:
    """Little-endian uint16 where the vocabulary fits, else uint32."""
    return np.dtype("<u2" if vocab_size <= 2**16 else "<u4")


def _require_tokens(found: int, needed: int, split: str) -> None:
    if found < needed:
        raise BadInput(
            f"corpus too small: {split} needs {needed:,} tokens and has {found:,}; add text or lower --eval-tokens "
            "(documents larger than a quarter of an evaluation all go to train)"
        )


def _npy(table: NDArray[Any]) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, table, allow_pickle=False)
    return buffer.getvalue()


def _write_directory(directory: Path, contents: Mapping[str, Rows | bytes], manifest: dict[str, Any]) -> None:
    """Make the directory appear whole: whoever dies on the way leaves a `.part` that the next build removes."""
    part, old = directory.with_name(directory.name + ".part"), directory.with_name(directory.name + ".old")
    for leftover in (part, old):
        shutil.rmtree(leftover, ignore_errors=True)
    part.mkdir(parents=True)
    needed = sum(_bytes_of(data).nbytes for data in contents.values()) + 2**20
    free = shutil.disk_usage(part).free
    if free < needed:
        part.rmdir()
        raise HostFault(f"{directory.parent}: no space: needs {needed / 2**20:,.0f} MiB, {free / 2**20:,.0f} are free")
    manifest["files"] = {name: _write_file(part / name, data) for name, data in contents.items()}
    _write_file(part / "manifest.json", json.dumps(manifest, indent=1, sort_keys=True).encode())
    _sync(part)
    if directory.exists():
        directory.rename(old)
    part.rename(directory)
    _sync(directory.parent)
    shutil.rmtree(old, ignore_errors=True)


def _bytes_of(data: Rows | bytes) -> memoryview:
    return memoryview(data if isinstance(data, bytes) else data.data).cast("B")


def _write_file(path: Path, data: Rows | bytes) -> dict[str, Any]:
    view = _bytes_of(data)
    with path.open("wb") as file:
        file.write(view)
        file.flush()
        os.fsync(file.fileno())
    path.chmod(0o444)
    return {"sha256": hashlib.sha256(view).hexdigest(), "bytes": len(view)}


def _sync(directory: Path) -> None:
    descriptor = os.open(directory, os.O_RDONLY)
    os.fsync(descriptor)
    os.close(descriptor)


def read_manifest(directory: Path) -> dict[str, Any]:
    """Raises BadInput if there is none, or one of another format."""
    try:
        manifest = json.loads((directory / "manifest.json").read_bytes())
    except (OSError, ValueError) as error:
        raise BadInput(f"{directory}: no dataset with a readable manifest.json; rebuild it with --force") from error
    if not isinstance(manifest, dict) or manifest.get("format") != FORMAT:
        raise BadInput(f"{directory}: made by another version of prepare.py; rebuild it with --force")
    return manifest


def verify(directory: Path) -> dict[str, Any]:
    """Check every file against the manifest and return it. Raises BadInput naming the first file that differs."""
    manifest = read_manifest(directory)
    for name, expected in manifest["files"].items():
        path = directory / name
        if not path.is_file():
            raise BadInput(f"{path}: is missing; rebuild the dataset with --force")
        with path.open("rb") as file:
            if hashlib.file_digest(file, "sha256").hexdigest() != expected["sha256"]:
                raise BadInput(f"{path}: is corrupt (its hash differs); rebuild the dataset with --force")
    return manifest


# ----------------------------------------------------------------------------------------------------------------------
# Command line


def main(arguments: Sequence[str] | None = None) -> int:
    """Build or verify a dataset. Returns the exit code: 0, 2 (bad input) or 4 (the machine)."""
    options = _parser().parse_args(arguments)
    knobs = {name: _knob(options, name, value) for name, value in PROFILES[options.profile].items()}
    datasets = Path.cwd() / ".autoresearch" / "datasets"
    directory = (options.out or datasets / f"{options.corpus}-{options.profile}").absolute()
    try:
        _check_knobs(knobs)
        directory.parent.mkdir(parents=True, exist_ok=True)
        with _locked(directory.with_name(directory.name + ".lock")):
            verb, manifest = _make(options, knobs, directory)
        _point_to(directory, datasets / "default")
    except (BadInput, HostFault) as error:
        print(f"prepare: {error}", file=sys.stderr)
        return error.exit_code
    except OSError as error:
        print(f"prepare: {directory}: {error.strerror or error}", file=sys.stderr)
        return HostFault.exit_code
    rows, skipped = manifest["rows"], manifest["skipped"]
    print(f"{verb} {directory}")
    print(f"rows of {knobs['max_seq_len']} tokens: " + ", ".join(f"{split} {rows[split]:,}" for split in SPLITS))
    print(f"skipped: {skipped['undecodable']} undecodable files, {skipped['empty']} empty documents")
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description="Make the dataset that train.py trains on and the sandbox scores with."
    )
    parser.add_argument("--corpus", choices=("python", "local"), default="python", help="default: %(default)s")
    parser.add_argument("paths", nargs="*", type=Path, metavar="PATH", help="of local: folders, " + " ".join(SUFFIXES))
    parser.add_argument("--profile", choices=tuple(PROFILES), default="cpu", help="default: %(default)s")
    parser.add_argument("--out", type=Path, help="default: .autoresearch/datasets/CORPUS-PROFILE")
    parser.add_argument("--force", action="store_true", help="rebuild what is there")
    knobs = parser.add_argument_group("knobs", "each overrides the profile")
    for name, value in PROFILES["cpu"].items():
        knobs.add_argument("--" + name.replace("_", "-"), type=type(value), metavar=type(value).__name__.upper())
    return parser


def _knob(options: argparse.Namespace, name: str, default: Knob) -> Knob:
    chosen: Knob | None = getattr(options, name)
    return default if chosen is None else chosen


def _check_knobs(knobs: Mapping[str, Knob]) -> None:
    for name, value in knobs.items():
        flag = "--" + name.replace("_", "-")
        if isinstance(value, (int, float)) and not 0 < value < math.inf:
            raise BadInput(f"{flag} must be above 0, not {value}")
    if int(knobs["vocab_size"]) < 258:
        raise BadInput("--vocab-size must be at least 258: every byte, one merge and BOS")
    if set(str(knobs["window_pattern"])) - set("SL"):
        raise BadInput("--window-pattern is made of S (half the context) and L (all of it), such as SSSL")


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    """One builder at a time; the kernel drops the lock of a process that dies."""
    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _make(options: argparse.Namespace, knobs: dict[str, Knob], directory: Path) -> tuple[str, dict[str, Any]]:
    corpus = read_corpus(find_sources(options.corpus, options.paths))
    if not corpus.documents:
        raise BadInput(
            "the corpus is empty: no text in " + (", ".join(map(str, options.paths)) or "the standard library")
        )
    if not directory.exists() or options.force:
        return "built", build(corpus, options.corpus, options.profile, knobs, directory)
    manifest = verify(directory)
    wanted = {"corpus_sha256": corpus.sha256, "profile": options.profile, "knobs": knobs}
    for what, value in wanted.items():
        if manifest[what] != value:
            raise BadInput(f"{directory}: was made with another {what}; --force rebuilds it, --out DIR keeps both")
    return "verified", manifest


def _point_to(directory: Path, pointer: Path) -> None:
    pointer.parent.mkdir(parents=True, exist_ok=True)
    part = pointer.with_name(f"default.{os.getpid()}")
    part.write_text(f"{directory}\n")
    part.replace(pointer)


# ----------------------------------------------------------------------------------------------------------------------
# What train.py imports. In the sandbox, config.json lies beside this file; by hand, the dataset's manifest serves.

MAX_SEQ_LEN: int
VOCAB_SIZE: int
TIME_BUDGET: float
"""Seconds."""
DEVICE: str
"""`cpu` or `cuda`."""
SEED: int
PROFILE: dict[str, Any]
"""The dataset's knobs: the sizes its profile suggests."""


def __getattr__(name: str) -> Any:
    # On demand, so that importing this file needs no dataset: only asking for one of its constants does.
    if name not in ("MAX_SEQ_LEN", "VOCAB_SIZE", "TIME_BUDGET", "DEVICE", "SEED", "PROFILE"):
        raise AttributeError(f"module 'prepare' has no attribute {name!r}")
    return getattr(_settings(), name)


class _Settings(NamedTuple):
    MAX_SEQ_LEN: int
    VOCAB_SIZE: int
    TIME_BUDGET: float
    DEVICE: str
    SEED: int
    PROFILE: dict[str, Any]


@cache
def _settings() -> _Settings:
    beside = Path(__file__).with_name("config.json")
    if beside.exists():
        given = json.loads(beside.read_bytes())
        names = ("max_seq_len", "vocab_size", "budget_s", "device", "seed", "profile")
        return _Settings(*(given[name] for name in names))
    try:
        knobs = read_manifest(default_dataset())["knobs"]
    except BadInput as error:
        raise SystemExit(str(error)) from None
    device = "cuda" if torch.cuda.is_available() else "cpu"
    return _Settings(knobs["max_seq_len"], knobs["vocab_size"], knobs["time_budget_s"], device, 42, knobs)


def default_dataset() -> Path:
    """Where AUTORESEARCH_DATASET points to, or else the dataset that was prepared last. Raises BadInput if none was."""
    if "AUTORESEARCH_DATASET" in os.environ:
        return Path(os.environ["AUTORESEARCH_DATASET"])
    try:
        return Path(Path(".autoresearch/datasets/default").read_text().strip())
    except OSError:
        raise BadInput(f"no dataset: {BUILD_HINT}") from None


# ---- the clock, and the gate to the host that keeps it ---------------------------------------------------------------


@dataclass(frozen=True)
class Clock:
    """This process' view of the time budget. In the sandbox the host's own clock decides."""

    started: float
    """time.monotonic() at the start."""
    budget_s: float

    @property
    def elapsed_s(self) -> float:
        return time.monotonic() - self.started

    @property
    def progress(self) -> float:
        """Used part of the budget; 1 and more mean stop."""
        return self.elapsed_s / self.budget_s


class _Gate:
    """Newline-delimited JSON with the host over a Unix socket."""

    def __init__(self, path: Path) -> None:
        self._socket = socket.socket(socket.AF_UNIX)
        self._socket.connect(str(path))
        self._lines = self._socket.makefile("rb")

    def send(self, **message: Any) -> None:
        self._socket.sendall(json.dumps(message, allow_nan=False).encode() + b"\n")

    def receive(self, kind: str, timeout_s: float | None = None) -> dict[str, Any]:
        self._socket.settimeout(timeout_s)
        message: dict[str, Any] = json.loads(self._lines.readline(4096) or b"{}")
        if message.get("type") != kind:
            raise ConnectionError(f"the host did not answer {kind!r}")
        return message


class _Run:
    """What must be remembered between the calls that train.py makes."""

    def __init__(self) -> None:
        self.begun = time.monotonic()
        self.clock: Clock | None = None
        self.gate: _Gate | None = None
        self.data: Path | None = None
        self.out: Path | None = None
        self.data_seed = 0
        self.step = 0
        self.tokens = 0
        self.last_report = -math.inf


_run = _Run()


def start_clock() -> Clock:
    """Start the time budget. Call it once, after everything that needs no data: building, compiling, warming up.

    In the sandbox it blocks until the host has put the training data in place. Raises RuntimeError when called twice.
    """
    if _run.clock is not None:
        raise RuntimeError("start_clock() was called twice")
    budget_s = _settings().TIME_BUDGET
    if "AUTORESEARCH_GATE" in os.environ:
        socket_path = Path(os.environ["AUTORESEARCH_GATE"])  # /gate/gate.sock; /data and /out lie beside /gate
        _run.data, _run.out = socket_path.parents[1] / "data", socket_path.parents[1] / "out"
        _run.gate = _Gate(socket_path)
        _run.gate.send(type="ready")
        go = _run.gate.receive("go")
        budget_s, _run.data_seed = float(go["budget_s"]), int(go["data_seed"])
    else:
        _run.data, _run.data_seed = default_dataset(), _settings().SEED
    _run.clock = Clock(time.monotonic(), budget_s)
    return _run.clock


def _running_clock() -> Clock:
    if _run.clock is None:
        raise RuntimeError("call start_clock() first: there is no training data before the clock runs")
    return _run.clock


# ---- data ------------------------------------------------------------------------------------------------------------


class Batches:
    """Endless (inputs, targets), int64 [batch_size, seq_len] each on `device`, in an order given by the seed.

    Every epoch is a new permutation; a batch may span two of them.
    """

    def __init__(self, rows: Rows, batch_size: int, seed: int, device: str) -> None:
        self.epoch = 0
        """Passes begun over the training rows."""
        self._rows, self._batch_size, self._device = rows, batch_size, device
        self._order = self._shuffled(seed)

    def _shuffled(self, seed: int) -> Iterator[int]:
        while True:
            self.epoch += 1
            yield from np.random.default_rng((seed, self.epoch)).permutation(len(self._rows)).tolist()

    def __iter__(self) -> "Batches":
        return self

    def __next__(self) -> tuple[torch.Tensor, torch.Tensor]:
        return to_device(self._rows[list(islice(self._order, self._batch_size))], self._device)


def to_device(rows: Rows, device: str) -> tuple[torch.Tensor, torch.Tensor]:
    """Split rows into inputs and targets, int64 [rows, seq_len] each."""
    tokens = torch.from_numpy(rows.astype(np.int64))
    if device == "cuda":
        tokens = tokens.pin_memory().to(device, non_blocking=True)
    return tokens[:, :-1].contiguous(), tokens[:, 1:].contiguous()


def make_dataloader(batch_size: int) -> Batches:
    """Batches of the training rows. Raises RuntimeError before start_clock()."""
    _running_clock()
    assert _run.data is not None
    return Batches(_read_rows(_run.data / "train.bin"), batch_size, _run.data_seed, _settings().DEVICE)


def _read_rows(path: Path) -> Rows:
    settings = _settings()
    return np.memmap(path, row_dtype(settings.VOCAB_SIZE), "r").reshape(-1, settings.MAX_SEQ_LEN + 1)


# ---- the metric ------------------------------------------------------------------------------------------------------


def bits_per_byte(
    model: Callable[[torch.Tensor], torch.Tensor],
    rows: Rows,
    token_bytes: NDArray[np.int32],
    batch_size: int,
    device: str,
) -> float:
    """Σ nats / (ln 2 × Σ bytes) over the targets that stand for bytes; BOS counts in neither sum.

    `model` maps int64 [B, T] to logits [B, T, vocab_size].
    """
    table = torch.from_numpy(token_bytes.astype(np.int64)).to(device)
    nats, bytes_seen = 0.0, 0
    with torch.no_grad():
        for start in range(0, len(rows), batch_size):
            inputs, targets = to_device(rows[start : start + batch_size], device)
            logits = model(inputs).float()
            lengths = table[targets]
            losses = F.cross_entropy(logits.flatten(0, 1), targets.flatten(), reduction="none")
            nats += float((losses * (lengths.flatten() > 0)).double().sum())
            bytes_seen += int(lengths.sum())
    return nats / (math.log(2) * bytes_seen)


def evaluate_bpb(model: torch.nn.Module, batch_size: int = 8) -> float:
    """val_bpb of the model, by hand only: the sandbox keeps validation rows from the training process."""
    directory = default_dataset()
    training = model.training
    token_bytes = np.load(directory / "token_bytes.npy", allow_pickle=False)
    bpb = bits_per_byte(model.eval(), _read_rows(directory / "val.bin"), token_bytes, batch_size, _settings().DEVICE)
    model.train(training)
    return bpb


def unigram_bpb(rows: Rows, tokens: Sequence[bytes]) -> float:
    """Entropy of single bytes in the text of the targets: what a model that learned only byte frequencies would score."""
    counts = np.zeros(256)
    for token_id, occurrences in enumerate(np.bincount(rows[:, 1:].ravel(), minlength=len(tokens))[: len(tokens)]):
        np.add.at(counts, np.frombuffer(tokens[token_id], np.uint8), occurrences)
    frequencies = counts[counts > 0] / counts.sum()
    return float(-(frequencies * np.log2(frequencies)).sum())


# ---- telemetry and the result ----------------------------------------------------------------------------------------


def report(step: int, tokens: int, loss: float) -> None:
    """Say how far training is: steps and tokens done, and the last loss in nats. The host shows it and believes nothing."""
    clock = _running_clock()
    _run.step, _run.tokens = step, tokens
    if _run.gate is None or not math.isfinite(loss):
        return
    pause_s = max(0.25, clock.budget_s / 5000)  # the host ends runs that send over 10,000 lines
    if clock.elapsed_s - _run.last_report >= pause_s:
        _run.last_report = clock.elapsed_s
        _run.gate.send(type="progress", step=step, tokens=tokens, loss=float(loss))


def submit(model: torch.nn.Module, *, depth: int = 0, flops_per_token: float = 0.0) -> None:
    """Hand over the trained model: in the sandbox its weights, by hand the summary of the run.

    `depth` and `flops_per_token` (of forward and backward) appear in the summary only. The weights must be complete
    within the budget plus a few seconds of grace by the host's clock.
    """
    clock = _running_clock()
    if _run.gate is None or _run.out is None:
        print(summarise(model, clock.elapsed_s, depth, flops_per_token))
        return
    _run.gate.send(type="submit", step=_run.step, tokens=_run.tokens)
    save_weights(model, _run.out / "model.safetensors")
    _run.gate.send(type="done")
    with suppress(OSError):  # late or lost, the answer changes nothing any more
        _run.gate.receive("ack", timeout_s=5.0)


def save_weights(model: torch.nn.Module, path: Path) -> None:
    """Write the state dict so that `path` is either absent or complete. Names are those of the uncompiled module."""
    from safetensors.torch import save_file

    # Clones: safetensors refuses tensors that share memory, as tied weights do.
    weights = {
        name.replace("_orig_mod.", ""): w.detach().cpu().contiguous().clone() for name, w in model.state_dict().items()
    }
    part = path.with_name(path.name + ".part")
    save_file(weights, part)
    with part.open("rb") as file:
        os.fsync(file.fileno())
    part.rename(path)


def summarise(model: torch.nn.Module, training_s: float, depth: int, flops_per_token: float) -> str:
    """The run in the original's summary block, scored in this very process: good to look at, worth nothing as evidence."""
    val_bpb = evaluate_bpb(model)
    directory = default_dataset()
    tokenizer = Tokenizer.from_json((directory / "tokenizer.json").read_text())
    on_gpu = _settings().DEVICE == "cuda"
    flops_per_s = flops_per_token * _run.tokens / training_s
    lines = {
        "val_bpb": f"{val_bpb:.6f}",
        "unigram_bpb": f"{unigram_bpb(_read_rows(directory / 'val.bin'), tokenizer.tokens):.6f}",
        "training_seconds": f"{training_s:.1f}",
        "total_seconds": f"{time.monotonic() - _run.begun:.1f}",
        "peak_vram_mb": f"{torch.cuda.max_memory_allocated() / 2**20 if on_gpu else 0:.1f}",
        "mfu_percent": f"{100 * flops_per_s / 989.5e12 if on_gpu else 0:.2f}",  # of an H100's dense bf16 peak
        "total_tokens_M": f"{_run.tokens / 1e6:.1f}",
        "num_steps": f"{_run.step}",
        "num_params_M": f"{sum(p.numel() for p in model.parameters()) / 1e6:.1f}",
        "depth": f"{depth}",
    }
    heading = "--- self-reported; only a score measured by the sandbox counts"
    return "\n".join([heading, *(f"{name + ':':<18}{value}" for name, value in lines.items())])


if __name__ == "__main__":
    sys.exit(main())
