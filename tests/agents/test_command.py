"""Your own agent as coder, planner and reviewer: real steps on a real ledger, the agent in a real container."""

import json
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path

import pytest

from agents import transcript
from agents.coder import Coder
from agents.minds.desk import Desk
from agents.minds.pause import Unavailable
from agents.planner import Planner
from agents.reviewer import Reviewer
from agents.role import Role, RoleFile
from ledger.purse import Limits, Purse, calls, holds, spending
from orgs.conversations import exchanges_of, lines_of
from orgs.errands import Errands
from orgs.forecasts import Who, reviewer_of
from orgs.orgfile import OrgFile
from records import BadInput, Call, Errand, Experiment, HostFault, Hypothesis, Returned, State
from sandbox.engines import Engine
from tests.agents.lab import Lab
from tests.agents.sources import PROFILE, TRAIN
from tests.sandbox.test_errand import TIGHT
from tests.sandbox.traces import traces

EXAMPLE = Path("roles/example-agent/coder.md")
BREAK = "Replace `pass  # nothing to learn` by `break`"
SECRET = "sesame-open-yourself"
NOTHING = Limits(0, 0)
"""An org may have no money at all: its agents bear their costs themselves."""


def desk(role: str, lab: Lab, engine: Engine, state_dir: Path) -> Desk:
    send = Errands(engine, state_dir, TIGHT)
    purse, folder = Purse(lab.ledger, NOTHING, f"{role}-0"), lab.root / "transcripts"
    return Desk(role, lab.root, purse, send=send, transcripts=folder, keys={"AGENT_KEY": SECRET})


def kept(lab: Lab, call: Call) -> str:
    """Its transcript, as JSON."""
    return json.dumps(transcript.read(lab.root / "transcripts", call.id, call.sha256), ensure_ascii=False)


def told(lab: Lab, experiment: Experiment) -> str:
    """What `ledger show --transcript --full` says."""
    return "\n".join(lines_of(exchanges_of(experiment, calls(lab.ledger), lab.root / "transcripts"), None))


@pytest.fixture
def coded(lab: Lab, runc: Engine, state_dir: Path) -> Callable[..., Experiment]:
    """What becomes of an idea in the hands of a coder."""

    def code(change: str, settings: Mapping[str, object] | None = None) -> Experiment:
        number = lab.ledger.propose(Hypothesis(title="by hand", change=change), author="planner/test", roles={})
        assert number is not None
        worker = desk("coder", lab, runc, state_dir)
        role = RoleFile(lab.root / EXAMPLE, settings)
        assert Coder(lab.ledger, lab.champion, lab.root, desk=worker, profile=PROFILE, role=role).step()
        assert traces(runc, state_dir) == []
        return lab.ledger.experiment(number)

    return code


def shell(script: str, **settings: object) -> Mapping[str, object]:
    return {"mind": "command", "command": ["sh", "-c", script], **settings}


# ---- the coder -------------------------------------------------------------------------------------------------------


def test_the_example_agent_makes_an_idea_real_by_a_patch(lab: Lab, coded: Callable[..., Experiment]) -> None:
    experiment = coded(f"{BREAK}, since nothing is learnt.")
    assert experiment.state == State.CODED and experiment.candidate is not None
    assert experiment.candidate.source == TRAIN.replace("pass  # nothing to learn", "break")
    assert experiment.roles["coder"] == Role.load(lab.root / EXAMPLE).sha256
    (call,) = calls(lab.ledger)
    assert (call.role, call.model, call.errand, call.experiment) == ("coder", "example-agent", True, experiment.id)
    assert (call.status, call.microdollars) == ("ok", 0) and call.seconds > 0
    assert spending(lab.ledger) == (0, 0, False) and holds(lab.ledger) == []


def test_what_an_errand_was_told_and_what_it_left_is_shown_like_any_conversation(
    lab: Lab, coded: Callable[..., Experiment]
) -> None:
    text = told(lab, coded(f"{BREAK}, since nothing is learnt."))
    heading, _, rest = text.partition("\n")
    assert " · example-agent · " in heading and heading.endswith(" s · at its own expense ────")
    assert rest.startswith("[user] # The coder") and BREAK in rest
    assert f"[user] /task/train.py:\n{TRAIN}" in rest and "[user] /task/hypothesis.json:\n{" in rest
    assert "[assistant] /answer/patch.diff:\n--- a/train.py" in rest and "\n!" not in rest


