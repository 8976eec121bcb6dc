"""A whole campaign of the preset `hybrid`: a language model and the sampler take turns, and when the money is spent the sampler goes on."""

import re
from pathlib import Path

import pytest

from ledger import Ledger
from ledger.purse import MILLION, calls, holds, spending
from ledger.server import open_redis
from orgs.forecasts import records_of
from records import Experiment
from tests.minds.policy import competent
from tests.minds.server import KEY, MessagesServer
from tests.orgs.lab import BRIEF, ROOT, play, run

pytestmark = pytest.mark.timeout(900)

DOLLARS = 0.72
"""A call of the planner or of the reviewer could cost some 0.63, and the first of each costs 0.09: there is no money for a third."""
ORG = """
name = "hybrid"
seed = 2  # by it the language model is asked first, the sampler second, and then the language model again
{roles}
[data]
dataset = ".autoresearch/datasets/local-cpu"
[budget]
train_s = 0.8
experiments = 3
[money]
campaign_usd = {dollars}
{brief}"""


def roles_of(preset: str, url: str) -> str:
    """The roles of a preset as it ships; only the API is another, and nobody is waited for as long."""
    text = (ROOT / "orgs" / f"{preset}.toml").read_text()
    roles = text[text.index("[roles.planner]") : text.index("[budget]")]
    elsewhere = f'base_url = "{url}", patience_s = 0.4, longest_wait_s = 0.2'
    changed, count = re.subn(r"^(settings = .*) }$", rf"\1, {elsewhere} }}", roles, flags=re.MULTILINE)
    assert count == 3
    return changed


def test_both_arms_propose_and_the_sampler_goes_on_when_the_money_is_spent(lab: Path) -> None:
    with MessagesServer(competent) as api:
        (lab / "orgs" / "hybrid.toml").write_text(
            ORG.format(roles=roles_of("hybrid", api.url), dollars=DOLLARS, brief=BRIEF)
        )
        said = play(lab, "orgs/hybrid.toml", ANTHROPIC_API_KEY=KEY)
        assert api.errors == []
    assert "3 experiments judged" in said
    assert "waits until this is mended" not in said, "nobody waits for money"
    with open_redis(lab / ".autoresearch") as server:
        (name,) = Ledger.campaigns(server.client)
        ledger = Ledger(server.client, name)
        ideas = [e for e in ledger.experiments() if e.is_idea]
        they_took_turns(ledger, ideas)
        the_sampler_went_on(ledger, ideas)
    verified = run(lab, "ledger", "verify")
    assert verified.returncode == 0, verified.stdout


def they_took_turns(ledger: Ledger, ideas: list[Experiment]) -> None:
    assert {e.author for e in ideas} == {"planner/anthropic", "planner/sampler"}
    assert all(bool(e.talk) == (e.author == "planner/anthropic") for e in ideas)
    planners = {(one.who.mind, one.who.model) for one in records_of(ideas, calls(ledger)) if one.who.role == "planner"}
    assert planners == {("anthropic", "claude-opus-5-5"), ("sampler", "")}


def the_sampler_went_on(ledger: Ledger, ideas: list[Experiment]) -> None:
    money = spending(ledger)
    assert 0 < money.paid <= DOLLARS * MILLION and money.held == 0 and money.refused and holds(ledger) == []
    last = max(call.at for call in calls(ledger))
    later = [e for e in ideas if e.measurements and e.created_at > last and e.author == "planner/sampler"]
    assert later
