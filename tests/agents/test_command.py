"""Your own agent as coder, planner and reviewer: real steps on a real ledger, the agent in a real container."""

import gzip
import json
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

from agents.coder import Coder
from agents.minds.desk import Desk
from agents.minds.pause import Unavailable
from agents.planner import Planner
from agents.reviewer import Reviewer
from agents.role import Role, RoleFile
from orgs.errands import Errands
from orgs.orgfile import OrgFile
from records import BadInput, Experiment, Hypothesis, State
from sandbox.engines import Engine
from tests.agents.lab import Lab
from tests.agents.sources import PROFILE, TRAIN
from tests.sandbox.test_errand import TIGHT
from tests.sandbox.traces import traces

EXAMPLE = Path("roles/example-agent/coder.md")
BREAK = "Replace `pass  # nothing to learn` by `break`"
SECRET = "sesame-open-yourself"


def desk(role: str, lab: Lab, engine: Engine, state_dir: Path) -> Desk:
    send = Errands(engine, state_dir, TIGHT)
    return Desk(role, lab.root, send=send, transcripts=lab.root / "transcripts", keys={"AGENT_KEY": SECRET})


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
    (transcript,) = (lab.root / "transcripts").glob(f"coder-{experiment.id}-*.json.gz")
    said = json.loads(gzip.decompress(transcript.read_bytes()))
    assert BREAK in said["request"]["files"]["task.md"] and "patch.diff" in said["reply"]["files"]


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
    "echo I am thinking": "it left no train.py and no patch.diff in /answer (its last words: I am thinking)",
    f"printf -- '{OTHER_FILE}' > /answer/patch.diff": "patch.diff:1: changes a/../../train.py; only train.py may be changed",
    "cp /task/train.py /answer; echo > /answer/patch.diff": "it left both train.py and patch.diff",
    "cp /task/train.py /answer": "no_op: The program is the same as its parent's.",
    "echo 'def (' > /answer/train.py": "train.py:1: not Python",
    ": > /answer/train.py": "contract: train.py does not define build_model() and main()",
    "head -c 100000 /dev/zero | tr '\\0' '#' > /answer/train.py": "train.py has 100000 bytes; at most 65536 are accepted",
    "ln -s /task/train.py /answer/train.py": "train.py is a link or a special file",
    "printf '\\033[31mred\\n\\n%s' \"$AGENT_KEY\"; exit 4": "exit code 4: [redacted] (its last words: red [redacted])",
    'echo "# $AGENT_KEY" | cat /task/train.py - > /answer/train.py': "its answer holds a value of its environment",
}


@pytest.mark.parametrize(("script", "why"), UNUSABLE.items(), ids=UNUSABLE)
def test_an_answer_that_cannot_be_used_refuses_the_idea_on_one_line(
    lab: Lab, coded: Callable[..., Experiment], script: str, why: str
) -> None:
    experiment = coded(BREAK, shell(script, environment=["AGENT_KEY"]))
    assert experiment.state == State.REFUSED
    assert experiment.why.startswith("not implementable: ") and why in experiment.why, experiment.why
    assert "\n" not in experiment.why
    kept = gzip.decompress(next((lab.root / "transcripts").iterdir()).read_bytes())
    assert SECRET not in experiment.why and SECRET.encode() not in kept


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
