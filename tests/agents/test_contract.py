"""Each reason for refusing an edit, next to the same edit without the fault."""

import pytest

from agents.contract import contract_breach, make_candidate, review
from agents.knobs import set_knobs
from agents.syntax import BadCandidate
from records import Candidate, Hypothesis, Number, Review
from tests.agents.sources import PROFILE, TRAIN
from tests.ground import ROOT

BETTER = TRAIN.replace("MATRIX_LR = 0.04", "MATRIX_LR = 0.06")


def judge(source: str, knobs: dict[str, Number] | None = None, parent: str = TRAIN) -> Review:
    """The review of an edit of `parent`, whatever make_candidate would say of it."""
    candidate = make_candidate("a" * 40, parent, parent).model_copy(update={"source": source})
    return review(candidate, parent, Hypothesis(title="t", change="c", knobs=knobs or {}), PROFILE)


def test_an_edit_that_keeps_the_contract_is_approved() -> None:
    assert judge(BETTER).approved
    assert judge(BETTER).code == "ok"


@pytest.mark.parametrize(
    ("old", "new", "reason"),
    [
        ("def main():", "def other():", "does not define main"),
        ("def build_model():", "def make_model():", "does not define build_model"),
        ("    submit(model)\n", "", "never reaches submit"),
        ("start_clock()\n", "Clock()\n", "never reaches start_clock"),
        ("    train(build_model())", "    build_model()", "never reaches start_clock"),
        ("import torch\n", "import torch\nimport socket\n", "imports socket"),
        ("import torch\n", "import torch\nfrom . import helper\n", "imports .;"),
        ("    pass  #", "    import subprocess  #", "imports subprocess"),
        ("DEPTH = ", "DEPTH = = ", "not Python"),
        ("DEPTH = ", "# " + "x" * 65536 + "\nDEPTH = ", "bytes"),
    ],
)
def test_a_broken_contract_is_refused_and_says_what_is_broken(old: str, new: str, reason: str) -> None:
    broken = BETTER.replace(old, new)
    assert broken != BETTER
    verdict = judge(broken)
    assert not verdict.approved
    assert verdict.code == "contract"
    assert reason in verdict.reason


def test_the_train_py_of_this_repository_keeps_the_contract() -> None:
    source = (ROOT / "train.py").read_text()
    assert contract_breach(source) is None
    assert "requests" in str(contract_breach(source.replace("import triton\n", "import requests\n")))


def test_the_clock_may_be_started_by_a_method_that_main_only_reaches_through_a_class() -> None:
    source = BETTER.replace(
        "def main():\n    train(build_model())",
        "class Trainer:\n    def __init__(self, model):\n        train(model)\n\n\ndef main():\n    Trainer(build_model())",
    )
    assert source != BETTER
    assert judge(source).approved


def test_an_edit_of_comments_and_layout_changes_nothing() -> None:
    assert (
        judge(TRAIN.replace("# of the matrices", "# tuned").replace('"""The model."""', '"""Model."""')).code == "no_op"
    )
    assert judge(TRAIN).code == "no_op"


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("INIT_SEED = 7", "INIT_SEED = 8"),
        ("manual_seed(INIT_SEED)", "manual_seed(1234)"),
        ("    torch.manual_seed(INIT_SEED)\n", ""),
        ("    train(build_model())", "    torch.cuda.manual_seed_all(3)\n    train(build_model())"),
    ],
)
def test_an_edit_that_only_moves_a_seed_is_refused_and_approved_together_with_a_real_change(old: str, new: str) -> None:
    seeded = TRAIN.replace(old, new)
    assert seeded != TRAIN
    assert judge(seeded).code == "seed_only"
    assert judge(BETTER.replace(old, new)).approved


def test_a_knob_hypothesis_must_change_exactly_its_knobs_to_exactly_its_values() -> None:
    promised: dict[str, Number] = {"MATRIX_LR": 0.06, "DEPTH": 5}
    kept = set_knobs(TRAIN, promised, PROFILE)
    assert judge(kept, promised).approved
    assert judge(set_knobs(TRAIN, {"MATRIX_LR": 0.06}, PROFILE), promised).code == "not_as_promised"
    assert judge(set_knobs(TRAIN, {**promised, "DEPTH": 6}, PROFILE), promised).code == "not_as_promised"
    assert judge(set_knobs(TRAIN, {**promised, "MOMENTUM": 0.9}, PROFILE), promised).code == "not_as_promised"
    assert judge(kept.replace("pass  #", "break  #"), promised).code == "not_as_promised"
    assert judge(kept, {"GONE": 1}).code == "not_as_promised"


def test_a_constant_computed_from_a_promised_one_may_follow_it() -> None:
    """WIDTH = DEPTH * 64 moves with DEPTH; the expression is the same."""
    assert judge(set_knobs(TRAIN, {"DEPTH": 6}, PROFILE), {"DEPTH": 6}).approved


def test_a_candidate_carries_its_exact_bytes_its_meaning_and_a_diff() -> None:
    first: Candidate = make_candidate("a" * 40, TRAIN, BETTER)
    same: Candidate = make_candidate("a" * 40, TRAIN, BETTER + "# the end")
    assert first.source_sha256 != same.source_sha256
    assert first.meaning_sha256 == same.meaning_sha256
    assert "-MATRIX_LR = 0.04        # of the matrices\n+MATRIX_LR = 0.06        # of the matrices\n" in first.diff


def test_no_candidate_is_made_of_a_source_that_is_not_python() -> None:
    with pytest.raises(BadCandidate, match=r"train\.py:1: not Python"):
        make_candidate("a" * 40, TRAIN, "def (")
