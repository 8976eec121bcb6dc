"""`ledger verify` is content with an honest night, and with nothing that was changed behind the ledger's back."""

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import redis

from ledger import Ledger
from ledger.champion import Champion
from ledger.inspection import COVERED, hash_of, inspect
from ledger.lease import Lease
from records import FailureKind, State
from sandbox.receipt import Key
from tests.ledger.night import Night
from tests.ledger.repository import Repository
from tests.ledger.samples import REFUSED, failed, lower_or_not, program, scored


class Ended(Night):
    """A night with every kind of end, signed, over two merges."""

    def __init__(self, client: redis.Redis, lease: Lease, root: Path):
        self.key = Key.of(root)
        super().__init__(client, lease, Repository(root / "lab"), self.key.sign)
        self.merge = self.scored("LR = 0.5\n", 0.9)
        self.settle()
        self.worse = self.scored("LR = 9\n", 1.1)
        self.settle()
        org, ledger, head = self.org, self.ledger, self.champion.head()
        ledger.record(org.running("broken\n", head), org.lease, self.key.sign(failed("broken\n", FailureKind.OOM)))
        ledger.review(org.coded("only a seed\n", head), REFUSED, {"reviewer": "r1"})
        ledger.code(org.claimed(), program("LR = 9\n", head), {})
        late = [self.scored(source, bpb) for source, bpb in (("LR = 0.4\n", 0.8), ("LR = 0.3\n", 0.7))]
        self.settle()
        assert ledger.experiment(late[1]).state == State.PROPOSED, "the champion moved under it"
        ledger.claim("coder")
        ledger.code(late[1], program("LR = 0.3\n", self.champion.head()), {})
        org.claimed()
        ledger.note("replay", "two lines\nand — some more")
        self.second = late[0]

    def complaints(self) -> dict[str, list[str]]:
        checks = inspect(self.ledger, self.champion, self.key.complaint)
        return {check.name: check.complaints for check in checks if check.complaints}

    def change(self, id: int, field: str, old: str, new: str) -> None:
        """Edit a row as somebody with a connection to Redis could."""
        key = self.ledger.row_key(id)
        before = self.ledger.client.hget(key, field)
        assert old in before
        self.ledger.client.hset(key, field, before.replace(old, new))


@pytest.fixture
def ended(client: redis.Redis, lease: Lease, tmp_path: Path) -> Ended:
    return Ended(client, lease, tmp_path)


def test_an_honest_night_is_found_to_be_one(ended: Ended) -> None:
    checks = inspect(ended.ledger, ended.champion, ended.key.complaint)
    assert [check.complaints for check in checks] == [[]] * 6
    found = {check.name: check.found for check in checks}
    assert len(ended.ledger.experiments()) == 9
    assert found["rows"] == "9 experiments with 30 records"
    assert found["receipts"] == "6 measurements, signed by this lab"
    assert found["merges"] == "2 on autoresearch/night"
    assert found["anchors"] == "2 merges naming the history before"


@pytest.mark.parametrize("dead", ["before git", "after git"])
def test_a_merge_under_way_is_none_that_is_missing(ended: Ended, monkeypatch: pytest.MonkeyPatch, dead: str) -> None:
    head, id = ended.champion.head(), ended.scored("LR = 0.2\n", 0.6)
    with monkeypatch.context() as patch, pytest.raises(Died):
        patch.setattr(*((Champion, "land", dies) if dead == "before git" else (Ledger, "merged", dies)))
        ended.arbiter().step()
        ended.relay().step()
    assert ended.ledger.experiment(id).state == State.MERGING
    assert (ended.champion.head() == head) == (dead == "before git")
    assert ended.complaints() == {}
    ended.settle()
    assert ended.ledger.experiment(id).state == State.MERGED
    assert ended.complaints() == {}


def test_commits_by_hand_are_counted_and_not_held_against_anybody(ended: Ended) -> None:
    ended.repository.commit_on(ended.champion.branch, "LR = 7\n")
    checks = inspect(ended.ledger, ended.champion, ended.key.complaint)
    assert [c.found for c in checks if c.name == "merges"] == ["2 on autoresearch/night, 1 by hand"]
    assert ended.complaints() == {}


class Died(Exception):
    pass


def dies(*_: Any) -> Any:
    raise Died


# ---- what people with access to Redis could do ------------------------------------------------------------------------


def history(ended: Ended) -> list[str]:
    events: list[str] = ended.ledger.client.lrange(ended.ledger.prefix + "events", 0, -1)
    return events


def removes_an_event(ended: Ended) -> None:
    key = ended.ledger.prefix + "events"
    ended.ledger.client.lrem(key, 1, next(text for text in history(ended) if "proposed→claimed" in text))


def cuts_off_the_newest_events(ended: Ended) -> None:
    ended.ledger.client.ltrim(ended.ledger.prefix + "events", 0, -3)


def adds_an_event(ended: Ended) -> None:
    fields = dict.fromkeys([*COVERED, "hash"], "")
    ended.ledger.client.rpush(ended.ledger.prefix + "events", json.dumps(fields | {"kind": "note", "at": "1"}))


def rewrites_history(ended: Ended) -> None:
    """With hashes that are right: everything is consistent, except with what git has."""
    client, key = ended.ledger.client, ended.ledger.prefix + "events"
    before = ""
    for place, text in enumerate(history(ended)):
        fields = json.loads(text)
        fields["detail"] = fields["detail"].replace("planner/test", "planner/other")
        before = fields["hash"] = hash_of(before, *(fields[name] for name in COVERED))
        client.lset(key, place, json.dumps(fields))


