"""Planner, coder and reviewer as language models, from the ledger to the API and back: what they may do, and what becomes of what they cannot."""

from collections.abc import Callable
from pathlib import Path

import pytest

from agents.contract import make_candidate
from agents.duplicates import objection
from agents.minds.pause import Unavailable
from agents.prices import Prices
from agents.settings import PlannerSettings
from ledger.lease import Lease, acquire
from ledger.purse import Broke, Limits, cost_of, spending, total
from orgs.conversations import exchanges_of
from records import Experiment, Failure, FailureKind, Hypothesis, Preflighted, State
from tests.agents.lab import Lab
from tests.agents.sources import measurement
from tests.minds.blocks import Block, Body
from tests.minds.faults import FAULTS, Fault, Line, Slip, at_rate, script
from tests.minds.office import DOLLAR, FREE, PROFILE, Office
from tests.minds.policy import POLICIES, competent

IDEA = Hypothesis(title="GELU", change="GELU in the MLP.", rationale="It is smooth.", category="architecture")
OPEN = (State.PROPOSED, State.CODED, State.QUEUED)


def passes(source: str) -> Preflighted:
    return Preflighted(outcome="passes", text="two steps")


def settled(office: Office) -> list[Experiment]:
    """All ideas that there are."""
    return [e for e in office.lab.ledger.experiments() if e.is_idea]


def asked(office: Office) -> list[str]:
    """Tools that the model called, in order."""
    replies = [call.reply for call in office.api.messages() if call.reply]
    return [block["name"] for reply in replies for block in reply["content"] if block["type"] == "tool_use"]


def play(*turns: list[Block]) -> Callable[[Body], list[Block]]:
    """A model that answers as is written, turn by turn."""
    said = iter(turns)
    return lambda body: next(said)


def use(name: str, **values: object) -> list[Block]:
    return [{"type": "tool_use", "name": name, "input": values}]


# ---- the planner -----------------------------------------------------------------------------------------------------


def test_a_planner_proposes_with_forecasts_and_each_idea_bears_its_share_of_the_price(office: Office) -> None:
    assert office.planner(proposals=2).step()
    first, second = settled(office)
    assert (first.author, first.state) == ("planner/anthropic", State.PROPOSED)
    assert (
        first.hypothesis.probability < 0.5 and first.hypothesis.expected_delta_bpb < 0 and first.hypothesis.if_failure
    )
    assert first.talk == second.talk == office.calls[0].talk and first.hypothesis.title != second.hypothesis.title
    cost = cost_of([first, second], office.calls)
    assert cost[first.id] == cost[second.id] == pytest.approx(office.paid / 2 / DOLLAR)
    counted = office.lab.ledger.reader.hget(office.lab.ledger.prefix + "money", f"experiment:{first.id}")
    assert int(counted) == office.paid // 2


def test_ideas_of_a_model_that_costs_nothing_are_told_with_their_conversation(office: Office, tmp_path: Path) -> None:
    (tmp_path / "prices.toml").write_text(FREE)
    free = office.having(prices=Prices.load(tmp_path / "prices.toml"))
    assert free.planner(model="local-7b", proposals=2).step()
    (call,), ideas = office.calls, settled(office)
    assert call.microdollars == 0 and [e.talk for e in ideas] == [call.talk] * 2
    folder = office.lab.root / ".autoresearch" / "transcripts"
    for idea in ideas:
        (exchange,) = exchanges_of(idea, office.calls, folder)
        assert exchange.said is not None and idea.hypothesis.title in str(exchange.said["reply"])


def test_a_planner_is_not_asked_while_enough_ideas_wait(office: Office) -> None:
    while office.planner(proposals=2).step():
        pass
    assert len(settled(office)) == 4 and len(office.calls) == 2


def test_what_was_tried_is_given_back_with_its_result_and_something_else_is_proposed(office: Office) -> None:
    tried = Hypothesis(title="louder", change="Set MATRIX_LR to 0.05.", knobs={"MATRIX_LR": 0.05})
    number = office.lab.ledger.propose(tried, author="planner/test", roles={})
    fields = {"title": "the same in other words", "change": "Set MATRIX_LR to 0.05, please."}
    again = {**fields, "knobs": {"MATRIX_LR": 0.05}}
    other = {"title": "no softcap", "change": "Take the softcap out of the logits.", "category": "architecture"}
    office.api.policy = play(use("propose", hypotheses=[again]), use("propose", hypotheses=[other]))
    assert office.planner().step()
    complaint = office.api.messages()[1].body["messages"][-1]["content"][0]
    assert (
        complaint["is_error"]
        and f"it is the program of #{number} (louder: proposed)" in complaint["content"][0]["text"]
    )
    assert [e.hypothesis.title for e in settled(office)] == ["louder", "no softcap"]


