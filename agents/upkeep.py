"""Upkeep: gives an idle device something to measure that follows from the ledger alone.

Two things, in this order: near misses together, since several gains below the noise may add up to one above it; and the champion
without one of its changes, since what paid once may not pay beside what came later. The coder makes their programs
(agents/recombine.py), and contract, reviewer and arbiter treat them as any other.
"""

from collections.abc import Iterator, Mapping, Sequence
from itertools import combinations
from typing import Literal, NamedTuple

from agents.recombine import recombine
from agents.syntax import BadCandidate
from ledger import Ledger
from ledger.champion import Champion
from ledger.verdict import code_lines
from records import Experiment, Hypothesis, Lane, State

NEAR_MISSES = 5
"""The best of them that are tried together: ten pairs and ten triples."""
TITLE_CHARACTERS = 120


class Idea(NamedTuple):
    lane: Literal["combine", "upkeep"]
    hypothesis: Hypothesis


class Upkeep:
    """Proposes one hypothesis per step. Holds no state that matters: a killed one looks at the ledger again.

    Args:
        ledger: the campaign's ledger.
        champion: the campaign's branch.
        profile: the dataset's suggested sizes, by name.
        combine: whether near misses are tried together.
        leave_one_out: whether the champion is tried without each of its changes.
    """

    def __init__(
        self,
        ledger: Ledger,
        champion: Champion,
        *,
        profile: Mapping[str, int | float | str],
        combine: bool,
        leave_one_out: bool,
    ):
        self.ledger = ledger
        self.champion = champion
        self.profile = dict(profile)
        self.combine = combine
        self.leave_one_out = leave_one_out
        self.fruitless = -1
        """Newest event at the last look that found nothing: nothing new can be found before the next one."""
        self.unfit: set[tuple[str, str]] = set()
        """Champion and title of what has no program, so that it is noted once."""

    def step(self) -> bool:
        """Propose the first idea that was not tried yet; False when there is none, or when something else waits for the device.

        A champion that is not measured, or about to be replaced, is waited for.
        """
        commit = self.ledger.champion_commit()
        newest = self.ledger.last_event()
        if commit is None or commit != self.champion.head() or newest == self.fruitless:
            return False
        idea = self.next_idea(commit, self.ledger.experiments())
        if idea is None:
            self.fruitless = newest
            return False
        id = self.ledger.propose(idea.hypothesis, author="upkeep", lane=idea.lane, roles={}, max_open=1)
        return id is not None

    def next_idea(self, commit: str, rows: Sequence[Experiment]) -> Idea | None:
        """The first idea that was not tried on this champion and has a program. What has none is noted in the history."""
        source = self.champion.source(commit)
        for idea in self.ideas(commit, rows):
            key = (commit, idea.hypothesis.title)
            if key in self.unfit:
                continue
            try:
                program = recombine(*idea, rows, self.champion, source, self.profile)
            except BadCandidate as error:
                self.unfit.add(key)
                self.ledger.note("upkeep", f"{idea.hypothesis.title}: not on champion {commit[:10]}: {error}")
                continue
            if idea.lane == "combine" or no_longer(program, source):
                return idea
        return None

    def ideas(self, commit: str, rows: Sequence[Experiment]) -> Iterator[Idea]:
        """All that may be tried on a champion, best first."""
        if self.combine:
            chance = chance_of("combine", rows)
            yield from (Idea("combine", together(group, chance)) for group in groups(rows))
        if self.leave_one_out:
            chance = chance_of("upkeep", rows)
            for row in removable(commit, rows):
                if row.commit is not None and self.champion.contains(row.commit):
                    yield Idea("upkeep", without(row, commit, chance))


def no_longer(program: str, than: str) -> bool:
    """Whether a program has no more lines of code: a change that made the champion shorter is not taken out of it."""
    lines, limit = code_lines(program), code_lines(than)
    return lines is not None and limit is not None and lines <= limit


def chance_of(lane: Lane, rows: Sequence[Experiment]) -> float:
    """The lane's rate of merges in this campaign, which is all that is known beforehand (Laplace: one of each is given)."""
    verdicts = [row.verdict for row in rows if row.lane == lane and row.verdict is not None and row.state.final]
    return (sum(verdict.merge for verdict in verdicts) + 1) / (len(verdicts) + 2)


