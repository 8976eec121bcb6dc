"""`roles show` renders what a seat would send, letter by letter; `roles check` finds what is wrong before a night, without a key."""

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from agents.minds.desk import NoKey
from agents.minds.pause import Unavailable
from agents.samples import DIFF
from agents.tokens import BYTES_PER_TOKEN
from ledger import Ledger
from orgs.lab import Lab
from orgs.orgfile import OrgFile, RoleName
from orgs.prompts import Rendered, render
from orgs.role_check import check_lab
from records import BadInput
from tests.minds.server import KEY
from tests.orgs.lab import ROOT, run
from tests.orgs.minds_lab import ORG, Played

SOURCE = (ROOT / "train.py").read_text()


@pytest.fixture
def lab(tmp_path: Path) -> Path:
    """Without a campaign."""
    for name in ("train.py", "prepare.py", "program.md"):
        shutil.copy(ROOT / name, tmp_path / name)
    shutil.copytree(ROOT / "roles", tmp_path / "roles")
    (tmp_path / "orgs").mkdir()
    (tmp_path / "orgs" / "test.toml").write_text(ORG.format(url="http://127.0.0.1:9"))
    return tmp_path


def show(lab: Path, role: RoleName, *, org: bool = True, ledger: Ledger | None = None) -> Rendered:
    chosen = OrgFile.load(lab / "orgs" / "test.toml", lab) if org else OrgFile(name="default")
    return render(Lab(lab), chosen, role, ledger)


# ---- roles show ------------------------------------------------------------------------------------------------------


def sent(night: Played, role: str) -> dict[str, Any]:
    """The first request of the last conversation of a role."""
    talk = next(call.talk for call in reversed(night.calls) if call.role == role)
    number = sum(call.status == "ok" for call in night.calls[: [call.talk for call in night.calls].index(talk)])
    body: dict[str, Any] = night.server.messages()[number].body
    return body


@pytest.mark.parametrize("role", ["coder", "reviewer"])
def test_the_prompt_is_what_the_seat_has_sent(night: Played, role: RoleName) -> None:
    body, found = sent(night, role), show(night.lab.root, role, ledger=night.ledger)
    assert found.prompt.stable == body["system"][0]["text"]
    assert found.prompt.task == body["messages"][0]["content"][0]["text"]
    offered = [tool for tool in found.tools if tool["name"] != "preflight"]  # its seat had no sandbox here
    assert offered == body["tools"]
    assert found.campaign == night.ledger.name and f"#{night.experiment} " in found.about


def test_a_planner_is_shown_what_has_happened_since(night: Played) -> None:
    body, found = sent(night, "planner"), show(night.lab.root, "planner", ledger=night.ledger)
    assert found.prompt.stable == body["system"][0]["text"] and found.tools == body["tools"]
    assert "The bias is worth nothing." in found.prompt.task
    assert "The bias is worth nothing." not in body["messages"][0]["content"][0]["text"]


def test_without_a_campaign_it_is_about_the_working_copy(lab: Path) -> None:
    found = show(lab, "planner")
    assert SOURCE.rstrip() in found.prompt.stable and found.campaign is None and "empty history" in found.about
    assert SOURCE.rstrip() in show(lab, "coder").prompt.stable
    reviewed = show(lab, "reviewer")
    assert SOURCE.rstrip() in reviewed.prompt.stable and DIFF.rstrip() in reviewed.prompt.task
    assert "the sample of agents/samples.py" in reviewed.about


