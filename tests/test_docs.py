"""What the documents name exists: the threat model's tests, controls and attacks."""

import re
from pathlib import Path

from sandbox.profile import Control
from tests.redteam.attacks import ATTACKS

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
