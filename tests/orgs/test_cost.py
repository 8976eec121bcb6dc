"""What language models have cost is the sum of their calls: by role, by experiment, against the cap."""

import json
from pathlib import Path

import pytest

from ledger.purse import Limits, Purse, total
from orgs.cost import find_cap, read_cost, summarise_cost
from orgs.lab import Lab
from orgs.report import explain_money
from orgs.report_minds import explain_cost
from orgs.status import read_status, spend_money
from records import Call, State, Usage
from tests.orgs.lab import run
from tests.orgs.minds_lab import Played
from tests.orgs.rows import NIGHT, NOW, experiment


def call(id: str, microdollars: int, about: int | None = None, *, role: str = "coder", model: str = "small", status: str = "ok", talk: str = "", **tokens: int) -> Call:  # fmt: skip
    return Call(
        id=id, talk=talk, role=role, model=model, experiment=about, status=status, usage=Usage(**tokens),
        microdollars=microdollars, seconds=1.0, at=NOW,
    )  # fmt: skip


CALLS = [
    call("a", 3_000_000, role="planner", model="large", talk="t", input=100, cache_read=300, output=10),
    call("b", 500_000, 1, cache_read=900, cache_write=100, output=20),
    call("c", 250_000, 1, status="overloaded"),
    call("d", 250_000, 3, status="lost"),
]
ROWS = [
    experiment(0, State.MERGED, 2.5),
    experiment(1, State.DISCARDED, 2.6, "first", talk="t"),
    experiment(2, State.REFUSED, None, "second", talk="t"),
    experiment(3, State.MERGED, 2.4, "third"),
    experiment(4, State.CRASHED, None, "fourth"),
]


def test_sums_shares_and_averages_are_those_of_the_calls() -> None:
    cost = summarise_cost("night", ROWS, CALLS, 125_000)
    assert (cost.total.dollars, cost.total.calls, cost.total.failed, cost.held_usd) == (4.0, 4, 2, 0.125)
    assert cost.total.cache_share == pytest.approx(1200 / 1400)
    assert [(one.role, one.model, one.total.dollars) for one in cost.by_role] == [("planner", "large", 3.0), ("coder", "small", 1.0)]  # fmt: skip
    assert cost.failures == {"overloaded": 1, "lost": 1}
    assert cost.judged == 3 and cost.judged_usd == pytest.approx(4 / 3), "one is the start, one was refused"
    assert (cost.merged, cost.merged_usd) == (1, 4.0), "the start is no merge"


def test_a_proposals_share_of_its_conversation_is_its_own_and_the_dearest_comes_first() -> None:
    cost = summarise_cost("night", ROWS, CALLS, 0)
    assert [(one.id, one.usd) for one in cost.dearest] == [(1, 2.25), (2, 1.5), (3, 0.25)]


def test_errands_are_counted_and_said_to_bear_their_costs_themselves() -> None:
    errand = call("e", 0, 1, model="my-agent", status="timeout").model_copy(update={"errand": True})
    cost = summarise_cost("night", ROWS, [*CALLS, errand], 0)
    assert (cost.total.dollars, cost.total.calls, cost.total.failed, cost.total.errands) == (4.0, 5, 3, 1)
    assert [(one.model, one.total.errands) for one in cost.by_role] == [("large", 0), ("small", 0), ("my-agent", 1)]
    own = "not in here: 1 errand of agents on the command line, which bear their costs themselves"
    assert own in explain_cost(cost, None)
    assert cost.plain(None)["errands"] == 1 and cost.failures["timeout"] == 1
    said = explained([*CALLS, errand])
    assert said.startswith("4.00 dollars; 5 calls, 3 of them failed, 1 errand of agents at their own expense, ")
    assert (
        explained([errand] * 2) == "0.00 dollars; 2 calls, 2 of them failed, 2 errands of agents at their own expense"
    )


def explained(booked: list[Call]) -> str:
    money = spend_money(total(booked), 0)
    assert money is not None
    return str(explain_money(money))


def test_without_an_end_there_is_no_average() -> None:
    cost = summarise_cost("night", ROWS[:1], CALLS[:1], 0)
    assert cost.judged_usd is None and cost.merged_usd is None
    assert list(explain_cost(cost, None))[-1] == "dollars: no experiment is judged yet"


def test_the_cap_is_that_of_the_org_file_of_this_name(tmp_path: Path) -> None:
    (tmp_path / "orgs").mkdir()
    (tmp_path / "orgs" / "broken.toml").write_text("name = 3")
    for path in ("program.md", "roles/planner.md", "roles/coder.md", "roles/reviewer.md"):
        (tmp_path / path).parent.mkdir(exist_ok=True)
        (tmp_path / path).write_text("")
    (tmp_path / "orgs" / "mine.toml").write_text('name = "trio"\n[money]\ncampaign_usd = 7.5\n')
    assert find_cap(Lab(tmp_path), "trio") == (7.5, "orgs/mine.toml")
    assert find_cap(Lab(tmp_path), "other") is None


def test_a_played_campaign_costs_what_its_calls_were_booked_at(night: Played) -> None:
    cost = read_cost(night.ledger)
    assert cost.total.dollars == pytest.approx(sum(call.microdollars for call in night.calls) / 1e6)
    assert cost.failures == {"overloaded": 1}
    (one,) = cost.dearest
    assert one.id == night.experiment and one.usd == pytest.approx(cost.total.dollars), "all of it was about this one"


def test_the_command_says_it_in_a_table_and_as_json(night: Played) -> None:
    shown = run(night.lab.root, "ledger", "cost")
    assert shown.returncode == 0, shown.stderr
    dollars = sum(call.microdollars for call in night.calls) / 1e6
    assert f"spent: {dollars:.4f} dollars of 5 (money.campaign_usd of orgs/test.toml" in shown.stdout
    assert "failed calls: 1 overloaded" in shown.stdout and "claude-sonnet-5-5" in shown.stdout
    found = json.loads(run(night.lab.root, "ledger", "cost", "--json").stdout)
    assert found["usd"] == pytest.approx(dollars) and found["cap_usd"] == 5.0
    assert found["tokens"]["output"] == sum(call.usage.output for call in night.calls)


def test_status_has_a_line_where_a_model_was_asked(night: Played) -> None:
    money = read_status(night.ledger, lambda _: None).money
    assert money is not None and (money.calls, money.failed, money.held_usd) == (6, 1, 0.0)
    assert str(explain_money(money)).startswith(f"{money.usd:.2f} dollars; 6 calls, 1 of them failed")


def test_what_is_set_aside_is_told_until_it_is_booked(night: Played) -> None:
    purse = Purse(night.ledger, Limits(5_000_000, 2_000_000), "coder-9")
    purse.reserve("held", "t", "coder", "claude-sonnet-5-5", night.experiment, 250_000)
    try:
        cost = read_cost(night.ledger)
        assert cost.held_usd == 0.25 and "0.2500 set aside" in next(explain_cost(cost, None))
    finally:
        purse.settle()


def test_a_campaign_without_a_call_has_cost_nothing() -> None:
    cost = summarise_cost("night", NIGHT, [], 0)
    assert (cost.total.dollars, cost.by_role, cost.dearest, cost.judged_usd) == (0.0, [], [], 0.0)