# ---- near misses together --------------------------------------------------------------------------------------------


def groups(rows: Sequence[Experiment]) -> list[tuple[Experiment, ...]]:
    """Two, then three, of the best near misses that were never tried together; largest sum of effects first."""
    tried = {frozenset(row.hypothesis.of) for row in rows if row.lane == "combine"}
    best = near_misses(rows)[:NEAR_MISSES]
    found: list[tuple[Experiment, ...]] = []
    for size in (2, 3):
        found += sorted(combinations(best, size), key=lambda group: -sum(map(effect_of, group)))
    return [group for group in found if frozenset(row.id for row in group) not in tried]


def near_misses(rows: Sequence[Experiment]) -> list[Experiment]:
    """Changes by minds that looked better by less than the noise, best first; without those that merged as part of another."""
    merged = {id for row in rows if row.lane == "combine" and row.state == State.MERGED for id in row.hypothesis.of}
    found = [
        row
        for row in rows
        if row.state == State.WITHIN_NOISE and row.lane in ("improve", "simplify") and row.id not in merged
    ]
    return sorted((row for row in found if effect_of(row) > 0), key=lambda row: -effect_of(row))


def effect_of(row: Experiment) -> float:
    """By how many bits per byte it looked better than its champion."""
    return row.verdict.effect_bpb if row.verdict is not None and row.verdict.effect_bpb is not None else 0.0


def together(group: Sequence[Experiment], chance: float) -> Hypothesis:
    parts = "; ".join(f"#{row.id} {row.hypothesis.title} ({effect_of(row):+.6f} bpb better alone)" for row in group)
    return Hypothesis(
        title="together: " + " + ".join(f"#{row.id}" for row in group),
        change=f"Make these changes together, and nothing else: {parts}.",
        rationale="Each looked better than its champion by less than the noise; their sum may be more.",
        category="combination",
        expected_delta_bpb=-sum(map(effect_of, group)),
        probability=chance,
        if_success="At least one of them is an improvement, or they are one together.",
        if_failure="What they looked better by was mostly noise, or they are in each other's way.",
        not_duplicate="These were never tried together.",
        of=[row.id for row in group],
    )


# ---- the champion without one change ---------------------------------------------------------------------------------


def removable(commit: str, rows: Sequence[Experiment]) -> list[Experiment]:
    """Merged changes, oldest first, that the champion of this commit was not tried without.

    The newest is left out, since the champion before it was beaten just now; and simplifications, which merged for being no
    worse: taking one out would be no worse either, and so back and forth.
    """
    upkeep = [row for row in rows if row.lane == "upkeep"]
    gone = {id for row in upkeep if row.state == State.MERGED for id in row.hypothesis.of}
    tried = {id for row in upkeep if was_tried_on(row, commit) for id in row.hypothesis.of}
    return [
        row
        for row in rows
        if row.state == State.MERGED
        and row.lane in ("improve", "combine")
        and row.commit != commit
        and row.id not in gone | tried
    ]


def was_tried_on(row: Experiment, commit: str) -> bool:
    """Whether a removal was proposed, or written once more, for the champion of this commit."""
    return commit[:10] in row.hypothesis.change or (row.candidate is not None and row.candidate.parent == commit)


def without(row: Experiment, commit: str, chance: float) -> Hypothesis:
    title = f"without #{row.id}: {row.hypothesis.title}"
    return Hypothesis(
        title=title if len(title) <= TITLE_CHARACTERS else f"{title[: TITLE_CHARACTERS - 1]}…",
        change=f"Take what #{row.id} changed out of champion {commit[:10]}, and nothing else: {row.hypothesis.title}.",
        rationale="It paid when it merged; beside what merged later it may pay no longer.",
        category="ablation",
        probability=chance,
        if_success="It paid no longer: the champion is as good without it.",
        if_failure="It still pays.",
        not_duplicate=f"Champion {commit[:10]} was not tried without it.",
        of=[row.id],
    )
