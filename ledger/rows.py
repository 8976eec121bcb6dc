"""How a row of the ledger is read back: its parts in Redis → Experiment."""

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import NamedTuple

from records import Candidate, Claim, Event, Experiment, Hypothesis, Lesson, Measurement, Record, Review, State, Verdict

ROLE = "role:"
RANKS = (
    State.IMPORTED,
    *(State.PROPOSED, State.CLAIMED, State.CODED, State.QUEUED, State.REFUSED, State.DUPLICATE),
    *(State.RUNNING, State.CRASHED, State.INVALID, State.SCORED, State.CONFIRMING),
    *(State.STALE, State.POOLED, State.DISCARDED, State.WITHIN_NOISE, State.MERGING, State.MERGED),
)
"""States that agents, then those that runners, then those that only the arbiter may put an experiment into."""


def instant(milliseconds: str | int) -> str:
    """UTC, ISO 8601, of a server time in milliseconds since 1970."""
    return datetime.fromtimestamp(int(milliseconds) / 1000, UTC).isoformat(timespec="milliseconds")


class Stored(NamedTuple):
    """What Redis has of one experiment, by who wrote it: see lua/shared.lua."""

    id: int
    states: tuple[State, ...]
    """Where it stands: exactly one, unless somebody has meddled with it."""
    baseline: bool
    repeats: int | None
    """The champion's experiment, if it is a repeat of that."""
    updated_ms: int
    row: dict[str, str]
    run: dict[str, str]
    verdict: dict[str, str]
    measurements: list[str]
    """JSON, oldest first."""

    @property
    def of_branch(self) -> bool:
        """Whether it is a commit as it stands: nobody's idea."""
        return self.baseline or self.repeats is not None

    @property
    def lane(self) -> str:
        """Only the arbiter can say of one that it is nobody's idea."""
        if self.of_branch:
            return "baseline" if self.baseline else "repeat"
        return "improve" if self.row["lane"] in ("baseline", "repeat") else self.row["lane"]

    @property
    def state(self) -> State:
        """Of several, the one that fewest may write."""
        return max(self.states, key=RANKS.index)

    @property
    def updated_at(self) -> str:
        return instant(self.updated_ms)


def read_experiment(campaign: str, stored: Stored) -> Experiment:
    """Rebuild a row from its parts."""
    row, verdict = stored.row, stored.verdict
    return Experiment.model_validate(
        {
            "id": stored.id,
            "campaign": campaign,
            "lane": stored.lane,
            "repeats": stored.repeats,
            "state": stored.state,
            "hypothesis": Hypothesis.model_validate_json(row["hypothesis"]),
            "author": row["author"],
            "roles": {key.removeprefix(ROLE): value for key, value in sorted(row.items()) if key.startswith(ROLE)},
            "talk": row.get("talk", ""),
            "candidate": Candidate.model_validate_json(row["candidate"]) if "candidate" in row else None,
            "review": Review.model_validate_json(row["review"]) if "review" in row else None,
            "lesson": Lesson.model_validate_json(row["lesson"]) if "lesson" in row else None,
            "measurements": [Measurement.model_validate_json(text) for text in stored.measurements],
            "verdict": Verdict.model_validate_json(verdict["verdict"]) if "verdict" in verdict else None,
            "claim": Claim.model_validate_json(row["claim"]) if "claim" in row else None,
            "earlier": int(verdict.get("earlier", 0)),
            "commit": verdict.get("commit"),
            "note": row.get("note", ""),
            "attempts": int(stored.run.get("attempts", 0)),
            "created_at": instant(row["created_at"]),
            "updated_at": stored.updated_at,
        }
    )


def store_experiment(experiment: Experiment) -> Stored:
    """Its parts, as `read_experiment` reads them."""

    def texts(**records: Record | None) -> dict[str, str]:
        return {name: record.model_dump_json() for name, record in records.items() if record is not None}

    candidate = experiment.candidate
    row = {
        "lane": experiment.lane,
        "author": experiment.author,
        "note": experiment.note,
        "created_at": str(milliseconds(experiment.created_at)),
        **texts(
            hypothesis=experiment.hypothesis,
            candidate=candidate,
            review=experiment.review,
            lesson=experiment.lesson,
            claim=experiment.claim,
        ),
        **{ROLE + role: sha256 for role, sha256 in experiment.roles.items()},
    }
    if experiment.talk:
        row["talk"] = experiment.talk
    if candidate is not None:
        row |= {"parent": candidate.parent, "meaning": candidate.meaning_sha256}
    verdict = texts(verdict=experiment.verdict) | ({"commit": experiment.commit} if experiment.commit else {})
    verdict |= {"earlier": str(experiment.earlier)} if experiment.earlier else {}
    return Stored(
        experiment.id,
        (experiment.state,),
        experiment.lane == "baseline",
        experiment.repeats,
        milliseconds(experiment.updated_at),
        row,
        {"attempts": str(experiment.attempts)},
        verdict,
        [measurement.model_dump_json() for measurement in experiment.measurements],
    )


def milliseconds(moment: str) -> int:
    """Since 1970, of a time in ISO 8601."""
    return round(datetime.fromisoformat(moment).timestamp() * 1000)


def read_event(id: int, fields: Mapping[str, str]) -> Event:
    """Rebuild an event of the history; its id is its place there."""
    return Event(
        id=id,
        at=instant(fields["at"]),
        experiment=int(fields["experiment"]) if fields["experiment"] else None,
        kind=fields["kind"],
        detail=fields["detail"],
        record=fields["record"],
        digest=fields["digest"],
        hash=fields["hash"],
    )
