"""Every call is paid for and written down, whatever becomes of it; what may go better is tried again, and no limit is ever exceeded."""

import gzip
import json
import threading
import time
from itertools import pairwise
from pathlib import Path

import pytest

from agents import transcript
from agents.minds.line import TooDear
from agents.minds.pause import Unavailable
from agents.prices import Prices
from ledger import AlreadyRecorded
from ledger.purse import Broke, Limits, Purse, holds, spending, total
from ledger.server import RedisServer
from records import BadInput, Usage
from tests.agents.lab import Lab
from tests.minds.faults import FAULTS, OVERLOADED, RATE_LIMITED, SPEND_LIMIT, Fault, Line, Stall, script
from tests.minds.office import DOLLAR, FREE, MODEL, Office
from tests.minds.server import KEY, MessagesServer

PRICE = Prices.load().price(MODEL)


# ---- prices ----------------------------------------------------------------------------------------------------------


def test_the_price_of_a_call_is_that_of_its_five_kinds_of_tokens() -> None:
    usage = Usage(input=1000, cache_read=10_000, cache_write=2000, cache_write_1h=3000, output=500)
    assert PRICE.of(usage) == 1000 * 4 + 10_000 * 0.2 + 2000 * 5 + 3000 * 8 + 500 * 20
    assert usage.prompt == 16_000


def test_parts_of_a_millionth_are_rounded_up_and_nothing_costs_nothing() -> None:
    assert PRICE.of(Usage(cache_read=1)) == 1
    assert PRICE.of(Usage()) == 0


def test_a_long_prompt_has_the_prices_of_long_prompts() -> None:
    price = Prices.load().price("claude-haiku-5-5")
    assert price.of(Usage(input=100_000)) == 10_000
    assert price.of(Usage(input=50_000, cache_read=50_001)) == 25_000 + 2501


def test_nothing_that_a_call_can_cost_is_more_than_its_bound() -> None:
    for model, price in Prices.load().models.items():
        for kind in ("input", "cache_read", "cache_write", "cache_write_1h"):
            assert price.of(Usage(output=700, **{kind: 120_000})) <= price.at_most(120_000, 700), model


def test_a_model_without_a_price_is_refused_unless_the_lab_has_one(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match=r"nobody knows what local-7b costs.*claude-opus-5-5"):
        Prices.load().price("local-7b")
    path = tmp_path / "prices.toml"
    path.write_text(FREE)
    assert Prices.load(path).price("local-7b").of(Usage(input=10**6)) == 0
    assert Prices.load(path).price(MODEL) == PRICE


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("as_of = ", "not TOML"),
        ("models = {}", "as_of: field required"),
        ("as_of = 2026-01-01\n[models.x]\ninput = -1", "models.x.input: input should be greater than or equal to 0"),
        ("as_of = 2026-01-01\n[models.x]\nprice = 1", "models.x.input: field required"),
    ],
)
def test_a_broken_table_of_prices_is_named(tmp_path: Path, text: str, says: str) -> None:
    (tmp_path / "p.toml").write_text(text)
    with pytest.raises(BadInput) as refusal:
        Prices.load(tmp_path / "p.toml")
    assert says in str(refusal.value) and str(tmp_path / "p.toml") in str(refusal.value)


# ---- a call ----------------------------------------------------------------------------------------------------------


def test_a_call_is_booked_to_experiment_role_and_model_at_its_price(office: Office) -> None:
    office.ask(experiment=7)
    (call,) = office.calls
    assert (call.role, call.model, call.experiment, call.status) == ("coder", MODEL, 7, "ok")
    counted = office.api.calls[0].reply["usage"]
    assert (call.usage.input, call.usage.output) == (counted["input_tokens"], counted["output_tokens"])
    assert call.microdollars == PRICE.of(call.usage) > 0
    assert spending(office.lab.ledger) == (call.microdollars, 0, False)
    assert office.lab.ledger.reader.hget(office.lab.ledger.prefix + "money", "experiment:7") == str(call.microdollars)


