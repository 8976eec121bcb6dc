"""How a row of the ledger is read back: Redis hash → Experiment."""

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime

from records import Candidate, Event, Experiment, Hypothesis, Measurement, Review, Verdict

ROLE = "role:"


def instant(milliseconds: str) -> str:
    """UTC, ISO 8601, of a server time in milliseconds since 1970."""
    return datetime.fromtimestamp(int(milliseconds) / 1000, UTC).isoformat(timespec="milliseconds")


def read_experiment(campaign: str, id: int, row: Mapping[str, str], measurements: Sequence[str]) -> Experiment:
    """Rebuild a row from its hash and its list of measurements."""
    return Experiment.model_validate(
        {
            "id": id,
            "campaign": campaign,
            "lane": row["lane"],
            "state": row["state"],
            "hypothesis": Hypothesis.model_validate_json(row["hypothesis"]),
            "author": row["author"],
            "roles": {key.removeprefix(ROLE): value for key, value in row.items() if key.startswith(ROLE)},
            "candidate": Candidate.model_validate_json(row["candidate"]) if "candidate" in row else None,
            "review": Review.model_validate_json(row["review"]) if "review" in row else None,
            "measurements": [Measurement.model_validate_json(text) for text in measurements],
            "verdict": Verdict.model_validate_json(row["verdict"]) if "verdict" in row else None,
            "commit": row.get("commit"),
            "note": row.get("note", ""),
            "attempts": int(row.get("attempts", 0)),
            "created_at": instant(row["created_at"]),
            "updated_at": instant(row["updated_at"]),
        }
    )


def read_event(id: str, fields: Mapping[str, str]) -> Event:
    """Rebuild an event of the stream. Campaigns of before 2026-11-25 have neither time nor hashes in theirs."""
    return Event(
        id=id,
        at=instant(fields.get("at", id.partition("-")[0])),
        experiment=int(fields["experiment"]) if fields["experiment"] else None,
        kind=fields["kind"],
        detail=fields["detail"],
        record=fields.get("record", ""),
        digest=fields.get("digest", ""),
        hash=fields.get("hash", ""),
    )
