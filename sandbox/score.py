"""The host's side of scoring: rows go into a second, fresh container, losses come out, bits per byte are computed here."""

import hashlib
import math
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.lib import format as npy
from numpy.typing import NDArray

from records import FailureKind
from sandbox.dataset import Rows
from sandbox.failure import Faulted

INSIDE = Path(__file__).with_name("inside") / "score.py"
NATS = "nats.npy"
HEADER_BYTES = 4096


class Score(NamedTuple):
    bpb: float
    tokens: int
    """Targets that stand for bytes."""
    bytes: int


def scorer_sha256() -> str:
    """Hash of both halves of the scorer."""
    return hashlib.sha256(Path(__file__).read_bytes() + INSIDE.read_bytes()).hexdigest()


def bits_per_byte(nats: NDArray[np.float32], rows: Rows, token_bytes: NDArray[np.int32]) -> Score:
    """Σ nats / (ln 2 × Σ bytes) over the targets that stand for bytes; BOS counts in neither sum.

    Args:
        nats: loss of each target, [N, T].
        rows: tokens, [N, T + 1]; targets are [:, 1:].
        token_bytes: bytes of each token, [vocab_size].
    """
    lengths = token_bytes[rows[:, 1:]]
    counted = lengths > 0
    total_bytes = int(lengths.sum(dtype=np.int64))
    total_nats = float(nats[counted].sum(dtype=np.float64))
    return Score(total_nats / (math.log(2) * total_bytes), int(counted.sum()), total_bytes)


def write_rows(rows: Rows, path: Path) -> None:
    """Give the scoring container its rows as a plain array."""
    np.save(path, np.asarray(rows), allow_pickle=False)


def size_bytes(rows: Rows) -> int:
    """Largest size of a file with the losses of these rows."""
    return rows[:, 1:].size * 4 + HEADER_BYTES


def read_nats(path: Path, shape: tuple[int, int]) -> NDArray[np.float32]:
    """Read a collected nats.npy that ought to be float32 of this shape, finite and not negative.

    Raises:
        Faulted: it is anything else (invalid).
    """
    with path.open("rb") as file:
        try:
            if npy.read_magic(file) != (1, 0):
                raise ValueError("version")
            found, fortran, dtype = npy.read_array_header_1_0(file, max_header_size=HEADER_BYTES)
        except (ValueError, TypeError, SyntaxError, RecursionError, MemoryError):
            raise Faulted(FailureKind.INVALID, f"{NATS}: not an array") from None
        data = file.read()
    # Compared before anything of the size that the header claims is allocated.
    if (found, fortran, dtype) != (shape, False, np.dtype("<f4")) or len(data) != math.prod(shape) * 4:
        raise Faulted(FailureKind.INVALID, f"{NATS}: not float32 {list(shape)}")
    nats = np.frombuffer(data, np.dtype("<f4")).reshape(shape)
    if not np.isfinite(nats).all():
        row = int(np.argmin(np.isfinite(nats).all(axis=1)))
        raise Faulted(FailureKind.INVALID, f"the model's loss is not finite (first in row {row})")
    if (nats < 0).any():
        raise Faulted(FailureKind.INVALID, "a loss below zero: probabilities above one")
    return nats
