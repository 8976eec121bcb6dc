"""Planner, coder and reviewer, one step at a time, against a real Redis server and a real git repository."""

import pytest

from agents.knobs import resolve
from agents.role import Role
from records import BadInput, State
from tests.agents.lab import Lab
from tests.agents.sources import PROFILE


def test_an_idea_goes_from_planner_through_coder_and_reviewer_into_the_queue(lab: Lab) -> None:
    assert lab.planner.step() and lab.coder.step() and lab.reviewer.step()
    (queued,) = lab.ledger.experiments(states=[State.QUEUED])
    assert queued.author == "planner/sampler"
    assert queued.roles.keys() == {"planner", "coder", "reviewer"}
    assert queued.candidate is not None and queued.candidate.parent == lab.champion.head()
    after = resolve(queued.candidate.source, PROFILE)
    assert {name: after[name] for name in queued.hypothesis.knobs} == queued.hypothesis.knobs
    assert queued.review is not None and queued.review.code == "ok"


def test_with_nothing_to_do_no_seat_does_anything(lab: Lab) -> None:
    assert not lab.coder.step()
    assert not lab.reviewer.step()


def test_planners_stop_when_enough_ideas_wait_and_never_repeat_one(lab: Lab) -> None:
    assert [lab.planner.step() for _ in range(4)] == [True, True, False, False]
    first, second = lab.ledger.experiments(states=[State.PROPOSED])
    assert first.hypothesis.knobs != second.hypothesis.knobs


def test_an_edited_role_takes_effect_at_the_next_step_and_is_on_the_row(lab: Lab) -> None:
    assert lab.planner.step()
    role = lab.root / "roles" / "planner.md"
    role.write_text(role.read_text().replace("frozen: []", "frozen: [MATRIX_LR, EMBED_LR, MOMENTUM, BATCH_TOKENS]"))
    assert lab.planner.step()
    before, after = lab.ledger.experiments(states=[State.PROPOSED])
    assert before.roles["planner"] != after.roles["planner"]
    assert after.hypothesis.knobs.keys() == {"DEPTH"}


def test_a_broken_role_stops_the_coder_without_holding_an_idea(lab: Lab) -> None:
    lab.propose(MATRIX_LR=0.05)
    role = lab.root / "roles" / "coder.md"
    role.write_text(role.read_text() + "{{ nonsense }}\n")
    with pytest.raises(BadInput, match="unknown variable 'nonsense'"):
        lab.coder.step()
    assert lab.ledger.counts().get(State.PROPOSED) == 1


def test_a_program_that_is_missing_is_named(lab: Lab) -> None:
    (lab.root / "program.md").unlink()
    with pytest.raises(BadInput, match=r"program\.md: cannot be read"):
        lab.planner.step()


def test_what_a_person_writes_into_guidance_reaches_the_next_prompt(lab: Lab) -> None:
    role = Role.load(lab.root / "roles" / "planner.md")
    assert "try the warmdown" not in lab.planner.task(role).prompt.text
    (lab.root / "guidance.md").write_text("Please try the warmdown.")
    assert "Please try the warmdown." in lab.planner.task(role).prompt.text


def test_an_idea_about_a_constant_that_is_gone_is_refused_with_the_reason(lab: Lab) -> None:
    idea = lab.propose(GONE=1.0)
    assert lab.coder.step()
    refused = lab.ledger.experiment(idea.id)
    assert refused.state == State.REFUSED
    assert "no numeric constant GONE" in refused.note


def test_an_edit_that_only_moves_a_seed_is_refused_before_the_queue(lab: Lab) -> None:
    idea = lab.propose(INIT_SEED=8)
    assert lab.coder.step() and lab.reviewer.step()
    refused = lab.ledger.experiment(idea.id)
    assert refused.state == State.REFUSED
    assert refused.review is not None and refused.review.code == "seed_only"


def test_the_same_program_is_not_reviewed_twice(lab: Lab) -> None:
    first, second = lab.propose(MATRIX_LR=0.05), lab.propose(MATRIX_LR=0.05)
    assert lab.coder.step() and lab.coder.step()
    assert lab.ledger.experiment(first.id).state == State.CODED
    assert lab.ledger.experiment(second.id).state == State.DUPLICATE
