"""Packs documents into rows: full ones, each starting with BOS, and no padding."""

from collections.abc import Iterable, Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from data.tokenizer import Tokens

Rows = NDArray[Any]
"""Tokens, [rows, max_seq_len + 1], uint16 or uint32: inputs are [:, :-1], targets are [:, 1:]."""

WINDOW_TOKENS = 2**24
"""Of the ends of documents that are packed together: a few seconds of work, and some 100 MB of memory."""


class Packed(NamedTuple):
    rows: Rows
    left: list[Tokens]
    """Tails that did not make a row."""


def pack(documents: Iterable[Tokens], row_len: int, bos_id: int, dtype: np.dtype[Any]) -> Iterator[Rows]:
    """Cut documents into rows of BOS + (row_len - 1) tokens, and pack what remains of each best-fit into further rows.

    What does not fill a last row is dropped.
    """
    tails: list[Tokens] = []
    held = 0
    for tokens in documents:
        full = len(tokens) // (row_len - 1) * (row_len - 1)
        if full:
            yield np.insert(tokens[:full].reshape(-1, row_len - 1), 0, bos_id, axis=1)
        if full < len(tokens):
            tails.append(tokens[full:].copy())  # or all that was encoded with it would stay in memory
            held += len(tails[-1]) + 1
        if held >= WINDOW_TOKENS:
            rows, tails = pack_best_fit(tails, row_len, bos_id, dtype)
            held = sum(len(tail) + 1 for tail in tails)
            yield rows
    yield pack_best_fit(tails, row_len, bos_id, dtype).rows


def pack_best_fit(tails: Sequence[Tokens], row_len: int, bos_id: int, dtype: np.dtype[Any]) -> Packed:
    """Fill rows of `row_len` with BOS + tail, always the longest that fits; where none does, the shortest is cropped."""
    shelves: list[list[Tokens]] = [[] for _ in range(row_len + 1)]  # by length with BOS
    stocked = 0  # bit n is set while shelf n is not empty, so that a best fit is two operations on one integer
    for tail in tails:
        shelves[len(tail) + 1].append(tail)
        stocked |= 1 << (len(tail) + 1)
    left = sum(n * len(shelf) for n, shelf in enumerate(shelves))
    rows = np.full((left // row_len, row_len), bos_id, dtype)
    filled = 0
    while left >= row_len:
        row, at = rows[filled], 0
        while at < row_len:
            fitting = stocked & ((2 << (row_len - at)) - 1)
            length = (fitting or stocked & -stocked).bit_length() - 1
            tail = shelves[length].pop()
            stocked ^= 0 if shelves[length] else 1 << length
            left -= length
            row[at + 1 : at + length] = tail[: row_len - at - 1]
            at += length
        filled += 1
    return Packed(rows[:filled], [tail for shelf in shelves for tail in shelf])
