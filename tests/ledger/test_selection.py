"""`ledger list` shows what was asked for, in the order that was asked for."""

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ledger.selection import Order, Selection, read_since, select
from records import BadInput, Experiment, State
from tests.ledger.samples import idea, scored

NOW = datetime(2026, 1, 31, 12, tzinfo=UTC)


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
    assert [e.id for e in select(ROWS, selection)] == ids


@given(st.permutations(ROWS))
def test_the_order_does_not_depend_on_the_order_before(rows: list[Experiment]) -> None:
    assert [e.id for e in select(rows, Selection(), Order.ID)] == [1, 2, 3, 4]
    assert [e.id for e in select(rows, Selection(), Order.UPDATED)] == [1, 2, 3, 4]
    assert [e.id for e in select(rows, Selection(), Order.BPB)] == [2, 1, 3, 4]


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
