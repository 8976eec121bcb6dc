"""Scores a model on one split: one process claims a loss for every token, another one, which cannot know them, is audited."""

import hashlib
import secrets
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple, TypeVar

import numpy as np
from numpy.typing import NDArray

from records import Audit, FailureKind
from sandbox.audit import (
    Cuts,
    Nats,
    Text,
    blind,
    chance,
    draw,
    estimate,
    hardest_lie,
    nats_of,
    needed,
    schedule,
    total,
    weigh,
)
from sandbox.dataset import Rows
from sandbox.device import Device
from sandbox.failure import Faulted
from sandbox.respondent import Respondent

INSIDE = Path(__file__).with_name("inside") / "score.py"
HALVES = (Path(__file__), *(Path(__file__).with_name(name) for name in ("audit.py", "respondent.py")), INSIDE)
BATCH_ROWS = 64
NOTICEABLE = 0.1
"""Part of the whole effect of later text, by which an author is told from where on it matters."""
LOGITS_BYTES = 2**26
"""Room for the float32 logits of a batch on a CPU; on a GPU it is a part of its memory."""
GPU_PART = 20
MOST_CUTS = 500_000
"""Ten times what a good model takes with the default rigour."""
ROUNDING_NATS = 1e-3
"""A loss this far below zero is one of zero, computed in float32."""

Batch = TypeVar("Batch")


@dataclass(frozen=True)
class Rigour:
    """How strictly claims are audited."""

    tolerance_nats: float = 0.25
    """A claim may differ this much from the blind loss. docs/design-notes.md has what honest models differ by."""
    lie_bpb: float = 0.0005
    """What a lie may be worth without being bound to be noticed …"""
    power: float = 0.99
    """… with at least this chance, by the cuts that are required to merge."""
    screen_cuts: int | None = None
    """Of a run that is not going to merge; None: a sixteenth of the rows, at least 64."""


class Plan(NamedTuple):
    """Of an audit."""

    cuts: int
    full: bool
    """They are the cuts that are required to merge."""
    mass: float
    """Chance that one of them meets the hardest lie."""


class Score(NamedTuple):
    bpb: float
    std_error_bpb: float
    tokens: int
    """Targets that stand for bytes."""
    bytes: int
    audit: Audit


def scorer_sha256() -> str:
    """Hash of everything that makes a score what it is."""
    return hashlib.sha256(b"".join(path.read_bytes() for path in HALVES)).hexdigest()


class Caught(Faulted):
    """What was claimed is not what the model computes from what it may see."""

    def __init__(self, audit: Audit, row: int, position: int, message: str):
        super().__init__(FailureKind.INVALID, message)
        self.audit = audit
        self.row = row
        self.position = position
        """Where they differ most."""


