"""Which experiments somebody wants to see, and in which order."""

import math
import re
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from heapq import merge
from itertools import count
from typing import NamedTuple

from ledger.store import READ_AT_ONCE, Ledger, batched
from records import BadInput, Experiment, State

AGE = re.compile(r"(\d+)([mhd])")
UNITS = {"m": "minutes", "h": "hours", "d": "days"}


class Order(StrEnum):
    ID = "id"
    UPDATED = "updated"
    """Newest change first."""
    BPB = "bpb"
    """Lowest score first, those without one last."""


class Selection(NamedTuple):
    """What an experiment has to be; whatever is empty or None is not asked for."""

    states: tuple[State, ...] = ()
    lane: str | None = None
    role: str | None = None
    """`role` or `role@…`, the beginning of its file's SHA-256: which experiments did this version have a hand in?"""
    author: str | None = None
    """`role/mind`, or the beginning of it."""
    since: datetime | None = None
    """Of the last change."""

    def has(self, experiment: Experiment) -> bool:
        name, _, sha256 = (self.role or "").partition("@")
        return (
            (not self.states or experiment.state in self.states)
            and self.lane in (None, experiment.lane)
            and (not name or (experiment.roles.get(name, "").startswith(sha256) and name in experiment.roles))
            and experiment.author.startswith(self.author or "")
            and (self.since is None or datetime.fromisoformat(experiment.updated_at) >= self.since)
        )


def find(ledger: Ledger, selection: Selection, order: Order = Order.ID, limit: int | None = None) -> list[Experiment]:
    """Up to `limit` of those that are asked for, in this order; by id, the newest of them.

    States and times are asked of sorted sets, so no more rows are read than are shown, unless lane, role or author have to be
    looked for.
    """
    found: list[Experiment] = []
    for ids in batched(in_order(ledger, selection, order), 2 * min(limit or READ_AT_ONCE, READ_AT_ONCE)):
        found += [row for row in ledger.rows(standing(ledger, selection, ids)) if selection.has(row)]
        if limit is not None and len(found) >= limit:
            break
    found = found[:limit]
    return found[::-1] if order == Order.ID else found


def in_order(ledger: Ledger, selection: Selection, order: Order) -> Iterator[int]:
    """Ids that may be asked for, newest first where the order is by id."""
    match order:
        case Order.ID if selection.states:
            # The turn of a baseline is 0, whatever its id.
            keys = [ledger.state_key(state) for state in selection.states]
            baselines = [sorted(ids(ledger, key, turns=(0, 0)), reverse=True) for key in keys]
            return merge(*baselines, *(ids(ledger, key, turns=(math.inf, 1)) for key in keys), reverse=True)
        case Order.ID:
            return iter(range(ledger.last_id(), 0, -1))
        case Order.UPDATED:
            return ids(ledger, ledger.prefix + "updated", turns=(math.inf, 0))
        case Order.BPB:
            return scored_first(ledger)


def ids(ledger: Ledger, key: str, turns: tuple[float, float]) -> Iterator[int]:
    """Members of a sorted set with scores from one to the other, read as they are needed."""
    first, last = turns
    for start in count(0, READ_AT_ONCE):
        some = ledger.reader.zrange(key, first, last, desc=first >= last, byscore=True, offset=start, num=READ_AT_ONCE)
        yield from map(int, some)
        if len(some) < READ_AT_ONCE:
            return


def scored_first(ledger: Ledger) -> Iterator[int]:
    """Lowest score first; then those without one, newest first."""
    key = ledger.prefix + "scores"
    yield from ids(ledger, key, turns=(-math.inf, math.inf))
    for some in batched(range(ledger.last_id(), 0, -1), READ_AT_ONCE):
        scores = ledger.reader.zmscore(key, some)
        yield from (id for id, score in zip(some, scores, strict=True) if score is None)


def standing(ledger: Ledger, selection: Selection, ids: list[int]) -> list[int]:
    """Those of the ids that stand in one of the states, and changed since then."""
    keys = [ledger.state_key(state) for state in selection.states or State]
    changed, *turns = ledger.read([ledger.prefix + "updated", *keys], lambda key, pipe: pipe.zmscore(key, ids))
    since = 0.0 if selection.since is None else selection.since.timestamp() * 1000
    return [
        id
        for i, id in enumerate(ids)
        if (changed[i] or 0.0) >= since and any(scores[i] is not None for scores in turns)
    ]


def read_since(text: str, now: datetime) -> datetime:
    """`90m`, `12h`, `3d` ago; or a date, or a date and a time, in ISO 8601 (UTC unless it says otherwise).

    Raises:
        BadInput: it is none of these.
    """
    if age := AGE.fullmatch(text):
        return now - timedelta(**{UNITS[age[2]]: int(age[1])})
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        raise BadInput(f"--since {text}: give 90m, 12h, 3d, or a date such as 2026-01-31") from None
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)
