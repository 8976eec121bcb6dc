"""`ledger list` shows what was asked for, in the order that was asked for."""

from collections.abc import Iterable
from datetime import UTC, datetime, timedelta

import pytest

from ledger import Ledger, store
from ledger.rows import Stored
from ledger.selection import Order, Selection, find, read_since
from records import BadInput, Experiment, State, Verdict
from tests.ledger.org import Org
from tests.ledger.samples import APPROVED, BASE, idea, program, scored

NOW = datetime(2026, 1, 31, 12, tzinfo=UTC)
NO = Verdict(merge=False, rule="test", champion_bpb=1.0, candidate_bpb=1.2, reason="higher")


def experiment(id: int, **changed: object) -> Experiment:
    at = (NOW - timedelta(hours=id)).isoformat()
    plain = {
        "campaign": "night",
        "lane": "improve",
        "state": State.MERGED,
        "hypothesis": idea(),
        "author": "planner/llm",
    }
    return Experiment.model_validate({"id": id, "created_at": at, "updated_at": at} | plain | changed)


ROWS = [
    experiment(1, lane="baseline", author="launcher", measurements=[scored("a", 1.0)]),
    experiment(2, roles={"planner": "3f2a99", "coder": "77"}, measurements=[scored("b", 0.9)]),
    experiment(3, state=State.DISCARDED, roles={"planner": "3f2b00"}, measurements=[scored("c", 1.1)]),
    experiment(4, state=State.PROPOSED, author="planner/sampler"),
]


@pytest.mark.parametrize(
    ("selection", "ids"),
    [
        (Selection(), [1, 2, 3, 4]),
        (Selection(states=(State.MERGED,)), [1, 2]),
        (Selection(states=(State.DISCARDED, State.PROPOSED)), [3, 4]),
        (Selection(lane="baseline"), [1]),
        (Selection(role="planner"), [2, 3]),
        (Selection(role="planner@3f2"), [2, 3]),
        (Selection(role="planner@3f2a"), [2]),
        (Selection(role="planner@77"), []),
        (Selection(role="reviewer"), []),
        (Selection(author="planner"), [2, 3, 4]),
        (Selection(author="planner/sampler"), [4]),
        (Selection(since=NOW - timedelta(hours=2)), [1, 2]),
        (Selection(states=(State.MERGED,), role="coder", since=NOW - timedelta(hours=1)), []),
    ],
)
def test_all_that_is_asked_for_has_to_be_true(selection: Selection, ids: list[int]) -> None:
    assert [e.id for e in ROWS if selection.has(e)] == ids


@pytest.fixture
def night(org: Org) -> Org:
    """#1 is the start, #2 lost, #3 was refused, #4 and #5 wait for their verdict, and #6, another start, for its run."""
    org.baseline(1.0)
    lost, _, better = org.scored("a", 1.2), org.propose("b"), org.propose("c")
    org.ledger.claim("coder")
    org.ledger.release(3)
    org.ledger.discard(lost, NO)
    for id in (3, better):
        org.ledger.claim("coder")
        org.ledger.code(id, program(f"program {id}"), {})
    org.ledger.refuse(3, "no", {})
    org.ledger.review(better, APPROVED, {})
    org.take(BASE)
    org.ledger.record(better, org.lease, scored("c", 1.1))
    org.scored("d", 0.9)
    org.ledger.propose_baseline(program("by hand", "e" * 40))
    return org


@pytest.mark.parametrize("at_once", [1, 2, 1000])
@pytest.mark.parametrize(
    ("selection", "order", "limit", "ids"),
    [
        (Selection(), Order.ID, None, [1, 2, 3, 4, 5, 6]),
        (Selection(), Order.ID, 2, [5, 6]),
        (Selection(), Order.UPDATED, None, [6, 5, 4, 3, 2, 1]),
        (Selection(), Order.BPB, None, [5, 1, 4, 2, 6, 3]),
        (Selection(), Order.BPB, 5, [5, 1, 4, 2, 6]),
        (Selection(states=(State.SCORED, State.QUEUED, State.MERGED)), Order.ID, None, [1, 4, 5, 6]),
        (Selection(states=(State.SCORED, State.QUEUED, State.MERGED)), Order.ID, 2, [5, 6]),
        (Selection(states=(State.SCORED,)), Order.BPB, 1, [5]),
        (Selection(states=(State.SCORED,)), Order.UPDATED, None, [5, 4]),
        (Selection(states=(State.CRASHED,)), Order.ID, None, []),
        (Selection(lane="baseline"), Order.ID, 1, [6]),
        (Selection(author="planner"), Order.BPB, 2, [5, 4]),
        (Selection(since=NOW + timedelta(days=36500)), Order.ID, None, []),
        (Selection(since=NOW), Order.ID, 1, [6]),
    ],
)
def test_rows_come_in_the_order_that_was_asked_for_however_they_are_read(
    night: Org,
    monkeypatch: pytest.MonkeyPatch,
    at_once: int,
    selection: Selection,
    order: Order,
    limit: int,
    ids: list[int],
) -> None:
    monkeypatch.setattr(store, "READ_AT_ONCE", at_once)
    monkeypatch.setattr("ledger.selection.READ_AT_ONCE", at_once)
    assert [e.id for e in find(night.ledger, selection, order, limit)] == ids


class Counting(Ledger):
    """Counts the rows that it reads."""

    count = 0

    def stored(self, ids: Iterable[int]) -> list[Stored]:
        found = super().stored(ids)
        self.count += len(found)
        return found


def test_no_more_rows_are_read_than_are_shown_and_as_many_again(org: Org) -> None:
    for _ in range(50):
        org.propose()
    for selection in (Selection(), Selection(states=(State.PROPOSED,))):
        for order in Order:
            ledger = Counting(org.ledger.client, "night")
            assert len(find(ledger, selection, order, 5)) == 5
            assert ledger.count <= 10


@pytest.mark.parametrize(
    ("text", "moment"),
    [
        ("90m", NOW - timedelta(minutes=90)),
        ("12h", NOW - timedelta(hours=12)),
        ("3d", NOW - timedelta(days=3)),
        ("2026-01-30", datetime(2026, 1, 30, tzinfo=UTC)),
        ("2026-01-30T10:00+02:00", datetime(2026, 1, 30, 8, tzinfo=UTC)),
    ],
)
def test_a_moment_is_an_age_or_a_date(text: str, moment: datetime) -> None:
    assert read_since(text, NOW) == moment


@pytest.mark.parametrize("text", ["", "yesterday", "-3h", "3 h", "2026-13-01", "3w"])
def test_another_moment_is_refused_with_an_example(text: str) -> None:
    with pytest.raises(BadInput, match="give 90m, 12h, 3d"):
        read_since(text, NOW)
