"""Which documents are held out for validation and test. A corpus says which of these ways it is split in.

Whatever the way, no text that is evaluated is trained on: not even a document that is mostly the same.
"""

import hashlib
import heapq
from array import array
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from data.documents import Undecodable, read_documents
from records import BadInput

SPLITS = ("train", "val", "test")
NEIGHBOURS = 8  # a line's documents are compared with so many others that have it
SHARED = 0.5  # documents that share more than this part of the shorter one's text are near-duplicates

Lines = NDArray[np.int64]


class Splits(NamedTuple):
    """Documents of each split. What is held out is in memory; the rest is read anew at every call."""

    train: Callable[[Counter[str]], Iterator[str]]
    """Counts what it leaves out, as `empty` and `near_duplicate` documents."""
    val: list[str]
    test: list[str]
    undecodable: int = 0
    """Files that were left out."""


def size_of(text: str) -> int:
    """Bytes of UTF-8."""
    return len(text) if text.isascii() else len(text.encode("utf-8"))


def take(documents: Iterable[str], size_bytes: int) -> Iterator[str]:
    """Documents from the front until they make up `size_bytes`."""
    taken = 0
    for text in documents:
        yield text
        taken += size_of(text)
        if taken >= size_bytes:  # before another one is drawn, which whoever goes on with the rest would miss
            return


# ---- corpora that come shuffled --------------------------------------------------------------------------------------


def last_files(files: Sequence[Path], reserve_bytes: int) -> Splits:
    """The last file is for validation and the one before it for test: a corpus of shuffled shards whose last is pinned."""
    *shards, test, val = files

    def train(skipped: Counter[str]) -> Iterator[str]:
        for path in shards:
            yield from sound(path, skipped)

    def held_out(path: Path) -> list[str]:
        return list(take(sound(path, Counter()), reserve_bytes))

    return Splits(train, held_out(val), held_out(test))


def first_documents(files: Sequence[Path], reserve_bytes: int) -> Splits:
    """The first documents are for test and the next ones for validation: a corpus whose documents are shuffled."""

    def documents(skipped: Counter[str]) -> Iterator[str]:
        for path in files:
            yield from sound(path, skipped)

    front = documents(Counter())
    test = list(take(front, reserve_bytes))
    val = list(take(front, reserve_bytes))

    def train(skipped: Counter[str]) -> Iterator[str]:
        for number, text in enumerate(documents(skipped)):
            if number >= len(test) + len(val):
                yield text

    return Splits(train, val, test)


def sound(path: Path, skipped: Counter[str]) -> Iterator[str]:
    """Documents of a file that has been downloaded and verified, and so cannot be broken.

    Raises:
        BadInput: it is all the same.
    """
    try:
        yield from read_documents(path, skipped)
    except Undecodable:
        raise BadInput(f"{path}: cannot be decoded; delete it, and it is downloaded again") from None


# ---- corpora in no order ---------------------------------------------------------------------------------------------


def by_hash(files: Sequence[Path], reserve_bytes: int) -> Splits:
    """Of documents in any order, hold out those with the smallest hashes. Near-duplicates of what is held out are in no split.

    Held out are groups of near-duplicates as a whole. Documents and groups larger than a quarter of the reserve go to train: they
    would be most of an evaluation.
    """
    broken: set[Path] = set()
    candidates = smallest_hashes(files, reserve_bytes, broken)
    held_out: dict[str, list[str]] = {"val": [], "test": []}
    filled = {"val": 0, "test": 0}
    for group in group_documents(candidates):
        size = sum(size_of(candidates[i]) for i in group)
        split = next((name for name, done in filled.items() if done < reserve_bytes), None)
        if split is not None and size <= reserve_bytes / 4:
            filled[split] += size
            held_out[split] += [candidates[i] for i in group]
    likeness = Likeness(held_out["val"] + held_out["test"])

    def train(skipped: Counter[str]) -> Iterator[str]:
        left_out = -len(held_out["val"]) - len(held_out["test"])  # which themselves come by, too
        for path in files:
            if path not in broken:
                for text in read_documents(path, skipped):
                    if text in likeness.documents or likeness.resembles(text):
                        left_out += 1
                    else:
                        yield text
        skipped["near_duplicate"] += left_out

    return Splits(train, held_out["val"], held_out["test"], len(broken))


