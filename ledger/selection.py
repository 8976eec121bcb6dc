"""Which experiments somebody wants to see, and in which order."""

import math
import re
from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from typing import NamedTuple

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


def select(
    experiments: Iterable[Experiment], selection: Selection, order: Order = Order.ID, limit: int | None = None
) -> list[Experiment]:
    """Those that are asked for, in this order; of them the first `limit`."""
    found = [experiment for experiment in experiments if selection.has(experiment)]
    match order:
        case Order.ID:
            found.sort(key=lambda e: e.id)
        case Order.UPDATED:
            found.sort(key=lambda e: e.updated_at, reverse=True)
        case Order.BPB:
            found.sort(key=score)
    return found[:limit]


def score(experiment: Experiment) -> float:
    """Newest val_bpb, or the one that is claimed; infinite for none."""
    measurement, claim = experiment.score, experiment.claim
    bpb = measurement.val_bpb if measurement is not None else claim.bpb if claim is not None else None
    return math.inf if bpb is None else bpb


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
