"""A whole campaign with language minds: real containers, Ray, Redis and git, the real SDK, and an API on loopback that fails for an hour."""

import threading
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest

from agents import transcript
from ledger import Ledger
from ledger.purse import MILLION, calls, cost_of, holds, spending, total
from ledger.server import open_redis
from records import Experiment, State
from tests.minds.faults import OVERLOADED, Fault
from tests.minds.policy import competent
from tests.minds.server import KEY, MessagesServer
from tests.orgs.lab import BRIEF, play, run

pytestmark = pytest.mark.timeout(900)

HOUR_S = 12.0
"""An hour in this test: everything that waits for the API waits a three-hundredth of the time."""
SETTINGS = 'base_url = "{url}", patience_s = 0.4, longest_wait_s = 0.2, timeout_s = 20.0'
ORG = f"""
name = "minds"
seed = 3
[data]
dataset = ".autoresearch/datasets/local-cpu"
[roles.planner]
file = "roles/planner.md"
settings = {{{{ mind = "anthropic", model = "claude-opus-5-5", proposals = 2, max_tokens = 3000, {SETTINGS} }}}}
[roles.coder]
file = "roles/coder.md"
settings = {{{{ mind = "anthropic", model = "claude-sonnet-5-5", {SETTINGS} }}}}
[roles.reviewer]
file = "roles/reviewer.md"
settings = {{{{ mind = "anthropic", model = "claude-opus-5-5", effort = "low", {SETTINGS} }}}}
[budget]
train_s = 0.8
experiments = {{experiments}}
[money]
campaign_usd = {{dollars}}
{BRIEF}"""


def launch(lab: Path, url: str, experiments: int = 4, dollars: float = 20.0) -> str:
    """Everything that the launch printed."""
    (lab / "orgs" / "minds.toml").write_text(ORG.format(url=url, experiments=experiments, dollars=dollars))
    return play(lab, "orgs/minds.toml", ANTHROPIC_API_KEY=KEY)


def inside(lab: Path, look: Callable[[Ledger], None]) -> None:
    with open_redis(lab / ".autoresearch") as server:
        (name,) = Ledger.campaigns(server.client)
        look(Ledger(server.client, name))


def test_a_campaign_with_language_minds_survives_an_hour_without_the_api(lab: Path) -> None:
    """It is killed while it answers, is gone for half of it, and overloaded for the rest."""
    back = threading.Event()

    def overload(number: int, now: float, body: object) -> Fault | None:
        return OVERLOADED if gone.is_set() and not back.is_set() else None

    def outage() -> None:
        while len(api.calls) < 6:
            time.sleep(0.01)
        gone.set()
        api.stop()
        time.sleep(HOUR_S / 2)
        api.start()
        time.sleep(HOUR_S / 2)
        back.set()

    gone = threading.Event()
    with MessagesServer(competent, faults=overload) as api:
        killer = threading.Thread(target=outage)
        killer.start()
        said = launch(lab, api.url)
        killer.join()
        assert api.errors == []
    asked = sum(call.path == "/v1/messages" for call in api.calls)
    assert "4 experiments judged" in said

    def look(ledger: Ledger) -> None:
        ideas = [e for e in ledger.experiments() if e.is_idea]
        it_was_done_by_minds(ideas)
        history = ledger.events()
        pauses = [event.detail for event in history if event.kind == "paused"]
        assert pauses and any(event.kind == "goes on" for event in history)
        assert len(pauses) <= 3, "a pause is told once for each seat, however often it asks again"
        the_bill_is_right(lab, ledger, ideas, asked=asked)

    inside(lab, look)
    nobody_kept_the_key(lab)
    verified = run(lab, "ledger", "verify")
    assert verified.returncode == 0, verified.stdout


def it_was_done_by_minds(ideas: list[Experiment]) -> None:
    ended = [e for e in ideas if e.measurements]
    assert len(ended) >= 4 and all(e.author == "planner/anthropic" and e.talk for e in ideas)
    assert any(not e.hypothesis.knobs for e in ended), "structure was changed, not only constants"
    assert all(e.review is not None and e.review.probability is not None for e in ended)
    assert {e.state for e in ended} <= {State.MERGED, State.DISCARDED, State.WITHIN_NOISE, State.CRASHED, State.QUEUED}
    assert any(e.lesson is not None and e.lesson.text for e in ended)


def the_bill_is_right(lab: Path, ledger: Ledger, ideas: list[Experiment], asked: int) -> None:
    booked = calls(ledger)
    assert len(booked) >= asked and holds(ledger) == []
    assert spending(ledger).paid == round(total(booked).dollars * MILLION) <= 20 * MILLION
    assert sum(cost_of(ideas, booked).values()) == pytest.approx(total(booked).dollars)
    assert {call.status for call in booked} >= {"ok", "connection"}
    assert sum(call.status == "connection" and call.microdollars > 0 for call in booked) <= 3, "one for each seat"
    roles = Counter(call.role for call in booked if call.status == "ok")
    assert roles.keys() == {"planner", "coder", "reviewer"}
    first = {role: next(c.id for c in booked if c.role == role and c.status == "ok") for role in roles}
    later = total([call for call in booked if call.id not in first.values()])
    assert later.cache_share >= 0.8, "of the input tokens after the first calls"
    folder = lab / ".autoresearch" / "transcripts" / ledger.name
    for call in booked:
        assert "request" in transcript.read(folder, call.id, call.sha256)


def nobody_kept_the_key(lab: Path) -> None:
    kept = [p for p in lab.rglob("*") if p.is_file() and KEY.encode() in p.read_bytes()]
    assert kept == []


def test_a_campaign_ends_when_its_money_does(lab: Path) -> None:
    """It never spends more; what is paid for already still runs."""
    with MessagesServer(competent) as api:
        said = launch(lab, api.url, experiments=50, dollars=0.62)
    assert "dollars spent, and the next call could cost more than is left" in said

    def look(ledger: Ledger) -> None:
        money = spending(ledger)
        assert 0 < money.paid <= 0.62 * MILLION and money.held == 0 and money.refused
        assert all(e.state.final or e.state == State.PROPOSED for e in ledger.experiments())
        assert any(e.measurements for e in ledger.experiments() if e.is_idea)

    inside(lab, look)


def test_a_wrong_key_is_said_before_anything_starts(lab: Path) -> None:
    with MessagesServer(competent, key="another") as api:
        (lab / "orgs" / "minds.toml").write_text(ORG.format(url=api.url, experiments=2, dollars=1.0))
        ran = run(lab, "launch", "orgs/minds.toml", ANTHROPIC_API_KEY=KEY)
        assert ran.returncode == 2 and "the API refuses the request with 401" in ran.stderr, ran.stderr
        ran = run(lab, "launch", "orgs/minds.toml", ANTHROPIC_API_KEY="")
        assert ran.returncode == 2 and "no API key: ANTHROPIC_API_KEY is not set" in ran.stderr
        assert not (lab / ".autoresearch" / "redis").exists()
