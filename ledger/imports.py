"""Somebody's results.tsv as a campaign to look at: claims, never measurements."""

import hashlib
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

from pydantic import ValidationError

from ledger.export import HEADER
from records import BadInput, Campaign, Claim, Experiment, Hypothesis, State

COLUMNS = HEADER.split("\t")


def read_claims(path: Path) -> list[Claim]:
    """The rows of a file in the original's five columns.

    Raises:
        BadInput: it is no such file; names the line.
    """
    try:
        lines = path.read_text(encoding="utf-8").split("\n")
    except (OSError, UnicodeDecodeError) as error:
        raise BadInput(f"{path}: cannot be read: {error}") from None
    if lines[0].rstrip("\r") != HEADER:
        raise BadInput(f"{path}: its first line has to be {' '.join(COLUMNS)}, separated by tabs")
    claims = [read_claim(line.rstrip("\r"), f"{path}, line {n}") for n, line in enumerate(lines[1:], 2) if line.strip()]
    if not claims:
        raise BadInput(f"{path}: has no rows")
    return claims


def read_claim(line: str, where: str) -> Claim:
    """One row. Raises BadInput that begins with `where`."""
    cells = line.split("\t")
    if len(cells) != len(COLUMNS):
        raise BadInput(f"{where}: {len(cells)} columns in place of {len(COLUMNS)}")
    try:
        return Claim.model_validate(dict(zip(COLUMNS, cells, strict=True)))
    except ValidationError as error:
        first = error.errors()[0]
        raise BadInput(f"{where}, {first['loc'][0]}: {first['msg'].lower()}") from None


def imported_campaign(name: str, path: Path) -> Campaign:
    """The record of a campaign that a file makes."""
    sha256 = hashlib.sha256(path.read_bytes()).hexdigest()
    return Campaign(
        name=name,
        org="",  # no org file has this name: nobody can go on with it
        org_id="",
        base="",
        dataset="",
        device="",
        budget_s=0.0,
        seed=0,
        created_at=datetime.now(UTC).isoformat(timespec="seconds"),
        imported_from=f"{path.name} {sha256}",
    )


def rows_of(campaign: Campaign, claims: Sequence[Claim]) -> list[Experiment]:
    """A row for each claim, in a lane and a state of their own: whatever counts merges and scores counts none of them."""
    return [
        Experiment(
            id=id,
            campaign=campaign.name,
            lane="imported",
            state=State.IMPORTED,
            hypothesis=Hypothesis(title=claim.description[:120], change=claim.description, category="imported"),
            author="imported",
            claim=claim,
            created_at=campaign.created_at,
            updated_at=campaign.created_at,
        )
        for id, claim in enumerate(claims, 1)
    ]