def test_of_a_failed_errand_both_its_words_and_the_reason_are_shown(lab: Lab, coded: Callable[..., Experiment]) -> None:
    text = told(lab, coded(BREAK, shell("echo I am thinking; cp /task/train.py /answer; exit 4")))
    assert text.splitlines()[0].endswith("· crash ────")
    assert "[assistant] the end of its output:\nI am thinking\n" in text and "\n! exit code 4: I am thinking" in text


def test_an_idea_that_the_example_agent_cannot_make_real_is_refused_in_its_words(
    coded: Callable[..., Experiment],
) -> None:
    experiment = coded("Think of something.")
    assert experiment.state == State.REFUSED
    assert experiment.why.startswith("not implementable: exit code 1: I only understand"), experiment.why


def test_an_agent_may_leave_the_whole_file(coded: Callable[..., Experiment]) -> None:
    experiment = coded(BREAK, shell("sed s/pass/break/ /task/train.py > /answer/train.py"))
    assert experiment.candidate is not None
    assert experiment.candidate.source == TRAIN.replace("pass", "break")


OTHER_FILE = "--- a/../../train.py\\n+++ b/../../train.py\\n@@ -1 +1 @@\\n-a\\n+b\\n"
UNUSABLE = {
    "echo I am thinking": ("no_answer", "it left no train.py and no patch.diff in /answer (its last words: I am thinking)"),
    f"printf -- '{OTHER_FILE}' > /answer/patch.diff": ("ok", "patch.diff:1: changes a/../../train.py; only train.py may be changed"),
    "cp /task/train.py /answer; echo > /answer/patch.diff": ("ok", "it left both train.py and patch.diff"),
    "cp /task/train.py /answer": ("ok", "no_op: The program is the same as its parent's."),
    "echo 'def (' > /answer/train.py": ("ok", "train.py:1: not Python"),
    ": > /answer/train.py": ("ok", "contract: train.py does not define build_model() and main()"),
    "head -c 100000 /dev/zero | tr '\\0' '#' > /answer/train.py": ("ok", "train.py has 100000 bytes; at most 65536 are accepted"),
    "ln -s /task/train.py /answer/train.py": ("invalid", "train.py is a link or a special file"),
    "printf '\\033[31mred\\n\\n%s' \"$AGENT_KEY\"; exit 4": ("crash", "exit code 4: [redacted] (its last words: red [redacted])"),
    'echo "# $AGENT_KEY" | cat /task/train.py - > /answer/train.py': ("secret", "its answer holds a value of its environment"),
}  # fmt: skip
"""By script: how its call ended, which says nothing of what an answer is worth, and why the idea is refused."""


@pytest.mark.parametrize(("script", "status", "why"), [(s, *said) for s, said in UNUSABLE.items()], ids=UNUSABLE)
def test_an_answer_that_cannot_be_used_refuses_the_idea_on_one_line(
    lab: Lab, coded: Callable[..., Experiment], script: str, status: str, why: str
) -> None:
    experiment = coded(BREAK, shell(script, environment=["AGENT_KEY"]))
    assert experiment.state == State.REFUSED
    assert experiment.why.startswith("not implementable: ") and why in experiment.why, experiment.why
    assert "\n" not in experiment.why
    (call,) = calls(lab.ledger)
    assert (call.model, call.status) == ("sh", status)
    assert SECRET not in experiment.why and SECRET not in kept(lab, call)


def test_a_key_of_several_lines_and_with_quotes_is_blotted_out_too(
    lab: Lab, coded: Callable[..., Experiment], monkeypatch: pytest.MonkeyPatch
) -> None:
    lines = ['{"private":', '"MIIE/\\n+4vQ"}', "-----END KEY-----"]
    monkeypatch.setenv("CREDENTIALS", "\n".join(lines))
    experiment = coded(BREAK, shell('printf "%s\\n" "$CREDENTIALS" >&2; exit 4', environment=["CREDENTIALS"]))
    (call,) = calls(lab.ledger)
    for line in lines:
        assert line not in experiment.why and line not in told(lab, experiment)
        assert json.dumps(line)[1:-1] not in kept(lab, call)
    assert "[assistant] the end of its output:\n[redacted]" in told(lab, experiment)