def test_an_answer_with_the_same_idea_twice_is_given_back(office: Office) -> None:
    softcap = {"title": "no softcap", "change": "Take the softcap out of the logits.", "category": "architecture"}
    louder = {"title": "louder", "change": "Set MATRIX_LR to 0.05.", "knobs": {"MATRIX_LR": 0.05}}
    again = {**louder, "title": "a larger step", "change": "Make the matrices learn faster."}
    office.api.policy = play(
        use("propose", hypotheses=[softcap, {**softcap, "title": "No softcap"}]),
        use("propose", hypotheses=[louder, again]),
        use("propose", hypotheses=[softcap, louder]),
    )
    assert office.planner(proposals=2).step()
    complaints = [call.body["messages"][-1]["content"][0]["content"][0]["text"] for call in office.api.messages()[1:]]
    assert "No softcap: it says the same as no softcap, of this very answer" in complaints[0]
    assert "a larger step: it says the same as louder, of this very answer" in complaints[1]
    assert [e.hypothesis.title for e in settled(office)] == ["no softcap", "louder"]


def test_a_planner_that_only_repeats_itself_pauses(office: Office) -> None:
    office.lab.ledger.propose(IDEA, author="planner/test", roles={})
    office.api.policy = lambda body: use("propose", hypotheses=[{"title": "GELU", "change": "GELU in the MLP."}])
    with pytest.raises(Unavailable, match=r"no proposal that can be used: .*reads like #2"):
        office.planner(reasks=2).step()
    assert len(settled(office)) == 1 and len(office.calls) == 3


def objected(office: Office, hypothesis: Hypothesis, **settings: object) -> str | None:
    role = PlannerSettings.model_validate({"mind": "anthropic", "model": "m", **settings})
    planner = office.planner()
    task = planner.task(planner.role.load())
    return objection(hypothesis, task.experiments, task.digest, role, PROFILE)


def test_an_idea_in_the_same_words_may_be_tried_again_for_a_reason_that_names_the_first(
    lab: Lab, office: Office
) -> None:
    number = office.lab.ledger.propose(IDEA, author="planner/test", roles={})
    again = IDEA.model_copy(update={"not_duplicate": f"#{number} was with another norm"})
    said = objected(office, again)
    assert said is not None and f"reads like #{number} (GELU: proposed)" in said, "its result is not in yet"
    assert office.lab.ledger.claim("t") is not None
    office.lab.ledger.refuse(number or 0, "no", {})
    assert objected(office, again) is None
    assert objected(office, IDEA) is not None
    assert objected(office, IDEA.model_copy(update={"title": "swap the norm", "change": "Use LayerNorm."})) is None


def test_a_change_of_constants_has_to_be_one(office: Office) -> None:
    knobs = {"MATRIX_LR": 0.04}
    assert objected(office, IDEA.model_copy(update={"knobs": knobs})) == "the champion has these values already"
    gone = objected(office, IDEA.model_copy(update={"knobs": {"GONE": 1.0}}))
    assert gone is not None and "no numeric constant GONE" in gone and "leave knobs out" in gone


def test_a_category_has_no_more_than_its_share(office: Office) -> None:
    for number in range(4):
        idea = IDEA.model_copy(update={"title": f"idea {number}", "change": "x" * (50 * number + 1)})
        office.lab.ledger.propose(idea, author="planner/test", roles={})
    fifth = IDEA.model_copy(update={"title": "another thing", "change": "y" * 30})
    said = objected(office, fifth, quotas={"architecture": 0.8})
    assert said == "category architecture has had its share (4 of 4 proposals, at most 80%): take another one"
    assert objected(office, fifth, quotas={"architecture": 1.0}) is None
    assert objected(office, fifth.model_copy(update={"category": "batch"}), quotas={"architecture": 0.8}) is None


# ---- two arms --------------------------------------------------------------------------------------------------------


