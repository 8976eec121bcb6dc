"""A script replays what was decided: in order, each once, on top of whatever the champion is by then."""

import json
from pathlib import Path
from typing import Any

import pytest

from agents.contract import make_candidate
from agents.knobs import set_knobs
from agents.minds.desk import Desk
from agents.minds.script import Script
from agents.planner import Planner
from agents.role import Role
from agents.settings import PlannerSettings
from agents.syntax import BadCandidate
from ledger.export import json_lines, write_experiments
from ledger.lease import acquire
from records import BadInput, Candidate, Experiment, Hypothesis, Review, State
from tests.agents.lab import Lab
from tests.agents.sources import PROFILE, TRAIN, code_task, experiment, plan_task, review_task

FASTER = TRAIN.replace("MATRIX_LR = 0.04 ", "MATRIX_LR = 0.06 ")
WIDER = TRAIN.replace("DEPTH * 64", "DEPTH * 96")
LOUDER = TRAIN.replace("nothing to learn", "nothing at all").replace("pass  #", "print()  #")


def idea(title: str) -> dict[str, str]:
    return {"title": title, "change": f"{title}, by hand"}


def line(title: str, source: str, **more: Any) -> dict[str, Any]:
    return {"hypothesis": idea(title), "source": source, **more}


def write(path: Path, *rows: dict[str, Any]) -> Path:
    path.write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    return path


def use_script(lab: Lab, *rows: dict[str, Any]) -> None:
    """All three roles of the lab replay these lines."""
    write(lab.root / "night.jsonl", *rows)
    for role in ("planner", "coder", "reviewer"):
        prompt = (lab.root / "roles" / f"{role}.md").read_text().partition("\n---\n")[2]
        (lab.root / "roles" / f"{role}.md").write_text(f"---\nmind: script\nscript: night.jsonl\n---\n{prompt}")


def play(lab: Lab) -> list[Experiment]:
    """All that the script has, up to the queue. Returns the rows, the baseline left out."""
    planner = Planner(lab.ledger, lab.champion, lab.root, profile=PROFILE, max_open=9)
    while planner.step() or lab.coder.step() or lab.reviewer.step():
        pass
    return lab.ledger.experiments()[1:]


def programs(rows: list[Experiment]) -> list[str]:
    return [row.candidate.source for row in rows if row.candidate is not None]


# ---- through the ledger ----------------------------------------------------------------------------------------------


def test_lines_by_hand_are_proposed_in_order_each_once_and_reviewed_by_the_contract(lab: Lab) -> None:
    use_script(lab, line("wider", WIDER), line("faster", FASTER))
    first, second = play(lab)
    assert [first.hypothesis.title, second.hypothesis.title] == ["wider", "faster"]
    assert programs([first, second]) == [WIDER, FASTER]
    assert [row.state for row in (first, second)] == [State.QUEUED, State.QUEUED]
    assert first.author == "planner/script" and first.review is not None and first.review.code == "ok"


def test_a_line_that_is_added_while_the_org_runs_is_played_too(lab: Lab) -> None:
    use_script(lab, line("wider", WIDER))
    play(lab)
    use_script(lab, line("faster", FASTER), line("wider", WIDER))
    assert [row.hypothesis.title for row in play(lab)] == ["wider", "faster"]


def test_a_program_lands_on_the_champion_that_there_is_by_then(lab: Lab) -> None:
    lab.land(WIDER)
    use_script(lab, line("louder", LOUDER))
    (row,) = play(lab)
    both = WIDER.replace("nothing to learn", "nothing at all").replace("pass  #", "print()  #")
    assert programs([row]) == [both] and row.state == State.QUEUED
    assert row.candidate is not None and row.candidate.parent == lab.champion.head()


def test_a_program_may_be_made_from_another_one_than_the_start(lab: Lab) -> None:
    """Over WIDER as its base it changes one line; over the start it would change two."""
    both = WIDER.replace("MOMENTUM = 0.95", "MOMENTUM = 0.9")
    use_script(lab, line("slower", both, base=WIDER))
    (row,) = play(lab)
    assert programs([row]) == [TRAIN.replace("MOMENTUM = 0.95", "MOMENTUM = 0.9")]


def test_a_program_that_conflicts_with_the_champion_is_refused_with_the_reason(lab: Lab) -> None:
    lab.land(TRAIN.replace("DEPTH * 64", "DEPTH * 80"))
    use_script(lab, line("wider", WIDER), line("louder", LOUDER))
    refused, queued = play(lab)
    assert refused.state == State.REFUSED and "changed the same lines" in refused.note
    assert queued.state == State.QUEUED


