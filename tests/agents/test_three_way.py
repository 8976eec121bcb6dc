"""A change is carried over whole or not at all, whatever the user has told git."""

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agents.knobs import resolve, set_knobs
from agents.three_way import carry, merge
from tests.agents.sources import PROFILE, TRAIN

LINES = [f"line {i}\n" for i in range(12)]
BASE = "".join(LINES)


def changed(**lines: str) -> str:
    """The base with some lines replaced: `_3="x"` for line 3."""
    return "".join(lines.get(f"_{i}", line) for i, line in enumerate(LINES))


def test_changes_of_different_lines_come_together() -> None:
    assert merge(BASE, changed(_1="ours\n"), changed(_8="theirs\n")) == changed(_1="ours\n", _8="theirs\n")


def test_changes_of_one_line_or_of_neighbours_conflict() -> None:
    assert merge(BASE, changed(_4="ours\n"), changed(_4="theirs\n")) is None
    assert merge(BASE, changed(_4="ours\n"), changed(_5="theirs\n")) is None


def test_the_same_change_on_both_sides_is_made_once() -> None:
    both = changed(_4="both\n")
    assert merge(BASE, both, both) == both
    assert merge(BASE, both, changed(_4="both\n", _9="theirs\n")) == changed(_4="both\n", _9="theirs\n")


def test_a_change_can_be_taken_back_under_a_later_one() -> None:
    first = changed(_1="first\n")
    assert merge(base=first, ours=changed(_1="first\n", _8="second\n"), theirs=BASE) == changed(_8="second\n")


@settings(max_examples=25, deadline=None)
@given(st.text(st.characters(blacklist_characters="\0"), max_size=40), st.text(max_size=40))
def test_what_changed_on_one_side_only_is_that_side_to_the_byte(one: str, other: str) -> None:
    expected = None if "\0" in other else other
    assert merge(one, one, other) == expected
    assert merge(one, other, one) == expected


@pytest.mark.parametrize("ending", ["\r\n", "\r", ""])
def test_line_ends_are_kept(ending: str) -> None:
    ours, theirs = changed(_1=f"ours{ending}\n"), changed(_8=f"theirs{ending}\n", _11="no end")
    assert merge(BASE, ours, theirs) == changed(_1=f"ours{ending}\n", _8=f"theirs{ending}\n", _11="no end")


def test_neither_the_users_git_nor_a_repository_around_has_a_say(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Git would fail if it read any of the broken settings, and take both sides if it heeded the attributes."""
    (tmp_path / ".gitconfig").write_text("[merge\n")
    (tmp_path / ".git").mkdir()
    (tmp_path / ".git" / "config").write_text("[core\n")
    (tmp_path / ".gitattributes").write_text("* merge=union\n")
    monkeypatch.setattr("agents.three_way.MEMORY", tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    monkeypatch.setenv("GIT_CONFIG_GLOBAL", str(tmp_path / ".gitconfig"))
    monkeypatch.setenv("GIT_DIR", str(tmp_path / ".git"))
    assert merge(BASE, changed(_4="ours\n"), changed(_4="theirs\n")) is None
    assert merge(BASE, BASE, changed(_4="theirs\n")) == changed(_4="theirs\n")
    assert sorted(path.name for path in tmp_path.iterdir()) == [".git", ".gitattributes", ".gitconfig"]


# ---- programs --------------------------------------------------------------------------------------------------------


def test_neighbouring_constants_come_together_and_nothing_else_moves() -> None:
    ours, theirs = (set_knobs(TRAIN, knobs, PROFILE) for knobs in ({"MATRIX_LR": 0.06}, {"EMBED_LR": 0.5}))
    assert merge(TRAIN, ours, theirs) is None
    both = carry(TRAIN, ours, theirs, ["EMBED_LR"], PROFILE)
    assert both == set_knobs(ours, {"EMBED_LR": 0.5}, PROFILE)


def test_a_constant_that_changed_on_both_sides_is_a_conflict() -> None:
    ours, theirs = (set_knobs(TRAIN, {"MATRIX_LR": value}, PROFILE) for value in (0.06, 0.08))
    assert carry(TRAIN, ours, theirs, ["MATRIX_LR"], PROFILE) is None
    gone = TRAIN.replace("MATRIX_LR = 0.04        # of the matrices\n", "")
    assert carry(TRAIN, gone, theirs, ["MATRIX_LR"], PROFILE) is None


def test_a_constant_goes_back_to_what_its_profile_says() -> None:
    first = set_knobs(TRAIN, {"DEPTH": 6}, PROFILE)
    second = set_knobs(first, {"BATCH_TOKENS": 4096}, PROFILE)
    back = carry(base=first, ours=second, theirs=TRAIN, knobs=["DEPTH"], profile=PROFILE)
    assert back is not None
    assert resolve(back, PROFILE) == resolve(TRAIN, PROFILE) | {"BATCH_TOKENS": 4096}
