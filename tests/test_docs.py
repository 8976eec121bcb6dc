"""What the documents name exists: the threat model's tests, controls and attacks."""

import re
import textwrap
from pathlib import Path

import yaml

from agents.settings import CoderSettings
from sandbox.profile import Control
from tests.redteam.attacks import ATTACKS
from tests.redteam.gallery import read_cheats

ROOT = Path(__file__).parents[1]
THREATS = (ROOT / "docs" / "threat-model.md").read_text()


def test_every_test_that_the_threat_model_names_exists() -> None:
    named = set(re.findall(r"`((?:\w+/)?test_\w+\.py)`", THREATS))
    assert len(named) > 15
    assert [name for name in named if not (ROOT / "tests" / name).is_file()] == []


def test_the_threat_model_speaks_of_every_control() -> None:
    assert [control.name for control in Control if not re.search(rf"\b{control.name}\b", THREATS)] == []
    assert f"each of the {len(Control)} controls" in THREATS


def test_the_threat_model_lists_every_attack_and_no_other() -> None:
    listed = set(re.findall(r"`(\w+)`", THREATS.partition("## The attacks")[2].partition("names for each")[2]))
    assert listed == set(ATTACKS)
    assert f"**{len(ATTACKS)} attacks**" in THREATS


def test_every_picture_of_the_documents_exists_and_is_shown() -> None:
    shown = {
        (document.parent / name).resolve()
        for document in [ROOT / "README.md", *(ROOT / "docs").glob("*.md")]
        for name in re.findall(r"!\[[^\]]+\]\(([^):]+)\)", document.read_text())
    }
    assert shown == set((ROOT / "docs" / "img").iterdir())


def test_the_role_that_the_documents_show_for_an_agent_of_yours_is_one() -> None:
    shown = re.search(r"^    ---\n(.*?)^    ---\n", (ROOT / "docs" / "bring-your-own-agent.md").read_text(), re.DOTALL | re.MULTILINE)  # fmt: skip
    assert shown is not None
    settings = CoderSettings.model_validate(yaml.safe_load(textwrap.dedent(shown[1])))
    assert (settings.mind, settings.agent) == ("command", Path("roles/example-agent"))


def test_the_documents_count_the_cheats() -> None:
    count = len(read_cheats())
    assert f"**{count} cheats**" in THREATS
    assert f"{count} cheats, what the original's harness would have believed" in (ROOT / "README.md").read_text()