def test_one_that_was_approved_and_then_conflicts_says_why_it_was_refused(lab: Lab) -> None:
    """Its approval was for the champion before."""
    use_script(lab, line("wider", WIDER))
    (queued,) = play(lab)
    assert queued.state == State.QUEUED
    lab.land(TRAIN.replace("DEPTH * 64", "DEPTH * 80"))
    lease = acquire(lab.ledger.client, f"device/{lab.root.name}", "test", 60.0)
    assert lab.ledger.take(lease, lab.champion.head()) is None
    (refused,) = play(lab)
    assert refused.state == State.REFUSED and "changed the same lines" in refused.why


def test_an_exported_night_is_replayed_decision_for_decision(lab: Lab, another_lab: Lab) -> None:
    """Two that were sampled, one that a reviewer refused, and one that no coder could make."""
    for _ in range(2):
        assert lab.planner.step() and lab.coder.step() and lab.reviewer.step()
    lab.propose(INIT_SEED=8)
    lab.propose(GONE=1.0)
    assert lab.coder.step() and lab.coder.step() and lab.reviewer.step()
    night = lab.ledger.experiments()
    assert [row.state for row in night[1:]] == [State.QUEUED] * 2 + [State.REFUSED] * 2
    use_script(another_lab)
    write_experiments(another_lab.root / "night.jsonl", night)
    replayed = play(another_lab)
    recorded = [row for row in night[1:] if row.candidate is not None]
    assert [row.hypothesis for row in replayed] == [row.hypothesis for row in recorded]
    assert programs(replayed) == programs(recorded)
    assert [row.review for row in replayed] == [row.review for row in recorded]
    assert [row.hypothesis.knobs for row in night[1:] if row.candidate is None] == [{"GONE": 1.0}]


def test_a_broken_script_stops_a_seat_without_holding_an_idea(lab: Lab) -> None:
    use_script(lab, line("wider", WIDER))
    assert lab.planner.step()
    (lab.root / "night.jsonl").write_text("{\n")
    with pytest.raises(BadInput, match=r"night\.jsonl:1: not JSON"):
        lab.coder.step()
    assert lab.ledger.counts().get(State.PROPOSED) == 1


# ---- recorded nights -------------------------------------------------------------------------------------------------

APPROVED = Review(approved=True, code="ok", reason="A recorded reason.")


def recorded(id: int, parent: str, source: str, title: str = "", **more: Any) -> Experiment:
    row = experiment(id, State.QUEUED, Hypothesis(title=title or f"idea {id}", change="c"))
    candidate = make_candidate(parent, TRAIN, source)
    return row.model_copy(update={"candidate": candidate, "review": APPROVED, **more})


def night(tmp_path: Path, *rows: Experiment) -> Path:
    path = tmp_path / "night.jsonl"
    path.write_text(json_lines(rows))
    return path


def test_what_a_recorded_program_was_made_from_is_found_in_the_file(tmp_path: Path) -> None:
    """Its parent is a merge of that night, which this campaign never had: only its own change is carried over."""
    merged = recorded(2, "a" * 40, FASTER, commit="b" * 40, state=State.MERGED)
    after = FASTER.replace("MOMENTUM = 0.95", "MOMENTUM = 0.9")
    rows = recorded(1, "a" * 40, TRAIN, lane="baseline"), merged, recorded(3, "b" * 40, after)
    script = Script.load(night(tmp_path, *rows))
    written = script.implement(code_task(rows[2].hypothesis, TRAIN, TRAIN))
    assert written == TRAIN.replace("MOMENTUM = 0.95", "MOMENTUM = 0.9")


def test_a_recorded_program_of_an_unknown_parent_is_an_error_not_a_guess(tmp_path: Path) -> None:
    path = night(tmp_path, recorded(1, "a" * 40, TRAIN, lane="baseline"), recorded(7, "b" * 40, FASTER))
    with pytest.raises(
        BadInput, match=r"night\.jsonl:2: #7 was made from commit bbbbbbbbbb, .*: export the whole camp"
    ):
        Script.load(path)


def test_only_what_a_mind_decided_is_replayed(tmp_path: Path) -> None:
    rows = recorded(1, "a" * 40, TRAIN, lane="baseline"), recorded(2, "a" * 40, FASTER)
    unwritten = experiment(3, State.PROPOSED, Hypothesis(title="never written", change="c"))
    script = Script.load(night(tmp_path, *rows, unwritten))
    assert [decision.hypothesis.title for decision in script.decisions.values()] == ["idea 2"]


