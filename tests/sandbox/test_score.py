"""Bits per byte from losses, and what a scoring container may hand over in place of losses."""

import io
import math
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from records import FailureKind
from sandbox.failure import Faulted
from sandbox.score import bits_per_byte, read_nats

SHAPE = (3, 5)


def npy(array: NDArray[np.generic], **options: bool) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, array, **options)
    return buffer.getvalue()


def test_a_uniform_model_scores_the_entropy_of_its_vocabulary() -> None:
    rows = np.array([[9, 0, 1, 9, 2]], np.uint16)  # 9 is BOS
    table = np.array([1, 2, 3, 0, 0, 0, 0, 0, 0, 0], np.int32)
    nats = np.full((1, 4), math.log(10), np.float32)
    score = bits_per_byte(nats, rows, table)
    assert (score.tokens, score.bytes) == (3, 1 + 2 + 3)
    assert score.bpb == pytest.approx(3 * math.log2(10) / 6)


@given(st.floats(0, 50, width=32), st.integers(1, 40))
def test_the_score_grows_with_every_loss_and_ignores_that_of_bos(loss: float, length: int) -> None:
    rows = np.array([[1, 0, 1, 0]], np.uint16)
    table = np.array([length, 0], np.int32)
    nats = np.array([[loss, 1e6, loss]], np.float32)
    assert bits_per_byte(nats, rows, table).bpb == pytest.approx(loss / math.log(2) / length)


def test_losses_are_read_as_they_were_written(tmp_path: Path) -> None:
    nats = np.random.default_rng(0).random(SHAPE, np.float32)
    (tmp_path / "nats.npy").write_bytes(npy(nats))
    assert (read_nats(tmp_path / "nats.npy", SHAPE) == nats).all()


GOOD = np.ones(SHAPE, np.float32)


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\x93NUMPY",
        npy(GOOD)[:-1],
        npy(GOOD) + b"\0",
        npy(GOOD.astype(np.float64)),
        npy(GOOD.T),
        npy(np.asfortranarray(GOOD)),
        npy(np.array([[{}] * 5] * 3, object), allow_pickle=True),
        npy(GOOD).replace(b"(3, 5)", b"(9**99, 5)"),
        npy(GOOD).replace(b"(3, 5)", b"(3, 50000000000)"),
        npy(GOOD * np.float32("nan")),
        npy(GOOD * np.float32("inf")),
        npy(-GOOD),
    ],
)
def test_anything_but_finite_losses_of_the_right_shape_is_invalid(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "nats.npy").write_bytes(content)
    with pytest.raises(Faulted) as fault:
        read_nats(tmp_path / "nats.npy", SHAPE)
    assert fault.value.failure.kind == FailureKind.INVALID
