"""Numeric constants are found without running anything and set without touching any other byte."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agents.knobs import KnobError, find, resolve, rounded, set_knobs
from agents.syntax import BadCandidate, meaning_sha256
from tests.agents.sources import PROFILE, TRAIN

NAMES = st.from_regex(r"[A-Z][A-Z0-9_]{0,8}", fullmatch=True)
INTS = st.integers(-(10**9), 10**9)
FLOATS = st.floats(-1e6, 1e6).map(rounded)
LINE_ENDS = st.sampled_from(["\n", "\r\n", "\r"])
NOISE = st.sampled_from(["", "  # a comment", "   # größer → besser", "\t#\f odd"])
PRELUDE = st.sampled_from(["", '"""Über\nzwei Zeilen."""', "x = 'é'", "\f", "# 日本"])


@st.composite
def files(draw: st.DrawFn) -> tuple[str, dict[str, int | float]]:
    """A source with some constants in odd layouts, and their values."""
    values = draw(st.dictionaries(NAMES, INTS | FLOATS, min_size=1, max_size=5))
    end = draw(LINE_ENDS)
    lines = [draw(PRELUDE)]
    for name, value in values.items():
        note = draw(st.sampled_from(["", ": float", " : int "]))
        pad = draw(st.sampled_from([" ", "", "   ", "\t"]))
        wrap = draw(st.sampled_from(["{}", "({})", "(\n  {}\n)", "+{}"]))
        lines.append(f"{name}{note}{pad}={pad}{wrap.format(value)}{draw(NOISE)}")
    return end.join(lines) + draw(st.sampled_from(["", end])), values


@given(files())
def test_every_constant_of_a_generated_file_is_found(made: tuple[str, dict[str, int | float]]) -> None:
    source, values = made
    assert resolve(source, {}) == values


@given(files(), st.data())
def test_setting_then_finding_gives_the_value_and_keeps_all_other_bytes(
    made: tuple[str, dict[str, int | float]], data: st.DataObject
) -> None:
    source, values = made
    name = data.draw(st.sampled_from(sorted(values)))
    new = data.draw(INTS if isinstance(values[name], int) else FLOATS)
    edited = set_knobs(source, {name: new}, {})
    assert resolve(edited, {}) == values | {name: new}
    before = next(knob for knob in find(source, {}) if knob.name == name)
    after = next(knob for knob in find(edited, {}) if knob.name == name)
    assert edited.encode()[: after.start] == source.encode()[: before.start]
    assert edited.encode()[after.end :] == source.encode()[before.end :]


@given(files())
def test_setting_a_constant_there_and_back_keeps_what_the_file_means(made: tuple[str, dict[str, int | float]]) -> None:
    source, values = made
    other = {name: value + 1 if isinstance(value, int) else rounded(value + 1) for name, value in values.items()}
    assert resolve(set_knobs(set_knobs(source, other, {}), values, {}), {}) == values


def test_constants_of_a_train_py_are_found_with_kind_line_and_value() -> None:
    knobs = {knob.name: knob for knob in find(TRAIN, PROFILE)}
    assert {name: knob.value for name, knob in knobs.items()} == {
        "MATRIX_LR": 0.04,
        "EMBED_LR": 0.3,
        "MOMENTUM": 0.95,
        "BATCH_TOKENS": 16384,
        "DEPTH": 4,
        "WIDTH": 256,
        "INIT_SEED": 7,
    }
    assert knobs["BATCH_TOKENS"].kind == "int"
    assert knobs["MATRIX_LR"].kind == "float"
    assert TRAIN.splitlines()[knobs["DEPTH"].line - 1].startswith("DEPTH")
    assert [knob.name for knob in knobs.values() if knob.derived] == ["WIDTH"]


@pytest.mark.parametrize(
    "line",
    [
        "X = 'text'",
        "X = True",
        "X = (1, 2)",
        "X = [1][0]",
        "X = f(1)",
        "X = Y = 1",
        "X: int",
        "x = 1",
        "X = UNKNOWN * 2",
        "X = PROFILE['missing']",
        "X = 1 / 0",
        "X = 2**9999999",
        "X = 9**64**64",
        "X = 10**400",
        "X = 1e400",
        "X = (-1)**0.5",
        "X = 1; X = 2",
        "X = 1\nX += 1",
        "X = 1\ndef f():\n  global X\n  X = 2",
        "X = 1\nfor X in (): pass",
        "X = 1\nfrom m import X",
        "if 1:\n  X = 1",
    ],
)
def test_what_is_no_numeric_constant_bound_once_is_left_alone(line: str) -> None:
    assert resolve(line, {}) == {}
    assert resolve("X = 1", {}) == {"X": 1}


def test_a_value_is_written_with_four_digits_and_the_alignment_is_kept() -> None:
    edited = set_knobs(TRAIN, {"MATRIX_LR": 1 / 30, "BATCH_TOKENS": 32768}, PROFILE)
    assert "MATRIX_LR = 0.03333        # of the matrices\n" in edited
    assert "BATCH_TOKENS = 32768\n" in edited


def test_unknown_names_fractions_of_integers_and_infinities_are_refused() -> None:
    with pytest.raises(KnobError, match="no numeric constant NOPE; it has: MATRIX_LR"):
        set_knobs(TRAIN, {"NOPE": 1}, PROFILE)
    with pytest.raises(KnobError, match="DEPTH is an integer"):
        set_knobs(TRAIN, {"DEPTH": 2.5}, PROFILE)
    for value in (float("inf"), float("nan"), 1e300, 10**400):
        with pytest.raises(KnobError, match="not a finite number"):
            set_knobs(TRAIN, {"MATRIX_LR": value}, PROFILE)


@pytest.mark.parametrize(
    "source",
    ["x = (", "x = 1\0", "(" * 300, "x = " + "-" * 5000 + "1", "x = " + "1+" * 5000 + "1", "#" * 65537, "\ud800"],
)
def test_sources_that_cannot_be_read_end_in_one_line(source: str) -> None:
    with pytest.raises(BadCandidate) as refusal:
        find(source, {})
    assert "\n" not in str(refusal.value)


def test_comments_docstrings_and_layout_are_no_meaning_and_values_are() -> None:
    plain = "def f():\n    return 1\n"
    assert meaning_sha256(plain) == meaning_sha256('"""Doc."""\n\ndef f( ):\n    """Doc."""\n    return (1)  # one\n')
    assert meaning_sha256(plain) != meaning_sha256("def f():\n    return 2\n")


def test_the_constants_on_top_of_the_real_train_py_are_found() -> None:
    path = Path(__file__).parents[2] / "train.py"
    profile = {"depth": 2, "device_batch_size": 8, "total_batch_tokens": 4096, "aspect_ratio": 64, "head_dim": 32}
    knobs = find(path.read_text(), profile)
    assert len([knob for knob in knobs if not knob.derived]) >= 8
    assert any(knob.name.endswith("_LR") and knob.kind == "float" for knob in knobs)