@pytest.mark.parametrize(
    ("fault", "status", "billed"),
    [
        (OVERLOADED, "overloaded", False),
        (RATE_LIMITED, "rate_limit", False),
        (SPEND_LIMIT, "spend_limit", False),
        (FAULTS["usage_limit"], "spend_limit", False),
        (FAULTS["no_credit"], "spend_limit", False),
        (FAULTS["server_error"], "server_error", False),
        (Line.INTERRUPTED, "connection", True),
        (Stall(30.0), "timeout", True),
        (Line.HANG_UP, "connection", True),
        (Line.TRUNCATED, "malformed", True),
        (Line.NOT_JSON, "malformed", True),
    ],
)
def test_a_call_that_failed_is_booked_too_and_as_dear_as_it_can_have_been(
    office: Office, fault: Fault, status: str, billed: bool
) -> None:
    office.api.faults = script(fault)
    with pytest.raises(Unavailable):
        office.ask(timeout_s=0.5 if isinstance(fault, Stall) else 20.0)
    (call,) = office.calls
    assert call.status == status
    assert (call.microdollars > 16_000 * 20) == billed and (call.microdollars == 0) != billed
    assert holds(office.lab.ledger) == [] and office.paid == call.microdollars


def test_nobody_at_the_other_end_costs_nothing(office: Office) -> None:
    office.api.stop()
    with pytest.raises(Unavailable, match="no connection"):
        office.ask(patience_s=0.5)
    assert len(office.calls) > 1
    assert {(call.status, call.microdollars) for call in office.calls} == {("connection", 0)}


def test_an_outage_costs_one_call_that_was_lost_however_long_it_is(office: Office) -> None:
    """Nobody knows whether a call is billed whose answer never came. So the API is asked for nothing first, until it answers."""
    office.api.faults = script(Line.HANG_UP)
    with pytest.raises(Unavailable):
        office.ask()
    office.api.stop()
    lost = office.paid
    for _ in range(3):
        with pytest.raises(Unavailable, match="nobody answers"):
            office.ask(patience_s=0.3)
    assert office.paid == lost > 0 and len(office.calls) == 1
    office.api.start()
    office.ask()
    office.ask()
    assert [call.status for call in office.calls] == ["connection", "ok", "ok"]
    asked = [call.path for call in office.api.calls]
    assert asked == ["/v1/messages", "/v1/messages/count_tokens", "/v1/messages", "/v1/messages"]


def test_what_may_go_better_is_tried_again_with_growing_pauses(office: Office) -> None:
    office.api.faults = script(OVERLOADED, Line.TRUNCATED, OVERLOADED)
    office.ask(patience_s=30.0, longest_wait_s=0.4)
    assert [call.status for call in office.calls] == ["overloaded", "malformed", "overloaded", "ok"]
    times = [call.at_s for call in office.api.calls if call.path == "/v1/messages"]
    assert all(later - earlier >= 0.2 for earlier, later in pairwise(times))


def test_the_server_is_left_alone_for_as_long_as_it_asks(office: Office) -> None:
    office.api.faults = script(RATE_LIMITED)
    office.ask(patience_s=30.0, longest_wait_s=0.1)
    first, second = office.api.calls
    assert second.at_s - first.at_s >= 1.0


def test_a_wait_beyond_the_roles_patience_pauses_the_role_instead(office: Office) -> None:
    office.api.faults = script(RATE_LIMITED)
    with pytest.raises(Unavailable) as pause:
        office.ask(patience_s=0.5)
    assert pause.value.retry_after_s == 1.0 and len(office.calls) == 1


def test_an_account_that_has_reached_its_own_limit_is_not_asked_every_minute(office: Office) -> None:
    office.api.faults = script(SPEND_LIMIT)
    with pytest.raises(Unavailable, match="account's own spending limit") as pause:
        office.ask(patience_s=60.0)
    assert pause.value.retry_after_s >= 600 and len(office.calls) == 1


