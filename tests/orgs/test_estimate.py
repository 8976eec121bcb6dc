"""A dry run starts nothing, finds what a launch would refuse, and says what the night would cost and on which assumptions."""

import json
import os
import shutil
from pathlib import Path

import pytest

from agents.prices import Prices
from agents.settings import PlannerSettings
from orgs.dry_run import explain_estimate
from orgs.estimate import HABITS, IDEAS_PER_EXPERIMENT, Estimate, Habit, TaskCost, conversation, estimate
from orgs.lab import Lab
from orgs.orgfile import OrgFile
from orgs.prompts import Sizes, render_plan
from records import Usage
from tests.components import require
from tests.orgs.lab import ROOT, make_lab, run
from tests.orgs.minds_lab import ORG, Played


@pytest.fixture
def lab(tmp_path: Path) -> Path:
    for name in ("train.py", "prepare.py", "program.md"):
        shutil.copy(ROOT / name, tmp_path / name)
    for name in ("roles", "orgs"):
        shutil.copytree(ROOT / name, tmp_path / name, ignore=shutil.ignore_patterns("*.py", "__pycache__"))
    return tmp_path


def test_every_prompt_of_a_conversation_begins_with_all_of_the_one_before() -> None:
    sizes, habit = (
        Sizes(stable=100, task=10, tools=5),
        Habit(answers=3, output_tokens=20, result_tokens=7, more_tokens=0),
    )
    later = [Usage(cache_read=115, cache_write=27, output=20), Usage(cache_read=142, cache_write=27, output=20)]
    assert conversation(sizes, habit, "1h", found=True) == [Usage(cache_read=105, cache_write=10, output=20), *later]
    assert conversation(sizes, habit, "1h", found=False) == [
        Usage(cache_write_1h=105, cache_write=10, output=20),
        *later,
    ]
    assert conversation(sizes, habit, "5m", found=False) == [Usage(cache_write=115, output=20), *later]


def test_that_is_how_the_calls_of_a_coder_were_billed(night: Played) -> None:
    first, second = (call.usage for call in night.calls if call.role == "coder" and call.status == "ok")
    assert second.cache_read == first.prompt and second.input == 0
    assert first.input == 0 and first.cache_write_1h > 0 and first.cache_write > 0


def test_a_night_costs_what_its_conversations_do(lab: Path) -> None:
    org = OrgFile.load(lab / "orgs" / "trio.toml", lab)
    found = estimate(Lab(lab), org)
    assert [(one.role, one.task, one.model) for one in found.tasks] == [
        ("planner", "plan", "claude-opus-5-5"),
        ("coder", "code", "claude-sonnet-5-5"),
        ("reviewer", "review", "claude-opus-5-5"),
        ("reviewer", "lesson", "claude-opus-5-5"),
    ]
    assert found.night_usd == pytest.approx(100 * sum(one.usd for one in found.tasks))
    plan, rendered = found.tasks[0], render_plan(Lab(lab), org, None)
    assert isinstance(rendered.settings, PlannerSettings)
    assert plan.conversations == IDEAS_PER_EXPERIMENT / 2, "two proposals an answer"
    assert plan.prompt_tokens == rendered.sizes.whole + rendered.settings.digest_tokens / 2
    price, sizes = Prices.load().price("claude-opus-5-5"), rendered.sizes
    stable, task = sizes.stable + sizes.tools, sizes.task + rendered.settings.digest_tokens / 2
    warm = (stable * price.cache_read + task * price.cache_write + 6000 * price.output) / 1e6
    cold = (stable * price.cache_write_1h + task * price.cache_write + 6000 * price.output) / 1e6
    assert plan.usd == pytest.approx(0.6 * (0.9 * warm + 0.1 * cold), rel=1e-4)
    assert plan.cached == pytest.approx(0.9 * stable / (stable + task))


def test_the_longest_call_is_priced_as_the_line_would_set_it_aside(lab: Path) -> None:
    found = estimate(Lab(lab), OrgFile.load(lab / "orgs" / "trio.toml", lab))
    review = found.tasks[2]
    price, request = Prices.load().price("claude-opus-5-5"), render_plan(Lab(lab), OrgFile.load(lab / "orgs" / "trio.toml", lab), None).request()  # fmt: skip
    plan = price.at_most(request.size_tokens + 3 * 8000, 16_000) / 1e6
    assert found.tasks[0].call_at_most_usd == pytest.approx(plan)
    assert found.dearest == found.tasks[0] and review.call_at_most_usd < plan


def of(usd: float, at_most: float, *, campaign: float = 30.0, experiment: float = 2.0, call: float = 1.5) -> str:
    task = TaskCost("coder", "code", "small", 1000, 1.0, 7.0, 0.5, usd, at_most)
    return "\n".join(explain_estimate(Estimate([task], 100, campaign, experiment, call)))