def test_an_errand_that_took_too_long_is_told_apart(lab: Lab, coded: Callable[..., Experiment]) -> None:
    assert coded(BREAK, shell("sleep 60", timeout_s=2)).state == State.REFUSED
    assert [call.status for call in calls(lab.ledger)] == ["timeout"]


def coder_at(lab: Lab, worker: Desk) -> Coder:
    return Coder(lab.ledger, lab.champion, lab.root, desk=worker, profile=PROFILE, role=RoleFile(lab.root / EXAMPLE))


def test_what_a_dead_coder_was_waiting_for_is_lost_and_costs_nothing(lab: Lab, runc: Engine, state_dir: Path) -> None:
    """The hold is what it leaves when it is killed on the spot."""
    worker = desk("coder", lab, runc, state_dir)
    assert worker.purse is not None
    worker.purse.reserve("c1", "t1", "coder", "example-agent", 5, 0, errand=True)
    (lost,) = Purse(lab.ledger, NOTHING, "coder-0").settle()
    assert (lost.status, lost.microdollars, lost.errand, lost.experiment) == ("lost", 0, True, 5)
    assert holds(lab.ledger) == [] and calls(lab.ledger) == [lost]


@pytest.mark.parametrize(
    ("raised", "status"), [(HostFault("the disk is full"), "not_sent"), (KeyboardInterrupt(), "cancelled")]
)
def test_an_errand_that_never_came_back_is_booked_and_its_idea_given_back(
    lab: Lab, raised: BaseException, status: str
) -> None:
    def send(errand: Errand) -> Returned:
        raise raised

    number = lab.ledger.propose(Hypothesis(title="t", change=BREAK), author="planner/test", roles={}) or 0
    purse = Purse(lab.ledger, NOTHING, "coder-0")
    worker = Desk("coder", lab.root, purse, send=send, transcripts=lab.root / "transcripts")
    with pytest.raises(type(raised)):
        coder_at(lab, worker).step()
    experiment = lab.ledger.experiment(number)
    assert experiment.state == State.PROPOSED and holds(lab.ledger) == []
    assert [call.status for call in calls(lab.ledger)] == [status]
    text = told(lab, experiment)
    assert BREAK in text and ("! the disk is full" in text) == (status == "not_sent")


def test_where_there_is_no_campaign_nothing_is_booked(lab: Lab, runc: Engine, state_dir: Path) -> None:
    lab.ledger.propose(Hypothesis(title="t", change=BREAK), author="planner/test", roles={})
    assert coder_at(lab, replace(desk("coder", lab, runc, state_dir), purse=None)).step()
    assert lab.ledger.counts().get(State.CODED) == 1 and calls(lab.ledger) == []