def test_what_never_goes_better_waits_for_a_person(office: Office) -> None:
    wrong = office.having(api=MessagesServer(office.api.policy, key="another"))
    with wrong.api, pytest.raises(BadInput, match="refuses the request with 401"):
        wrong.ask(patience_s=60.0)
    with pytest.raises(BadInput, match=r"refuses the request with 400.*temperature"):
        office.ask(temperature=1.0)
    assert [(call.status, call.microdollars) for call in office.calls] == [("refused", 0), ("refused", 0)]


def test_a_long_answer_may_be_asked_for(office: Office) -> None:
    """The SDK itself refuses that unless it is told how long to wait."""
    office.having(call_microdollars=9 * DOLLAR).ask(max_tokens=100_000)
    assert office.api.calls[0].body["max_tokens"] == 100_000


def test_a_missing_key_is_said_before_anything_is_sent(office: Office, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NO_SUCH_KEY", raising=False)
    with pytest.raises(BadInput, match="no API key: NO_SUCH_KEY is not set"):
        office.ask(key="NO_SUCH_KEY")
    (office.lab.root / "key").write_text("\n")
    with pytest.raises(BadInput, match="key is empty"):
        office.ask(key_file=Path("key"))
    with pytest.raises(BadInput, match="cannot be read"):
        office.ask(key_file=Path("nowhere"))
    (office.lab.root / "key").write_text(f"{KEY}\n")
    office.ask(key_file=Path("key"))
    assert office.api.calls[0].headers["authorization"] == f"Bearer {KEY}" and len(office.api.calls) == 1


# ---- limits ----------------------------------------------------------------------------------------------------------


def test_a_call_that_could_cost_too_much_is_not_made(office: Office) -> None:
    with pytest.raises(TooDear, match=r"could cost 0\.33 dollars, more than the 0\.10 of money\.call_usd"):
        office.having(call_microdollars=DOLLAR // 10).ask()
    assert office.api.calls == [] and office.calls == []


@pytest.mark.parametrize(
    ("limits", "of"), [(Limits(DOLLAR // 10, 9 * DOLLAR), "campaign"), (Limits(9 * DOLLAR, DOLLAR // 10), "experiment")]
)
def test_a_call_for_which_there_is_no_money_is_not_made(office: Office, limits: Limits, of: str) -> None:
    with pytest.raises(Broke) as refusal:
        office.having(limits=limits).ask(experiment=3)
    assert refusal.value.of == of
    assert office.api.calls == [] and spending(office.lab.ledger) == (0, 0, of == "campaign")
    office.having(limits=Limits(9 * DOLLAR, 9 * DOLLAR)).ask(experiment=3)
    assert len(office.calls) == 1, "the positive control"


def test_a_model_of_ones_own_costs_nothing_and_needs_no_money(office: Office, tmp_path: Path) -> None:
    (tmp_path / "prices.toml").write_text(FREE)
    free = office.having(prices=Prices.load(tmp_path / "prices.toml"), limits=Limits(0, 0), call_microdollars=0)
    free.ask(model="local-7b", experiment=3)
    (call,) = office.calls
    assert (call.status, call.microdollars, call.sha256 != "") == ("ok", 0, True) and call.usage.output > 0
    assert holds(office.lab.ledger) == [] and spending(office.lab.ledger) == (0, 0, False)


def test_what_costs_nothing_is_not_refused_where_a_limit_is_exceeded_already(lab: Lab) -> None:
    """By a share of the planner's conversation, say, or since somebody has lowered it."""
    Purse(lab.ledger, Limits(DOLLAR, DOLLAR), "coder-0").reserve("c1", "t1", "coder", MODEL, 5, 300_000)
    poor = Purse(lab.ledger, Limits(1, 1), "coder-1")
    poor.reserve("c2", "t2", "coder", "local-7b", 5, 0)
    with pytest.raises(Broke):
        poor.reserve("c3", "t3", "coder", MODEL, 5, 1)


def test_sixteen_minds_at_once_never_spend_more_than_the_limit(
    lab: Lab, api: MessagesServer, opened: RedisServer
) -> None:
    """Each has its own connection; every answer costs, and the sum of what is paid and set aside is watched all the while."""
    limit, answered = 2 * DOLLAR, threading.Event()
    office = Office(lab, api, limits=Limits(limit, limit))
    refused: list[str] = []
    seen: list[int] = []

    def work(number: int) -> None:
        mind = office.having(lab=lab._replace(ledger=opened.ledger(lab.ledger.name, "agent")))
        while True:
            try:
                mind.ask("x" * 30_000, seat=f"coder-{number}", experiment=number, max_tokens=2000)
            except Broke as error:
                refused.append(error.of)
                return

    def watch() -> None:
        while not answered.is_set():
            paid, held, _ = spending(lab.ledger)
            seen.append(paid + held)
            time.sleep(0.002)

    watcher = threading.Thread(target=watch)
    watcher.start()
    minds = [threading.Thread(target=work, args=(number,)) for number in range(16)]
    for mind in minds:
        mind.start()
    for mind in minds:
        mind.join()
    answered.set()
    watcher.join()
    spent = total(office.calls)
    assert refused == ["campaign"] * 16
    assert office.paid == round(spent.dollars * DOLLAR) <= limit and max(seen) <= limit
    assert office.paid > limit - PRICE.at_most(40_000, 2000), "it spends what it may"
    assert len(office.calls) == len(api.calls) > 16 and holds(lab.ledger) == []


def test_what_a_dead_seat_was_waiting_for_counts_as_spent_once(lab: Lab) -> None:
    purse = Purse(lab.ledger, Limits(DOLLAR, DOLLAR), "coder-0")
    hold = purse.reserve("c1", "t1", "coder", MODEL, 5, 300_000)
    assert spending(lab.ledger) == (0, 300_000, False)
    assert Purse(lab.ledger, Limits(DOLLAR, DOLLAR), "coder-1").settle() == [], "another seat may still wait for it"
    (lost,) = Purse(lab.ledger, Limits(DOLLAR, DOLLAR), "coder-0").settle()
    assert (lost.status, lost.microdollars, lost.experiment) == ("lost", 300_000, 5)
    assert spending(lab.ledger) == (300_000, 0, False) and purse.settle() == []
    with pytest.raises(AlreadyRecorded):
        purse.book(hold, lost)


# ---- transcripts -----------------------------------------------------------------------------------------------------


def test_request_and_answer_are_kept_without_any_key(office: Office) -> None:
    office.ask(f"My key is {KEY}, and an old one was sk-ant-api03-AAAABBBBCCCCDDDD0123.")
    (call,) = office.calls
    folder = office.lab.root / ".autoresearch" / "transcripts"
    kept = transcript.read(folder, call.id, call.sha256)
    said = kept["request"]["messages"][0]["content"][0]["text"]
    assert said == "My key is [redacted], and an old one was [redacted]."
    assert kept["reply"]["content"] == json.loads(json.dumps(office.api.calls[0].reply["content"]))
    assert KEY.encode() not in gzip.decompress((folder / f"{call.id}.json.gz").read_bytes())
    assert (folder / f"{call.id}.json.gz").stat().st_mode & 0o077 == 0
    (folder / f"{call.id}.json.gz").write_bytes(gzip.compress(b"{}"))
    with pytest.raises(BadInput, match="not the transcript that the ledger has recorded"):
        transcript.read(folder, call.id, call.sha256)


def test_a_failed_call_has_a_transcript_and_a_full_disk_ends_nothing(office: Office, tiny_disk: Path) -> None:
    office.api.faults = script(OVERLOADED)
    with pytest.raises(Unavailable):
        office.ask()
    folder = office.lab.root / ".autoresearch" / "transcripts"
    assert "overloaded" in transcript.read(folder, office.calls[0].id, office.calls[0].sha256)["error"]
    (tiny_disk / "filler").write_bytes(b"x" * 256 * 1024)
    assert transcript.write(tiny_disk / "t", "c", {"request": "x" * 100_000}) == ""
