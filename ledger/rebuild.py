"""A campaign from its branch alone, when Redis and all that it knew are lost.

What the commits tell comes back with its signed measurements: every merge, and each start or commit by hand that a merge was judged
against. What never merged is gone, and so is the history: the new one begins with the event that says so.
"""

from typing import NamedTuple

from ledger.champion import Champion
from ledger.store import REBUILT, Ledger
from ledger.witness import read_merge, read_start
from records import Experiment


class Rebuilt(NamedTuple):
    """What a rebuild came to."""

    campaign: str
    branch: str
    merges: int
    lost: list[str]
    """What could not be recovered, in words."""


def rebuild(ledger: Ledger, champion: Champion) -> Rebuilt:
    """Put the campaign of a branch into a ledger that does not have it.

    Raises:
        BadInput: the ledger has it, or the branch does not tell what campaign it is of.
    """
    campaign = read_start(champion)
    rows: dict[int, Experiment] = {}
    unread: list[str] = []
    commits = champion.since(campaign.base)
    merged = 0
    for commit in commits:
        told = read_merge(champion, commit)
        if told is None:  # a commit by hand is expected to tell nothing
            unread += [commit.id] if "Experiment" in commit.trailers else []
            continue
        # What a later merge tells of an experiment has all that was measured of it since.
        rows |= {row.id: row for row in (told.champion, told.experiment)}
        merged += 1
    known = {row.commit: row for row in rows.values()}
    best = next((known[c.id] for c in reversed(commits) if c.id in known), known.get(campaign.base))
    ledger.load(campaign, sorted(rows.values(), key=lambda row: row.id), REBUILT, champion.head(), champion=best)
    lost = ["the history, and every experiment that did not merge"]
    if not known:
        lost.append("the measurements of the start: it will be measured again")
    lost += [f"commit {id[:10]}: what it tells of a merge is not what landed" for id in unread]
    if commits and commits[-1].id not in known:
        lost.append(f"the tip has no measurement: {champion.branch} will be measured again as it stands")
    return Rebuilt(campaign.name, champion.branch, merged, lost)
