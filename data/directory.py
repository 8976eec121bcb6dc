"""The dataset directory: what train.py and the sandbox read. manifest.json has the hash of everything in it."""

import io
import json
import math
import shutil
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from data.corpora import Corpus
from data.documents import text_bytes
from data.files import Entry, hash_file, hash_files, new_directory, no_space, write
from data.profiles import Knob
from data.progress import bytes_done
from data.rows import Rows, pack
from data.splits import SPLITS, size_of, take
from data.tokenizer import SAMPLE_BYTES, Tokenizer, train_tokenizer
from prepare import row_dtype
from records import BadInput

FORMAT = 1  # of the dataset directory


def build(corpus: Corpus, profile: str, knobs: Mapping[str, Knob], directory: Path) -> dict[str, Any]:
    """Write the dataset directory and return its manifest. The same text and knobs make the same bytes.

    Raises:
        BadInput: the corpus is too small for the splits.
        HostFault: no space.
    """
    seq_len, vocab_size, eval_tokens = (int(knobs[k]) for k in ("max_seq_len", "vocab_size", "eval_tokens"))
    # A token of BPE on English or code is 2.7 bytes at 2^10 entries, 3.9 at 2^13; a third more is held back.
    reserve_bytes = int(eval_tokens * math.log2(vocab_size) / 2.5)
    text_size = sum(map(text_bytes, corpus.files))
    splits = corpus.split(corpus.files, reserve_bytes)
    sample = list(take(splits.train(Counter()), SAMPLE_BYTES))
    if not (sample or splits.val or splits.test):
        raise BadInput(f"the corpus is empty: there is no text in its files, of which it has {len(corpus.files)}")
    require_tokens(sum(map(len, sample)), eval_tokens, "train")
    tokenizer = train_tokenizer(sample, vocab_size)
    dtype = row_dtype(vocab_size)
    counts: dict[str, Counter[str]] = {split: Counter() for split in SPLITS}
    skipped = Counter({"undecodable": splits.undecodable, "empty": 0, "near_duplicate": 0})

    def rows_of(split: str, documents: Iterable[str], advance: Callable[[int], None]) -> Iterator[Rows]:
        return pack(tokenizer.encode(counted(documents, counts[split], advance)), seq_len + 1, tokenizer.bos_id, dtype)

    def write_held_out(path: Path, documents: Sequence[str]) -> Entry:
        rows = np.concatenate(list(rows_of(path.stem, documents, lambda _: None)))
        require_tokens(rows[:, 1:].size, eval_tokens, path.stem)
        # Shuffled, so that the rows an evaluation takes are a fair sample of its documents.
        chosen = np.random.default_rng(0).permutation(len(rows))[: math.ceil(eval_tokens / seq_len)]
        return write(path, [rows[chosen]])

    with new_directory(directory) as part:
        files = {
            "val.bin": write_held_out(part / "val.bin", splits.val),
            "test.bin": write_held_out(part / "test.bin", splits.test),
            "token_bytes.npy": write(part / "token_bytes.npy", [npy(tokenizer.token_bytes())]),
            "tokenizer.json": write(part / "tokenizer.json", [tokenizer.to_json().encode()]),
        }
        needed = text_size / bytes_per_token(tokenizer, sample) * dtype.itemsize + 2**20
        if shutil.disk_usage(part).free < needed:
            raise no_space(directory.parent, needed)
        del sample
        with bytes_done("tokenising", text_size) as advance:
            files["train.bin"] = write(part / "train.bin", rows_of("train", splits.train(skipped), advance))
        rows = {split: files[f"{split}.bin"]["bytes"] // dtype.itemsize // (seq_len + 1) for split in SPLITS}
        require_tokens(rows["train"] * seq_len, eval_tokens, "train")
        manifest: dict[str, Any] = {
            "format": FORMAT,
            "corpus": corpus.name,
            "profile": profile,
            "knobs": dict(knobs),
            "dtype": dtype.name,
            "bos_id": tokenizer.bos_id,
            "rows": rows,
            **{what: {split: counts[split][what] for split in SPLITS} for what in ("documents", "bytes")},
            "skipped": dict(skipped),
            "corpus_sha256": hash_files(corpus.files),
            "files": files,
        }
        write(part / "manifest.json", [json.dumps(manifest, indent=1, sort_keys=True).encode()])
    return manifest


def counted(documents: Iterable[str], count: Counter[str], advance: Callable[[int], None]) -> Iterator[str]:
    for text in documents:
        size = size_of(text)
        count["documents"] += 1
        count["bytes"] += size
        advance(size)
        yield text


def bytes_per_token(tokenizer: Tokenizer, sample: Iterable[str]) -> float:
    """Of the first mebibyte of the sample."""
    texts = list(take(sample, 2**20))
    return sum(map(size_of, texts)) / max(1, sum(len(tokens) for tokens in tokenizer.encode(texts)))


def require_tokens(found: int, needed: int, split: str) -> None:
    if found < needed:
        raise BadInput(
            f"corpus too small: {split} needs {needed:,} tokens and has {found:,}; add text or lower --eval-tokens "
            "(documents larger than a quarter of an evaluation all go to train)"
        )


def npy(table: np.ndarray[Any, Any]) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, table, allow_pickle=False)
    return buffer.getvalue()


def verify(directory: Path) -> dict[str, Any]:
    """Check every file against the manifest and return it. Raises BadInput naming the first file that differs."""
    manifest = read_manifest(directory)
    for name, expected in manifest["files"].items():
        path = directory / name
        if not path.is_file():
            raise BadInput(f"{path}: is missing; rebuild the dataset with --force")
        if hash_file(path) != expected["sha256"]:
            raise BadInput(f"{path}: is corrupt (its hash differs); rebuild the dataset with --force")
    return manifest


def read_manifest(directory: Path) -> dict[str, Any]:
    """Raises BadInput if there is none, or one of another format."""
    try:
        manifest = json.loads((directory / "manifest.json").read_bytes())
    except (OSError, ValueError) as error:
        raise BadInput(f"{directory}: no dataset with a readable manifest.json; rebuild it with --force") from error
    if not isinstance(manifest, dict) or manifest.get("format") != FORMAT:
        raise BadInput(f"{directory}: made by another version of prepare.py; rebuild it with --force")
    return manifest
