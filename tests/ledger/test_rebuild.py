"""When Redis is lost, the branch alone gives back every merge, and the org goes on."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import redis

from ledger import Ledger
from ledger.champion import Champion
from ledger.inspection import COVERED, hash_of, inspect
from ledger.lease import Keeper, Lease, acquire
from ledger.rebuild import rebuild
from records import BadInput, State
from sandbox.receipt import Key
from tests.ledger.night import Night
from tests.ledger.repository import START, Repository
from tests.ledger.samples import program, scored


class Lost(Night):
    """A signed night with two merges and a discarded idea, and then Redis is gone."""

    def __init__(self, client: redis.Redis, lease: Lease, root: Path):
        self.key = Key.of(root)
        super().__init__(client, lease, Repository(root / "lab"), self.key.sign)
        for source, bpb in (("LR = 0.5\n", 0.9), ("LR = 9\n", 1.1), ("LR = 0.4\n", 0.8)):
            self.scored(source, bpb)
            self.settle()

    def lose(self) -> None:
        self.ledger.client.flushall()
        self.org.lease = acquire(self.ledger.client, "cpu", "runner", 60.0)
        self.keeper = Keeper(self.ledger.client, self.org.relay(), 60.0)

    def complaints(self) -> dict[str, list[str]]:
        checks = inspect(self.ledger, self.champion, self.key.complaint)
        return {check.name: check.complaints for check in checks if check.complaints}

    def caveats(self) -> list[str]:
        return [c for check in inspect(self.ledger, self.champion, self.key.complaint) for c in check.caveats]


@pytest.fixture
def lost(client: redis.Redis, lease: Lease, tmp_path: Path) -> Lost:
    return Lost(client, lease, tmp_path)


def test_every_merge_comes_back_as_it_was(lost: Lost) -> None:
    before = lost.ledger.experiments(states=[State.MERGED])
    campaign, champion = lost.ledger.campaign(), lost.ledger.champion_experiment()
    assert len(before) == 3 and champion is not None
    lost.lose()
    rebuilt = rebuild(lost.ledger, lost.champion)
    assert (rebuilt.campaign, rebuilt.branch, rebuilt.merges) == ("night", "autoresearch/night", 2)
    after = lost.ledger.experiments()
    unlike = {"updated_at"}  # the champion's row in git is from before it landed
    assert [row.model_dump(exclude=unlike) for row in after] == [row.model_dump(exclude=unlike) for row in before]
    assert [m.val_bpb for m in lost.ledger.champion_score()] == [0.8]
    assert lost.ledger.campaign() == campaign
    assert lost.ledger.champion_commit() == lost.champion.head() == champion.commit


def test_verify_holds_and_says_what_is_gone(lost: Lost) -> None:
    assert lost.caveats() == []
    lost.lose()
    rebuilt = rebuild(lost.ledger, lost.champion)
    assert rebuilt.lost == ["the history, and every experiment that did not merge"]
    assert lost.complaints() == {}
    (caveat,) = lost.caveats()
    assert "rebuilt from git" in caveat and "2 merges of a history that is lost" in caveat


def test_the_org_goes_on_from_it(lost: Lost) -> None:
    lost.lose()
    rebuild(lost.ledger, lost.champion)
    assert lost.arbiter().step() is False, "nothing has to be measured again"
    again = lost.org.claimed()
    assert lost.ledger.code(again, program("LR = 0.4\n", lost.champion.head()), {}) is not None, "merged before"
    id = lost.scored("LR = 0.3\n", 0.7)
    worse = lost.scored("LR = 8\n", 1.7)
    lost.settle()
    assert lost.ledger.experiment(id).state == State.MERGED
    assert lost.ledger.experiment(worse).state == State.PROPOSED, "the champion moved under it"
    assert lost.complaints() == {}


def test_a_second_loss_is_no_worse_than_the_first(lost: Lost) -> None:
    lost.lose()
    rebuild(lost.ledger, lost.champion)
    lost.scored("LR = 0.3\n", 0.7)
    lost.settle()
    before = lost.ledger.experiments()
    lost.lose()
    assert rebuild(lost.ledger, lost.champion).merges == 3
    assert [row.id for row in lost.ledger.experiments()] == [row.id for row in before]
    assert lost.complaints() == {}


def test_a_commit_by_hand_that_a_merge_beat_comes_back_with_its_score(lost: Lost) -> None:
    theirs = lost.repository.commit_on(lost.champion.branch, "LR = 7\n")
    lost.settle()
    (baseline,) = lost.ledger.experiments(states=[State.QUEUED])
    assert lost.org.take(theirs) == baseline.id
    lost.ledger.record(baseline.id, lost.org.lease, lost.key.sign(scored("LR = 7\n", 0.75, "by hand")))
    lost.settle()
    lost.scored("LR = 0.2\n", 0.6)
    lost.settle()
    lost.lose()
    assert rebuild(lost.ledger, lost.champion).merges == 3
    row = lost.ledger.experiment(baseline.id)
    assert (row.lane, row.commit, row.score and row.score.val_bpb) == ("baseline", theirs, 0.75)
    assert lost.complaints() == {}


def test_a_tip_by_hand_is_measured_again(lost: Lost) -> None:
    theirs = lost.repository.commit_on(lost.champion.branch, "LR = 7\n")
    lost.lose()
    assert rebuild(lost.ledger, lost.champion).lost[1:] == [
        "the tip has no measurement: autoresearch/night will be measured again as it stands"
    ]
    lost.arbiter().step()
    (baseline,) = lost.ledger.experiments(states=[State.QUEUED])
    assert baseline.candidate is not None and baseline.candidate.parent == theirs


def test_a_campaign_without_a_merge_is_measured_from_its_start(
    client: redis.Redis, lease: Lease, tmp_path: Path
) -> None:
    night = Night(client, lease, Repository(tmp_path / "lab"))
    client.flushall()
    rebuilt = rebuild(night.ledger, night.champion)
    assert rebuilt.merges == 0 and "the measurements of the start: it will be measured again" in rebuilt.lost
    night.arbiter().step()
    (baseline,) = night.ledger.experiments(states=[State.QUEUED])
    assert baseline.candidate is not None and baseline.candidate.source == START


# ---- what is refused, and what is noticed ----------------------------------------------------------------------------


def test_a_campaign_that_exists_is_not_written_over(lost: Lost) -> None:
    before, events = lost.ledger.experiments(), lost.ledger.last_event()
    with pytest.raises(BadInput, match="night exists already"):
        rebuild(lost.ledger, lost.champion)
    assert lost.ledger.experiments() == before and lost.ledger.last_event() == events


def test_a_branch_begun_before_commits_told_anything_is_refused(client: redis.Redis, tmp_path: Path) -> None:
    champion = Champion(Repository(tmp_path / "lab").root, "night")
    champion.start(START)
    with pytest.raises(BadInput, match="does not tell what campaign it is of") as refused:
        rebuild(Ledger(client, "night"), champion)
    assert "\n" not in str(refused.value) and Ledger.campaigns(client) == []


def test_what_did_not_land_as_measured_is_not_rebuilt_as_a_merge(lost: Lost) -> None:
    """Somebody amends the tip: `git commit --amend` keeps the record."""
    head = lost.champion.head()
    record, text = lost.champion.record(head), lost.repository.git("show", "-s", "--format=%B", head)
    assert record is not None
    forged = lost.champion.prepare(lost.repository.git("rev-parse", f"{head}^"), "LR = 0.01\n", text, record)
    assert lost.champion.land(head, forged)
    lost.lose()
    rebuilt = rebuild(lost.ledger, lost.champion)
    assert rebuilt.merges == 1 and any(forged[:10] in line for line in rebuilt.lost)
    assert set(lost.complaints()) == {"merges"}


def test_a_record_with_a_better_score_is_noticed(lost: Lost) -> None:
    head = lost.champion.head()
    record, text = lost.champion.record(head), lost.repository.git("show", "-s", "--format=%B", head)
    assert record is not None and '"val_bpb":0.8' in record
    better = lost.champion.prepare(
        lost.repository.git("rev-parse", f"{head}^"),
        "LR = 0.4\n",
        text,
        record.replace('"val_bpb":0.8', '"val_bpb":0.1'),
    )
    assert lost.champion.land(head, better)
    lost.lose()
    rebuild(lost.ledger, lost.champion)
    assert {"receipts", "verdicts"} <= set(lost.complaints())


def rewrite(lost: Lost, change: Callable[[list[dict[str, str]]], None]) -> None:
    """Write the history anew, with hashes that are right."""
    client, key = lost.ledger.client, lost.ledger.prefix + "events"
    events = [json.loads(text) for text in client.lrange(key, 0, -1)]
    change(events)
    client.delete(key)
    before = ""
    for event in events:
        event["hash"] = before = hash_of(before, *(event[name] for name in COVERED))
        client.rpush(key, json.dumps(event))


def test_a_history_written_anew_is_noticed_although_it_says_rebuilt_somewhere(lost: Lost) -> None:
    def change(events: list[dict[str, str]]) -> None:
        events[1]["detail"] += "!"
        events[2] |= {"kind": "rebuilt", "detail": lost.champion.head()}

    rewrite(lost, change)
    assert "anchors" in lost.complaints() and lost.caveats() == []


def test_a_history_written_anew_that_begins_with_rebuilt_owns_up_to_it(lost: Lost) -> None:
    """Whoever can write to Redis can lose it and rebuild it; nobody is told that nothing happened."""

    def change(events: list[dict[str, str]]) -> None:
        events[0] |= {"kind": "rebuilt", "detail": lost.champion.head()}

    rewrite(lost, change)
    assert lost.complaints() == {}
    assert "2 merges of a history that is lost" in lost.caveats()[0]


def test_merges_after_a_rebuild_are_anchored_again(lost: Lost) -> None:
    lost.lose()
    rebuild(lost.ledger, lost.champion)
    lost.scored("LR = 0.3\n", 0.7)
    lost.settle()
    rewrite(lost, lambda events: events[-8].update(detail="another"))
    assert "anchors" in lost.complaints()