def test_tokens_are_estimated_part_by_part_with_the_tools_counted(lab: Path) -> None:
    found = show(lab, "planner")
    assert found.sizes.stable == -(-len(found.prompt.stable.encode()) // BYTES_PER_TOKEN)
    assert found.sizes.task == -(-len(found.prompt.task.encode()) // BYTES_PER_TOKEN)
    assert [tool["name"] for tool in found.tools] == ["propose"] and found.sizes.tools > 500
    assert found.sizes.whole == sum(found.sizes)


def test_the_command_shows_whose_settings_apply_and_marks_both_parts_and_every_tool(lab: Path) -> None:
    shown = run(lab, "roles", "show", "coder", "--org", "orgs/test.toml", ANTHROPIC_API_KEY="").stdout
    marks = [line for line in shown.splitlines() if line.startswith("────")]
    assert "stable part" in marks[0] and "task part" in marks[1]
    assert [mark.split()[2] for mark in marks[2:]] == [
        "view",
        "edit",
        "write",
        "check",
        "preflight",
        "submit",
        "give_up",
    ]
    assert "of orgs/test.toml, in place of the front matter" in shown
    by_file = json.loads(run(lab, "roles", "show", "coder", "--json").stdout)
    assert (by_file["settings_of"], by_file["settings"]["mind"]) == ("front matter", "sampler")
    assert by_file["tools"] == [] and by_file["tokens"]["tools"] == 0


def test_the_newest_campaign_of_the_org_is_found_and_the_apis_own_counter_asked(night: Played) -> None:
    shown = run(night.lab.root, "roles", "show", "reviewer", "--org", "orgs/test.toml", "--count", "--json", ANTHROPIC_API_KEY=KEY)  # fmt: skip
    assert shown.returncode == 0, shown.stderr
    found = json.loads(shown.stdout)
    assert found["campaign"] == night.ledger.name
    assert found["tokens"]["counted"] == night.calls[-1].usage.prompt, "as many as the lesson's call was billed for"


@pytest.mark.parametrize(
    ("arguments", "code", "says"),
    [
        (["coder", "--count"], 2, "mind sampler of the coder asks no language model"),
        (["cook"], 2, "planner"),
        (["coder", "-c", "nope"], 2, "no campaign nope"),
    ],
)
def test_what_cannot_be_shown_is_said_in_a_line(lab: Path, arguments: list[str], code: int, says: str) -> None:
    ended = run(lab, "roles", "show", *arguments)
    assert ended.returncode == code and says in ended.stderr and "Traceback" not in ended.stderr


def count(night: Played, key: str, monkeypatch: pytest.MonkeyPatch, url: str | None = None) -> int:
    monkeypatch.setenv("ANTHROPIC_API_KEY", key)
    org, found = OrgFile.load(night.lab.root / "orgs" / "test.toml", night.lab.root), show(night.lab.root, "coder")
    settings = found.settings.model_copy(update={} if url is None else {"base_url": url})
    return replace(found, settings=settings).count(org, night.lab)


def test_a_counter_that_refuses_or_does_not_answer_is_told_apart(
    night: Played, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert count(night, KEY, monkeypatch) > 0
    with pytest.raises(NoKey):
        count(night, "", monkeypatch)
    with pytest.raises(BadInput, match="refuses the request with 401"):
        count(night, "wrong", monkeypatch)
    with pytest.raises(Unavailable, match="nobody counts the tokens"):
        count(night, KEY, monkeypatch, "http://127.0.0.1:9")


# ---- roles check -----------------------------------------------------------------------------------------------------


def test_every_role_has_a_line_and_a_missing_key_is_nothing_wrong_with_it(lab: Path) -> None:
    ended = run(lab, "roles", "check", ANTHROPIC_API_KEY="")
    lines = ended.stdout.splitlines()
    assert ended.returncode == 0 and len(lines) == 6
    assert lines[0] == "✓ planner roles/planner.md: sampler"
    assert lines[3].startswith("! orgs/test.toml planner roles/planner.md: anthropic, claude-opus-5-5; no API key: ")


def test_with_a_key_all_is_well(lab: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ANTHROPIC_API_KEY", KEY)
    found = check_lab(Lab(lab))
    assert {one.outcome for one in found} == {"ok"}
    assert found[3] == ("orgs/test.toml", "planner", "roles/planner.md", "ok", "anthropic, claude-opus-5-5")


def test_a_wrong_prompt_is_named_by_file_and_line_although_there_is_no_key(lab: Path) -> None:
    coder = lab / "roles" / "coder.md"
    coder.write_text(coder.read_text().replace("{{ hypothesis.title | fenced(200) }}", "{{ hypothesys.title }}"))
    line = coder.read_text().split("\n").index("{{ hypothesys.title }}") + 1
    ended = run(lab, "roles", "check", "--org", "orgs/test.toml", "--json", ANTHROPIC_API_KEY="")
    found = json.loads(ended.stdout)
    assert ended.returncode == 2 and [one["outcome"] for one in found] == ["no key", "wrong", "no key"]
    assert f"{coder}:{line}: unknown variable 'hypothesys'" in found[1]["says"]


def test_a_model_without_a_price_and_a_broken_org_file_are_wrong(lab: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ANTHROPIC_API_KEY", KEY)
    org = lab / "orgs" / "test.toml"
    org.write_text(org.read_text().replace("claude-sonnet-5-5", "gpt-9"))
    (lab / "orgs" / "broken.toml").write_text("name = 3")
    found = check_lab(Lab(lab))
    assert [one.outcome for one in found] == ["ok", "ok", "ok", "wrong", "ok", "wrong", "ok"]
    assert "broken.toml: name" in found[3].says and "nobody knows what gpt-9 costs" in found[5].says
