"""The arithmetic of the blind audit: where to cut, what the cuts say, and which lie would have gone unnoticed.

A model that can see all of a row claims a loss for each of its tokens. Drawn positions are then asked again in another
process that has never seen the token in question. With claims cᵢ, blind losses bᵢ and probabilities πᵢ of K draws with
replacement,

    Σ c + (1/K) Σ_k (b_k − c_k) / π_k

is an unbiased estimate of Σ b whatever the claims are (the difference estimator of survey sampling: Särndal, Swensson &
Wretman, Model Assisted Survey Sampling, 1992, ch. 6, with the draws of Hansen & Hurwitz, 1943). Where claims are honest the
differences are rounding, and it is nearly exact. A lie that touches a set S of positions is seen with probability
1 − (1 − π(S))^K. Nothing here knows of containers.
"""

import math
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from sandbox.dataset import Rows

Nats = NDArray[np.float32]

REACH_NATS = 6.0
"""How far above its token's surprisal an honest loss may well lie. With this and the floor below, the audit of a real model
needed 0.6 times the cuts that uniform draws need; docs/design-notes.md has the figures of the alternatives."""
FLOOR_NATS = 2.0
"""Least weight of a position, in the same unit: a bound on the variance, and on what a lie of a few nats can hide behind."""
CHUNK_ROWS = 256


class Cuts(NamedTuple):
    """K draws with replacement. A row may be drawn more than once, at the same or at different positions."""

    rows: NDArray[np.int64]
    positions: NDArray[np.int64]
    """The model sees the row up to this position, included, and is asked for the token after it."""
    probabilities: NDArray[np.float64]
    """Of this position in one draw, among all positions of all rows."""


class Estimate(NamedTuple):
    nats: float
    """Of all counted targets together."""
    std_error_nats: float
    correction_nats: float
    """Of it: what the cuts changed about the claims."""


class Text:
    """The targets of a split, and how surprising each is to somebody who knows only how often its token occurs.

    Args:
        rows: tokens, [N, T + 1]; targets are [:, 1:].
        token_bytes: bytes of each token, [vocab_size]; targets without any (BOS) count nowhere.
    """

    def __init__(self, rows: Rows, token_bytes: NDArray[np.int32]):
        self.rows = rows
        self.token_bytes = token_bytes
        counts = np.zeros(len(token_bytes), np.int64)
        for chunk in chunks(len(rows)):
            counts += np.bincount(rows[chunk, 1:].ravel(), minlength=len(token_bytes))
        self.bytes = int(counts @ token_bytes.astype(np.int64))
        self.tokens = int(counts[token_bytes > 0].sum())
        self.surprisals: Nats = -np.log((counts + 1) / (counts.sum() + len(counts))).astype(np.float32)
        """Of each token, in nats; as if every token occurred once more."""

    def counted(self, chunk: slice) -> NDArray[np.bool_]:
        """Which targets stand for bytes, [rows, T]."""
        found: NDArray[np.bool_] = self.token_bytes[self.rows[chunk, 1:]] > 0
        return found

    def bits_per_byte(self, nats: float) -> float:
        """Of all counted targets together."""
        return nats / (math.log(2) * self.bytes)

    def nats(self, bits_per_byte: float) -> float:
        """What a difference in bits per byte is worth over the whole split."""
        return bits_per_byte * math.log(2) * self.bytes


def chunks(count: int) -> Iterator[slice]:
    """Few rows at a time, so that no copy of a whole split is made."""
    return (slice(start, min(start + CHUNK_ROWS, count)) for start in range(0, count, CHUNK_ROWS))


def total(claims: Nats, text: Text) -> float:
    """Sum of the counted claims, in nats."""
    return sum(float(claims[chunk][text.counted(chunk)].sum(dtype=np.float64)) for chunk in chunks(len(claims)))


# ---- where to cut ----------------------------------------------------------------------------------------------------


def weigh(claims: Nats, text: Text) -> Nats:
    """How much a claim deserves to be looked at, [N, T]: by how far it lies below a loss that would still be plausible.

    May depend on the claims, since they are made before.
    """
    weights = np.empty_like(claims)
    for chunk in chunks(len(claims)):
        plausible = text.surprisals[text.rows[chunk, 1:]] + REACH_NATS
        weights[chunk] = np.maximum(plausible - claims[chunk], FLOOR_NATS) * text.counted(chunk)
    return weights


def draw(weights: Nats, count: int, rng: np.random.Generator) -> Cuts:
    """Draw positions in proportion to their weights, with replacement."""
    by_row = weights.sum(axis=1, dtype=np.float64)
    rows = np.sort(rng.choice(len(weights), count, p=by_row / by_row.sum()))
    positions = np.empty(count, np.int64)
    drawn, first, times = np.unique(rows, return_index=True, return_counts=True)
    for row, start, many in zip(drawn, first, times, strict=True):
        inside = weights[row].astype(np.float64)
        positions[start : start + many] = rng.choice(len(inside), many, p=inside / inside.sum())
    return Cuts(rows, positions, weights[rows, positions] / by_row.sum())


