"""`ledger show --transcript` tells every call of an experiment in order, each text once, and nothing that a terminal would obey."""

import json
from pathlib import Path
from typing import Any

from agents import transcript
from orgs.conversations import exchanges_of, lines_of
from tests.orgs.lab import run
from tests.orgs.minds_lab import LONG, NEW, Played


def told(night: Played, limit: int | None = 1500) -> str:
    row = night.ledger.experiment(night.experiment)
    return "\n".join(lines_of(exchanges_of(row, night.calls, night.transcripts), limit))


def show(night: Played, *more: str) -> str:
    shown = run(night.lab.root, "ledger", "show", str(night.experiment), "--transcript", *more)
    assert shown.returncode == 0, shown.stderr
    return shown.stdout


def test_the_calls_are_told_in_order_with_role_model_and_price(night: Played) -> None:
    headings = [line for line in told(night).splitlines() if line.startswith("────")]
    roles = ["planner", "coder", "coder", "coder", "reviewer", "reviewer"]
    assert [line.split()[1] for line in headings] == roles
    assert "claude-opus-5-5" in headings[0] and "claude-sonnet-5-5" in headings[1]
    assert headings[1].endswith("· 0.0000 dollars · overloaded ────")
    for line, call in zip(headings, night.calls, strict=True):
        assert f"{call.microdollars / 1e6:.4f} dollars" in line and f"{call.usage.output:,} of answer" in line


def test_each_text_is_told_once(night: Played) -> None:
    text = told(night, None)
    assert text.count("[system] # The planner") == text.count("[system] # The coder") == 1
    assert text.count("[system] # The reviewer") == 1, "its review and its lesson have the same"
    assert text.count("[user] # The hypothesis") == 1, "the repeated call asks the same"
    assert text.count("[assistant calls edit]") == text.count("[assistant calls submit]") == 1
    assert "[assistant] I look at the bias." in text
    assert f"new: {NEW}" in text and "[result] changed at line" in text
    assert "[assistant calls lesson] text: The bias is worth nothing." in text


def test_nothing_of_it_is_obeyed_by_a_terminal(night: Played) -> None:
    shown = show(night)
    assert "\x1b" not in shown and "No bias." in shown


def test_long_texts_are_cut_unless_they_are_asked_for(night: Played) -> None:
    assert LONG.strip() not in told(night) and "characters cut]" in told(night)
    assert LONG.strip() in told(night, None)
    assert "characters cut]" in show(night) and "[system] # The coder" in show(night, "--full")


def test_json_has_the_raw_exchanges(night: Played) -> None:
    found: list[dict[str, Any]] = json.loads(show(night, "--json"))
    assert [one["call"]["id"] for one in found] == [call.id for call in night.calls]
    assert found[0]["said"]["request"]["model"] == "claude-opus-5-5"
    assert "error" in found[1]["said"] and "reply" in found[2]["said"]


def test_a_missing_and_an_altered_file_are_named_and_the_rest_is_told(night: Played, tmp_path: Path) -> None:
    for file in night.transcripts.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    gone, altered = (transcript.place(tmp_path, night.calls[i].id) for i in (2, 4))
    gone.unlink()
    altered.write_bytes(b"other")
    row = night.ledger.experiment(night.experiment)
    text = "\n".join(lines_of(exchanges_of(row, night.calls, tmp_path)))
    assert f"! {gone}: no transcript of this call" in text
    assert f"! {altered}: is not the transcript that the ledger has recorded" in text
    assert text.count("[assistant calls edit]") == 1, "what the lost call answered is in the next one's messages"
    assert "[assistant calls lesson]" in text


def test_an_answer_and_what_is_said_against_it_are_both_told_and_of_a_cancelled_call_what_it_asked(
    night: Played, tmp_path: Path
) -> None:
    asked = {"system": [], "messages": [{"role": "user", "content": [{"type": "text", "text": "Drop it."}]}]}
    reply = {"content": [{"type": "text", "text": "/answer/train.py:\n\x1b[31m"}]}
    said: list[dict[str, Any]] = [
        {"request": asked, "reply": reply, "error": "too\nlate"},
        {"request": asked},
    ]
    kept = [transcript.write(tmp_path, str(at), exchange) for at, exchange in enumerate(said)]
    first = night.calls[1].model_copy(update={"errand": True, "status": "timeout", "model": "my-agent"})
    errands = [first.model_copy(update={"id": str(at), "talk": str(at), "sha256": sha}) for at, sha in enumerate(kept)]
    row = night.ledger.experiment(night.experiment)
    lines = list(lines_of(exchanges_of(row, errands, tmp_path)))
    assert lines[1:4] == ["[user] Drop it.", "[assistant] /answer/train.py:\n [31m", "! too late"]
    assert "· my-agent ·" in lines[0] and lines[0].endswith("· at its own expense · timeout ────")
    assert lines[5:] == ["[user] Drop it."]


def test_an_experiment_without_a_call_says_so(night: Played) -> None:
    shown = run(night.lab.root, "ledger", "show", "1", "--transcript")
    assert shown.returncode == 0 and "#1: no language model and no agent was asked about it" in shown.stdout
    refused = run(night.lab.root, "ledger", "show", "1", "--full")
    assert refused.returncode == 2 and "--transcript" in refused.stderr


def test_show_has_the_reviewers_forecast_and_lesson(night: Played) -> None:
    shown = run(night.lab.root, "ledger", "show", str(night.experiment)).stdout
    assert "-0.0010 bpb, merges with probability 0.10" in shown
    assert "The bias is worth nothing. (reviewer/anthropic)" in shown