def test_it_is_compared_with_every_cap() -> None:
    assert "would end the night after about 58 experiments" in of(0.5, 1.0)  # (30 − 1) / 0.5
    assert "would last for about 290 experiments" in of(0.1, 1.0)
    assert "after about 0 experiments" in of(0.1, 1.0, campaign=0.5)
    assert "within the 1.5 of money.call_usd" in of(0.5, 1.0)
    assert "more than the 0.75 of money.call_usd, so that it would be refused" in of(0.5, 1.0, call=0.75)
    assert "its coder would give up" in of(0.5, 1.0, experiment=1.4)
    assert "its coder would give up" not in of(0.5, 1.0, experiment=1.6)
    assert "none of its models costs anything" in of(0.0, 0.0)


def test_an_org_without_a_language_model_costs_nothing(lab: Path) -> None:
    found = estimate(Lab(lab), OrgFile.load(lab / "orgs" / "demo.toml", lab))
    assert found.tasks == [] and found.night_usd == 0.0 and found.lasts is None
    assert explain_estimate(found) == ["cost: 0 dollars, no role asks a language model"]


def test_without_an_engine_a_git_repository_and_a_key_the_price_is_told_all_the_same(lab: Path) -> None:
    ended = run(lab, "launch", "orgs/test.toml", "--dry-run")
    assert ended.returncode == 2, "no such org file"
    org = ORG.format(url="http://127.0.0.1:9").replace('dataset = ".autoresearch/datasets/none"', 'corpus = "python"')
    (lab / "orgs" / "test.toml").write_text(org + '[sandbox]\nengine = "docker"\ndevice = "cpu"\n')
    ended = run(
        lab, "launch", "orgs/test.toml", "--dry-run", "--json", DOCKER_HOST="unix:///nowhere/docker.sock", ANTHROPIC_API_KEY=""
    )  # fmt: skip
    assert ended.returncode == 3, ended.stderr
    found = json.loads(ended.stdout)
    levels = {line["subject"]: line["level"] for line in found["checks"]}
    assert levels == {
        **dict.fromkeys(("planner", "coder", "reviewer", "dataset"), "yellow"),
        **{"device": "green", "sandbox": "red", "train.py": "green", "git": "red"},
    }
    assert found["cost"]["night_usd"] > 0 and found["cost"]["assumed"]["code"]["answers"] == HABITS["code"].answers
    assert not (lab / ".autoresearch" / "redis").exists(), "nothing was started"


@pytest.mark.parametrize("preset", ["trio", "solo", "hybrid"])
def test_of_each_preset_with_a_language_model_only_the_key_is_missing(lab: Path, preset: str) -> None:
    arguments = ("launch", f"orgs/{preset}.toml", "--dry-run", "--json")
    found = json.loads(run(lab, *arguments, ANTHROPIC_API_KEY="").stdout)
    lines = {line["subject"]: line for line in found["checks"]}
    assert [lines[role]["level"] for role in ("planner", "coder")] == ["yellow"] * 2
    assert all("no API key" in lines[role]["says"] for role in ("planner", "coder"))
    assert lines["reviewer"]["level"] == ("green" if preset == "solo" else "yellow")
    assert lines["train.py"]["level"] == "green" and lines["dataset"]["level"] == "yellow"
    cost = found["cost"]
    can_afford = 0 < cost["night_usd"] <= cost["caps"]["campaign_usd"]
    assert can_afford or preset == "hybrid", "whose sampler goes on when the money is spent"


def test_a_wrong_role_is_refused_and_has_no_price(lab: Path) -> None:
    (lab / "roles" / "coder.md").write_text("---\nmind: oracle\n---\n")
    ended = run(lab, "launch", "orgs/demo.toml", "--dry-run", DOCKER_HOST="unix:///nowhere/docker.sock")
    assert ended.returncode == 2 and "coder.md:2: mind" in ended.stdout and "no estimate" in ended.stderr


def test_json_is_refused_where_nothing_is_printed_as_json(lab: Path) -> None:
    ended = run(lab, "launch", "orgs/demo.toml", "--json")
    assert ended.returncode == 2 and "--dry-run" in ended.stderr


def test_where_everything_is_in_place_each_thing_is_green_and_no_campaign_was_begun(tmp_path: Path) -> None:
    require(os.geteuid() == 0 and shutil.which("runc") is not None, "runc, as root: apt-get install runc")
    ended = run(make_lab(tmp_path), "launch", "orgs/tiny.toml", "--dry-run")
    assert ended.returncode == 0, ended.stderr
    lines = [line for line in ended.stdout.splitlines() if line.startswith(("✓", "!", "✗"))]
    assert [line.split()[1] for line in lines] == [
        "planner",
        "coder",
        "reviewer",
        "device",
        "sandbox",
        "dataset",
        "train.py",
        "git",
    ]
    assert {line[0] for line in lines} == {"✓"} and "cost: 0 dollars" in ended.stdout
    assert not (tmp_path / ".autoresearch" / "redis").exists()
    planner = tmp_path / "roles" / "planner.md"
    planner.write_text(planner.read_text().replace("frozen: []", "frozen: [NOTHING_OF_THE_SORT]"))
    ended = run(tmp_path, "launch", "orgs/tiny.toml", "--dry-run")
    (red,) = [line for line in ended.stdout.splitlines() if line.startswith("✗")]
    assert ended.returncode == 2 and red.split()[1] == "train.py" and "NOTHING_OF_THE_SORT" in red
