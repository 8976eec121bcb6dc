"""What a role would be told now: its prompt and its tools, rendered as its seat renders them, and sent to nobody."""

import asyncio
import json
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from agents.coder import code_task
from agents.digest import Incumbent, gather, read
from agents.minds.desk import Desk
from agents.planner import plan_task
from agents.prompt import Prompt
from agents.recombine import LANES
from agents.result import result_of
from agents.reviewer import variables
from agents.role import Role
from agents.samples import FIRST, HYPOTHESIS, RESULT, REVIEWED
from agents.settings import LANGUAGE, PlannerSettings, Profile, Settings
from agents.tokens import count_tokens
from data.files import hash_file
from data.profiles import PROFILES
from ledger import Ledger
from ledger.champion import Champion
from orgs.lab import Lab
from orgs.orgfile import OrgFile, RoleName
from records import HostFault, Preflighted, Refusal
from sandbox.dataset import Dataset

if TYPE_CHECKING:
    from agents.minds.line import Request


class Sizes(NamedTuple):
    """In tokens, estimated (agents/tokens.py)."""

    stable: int
    task: int
    tools: int

    @property
    def whole(self) -> int:
        return self.stable + self.task + self.tools


@dataclass(frozen=True)
class Rendered:
    """One role's next task."""

    role: RoleName
    path: Path
    sha256: str
    """Of the role file and of what stands in place of its front matter."""
    settings: Settings
    instead: bool
    """Whether the settings are the org file's, and not the front matter's."""
    campaign: str | None
    """None: there is none, and the prompt is about the working copy."""
    about: str
    """What the task is about, in words for people."""
    prompt: Prompt
    tools: list[dict[str, Any]]
    """As the Messages API takes them; none where no language model is asked."""

    @property
    def sizes(self) -> Sizes:
        schemas = json.dumps(self.tools, ensure_ascii=False) if self.tools else ""
        return Sizes(count_tokens(self.prompt.stable), count_tokens(self.prompt.task), count_tokens(schemas))

    def request(self) -> "Request":
        """What the API would be sent."""
        from agents.minds.talk import opening  # imports the SDK, for half a second

        return opening(self.settings, self.prompt, self.tools)

    def count(self, org: OrgFile, lab: Lab) -> int:
        """Tokens of the whole prompt, by the API's own counter.

        Raises:
            BadInput: no key, a model without a price, or the API refuses the request.
            Unavailable: the API does not answer.
        """
        from agents.minds.line import Line

        async def ask() -> int:
            async with Line(self.settings, Desk(self.role, lab.root, prices=org.prices(lab.root))) as line:
                return await line.count(self.request())

        return asyncio.run(ask())


def render(lab: Lab, org: OrgFile, name: RoleName, ledger: Ledger | None) -> Rendered:
    """The prompt of a role as the ledger stands now; without a ledger, about the working copy's train.py and an empty history.

    Raises:
        BadInput: the role file, program.md or the prompt is wrong; names file and line.
    """
    match name:
        case "planner":
            return render_plan(lab, org, ledger)
        case "coder":
            return render_code(lab, org, ledger)
        case "reviewer":
            return render_review(lab, org, ledger)


def render_plan(lab: Lab, org: OrgFile, ledger: Ledger | None) -> Rendered:
    """The planner's next task."""
    role = load(lab, org, "planner")
    settings = role.settings(PlannerSettings)
    program, guidance = lab.root / org.program, lab.root / "guidance.md"
    if ledger is None:
        sizes = profile_of(lab, org, None)
        incumbent = Incumbent(commit="", val_bpb=None, source=lab.train_source)
        steering = read(guidance) if guidance.exists() else ""
        said = {"program": read(program), "guidance": steering, "campaign": org.name, "champion": incumbent}
        digest, experiments = (
            FIRST.model_copy(update=said | {"budget_s": org.budget.train_s or sizes["time_budget_s"]}),
            [],
        )
        about = "the next proposals, with an empty history"
    else:
        experiments = ledger.experiments()
        digest = gather(ledger, Champion(lab.root, ledger.name), experiments, program, guidance, settings)
        about = f"the next proposals, with a history of {len(experiments)} experiments"
    task = plan_task(role, settings, digest, experiments, {}, 0)  # sizes and seed are for minds that compute
    tools: list[dict[str, Any]] = []
    if settings.mind in LANGUAGE:
        from agents.minds.anthropic import propose_tool

        tools = [propose_tool(task).schema]
    return rendered(org, "planner", role, settings, ledger, about, task.prompt, tools)