def test_a_hybrid_planner_has_both_arms_in_one_queue_and_goes_on_without_money(office: Office) -> None:
    hybrid = {"mind": "hybrid", "proposals": 1}
    for _ in range(4):
        assert office.planner(**hybrid).step()
        for e in settled(office):
            if e.state == State.PROPOSED:
                assert office.lab.ledger.claim("t") is not None
                office.lab.ledger.refuse(e.id, "no", {})
    authors = [e.author for e in settled(office)]
    assert set(authors) == {"planner/anthropic", "planner/sampler"}
    assert [bool(e.talk) for e in settled(office)] == [author == "planner/anthropic" for author in authors]
    broke = office.having(limits=Limits(1, 1))
    assert broke.planner(**hybrid).step() and broke.planner(**hybrid).step()
    assert [e.author for e in settled(office)[4:]] == ["planner/sampler"] * 2


def test_what_a_model_without_an_idea_has_cost_is_not_the_samplers(office: Office) -> None:
    office.api.policy = lambda body: [{"type": "text", "text": "I have no idea."}]
    while not office.calls:
        assert office.planner(mind="hybrid", reasks=0).step()
        (sampled,) = [e for e in settled(office) if e.state == State.PROPOSED]
        assert (sampled.author, sampled.talk) == ("planner/sampler", "")
        assert office.lab.ledger.claim("t") is not None
        office.lab.ledger.refuse(sampled.id, "no", {})
    assert office.paid > 0 and sum(cost_of(settled(office), office.calls).values()) == 0


def test_the_sampler_goes_on_while_the_api_is_gone(office: Office) -> None:
    office.api.stop()
    for _ in range(3):
        assert office.planner(mind="hybrid").step()
    assert [e.author for e in settled(office)] == ["planner/sampler"] * 3


# ---- the coder -------------------------------------------------------------------------------------------------------


def propose_structure(office: Office) -> None:
    """The policy's own idea of another activation, for which its coder slips once."""
    while office.planner(proposals=4).step():
        pass
    for e in settled(office):
        if "GELU" not in e.hypothesis.title:
            assert office.lab.ledger.claim("x") is not None
            office.lab.ledger.refuse(e.id, "not today", {})
        else:
            return


def test_a_coder_edits_checks_preflights_repairs_and_hands_in(office: Office) -> None:
    propose_structure(office)
    tried: list[str] = []

    def preflight(source: str) -> Preflighted:
        tried.append(source)
        return passes(source)

    assert office.coder(preflight).step()
    coded = next(e for e in settled(office) if e.state == State.CODED)
    assert coded.candidate is not None and "F.gelu" in coded.candidate.source
    calls = [name for name in asked(office) if name != "propose"]
    assert calls.count("edit") >= 2 and calls.index("check") < calls.index("preflight") < calls.index("submit")
    assert tried[-1] == coded.candidate.source, "what was tried is what was handed in"
    slips = [b for c in office.api.messages() for m in c.body["messages"] for b in m["content"] if b.get("is_error")]
    assert slips and "not Python" in slips[0]["content"][0]["text"], "its slip was found by the check, and repaired"
    assert [call.experiment for call in office.calls if call.role == "coder"] == [coded.id] * len(calls)


def queued_for_another_champion(lab: Lab, office: Office, old: str, new: str) -> Experiment:
    """An edit that was coded and reviewed; then this landed."""
    propose_structure(office)
    assert office.coder(passes).step() and office.reviewer().step()
    source = (office.lab.root / "train.py").read_text()
    assert source.count(old) == 1
    head = lab.land(source.replace(old, new))
    lease = acquire(lab.ledger.client, f"gpu/{lab.root.name}", "test", 60.0)
    assert lab.ledger.take(lease, head) is None, "nothing is made from this champion"
    return next(e for e in settled(office) if e.state == State.PROPOSED and e.candidate is not None)


def test_a_new_champion_does_not_have_an_edit_paid_for_again(lab: Lab, office: Office) -> None:
    sent_back = queued_for_another_champion(lab, office, "WARMDOWN = 0.5", "WARMDOWN = 0.6")
    paid = office.paid
    assert office.coder(passes).step()
    row = office.lab.ledger.experiment(sent_back.id)
    assert row.state == State.CODED and row.candidate is not None and office.paid == paid
    assert "F.gelu" in row.candidate.source and "WARMDOWN = 0.6" in row.candidate.source
    assert row.candidate.parent == lab.champion.head()


def test_an_edit_of_lines_that_the_new_champion_changed_is_made_anew(lab: Lab, office: Office) -> None:
    old = "        return self.down(F.relu(self.up(x)).square())"
    sent_back = queued_for_another_champion(lab, office, old, old + "  # squared")
    paid = office.paid
    assert office.coder(passes).step()
    assert office.paid > paid and office.lab.ledger.experiment(sent_back.id).state in (State.CODED, State.REFUSED)


