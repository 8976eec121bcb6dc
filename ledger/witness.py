"""What git itself knows of a campaign: its start tells what the campaign is, each merge what was measured and decided.

A merge carries two rows of the ledger: its own, and that of the champion it was judged against, with their signed measurements.
So each verdict can be checked from its commit alone, and the branch is enough to go on from when Redis is lost.
"""

import json

from ledger.champion import Champion, Commit
from records import BadInput, Campaign, Experiment, MissingComponent, Record, State, Verdict


class Merge(Record):
    """What a merge's commit carries. Programs are left out, and the merge's own commit: git has them."""

    experiment: Experiment
    champion: Experiment
    """That it was judged against."""


def tell_merge(experiment: Experiment, verdict: Verdict, champion: Experiment) -> str:
    """The record of a merge, for its commit."""
    merged = experiment.model_copy(update={"state": State.MERGED, "verdict": verdict})
    return in_ascii(Merge(experiment=without_source(merged), champion=without_source(champion)))


def tell_start(campaign: Campaign) -> str:
    """The record of a campaign, for the commit it starts with."""
    return in_ascii(campaign.model_copy(update={"base": ""}))


def read_start(champion: Champion) -> Campaign:
    """The campaign of a branch. Raises BadInput if the branch was begun by something that did not tell."""
    commit = champion.beginning()
    try:
        record = champion.record(commit) if commit else None
        if commit is None or record is None:
            raise ValueError
        return Campaign.model_validate_json(record).model_copy(update={"base": commit})
    except ValueError:
        raise BadInput(
            f"{champion.branch} does not tell what campaign it is of (begun by an older version, or by hand), so its commits "
            "are all there is: launch a new campaign"
        ) from None


def read_merge(champion: Champion, commit: Commit) -> Merge | None:
    """What a commit tells of its merge; None if it tells nothing, or if what it tells is not what landed."""
    text = champion.record(commit.id)
    if text is None or commit.trailers.get("Campaign") != champion.campaign:
        return None
    try:
        merge = Merge.model_validate_json(text)
        mine = merge.experiment.model_copy(update={"commit": commit.id})
        return Merge(experiment=with_source(mine, champion), champion=with_source(merge.champion, champion))
    except (ValueError, BadInput, MissingComponent):
        return None


def without_source(experiment: Experiment) -> Experiment:
    candidate = experiment.candidate and experiment.candidate.model_copy(update={"source": ""})
    return experiment.model_copy(update={"candidate": candidate})


def with_source(experiment: Experiment, champion: Champion) -> Experiment:
    """The row with the program that its commit has. Raises ValueError if that is not the one that was measured."""
    candidate, commit = experiment.candidate, experiment.commit
    if candidate is None or commit is None or champion.landed_source_sha256(commit) != candidate.source_sha256:
        raise ValueError(f"#{experiment.id} is not what landed")
    complete = candidate.model_copy(update={"source": champion.source(commit)})
    return experiment.model_copy(update={"candidate": complete})


def in_ascii(record: Record) -> str:
    """One line, whatever minds have written into it."""
    return json.dumps(record.model_dump(mode="json"), separators=(",", ":"))