def schedule(cuts: Cuts) -> list[NDArray[np.int64]]:
    """Rounds of cuts, as indices into `cuts`: each row once in a round, at positions that grow from round to round.

    So whoever answers one round before it is shown the next has never seen the target of a cut when it is asked. Of equal
    cuts one is asked.
    """
    _, distinct = np.unique(
        np.stack([cuts.rows, cuts.positions]), axis=1, return_index=True
    )  # by row, then by position
    rows = cuts.rows[distinct]
    turn = np.arange(len(rows)) - np.searchsorted(rows, rows)
    return [distinct[turn == i] for i in range(turn.max() + 1)]


def blind(rows: Rows, positions: NDArray[np.int64], fillers: Rows) -> Rows:
    """Rows as the blind process sees them, [B, T]: their own text up to the cut, included, and other text after it.

    Args:
        rows: [B, T + 1].
        positions: the cuts, [B].
        fillers: rows to take the other text from, [B, T + 1].
    """
    own = np.arange(rows.shape[1] - 1) <= positions[:, None]
    return np.where(own, rows[:, :-1], fillers[:, :-1])


def nats_of(logits: Nats, targets: NDArray[np.integer]) -> NDArray[np.float64]:
    """Loss of each target under full-vocabulary logits [B, V], in float64."""
    exact = logits.astype(np.float64)
    top = exact.max(axis=1, keepdims=True)
    with np.errstate(invalid="ignore", over="ignore"):  # what is not finite is noticed where the losses are checked
        normaliser = np.log(np.exp(exact - top).sum(axis=1)) + top[:, 0]
        return np.asarray(normaliser - exact[np.arange(len(exact)), targets])


# ---- what the cuts say -----------------------------------------------------------------------------------------------


def estimate(claims: Nats, text: Text, cuts: Cuts, losses: NDArray[np.float64]) -> Estimate:
    """The sum of the blind losses of all counted targets.

    Args:
        claims: [N, T].
        text: the targets.
        cuts: K draws.
        losses: blind loss at each draw, [K].
    """
    differences = (losses - claims[cuts.rows, cuts.positions]) / cuts.probabilities
    correction = float(differences.mean())
    deviation = float(differences.std(ddof=1)) if len(differences) > 1 else math.inf
    return Estimate(total(claims, text) + correction, deviation / math.sqrt(len(differences)), correction)


# ---- what would have gone unnoticed ----------------------------------------------------------------------------------


def hardest_lie(claims: Nats, text: Text, worth_nats: float) -> float:
    """Chance that one draw meets the lie that is hardest to meet, among all that are worth so much.

    The honest losses are those that are claimed, but for what a lie has already taken away: the best hiding places, which no
    longer show. A lie's chance is therefore set below that of the best places that do show by as much as those are below
    the next best. On claims with the hardest lie in them that came out right (tests/sandbox/test_audit.py).
    """
    shown, twice = (least_mass(claims, text, factor * worth_nats) for factor in (1, 2))
    return shown * min(1.0, shown / (twice - shown)) if twice > shown else shown


def least_mass(honest: Nats, text: Text, worth_nats: float) -> float:
    """Least chance that one draw meets a lie worth so much, told by somebody with these honest losses, [N, T].

    It knows the weights and lies only where that pays best. With A = surprisal + REACH_NATS a claim c is drawn with weight A − c, or
    FLOOR_NATS if that is more. A lie at a position with honest loss ℓ ≤ A is worth at most ℓ, at a weight of A. Where ℓ > A, claiming
    A − FLOOR is worth ℓ − A + FLOOR at a weight of FLOOR, and every nat below that costs as much weight as it is worth. If all
    lies together are not worth so much, it is the chance to meet any.
    """
    best = np.empty((3, 0))
    """Ratio, worth and weight of the positions where it lies so far, best first."""
    mass = 0.0
    for chunk in chunks(len(honest)):
        counted = text.counted(chunk)
        losses = honest[chunk][counted].astype(np.float64)
        reach = text.surprisals[text.rows[chunk, 1:]][counted].astype(np.float64) + REACH_NATS
        mass += float(np.maximum(reach - losses, FLOOR_NATS).sum())
        far = losses > reach
        worth = np.concatenate([np.where(far, losses - reach + FLOOR_NATS, losses), (reach - FLOOR_NATS)[far]])
        weight = np.concatenate([np.where(far, FLOOR_NATS, reach), (reach - FLOOR_NATS)[far]])
        here = np.stack([worth / weight, worth, weight])
        if best[1].sum() >= worth_nats:
            here = here[:, here[0] > best[0, -1]]
        best = np.concatenate([best, here], axis=1)
        best = best[:, np.argsort(-best[0], kind="stable")]
        best = best[:, : int(np.searchsorted(np.cumsum(best[1]), worth_nats)) + 1]
    _, worths, paid = best
    # Of the last position only as much as is still missing: so it is a bound for every set of whole positions.
    missing = worth_nats - float(worths[:-1].sum())
    last = min(1.0, missing / float(worths[-1])) if worths[-1] > 0 else 1.0
    return float(paid[:-1].sum() + last * paid[-1]) / mass


def chance(mass: float, count: int) -> float:
    """That at least one of `count` draws meets what one draw meets with the chance `mass`."""
    return 1.0 if mass >= 1 else -math.expm1(count * math.log1p(-mass))


def needed(mass: float, power: float) -> int:
    """Draws that meet it with a chance of at least `power`."""
    return 1 if mass >= 1 else math.ceil(math.log1p(-power) / math.log1p(-mass))