def render_code(lab: Lab, org: OrgFile, ledger: Ledger | None) -> Rendered:
    """The coder's task for the newest idea, on top of the present champion."""
    role = load(lab, org, "coder")
    ideas = [] if ledger is None else [e for e in ledger.experiments() if e.is_idea and e.lane not in LANES]
    about, hypothesis = of_the_sample(ledger), HYPOTHESIS
    if ideas:
        about, hypothesis = f"#{ideas[-1].id} {ideas[-1].hypothesis.title}", ideas[-1].hypothesis
    source = lab.train_source
    if ledger is not None:
        champion = Champion(lab.root, ledger.name)
        source = champion.source(champion.head())
    task = code_task(role, hypothesis, source, source, {}, run_nothing)
    tools: list[dict[str, Any]] = []
    if task.settings.mind in LANGUAGE:
        from agents.minds.anthropic import Bench

        tools = [tool.schema for tool in Bench(task).tools()]
        if hypothesis.knobs:
            about += " (only constants: they are set without a call)"
    return rendered(org, "coder", role, task.settings, ledger, about, task.prompt, tools)


def render_review(lab: Lab, org: OrgFile, ledger: Ledger | None, *, lesson: bool = False) -> Rendered:
    """The reviewer's task for the newest candidate: its review, or its lesson if it has a result.

    Args:
        lab: the clone.
        org: its roles.
        ledger: of a campaign, if there is one.
        lesson: whether the sample, which stands in for a candidate where there is none, has a result.
    """
    role = load(lab, org, "reviewer")
    settings = role.settings(Settings)
    experiments = [] if ledger is None else ledger.experiments()
    newest = next((e for e in reversed(experiments) if e.is_idea and e.candidate is not None), None)
    if ledger is None or newest is None or newest.candidate is None:
        values = {**REVIEWED, "source": lab.train_source, "result": RESULT if lesson else None}
        about = of_the_sample(ledger)
    else:
        source = Champion(lab.root, ledger.name).source(newest.candidate.parent)
        profile = profile_of(lab, org, ledger)
        values, lesson = variables(newest, newest.candidate, source, profile), result_of(newest) is not None
        about = f"{'the lesson' if lesson else 'the review'} of #{newest.id} {newest.hypothesis.title}"
    tools: list[dict[str, Any]] = []
    if settings.mind in LANGUAGE:
        from agents.minds.anthropic import reviewer_tools

        tools = [tool.schema for tool in reviewer_tools("lesson" if lesson else "review")]
    return rendered(org, "reviewer", role, settings, ledger, about, role.render(values), tools)


def rendered(
    org: OrgFile, name: RoleName, role: Role, settings: Settings, ledger: Ledger | None, about: str, prompt: Prompt, tools: list[dict[str, Any]]
) -> Rendered:  # fmt: skip
    campaign = None if ledger is None else ledger.name
    return Rendered(name, role.path, role.sha256, settings, role.instead is not None, campaign, about, prompt, tools)


def load(lab: Lab, org: OrgFile, name: RoleName) -> Role:
    """The role file as it is now."""
    return dict(org.roles.items())[name].role_file(lab.root).load()


def of_the_sample(ledger: Ledger | None) -> str:
    why = "there is no campaign" if ledger is None else "the campaign has no such experiment"
    return f"the sample of agents/samples.py, since {why} yet"


def run_nothing(source: str) -> Preflighted:
    """Stands where a coder has its preflight, so that the tool is offered."""
    raise HostFault("a prompt that is only shown runs nothing")


def profile_of(lab: Lab, org: OrgFile, ledger: Ledger | None) -> Profile:
    """Sizes of the campaign's dataset, else of the org's; where that is not here, as its profile will have them."""
    folders = [lab.dataset(org.data)]
    if ledger is not None:
        wanted = ledger.campaign().dataset
        manifests = sorted(lab.state.glob("datasets/*/manifest.json"))
        folders = [m.parent for m in manifests if hash_file(m) == wanted] + folders
    for folder in folders:
        with suppress(Refusal):
            return dict(Dataset.open(folder, verify=False).profile)
    return dict(PROFILES[org.data.profile])