def changes_the_campaign(ended: Ended) -> None:
    key = ended.ledger.prefix + "campaign"
    ended.ledger.client.set(key, ended.ledger.client.get(key).replace('"seed":0', '"seed":1'))


def renames_an_idea(ended: Ended) -> None:
    ended.change(ended.worse, "hypothesis", "an idea", "a better idea")


def changes_a_program(ended: Ended) -> None:
    ended.change(ended.worse, "candidate", "LR = 9", "LR = 8")


def approves_what_was_refused(ended: Ended) -> None:
    (refused,) = ended.ledger.experiments(states=[State.REFUSED])
    ended.change(refused.id, "review", "only a seed differs", "one change, as promised")


def brings_a_discarded_one_back(ended: Ended) -> None:
    client, ledger = ended.ledger.client, ended.ledger
    client.zrem(ledger.state_key(State.DISCARDED), ended.worse)
    client.zadd(ledger.state_key(State.MERGED), {str(ended.worse): ended.worse})


def lets_one_stand_in_two_states(ended: Ended) -> None:
    ended.ledger.client.zadd(ended.ledger.state_key(State.QUEUED), {str(ended.merge): 0})


def loses_a_row(ended: Ended) -> None:
    ended.ledger.client.delete(ended.ledger.row_key(ended.worse))


def loses_a_measurement(ended: Ended) -> None:
    ended.ledger.client.delete(f"{ended.ledger.prefix}measurements:{ended.worse}")


def improves_a_score(ended: Ended) -> None:
    key = f"{ended.ledger.prefix}measurements:{ended.worse}"
    ended.ledger.client.lset(key, 0, ended.ledger.client.lindex(key, 0).replace('"val_bpb":1.1', '"val_bpb":0.1'))


def signs_with_another_key(ended: Ended) -> None:
    other = Key(hashlib.sha256(b"other").digest())
    id = ended.org.running("LR = 0.1\n", ended.champion.head())
    ended.ledger.record(id, ended.org.lease, other.sign(scored("LR = 0.1\n", 0.5)))


def merges_what_is_worse(ended: Ended) -> None:
    """Whoever may merge says that the rule said so."""
    head, id = ended.champion.head(), ended.scored("LR = 8\n", 1.2)
    measured = ended.ledger.experiment(id).measurements[-1]
    verdict = lower_or_not([measured.model_copy(update={"val_bpb": 1.3})], measured)
    text = (
        f"experiment {id}\n\nExperiment: {id}\nCampaign: night\nVal-Bpb: 1.2\nSource-Sha256: {measured.hashes.source}\n"
    )
    commit = ended.champion.prepare(head, "LR = 8\n", text)
    intent = ended.org.intend(id, verdict, commit, head)
    assert verdict.merge and ended.champion.land(head, commit)
    ended.ledger.merged(id, ended.keeper.lease, commit, intent)


# ---- what people with access to git could do --------------------------------------------------------------------------


def amends_a_merge(ended: Ended) -> None:
    """The same message over another program."""
    text = ended.repository.git("show", "-s", "--format=%B", ended.champion.branch)
    parent = ended.repository.git("rev-parse", f"{ended.champion.branch}^")
    assert ended.champion.land(ended.champion.head(), ended.champion.prepare(parent, "LR = 0.01\n", text))


def sets_the_branch_back(ended: Ended) -> None:
    ended.repository.git("update-ref", f"refs/heads/{ended.champion.branch}", f"{ended.champion.branch}^")


def claims_a_merge(ended: Ended) -> None:
    head = ended.champion.head()
    commit = ended.champion.prepare(head, "LR = 0.01\n", f"mine\n\nExperiment: {ended.worse}\nCampaign: night\n")
    assert ended.champion.land(head, commit)


def merges_a_branch(ended: Ended) -> None:
    head = ended.champion.head()
    tree = ended.repository.git("rev-parse", f"{head}^{{tree}}")
    other = ended.champion.prepare(head, "LR = 7\n", "other")
    both = ended.repository.git("commit-tree", tree, "-p", head, "-p", other, "-m", "both")
    assert ended.champion.land(head, both)


@pytest.mark.parametrize(
    ("attack", "noticed"),
    [
        (removes_an_event, {"history"}),
        (cuts_off_the_newest_events, {"rows"}),
        (adds_an_event, {"history"}),
        (rewrites_history, {"anchors"}),
        (changes_the_campaign, {"rows"}),
        (renames_an_idea, {"rows"}),
        (changes_a_program, {"rows"}),
        (approves_what_was_refused, {"rows"}),
        (brings_a_discarded_one_back, {"rows", "merges", "verdicts"}),
        (lets_one_stand_in_two_states, {"rows"}),
        (loses_a_row, {"rows"}),
        (loses_a_measurement, {"rows", "verdicts"}),
        (improves_a_score, {"rows", "receipts", "verdicts"}),
        (signs_with_another_key, {"receipts"}),
        (merges_what_is_worse, {"verdicts"}),
        (amends_a_merge, {"merges"}),
        (sets_the_branch_back, {"merges"}),
        (claims_a_merge, {"merges"}),
        (merges_a_branch, {"merges"}),
    ],
)
def test_whatever_is_changed_behind_its_back_is_noticed(
    ended: Ended, attack: Callable[[Ended], None], noticed: set[str]
) -> None:
    assert ended.complaints() == {}
    attack(ended)
    assert set(ended.complaints()) == noticed