def test_an_agent_is_given_the_variables_that_are_named_and_no_others(
    coded: Callable[..., Experiment], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ANTHROPIC_API_KEY", SECRET)
    monkeypatch.setenv("WORD", "aha")
    experiment = coded(BREAK, shell('echo "$WORD-$AGENT_KEY-$ANTHROPIC_API_KEY." && false', environment=["WORD"]))
    assert "aha--." in experiment.why


# ---- the planner, the reviewer ---------------------------------------------------------------------------------------


def planner(lab: Lab, engine: Engine, state_dir: Path, script: str) -> Planner:
    role = RoleFile(lab.root / "roles" / "planner.md", shell(script))
    worker = desk("planner", lab, engine, state_dir)
    return Planner(lab.ledger, lab.champion, lab.root, desk=worker, profile=PROFILE, max_open=4, role=role)


def test_an_agent_plans_what_was_not_tried(lab: Lab, runc: Engine, state_dir: Path) -> None:
    ideas = [{"title": "fewer", "change": "Set MOMENTUM to 0.9.", "category": "code", "probability": 0.3}]
    worker = planner(lab, runc, state_dir, f"echo '{json.dumps(ideas)}' > /answer/hypotheses.json")
    assert worker.step()
    (proposed,) = lab.ledger.experiments(states=[State.PROPOSED])
    assert proposed.author == "planner/command" and proposed.hypothesis.probability == 0.3
    (call,) = calls(lab.ledger)
    assert proposed.talk == call.talk and (call.role, call.experiment) == ("planner", None)
    text = told(lab, proposed)
    assert text.count("[system] # The planner") == 1 and "[assistant] /answer/hypotheses.json:" in text
    with pytest.raises(Unavailable, match="no idea that was not tried before"):
        worker.step()


def test_a_planner_pauses_when_its_agent_fails(lab: Lab, runc: Engine, state_dir: Path) -> None:
    with pytest.raises(Unavailable, match=r"hypotheses.json: 0.change: Field required") as failed:
        planner(lab, runc, state_dir, """echo '[{"title": "t"}]' > /answer/hypotheses.json""").step()
    assert failed.value.retry_after_s > 0


REVIEWS = {
    '{"approved": false, "code": "confounded", "reason": "Two changes."}': ("confounded", State.REFUSED),
    '{"approved": true, "code": "ok", "reason": "Fine.", "probability": 0.2}': ("ok", State.QUEUED),
    "no JSON": ("ok", State.QUEUED),
}


@pytest.mark.parametrize(("said", "becomes"), REVIEWS.items(), ids=REVIEWS)
def test_an_agent_reviews(
    lab: Lab, runc: Engine, state_dir: Path, coded: Callable[..., Experiment], said: str, becomes: tuple[str, State]
) -> None:
    number = coded(BREAK).id
    role = RoleFile(lab.root / "roles" / "reviewer.md", shell(f"diff /task/train.py /task/candidate.py; echo '{said}' > /answer/review.json"))  # fmt: skip
    worker = desk("reviewer", lab, runc, state_dir)
    assert Reviewer(lab.ledger, lab.champion, lab.root, desk=worker, profile=PROFILE, role=role).step()
    reviewed = lab.ledger.experiment(number)
    assert reviewed.review is not None and (reviewed.review.code, reviewed.state) == becomes
    assert [(call.role, call.status) for call in calls(lab.ledger)] == [("coder", "ok"), ("reviewer", "ok")]
    assert reviewer_of(reviewed, calls(lab.ledger)) == Who("reviewer", "", "sh")


# ---- its settings ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("settings", "why"),
    [
        ({"mind": "command"}, "needs `command:"),
        ({"mind": "sampler", "network": ["api.example.com:443"]}, "network: has no effect with `mind: sampler`"),
        (shell("true", network=["api.example.com"]), "'api.example.com' is no name:port"),
        (shell("true", network=["10.0.0.1:80"]), "other addresses cannot be reached by number"),
        (shell("true", network=["example.com:70000"]), "'example.com:70000' is no name:port"),
        (shell("true", environment=["A=b"]), "string should match pattern"),
        (shell("true", environment=["NOBODY_SETS_THIS"]), "environment: NOBODY_SETS_THIS is not set: export it"),
        (shell("true", agent="nowhere"), "agent: there is no folder"),
        (shell("true", agent="."), "is no folder in"),
        (shell("true", agent="../elsewhere"), "is no folder in"),
        (shell("true", agent=".git"), "that an agent may see"),
        (shell("true", model="gpt"), "model: has no effect with `mind: command`"),
    ],
)
def test_settings_that_cannot_be_meant_are_refused_before_anything_runs(
    lab: Lab, settings: Mapping[str, object], why: str
) -> None:
    with pytest.raises(BadInput) as refused:
        RoleFile(lab.root / EXAMPLE, settings).load().check("coder", Desk("coder", lab.root))
    assert why in str(refused.value) and "\n" not in str(refused.value)


def test_a_role_that_gets_a_command_while_the_org_runs_gives_its_idea_back(lab: Lab) -> None:
    assert lab.ledger.propose(Hypothesis(title="t", change=BREAK), author="planner/test", roles={}) is not None
    with pytest.raises(BadInput, match="stop it, and resume"):
        Coder(lab.ledger, lab.champion, lab.root, profile=PROFILE, role=RoleFile(lab.root / EXAMPLE)).step()
    assert lab.ledger.counts().get(State.PROPOSED) == 1


def test_another_agent_is_another_org(lab: Lab) -> None:
    (lab.root / "mine.toml").write_text(f'name = "mine"\n[roles.coder]\nfile = "{EXAMPLE}"\n')
    org = OrgFile.load(lab.root / "mine.toml", lab.root)
    before = org.identity(lab.root)
    agent = lab.root / EXAMPLE.parent / "agent.py"
    agent.write_text(agent.read_text() + "# better\n")
    assert org.identity(lab.root) != before