def smallest_hashes(files: Sequence[Path], reserve_bytes: int, broken: set[Path]) -> list[str]:
    """Enough documents to hold out, in the order of their hashes: three times the reserve, two for the splits.

    Args:
        files: of the corpus.
        reserve_bytes: of text, for each split that is held out.
        broken: files that do not decode are added to it.
    """
    heap: list[tuple[int, str, Path]] = []  # by hash, the largest first
    kept = 0
    for path in files:
        try:
            for text in read_documents(path, Counter()):
                if size_of(text) > reserve_bytes / 4:
                    continue
                kept += size_of(text)
                heapq.heappush(heap, (-int.from_bytes(hashlib.sha256(text.encode()).digest()), text, path))
                while kept - size_of(heap[0][1]) > 3 * reserve_bytes:
                    kept -= size_of(heapq.heappop(heap)[1])
        except Undecodable:
            broken.add(path)
    return [text for _, text, path in sorted(heap, reverse=True) if path not in broken]


def group_documents(documents: Sequence[str]) -> list[list[int]]:
    """Group near-duplicates: documents whose distinct lines, weighed by length, are mostly the same.

    A line that very many documents have (a licence, an import) links only neighbours in order, so the work is linear in the
    number of lines, and boilerplate alone does not reach `SHARED`. Groups are in the order of their first documents.
    """
    lengths, hashes, owners = sorted_lines(documents)
    weight = np.bincount(owners, lengths, len(documents))
    keys: list[Lines] = []
    shared: list[Lines] = []
    for distance in range(1, NEIGHBOURS + 1):
        same = hashes[:-distance] == hashes[distance:]
        keys.append(owners[:-distance][same] * len(documents) + owners[distance:][same])
        shared.append(lengths[:-distance][same])
    pairs, inverse = np.unique(np.concatenate(keys), return_inverse=True)
    overlap = np.bincount(inverse, np.concatenate(shared), len(pairs))
    left, right = np.divmod(pairs, max(1, len(documents)))
    close = overlap > SHARED * np.minimum(weight[left], weight[right])
    return _connected(len(documents), zip(left[close].tolist(), right[close].tolist(), strict=True))


class Likeness:
    """Tells whether a document is mostly the same as one of these."""

    def __init__(self, documents: Sequence[str]) -> None:
        self.documents = set(documents)
        self._lengths, self._hashes, self._owners = sorted_lines(documents)
        self._weight = np.bincount(self._owners, self._lengths, len(documents))

    def resembles(self, text: str) -> bool:
        """As in group_documents; of a line that many have, the first `NEIGHBOURS` count."""
        lines = distinct_lines(text)
        hashes = np.fromiter(map(hash, lines), np.int64, len(lines))
        first = np.searchsorted(self._hashes, hashes)
        overlap: Counter[int] = Counter()
        for at in first[self._matches(first, hashes)].tolist():
            for other in range(at, min(at + NEIGHBOURS, len(self._hashes))):
                if self._hashes[other] != self._hashes[at]:
                    break
                overlap[int(self._owners[other])] += int(self._lengths[other])
        if not overlap:
            return False
        weight = sum(map(len, lines))
        return any(shared > SHARED * min(weight, self._weight[owner]) for owner, shared in overlap.items())

    def _matches(self, at: Lines, hashes: Lines) -> NDArray[np.bool_]:
        inside = at < len(self._hashes)
        inside[inside] = self._hashes[at[inside]] == hashes[inside]
        return inside


def distinct_lines(text: str) -> set[str]:
    return {line.strip() for line in text.splitlines()} - {""}


def sorted_lines(documents: Sequence[str]) -> tuple[Lines, Lines, Lines]:
    """Length, hash and document of every distinct line of every document, by hash and then by document."""
    lengths, hashes, owners = array("q"), array("q"), array("q")
    for index, text in enumerate(documents):
        for line in distinct_lines(text):
            lengths.append(len(line))
            hashes.append(hash(line))  # salted anew in every process, but only ever compared for equality
            owners.append(index)
    columns = [np.array(column, np.int64) for column in (lengths, hashes, owners)]
    order = np.lexsort((columns[2], columns[1]))
    lengths_, hashes_, owners_ = (column[order] for column in columns)
    return lengths_, hashes_, owners_


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