def test_a_change_of_constants_is_written_without_asking_anybody(office: Office) -> None:
    office.lab.ledger.propose(IDEA.model_copy(update={"knobs": {"MATRIX_LR": 0.05}}), author="p/t", roles={})
    assert office.coder(passes).step()
    (coded,) = settled(office)
    assert coded.candidate is not None and "MATRIX_LR = 0.05" in coded.candidate.source and office.calls == []


@pytest.mark.parametrize(
    ("turns", "says"),
    [
        ([use("edit", old="no such text", new="x")] * 9, "the text to replace is not in the file; nothing was changed"),
        ([use("edit", old="self", new="x")] * 9, "times in the file: give more of its lines"),
        ([use("write", source="x = 1\n"), use("submit", summary="done")] * 5, "not accepted: contract: train.py does not define"),
        ([use("submit", summary="done")] * 9, "not accepted: no_op: The program is the same as its parent's"),
        ([use("give_up", reason="there is no MLP here")], "not implementable: there is no MLP here"),
        ([use("write", source="#" * 70_000)] * 9, "more than 65536; nothing was changed"),
        ([use("preflight")] * 9, "there is no tool preflight; there are: view, edit, write, check, submit, give_up"),
        ([[{"type": "text", "text": "I would rather talk."}]] * 9, "you called no tool; answer by calling one of"),
    ],
)  # fmt: skip
def test_what_a_coder_cannot_do_ends_the_idea_with_the_last_error(
    office: Office, turns: list[list[Block]], says: str
) -> None:
    office.lab.ledger.propose(IDEA, author="planner/test", roles={})
    office.api.policy = play(*turns)
    assert office.having(call_microdollars=9 * DOLLAR).coder(turns=9, max_tokens=30_000).step()
    (refused,) = settled(office)
    assert refused.state == State.REFUSED and says in refused.note and refused.note.startswith("not implementable: ")
    assert len(office.calls) <= 9


def test_a_coder_has_so_many_answers_and_so_many_preflights(office: Office) -> None:
    office.lab.ledger.propose(IDEA, author="planner/test", roles={})
    source = (office.lab.root / "train.py").read_text().replace("SOFTCAP = 15.0", "SOFTCAP = 16.0")
    tried: list[str] = []

    def fails(program: str) -> Preflighted:
        tried.append(program)
        return Preflighted(outcome="fails", text="RuntimeError: shapes\x1b[31m")

    office.api.policy = play(
        use("write", source=source), *[use("preflight")] * 3, *[use("view", first_line=1, last_line=3)] * 20
    )
    assert office.coder(fails, turns=8, preflights=2).step()
    (refused,) = settled(office)
    assert (
        len(tried) == 2
        and len(office.calls) == 8
        and refused.note == "not implementable: no preflight is left; submit, or give up"
    )
    results = [
        b for m in office.api.messages()[-1].body["messages"] for b in m["content"] if b["type"] == "tool_result"
    ]
    assert results[1]["content"][0]["text"] == "fails:\n```text\nRuntimeError: shapes [31m\n```"


