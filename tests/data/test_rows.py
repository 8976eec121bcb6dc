"""How documents become rows."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from data import rows as packing
from data.rows import pack, pack_best_fit

law = settings(deadline=None, max_examples=50)
BOS = 65535
UINT16 = np.dtype(np.uint16)


@law
@given(st.lists(st.integers(1, 11), max_size=60))
def test_packing_crops_only_at_the_end_of_a_row_and_repeats_nothing(lengths: list[int]) -> None:
    tails = [np.arange(length, dtype=np.uint16) + 100 * number for number, length in enumerate(lengths)]
    packed = pack_best_fit(tails, 12, BOS, UINT16)
    rows = packed.rows.tolist()
    assert all(len(row) == 12 and row[0] == BOS for row in rows)
    seen = []
    for row in rows:
        *inner, last = " ".join(map(str, row)).split(str(BOS))[1:]
        whole, end = [list(map(int, piece.split())) for piece in inner], list(map(int, last.split()))
        assert all(piece == tails[piece[0] // 100].tolist() for piece in whole)
        assert not end or end == tails[end[0] // 100].tolist()[: len(end)]
        seen += [piece[0] for piece in [*whole, end] if piece]
    seen += [int(tail[0]) for tail in packed.left]
    assert len(set(seen)) == len(seen)
    assert bool(rows) == (sum(length + 1 for length in lengths) >= 12)
    assert sum(len(tail) + 1 for tail in packed.left) < 12


@law
@given(st.lists(st.integers(0, 40), max_size=60), st.sampled_from([1, 30, 10**6]))
def test_almost_no_token_is_lost_however_small_the_window(lengths: list[int], window: int) -> None:
    documents = [np.full(length, number, np.uint16) for number, length in enumerate(lengths)]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(packing, "WINDOW_TOKENS", window)
        rows = np.concatenate(list(pack(documents, 9, BOS, UINT16)))
    assert rows.shape[1] == 9 and rows.dtype == UINT16 and (rows[:, 0] == BOS).all()
    found = np.bincount(rows[rows != BOS].astype(int), minlength=len(lengths))
    assert (found <= lengths).all()
    whole = [length // 8 * 8 for length in lengths]
    assert (found >= whole).all(), "what fills rows by itself is never cropped"