def test_a_recorded_review_is_given_again_and_without_one_the_contract_is_checked(tmp_path: Path) -> None:
    broken = TRAIN.replace("submit(model)\n", "")
    candidate: Candidate = make_candidate("a" * 40, TRAIN, broken)
    refusal = {"approved": False, "code": "taste", "reason": "No."}
    path = write(tmp_path / "s.jsonl", line("told", broken, review=refusal), line("untold", broken + "\n"))
    script = Script.load(path)

    def judge(title: str) -> Review:
        task = review_task(Hypothesis.model_validate(idea(title)), candidate)
        return script.judge(task)

    assert judge("told") == Review.model_validate(refusal)
    assert judge("untold").code == "contract" and judge("from elsewhere").code == "contract"


def test_recorded_constants_that_stand_side_by_side_do_not_conflict(tmp_path: Path) -> None:
    hypothesis = {**idea("embed"), "knobs": {"EMBED_LR": 0.5}}
    source = set_knobs(TRAIN, {"EMBED_LR": 0.5}, PROFILE)
    script = Script.load(write(tmp_path / "s.jsonl", {"hypothesis": hypothesis, "source": source}))
    task = code_task(Hypothesis.model_validate(hypothesis), FASTER, TRAIN)
    assert script.implement(task) == set_knobs(FASTER, {"EMBED_LR": 0.5}, PROFILE)


def test_an_idea_that_the_script_does_not_have_is_refused(tmp_path: Path) -> None:
    script = Script.load(write(tmp_path / "s.jsonl", line("wider", WIDER)))
    with pytest.raises(BadCandidate, match=r"s\.jsonl has no line with this hypothesis"):
        script.implement(code_task(Hypothesis(title="x", change="c"), TRAIN, TRAIN))
    every = [experiment(2, State.REFUSED, Hypothesis.model_validate(idea("wider")))]
    assert script.propose(plan_task(every)) == []


# ---- what is wrong with a file ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("rows", "says"),
    [
        ('{"hypothesis": ', ":1: not JSON: "),
        ("\n\n[1, 2]\n", ":3: the line: input should be a valid dictionary"),
        (json.dumps({"hypothesis": idea("x")}), ":1: source: field required"),
        (json.dumps({"source": TRAIN}), ":1: hypothesis: field required"),
        (json.dumps({"hypothesis": {"title": "x"}, "source": ""}), ":1: hypothesis.change: field required"),
        (json.dumps(line("x", TRAIN, bass=TRAIN)), ":1: bass: extra inputs are not permitted"),
        (json.dumps({"state": "merged"}), ":1: id: field required"),
        (f"{json.dumps(line('x', WIDER))}\n" * 2, ":2: this hypothesis stands in an earlier line"),
        ("\n", ": has no line with a hypothesis and its program"),
        ("[" * 100_000, ":1: not JSON that anybody wrote"),
    ],
)
def test_a_broken_line_is_named_before_anything_starts(tmp_path: Path, rows: str, says: str) -> None:
    (tmp_path / "s.jsonl").write_text(rows)
    (tmp_path / "coder.md").write_text("---\nmind: script\nscript: s.jsonl\n---\nCode.\n")
    with pytest.raises(BadInput) as refusal:
        Role.load(tmp_path / "coder.md").check("coder", Desk("coder", tmp_path))
    assert str(refusal.value).startswith(f"{tmp_path / 's.jsonl'}{says}")
    assert "\n" not in str(refusal.value)


def test_a_script_that_is_missing_or_no_text_is_named(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match=r"s\.jsonl: cannot be read \(No such file or directory\)"):
        Script.load(tmp_path / "s.jsonl")
    (tmp_path / "s.jsonl").write_bytes(b"\xff\xfe")
    with pytest.raises(BadInput, match=r"s\.jsonl: is not UTF-8 text"):
        Script.load(tmp_path / "s.jsonl")


def test_line_separators_inside_a_program_do_not_end_its_line(tmp_path: Path) -> None:
    source = TRAIN + "# \u2028 \x85 \x0c\n"
    row = json.dumps(line("x", source), ensure_ascii=False).encode()
    (tmp_path / "s.jsonl").write_bytes(row + b"\r\n")
    (decision,) = Script.load(tmp_path / "s.jsonl").decisions.values()
    assert decision.source == source


@pytest.mark.parametrize(
    ("front", "says"),
    [
        ({"mind": "script"}, "needs `script: PATH`"),
        ({"mind": "sampler", "script": "s.jsonl"}, "script: has no effect with `mind: sampler`"),
        ({"mind": "script", "script": "s.jsonl", "algorithm": "tpe"}, "algorithm: has no effect with `mind: script`"),
    ],
)
def test_a_setting_without_effect_is_refused(front: dict[str, str], says: str) -> None:
    with pytest.raises(ValueError, match=says):
        PlannerSettings.model_validate(front)