def test_what_one_experiment_may_cost_ends_that_one_alone(office: Office) -> None:
    office.lab.ledger.propose(IDEA, author="planner/test", roles={})
    poor = office.having(limits=Limits(20 * DOLLAR, DOLLAR // 2))
    assert poor.coder().step()
    (refused,) = settled(office)
    assert "within the money of one experiment (money.experiment_usd)" in refused.note


def test_without_money_constants_are_coded_all_the_same_and_reviewed_by_reading(office: Office) -> None:
    office.lab.ledger.propose(IDEA.model_copy(update={"knobs": {"MATRIX_LR": 0.05}}), author="p/t", roles={})
    office.lab.ledger.propose(IDEA, author="planner/test", roles={})
    broke = office.having(limits=Limits(1, 1))
    assert broke.coder().step(), "constants need no money"
    assert broke.coder().step()
    assert broke.reviewer().step()
    constants, structure = settled(office)
    assert (constants.state, structure.state) == (State.QUEUED, State.REFUSED)
    assert "no money left to code it" in structure.note
    with pytest.raises(Broke):
        broke.planner().step()
    assert spending(office.lab.ledger).refused and office.api.calls == []


# ---- the reviewer ----------------------------------------------------------------------------------------------------


def coded(office: Office) -> Experiment:
    office.lab.ledger.propose(IDEA.model_copy(update={"knobs": {"MATRIX_LR": 0.05}}), author="p/t", roles={})
    assert office.coder().step()
    return settled(office)[-1]


def test_a_reviewer_sees_what_was_promised_and_done_and_forecasts(office: Office) -> None:
    coded(office)
    assert office.reviewer().step()
    (row,) = settled(office)
    assert row.state == State.QUEUED and row.review is not None and row.review.code == "ok"
    assert row.review.probability is not None and row.review.expected_delta_bpb is not None
    body = office.api.messages()[0].body
    task = body["messages"][0]["content"][0]["text"]
    assert (
        "- `MATRIX_LR`: 0.04 → 0.05" in task and "1 lines added, 1 removed" in task and "no complaint of lint" in task
    )
    assert "cache_control" in body["system"][0] and "def build_model" in body["system"][0]["text"]


def test_what_reading_refuses_costs_no_call(office: Office) -> None:
    office.lab.ledger.propose(IDEA, author="planner/test", roles={})
    e = office.lab.ledger.claim("t")
    assert e is not None
    source = (office.lab.root / "train.py").read_text()
    office.lab.ledger.code(e.id, make_candidate(office.lab.champion.head(), source, source + "import socket\n"), {})
    assert office.reviewer().step()
    (row,) = settled(office)
    assert row.review is not None and row.review.code == "contract" and office.calls == []


def test_an_edit_too_long_to_be_shown_is_reviewed_by_reading(office: Office) -> None:
    """For a call that could cost too much: nobody would ever mend that, and the queue would end there."""
    coded(office)
    assert office.having(call_microdollars=1).reviewer().step()
    assert settled(office)[0].state == State.QUEUED and office.calls == []


def test_an_approval_with_a_reason_against_it_is_asked_again(office: Office) -> None:
    coded(office)
    opinion = {"reason": "Two things at once.", "expected_delta_bpb": 0.01, "probability": 0.1}
    contradiction = use("review", approved=True, code="confounded", **opinion)
    office.api.policy = play(contradiction, use("review", approved=False, code="confounded", **opinion))
    assert office.reviewer().step()
    (row,) = settled(office)
    assert (
        row.state == State.REFUSED
        and row.review is not None
        and row.review.code == "confounded"
        and len(office.calls) == 2
    )


def test_a_result_is_followed_by_its_lesson_once(lab: Lab, office: Office) -> None:
    coded(office)
    assert office.reviewer().step()
    assert not office.reviewer().step(), "there is nothing to learn from yet"
    ended(lab)
    assert office.reviewer().step()
    (row,) = settled(office)
    assert row.lesson is not None and "crashed" in row.lesson.text and row.lesson.author == "reviewer/anthropic"
    assert not office.reviewer().step() and len(office.calls) == 2
    assert office.calls[1].usage.cache_read > 0.7 * office.calls[1].usage.prompt, "both tasks share what the API keeps"
    planner = office.planner()
    assert row.lesson.text in planner.task(planner.role.load()).prompt.task


def test_nothing_is_learnt_from_what_the_host_failed(lab: Lab, office: Office) -> None:
    coded(office)
    assert office.reviewer().step()
    lease = acquire(lab.ledger.client, f"gpu/{lab.root.name}", "test", 60.0)
    for _ in range(3):
        ended(lab, FailureKind.GPU_DIRTY, lease)
    (row,) = settled(office)
    paid = len(office.calls)
    assert row.state == State.CRASHED and not office.reviewer().step() and len(office.calls) == paid


def test_a_reviewer_that_has_taught_all_looks_again_when_something_has_ended(lab: Lab, office: Office) -> None:
    reviewer = office.reviewer()
    coded(office)
    assert reviewer.step() and not reviewer.step()
    ended(lab)
    assert reviewer.step() and not reviewer.step() and not reviewer.step()
    assert settled(office)[0].lesson is not None


def ended(lab: Lab, kind: FailureKind = FailureKind.CRASH, lease: Lease | None = None) -> None:
    """The queued one ran, and failed."""
    lease = lease or acquire(lab.ledger.client, f"gpu/{lab.root.name}", "test", 60.0)
    taken = lab.ledger.take(lease, lab.champion.head())
    assert taken is not None and taken.candidate is not None
    failed = {"status": kind.value, "failure": Failure(kind=kind, message="boom")}
    lab.ledger.record(taken.id, lease, measurement(taken.candidate.source_sha256, None).model_copy(update=failed))


# ---- alone -----------------------------------------------------------------------------------------------------------


def test_one_that_works_alone_has_the_same_tools_and_the_originals_words(office: Office) -> None:
    solo = office.having(roles="roles/solo")
    planner = solo.planner(proposals=1)
    planner.program = office.lab.root / "roles" / "solo" / "program.md"
    for _ in range(2):
        assert planner.step()
        assert solo.coder(passes).step()
    assert [e.state for e in settled(office)] == [State.CODED, State.CODED]
    body = office.api.messages()[0].body
    assert "one GPU and one night" in body["system"][0]["text"] and "def build_model" in body["system"][0]["text"]
    assert f"| {settled(office)[0].id} | `{settled(office)[0].hypothesis.title}`" in text_of(
        office, "What do you try next?"
    )


def text_of(office: Office, ends: str) -> str:
    """The newest task that ends with these words."""
    tasks = [call.body["messages"][0]["content"][0]["text"] for call in office.api.messages()]
    return str(next(task for task in reversed(tasks) if task.strip().endswith(ends)))


# ---- what goes wrong at the other end --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "fault", ["refusal", "cut", "no_call", "missing_field", "wrong_type", "extra_field", "unknown_tool"]
)
def test_an_answer_that_cannot_be_used_is_asked_for_again(office: Office, fault: str) -> None:
    office.api.faults = script(FAULTS[fault], FAULTS[fault])
    assert office.planner(proposals=1).step()
    assert len(settled(office)) == 1 and len(office.calls) == 3


def test_a_model_that_refuses_for_good_is_not_asked_for_ever(office: Office) -> None:
    office.api.faults = lambda number, now, body: FAULTS["refusal"]
    with pytest.raises(Unavailable, match="the model refuses"):
        office.planner(reasks=2).step()
    assert len(office.calls) == 3
    office.lab.ledger.propose(IDEA, author="planner/test", roles={})
    assert office.coder(reasks=2).step()
    assert "the model refuses" in settled(office)[0].note


def test_a_coder_gives_its_idea_back_when_the_api_is_gone(office: Office) -> None:
    office.lab.ledger.propose(IDEA, author="planner/test", roles={})
    office.api.stop()
    with pytest.raises(Unavailable):
        office.coder().step()
    (row,) = settled(office)
    assert row.state == State.PROPOSED


def test_the_work_gets_done_over_a_bad_line(office: Office) -> None:
    """A third of all calls fail in one of many ways; every one of them is booked."""
    broken: list[Fault] = [
        FAULTS["overloaded"],
        FAULTS["server_error"],
        Line.TRUNCATED,
        Line.HANG_UP,
        FAULTS["wrong_type"],
        FAULTS["no_call"],
    ]
    assert all(isinstance(FAULTS[name], Slip) for name in ("wrong_type", "no_call"))
    office.api.faults = at_rate(0.33, 5, broken)
    patient = {"patience_s": 60.0, "longest_wait_s": 0.05, "reasks": 6}
    while office.planner(proposals=2, **patient).step():
        pass
    while office.coder(passes, **patient).step() or office.reviewer(**patient).step():
        pass
    states = {e.state for e in settled(office)}
    assert states <= {State.QUEUED, State.REFUSED} and State.QUEUED in states
    spent = total(office.calls)
    assert spent.failed >= 3 and spent.calls == len(office.api.calls)
    assert office.paid == round(spent.dollars * DOLLAR)


def test_garbage_changes_nothing_but_the_bill(office: Office) -> None:
    office.api.policy = POLICIES["garbage"]
    office.lab.ledger.propose(IDEA, author="planner/test", roles={})
    with pytest.raises(Unavailable):
        office.planner().step()
    assert office.coder(passes).step()
    (row,) = settled(office)
    assert row.state == State.REFUSED and office.lab.champion.head() == office.lab.ledger.champion_commit()


# ---- the cache -------------------------------------------------------------------------------------------------------


def test_what_stays_the_same_is_read_from_the_cache(office: Office) -> None:
    """After its first call a role reads its own rules and the champion from the cache, and a coder what was said before."""
    office.api.policy = competent
    while office.planner(proposals=2).step():
        pass
    while office.coder(passes).step() or office.reviewer().step():
        pass
    first = {role: next(c for c in office.calls if c.role == role) for role in ("planner", "coder", "reviewer")}
    later = [call for call in office.calls if call.id not in {c.id for c in first.values()}]
    assert all(call.usage.cache_write_1h > 1000 for call in first.values())
    assert total(later).cache_share >= 0.8
    assert Prices.load().price("claude-opus-5-5").of(total(later).usage) < total(later).usage.prompt * 4
