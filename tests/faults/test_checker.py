"""The checker is content with a campaign that nothing happened to, and notices what must never happen."""

import json

import pytest

from ledger.champion import Champion
from records import Event
from tests.faults.campaign import Campaign
from tests.faults.checker import check, check_branch, check_history


def refuses(campaign: Campaign) -> None:
    with pytest.raises(AssertionError):
        check(campaign)


def test_the_checker_notices_what_was_lost_doubled_or_overspent(campaign: Campaign) -> None:
    campaign.end()
    check(campaign)
    assert campaign.codes == [0]

    campaign.seen.append(Event(id=10**6, at="", experiment=1, kind="scored→merged", hash="seen, and gone"))
    refuses(campaign)
    campaign.seen.pop()

    acknowledged = campaign.root / "acknowledged"
    told = acknowledged.read_text()
    for lost in (["discard", "prefix", 999], ["merged", "prefix", 2, 1, "me", "d" * 40, ""]):
        acknowledged.write_text(told + json.dumps(lost) + "\n")
        refuses(campaign)
    acknowledged.write_text(told)

    campaign.experiments -= 1
    refuses(campaign)
    campaign.experiments += 1

    with campaign.opened() as ledger:
        assert ledger is not None
        champion = Champion(campaign.root, ledger.name)
        tip = champion.head()
        parent = champion.since(ledger.campaign().base)[-1].parents[0]
        assert champion.swap(tip, parent)
        with pytest.raises(AssertionError):
            check_branch(ledger, champion)
        assert champion.swap(parent, tip)
        again = champion.prepare(tip, champion.source(parent), f"again\n\nExperiment: {landed(champion, tip)}\n")
        assert champion.swap(tip, again)
        with pytest.raises(AssertionError):
            check_branch(ledger, champion)
        assert champion.swap(again, tip)

        client, key = ledger.client, ledger.prefix + "events"
        events = [json.loads(text) for text in client.lrange(key, 0, -1)]
        client.rpush(key, json.dumps(next(e for e in events if e["record"] == "measurement")))
        with pytest.raises(AssertionError):
            check_history(campaign, ledger)
        client.rpop(key)
    check(campaign)


def landed(champion: Champion, commit: str) -> str:
    """The experiment that a commit merges."""
    (found,) = [c.trailers["Experiment"] for c in champion.since(f"{commit}^") if c.id == commit]
    return found