@dataclass(frozen=True)
class Exam:
    """The split that a model is scored on.

    Args:
        text: its targets.
        padding: rows of the training split: what stands after a cut, and fills the last batch.
        batch_rows: rows per question: the same in every question, so that an honest model computes the same numbers.
        rigour: how strictly claims are audited.
    """

    text: Text
    padding: Rows
    batch_rows: int
    rigour: Rigour

    # ---- claims ------------------------------------------------------------------------------------------------------

    def collect_claims(self, respondent: Respondent) -> Nats:
        """The loss that the model claims for each target, [N, T].

        Raises:
            Faulted: it failed at that, or a claim is no loss.
        """
        rows, size = self.text.rows, self.batch_rows
        claims = np.empty((len(rows), rows.shape[1] - 1), np.float32)

        def ask(batch: slice) -> None:
            short = size - (batch.stop - batch.start)
            respondent.ask_losses(
                np.concatenate([rows[batch], self.padding[np.arange(short) % len(self.padding)]]), name(batch)
            )

        batches = [slice(start, min(start + size, len(rows))) for start in range(0, len(rows), size)]
        for batch, numbers in overlapped(batches, ask, respondent):
            counted = self.text.counted(batch)  # what the others are claimed to cost counts nowhere
            claims[batch] = checked(np.where(counted, numbers[: batch.stop - batch.start], 0), batch.start)
        return claims

    # ---- the audit ---------------------------------------------------------------------------------------------------

    def plan(self, claims: Nats, full: bool) -> Plan:
        """How many cuts the audit takes.

        Args:
            claims: [N, T].
            full: as many as a merge requires.

        Raises:
            Faulted: the losses are so uneven that no number of cuts that can be afforded would do.
        """
        mass = hardest_lie(claims, self.text, self.text.nats(self.rigour.lie_bpb))
        screen = self.rigour.screen_cuts or max(64, len(claims) // 16)
        if not full:
            return Plan(screen, full, mass)
        # Claims of next to nothing leave no room for lies of that worth, and would need hardly any cuts.
        if mass <= 0 or (count := needed(mass, self.rigour.power)) > MOST_CUTS:
            raise Faulted(
                FailureKind.INVALID,
                f"a few losses are so high (up to {claims.max():.3g} nats) that a lie about them could hide from {MOST_CUTS:,} cuts",
            )
        return Plan(max(screen, count), full, mass)

    def audit(self, respondent: Respondent, claims: Nats, plan: Plan, caches_dropped: bool = False) -> Score:
        """Ask again at drawn positions, without what comes after them.

        Args:
            respondent: a process that has seen nothing of this split.
            claims: what another one claimed, [N, T]. They are made, so the cuts may be drawn.
            plan: how many.
            caches_dropped: for the record.

        Raises:
            Faulted: it failed at that, or what it says is not what was claimed.
        """
        seed = secrets.token_hex(16)
        rng = np.random.default_rng(int(seed, 16))
        cuts = draw(weigh(claims, self.text), plan.cuts, rng)
        losses = self.collect_blind(respondent, cuts, rng)
        differences = np.abs(losses - claims[cuts.rows, cuts.positions])
        worst = int(differences.argmax())
        mismatches = int((differences > self.rigour.tolerance_nats).sum())
        found = estimate(claims, self.text, cuts, losses)
        audit = Audit(
            level="full" if plan.full else "screen",
            cuts=plan.cuts,
            mismatches=mismatches,
            tolerance_nats=self.rigour.tolerance_nats,
            largest_difference_nats=float(differences[worst]),
            claimed_bpb=self.text.bits_per_byte(total(claims, self.text)),
            correction_bpb=self.text.bits_per_byte(found.correction_nats),
            lie_bpb=self.rigour.lie_bpb,
            power=chance(plan.mass, plan.cuts),
            caches_dropped=caches_dropped,
            claims_sha256=hashlib.sha256(claims.tobytes()).hexdigest(),
            seed=seed,
        )
        if mismatches:
            row, position = cuts.rows[worst], cuts.positions[worst]
            raise Caught(
                audit,
                int(row),
                int(position),
                f"{mismatches} of {plan.cuts} audited losses are not what was claimed: row {row}, position {position} changed when "
                f"the text after it changed (claimed {claims[row, position]:.3f} nats, {losses[worst]:.3f} without seeing it)",
            )
        bpb, std_error = self.text.bits_per_byte(found.nats), self.text.bits_per_byte(found.std_error_nats)
        return Score(bpb, std_error, self.text.tokens, self.text.bytes, audit)

    def collect_blind(self, respondent: Respondent, cuts: Cuts, rng: np.random.Generator) -> NDArray[np.float64]:
        """Loss at each cut, by somebody who has not seen its target when asked, [K]."""
        rows, size, vocab_size = self.text.rows, self.batch_rows, len(self.text.token_bytes)
        losses: dict[tuple[int, int], float] = {}

        def ask(batch: NDArray[np.int64]) -> None:
            fillers = self.padding[rng.integers(len(self.padding), size=size)]
            shown = fillers.copy()
            shown[: len(batch)] = rows[cuts.rows[batch]]
            positions = np.zeros(size, np.int64)
            positions[: len(batch)] = cuts.positions[batch]
            about = f"rows {', '.join(map(str, cuts.rows[batch][:3]))}{' …' if len(batch) > 3 else ''} of the audit"
            respondent.ask_logits(blind(shown, positions, fillers), positions.astype(np.uint32), vocab_size, about)

        for indices in schedule(cuts):
            # Two questions may be under way: within a round no row comes twice.
            batches = [indices[start : start + size] for start in range(0, len(indices), size)]
            for batch, logits in overlapped(batches, ask, respondent):
                where = list(zip(cuts.rows[batch].tolist(), cuts.positions[batch].tolist(), strict=True))
                targets = rows[cuts.rows[batch], cuts.positions[batch] + 1]
                for (row, position), loss in zip(where, nats_of(logits[: len(batch)], targets).tolist(), strict=True):
                    if not np.isfinite(loss):
                        raise no_loss(row, position, loss)
                    losses[row, position] = loss
        return np.array([losses[cut] for cut in zip(cuts.rows.tolist(), cuts.positions.tolist(), strict=True)])

    # ---- for authors -------------------------------------------------------------------------------------------------

    def look_into(self, caught: Caught, respondent: Respondent) -> Caught:
        """Find out how far ahead the model looks at the position where it was caught; tells it in the message.

        A candidate that wants to can lie here: this is a help for honest authors, not evidence.
        """
        row, position, vocab_size = self.text.rows[caught.row], caught.position, len(self.text.token_bytes)
        furthest = len(row) - 2 - position
        ahead = [0, *(2**i for i in range(furthest.bit_length()) if 2**i < furthest), furthest][-self.batch_rows :]
        reach = np.full(self.batch_rows, position, np.int64)
        reach[: len(ahead)] += ahead
        shown, fillers = (np.tile(tokens, (self.batch_rows, 1)) for tokens in (row, self.padding[0]))
        cut = np.full(self.batch_rows, position, np.uint32)
        respondent.ask_logits(blind(shown, reach, fillers), cut, vocab_size, f"row {caught.row}")
        losses = nats_of(respondent.answer()[: len(ahead)], np.full(len(ahead), row[position + 1]))
        moved = np.abs(losses - losses[0]) > NOTICEABLE * np.abs(losses - losses[0]).max()
        if not moved.any():
            where = "not by that text alone: by what the model has seen in other rows or calls"
        else:
            first = int(moved.argmax())
            where = (
                f"of that text, tokens {ahead[first - 1] + 1} to {ahead[first]} matter"
                if ahead[first] > 1
                else "the very next token matters"
            )
        return Caught(caught.audit, caught.row, caught.position, f"{caught.failure.message}; {where}")


def overlapped(
    batches: Sequence[Batch], ask: Callable[[Batch], None], respondent: Respondent
) -> Iterator[tuple[Batch, Nats]]:
    """Ask about each batch; the next question is out before the answer to the last one is in."""
    for i, batch in enumerate(batches):
        if i == 0:
            ask(batch)
        if i + 1 < len(batches):
            ask(batches[i + 1])
        yield batch, respondent.answer()


def name(batch: slice) -> str:
    return f"rows {batch.start}–{batch.stop - 1}"


def checked(losses: Nats, first_row: int) -> Nats:
    """Losses of whole rows, none of them below zero.

    Raises:
        Faulted: one is not finite, or plainly below zero.
    """
    wrong = ~np.isfinite(losses) | (losses < -ROUNDING_NATS)
    if wrong.any():
        row, position = np.argwhere(wrong)[0]
        raise no_loss(first_row + int(row), int(position), float(losses[row, position]))
    return np.maximum(losses, 0)


def no_loss(row: int, position: int, value: float) -> Faulted:
    return Faulted(FailureKind.INVALID, f"row {row}, position {position}: the loss is {value:g}")


def batch_rows(row_tokens: int, vocab_size: int, device: Device) -> int:
    """Rows per question, so that their logits fit."""
    room = LOGITS_BYTES if device.gpu is None else device.gpu.memory_bytes // GPU_PART
    return max(1, min(BATCH_ROWS, room // (4 * row_tokens * vocab_size)))
