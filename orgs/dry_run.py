"""What a launch looks at before it starts anything, without starting anything, and what the night would cost.

A check of the sandbox takes a moment: it starts containers of its own and leaves none behind. The ledger's Redis is not looked at:
opening it could change it. `doctor` does that.
"""

from collections.abc import Callable, Iterator
from functools import partial
from typing import NamedTuple

from agents.minds.desk import Desk
from agents.planner import check_planner
from ledger.champion import Champion
from orgs.doctor import Level, Line
from orgs.estimate import Estimate
from orgs.lab import Lab
from orgs.orgfile import OrgFile
from orgs.prompts import profile_of
from orgs.role_check import check_role
from records import BadInput, Refusal
from sandbox.dataset import Dataset
from sandbox.device import find_device


class Looked(NamedTuple):
    """One thing that was looked at."""

    line: Line
    exit_code: int = 0
    """That a launch would end with."""


def look(lab: Lab, org: OrgFile) -> Iterator[Looked]:
    """Everything in turn. What a launch would refuse becomes a red line."""
    for name, seat in org.roles.items():
        found = check_role(lab, "", name, seat.role_file(lab.root), org.prices(lab.root))
        level = {"ok": Level.GREEN, "no key": Level.YELLOW, "wrong": Level.RED}[found.outcome]
        yield Looked(Line(name, level, found.says), BadInput.exit_code if level == Level.RED else 0)
    for subject, check in (
        ("device", partial(look_at_device, org)),
        ("sandbox", partial(look_at_sandbox, lab, org)),
        ("dataset", partial(look_at_dataset, lab, org)),
        ("train.py", partial(look_at_start, lab, org)),
        ("git", partial(look_at_git, lab, org)),
    ):
        yield attempt(subject, check)


def attempt(subject: str, check: Callable[[], tuple[Level, str]]) -> Looked:
    try:
        level, says = check()
    except Refusal as refusal:
        return Looked(Line(subject, Level.RED, str(refusal)), refusal.exit_code)
    return Looked(Line(subject, level, says))


def look_at_device(org: OrgFile) -> tuple[Level, str]:
    return Level.GREEN, find_device(org.sandbox.device).name


def look_at_sandbox(lab: Lab, org: OrgFile) -> tuple[Level, str]:
    engine = org.sandbox.ready_engine(find_device(org.sandbox.device), lab.state)
    return Level.GREEN, f"{engine.name} enforces every control"


def look_at_dataset(lab: Lab, org: OrgFile) -> tuple[Level, str]:
    path = lab.dataset(org.data)
    if org.data.dataset is None and not (path / "manifest.json").is_file():
        return Level.YELLOW, f"{path.name} is not prepared yet: launch does that first"
    Dataset.open(path)
    return Level.GREEN, f"{path.name} is whole"


def look_at_start(lab: Lab, org: OrgFile) -> tuple[Level, str]:
    """Whether the planner can work with it."""
    planner, sizes = org.roles.planner.role_file(lab.root), profile_of(lab, org, None)
    check_planner(planner, Desk("planner", lab.root), lab.train_source, sizes)
    return Level.GREEN, "the planner can work with it"


def look_at_git(lab: Lab, org: OrgFile) -> tuple[Level, str]:
    champion = Champion(lab.root, org.name)
    return Level.GREEN, f"{champion.repository} can have a branch autoresearch/{org.name}-…"


# ---- in words --------------------------------------------------------------------------------------------------------


def explain_estimate(found: Estimate) -> list[str]:
    """What the night would cost, against the caps, a line each."""
    dearest = found.dearest
    if dearest is None:
        return ["cost: 0 dollars, no role asks a language model"]
    lines = [
        f"cost: about {found.each_usd:.3f} dollars an experiment, {found.night_usd:.2f} for the {found.experiments} of budget.experiments"
    ]
    if found.lasts is None:
        lines.append("none of its models costs anything")
    elif found.lasts < found.experiments:
        lines.append(
            f"the cap of {found.campaign_usd:g} dollars (money.campaign_usd) would end the night after about {found.lasts} experiments"
        )
    else:
        lines.append(
            f"the cap of {found.campaign_usd:g} dollars (money.campaign_usd) would last for about {found.lasts} experiments"
        )
    one = f"a call of the {dearest.role} could cost {dearest.call_at_most_usd:.2f} dollars at most"
    if dearest.call_at_most_usd > found.call_usd:
        lines.append(f"{one}: more than the {found.call_usd:g} of money.call_usd, so that it would be refused")
    else:
        lines.append(f"{one}: within the {found.call_usd:g} of money.call_usd")
    each = f"with {found.each_usd:.3f} spent on an experiment"
    if found.each_usd + dearest.call_at_most_usd > found.experiment_usd:
        lines.append(
            f"{each}, such a call would exceed the {found.experiment_usd:g} of money.experiment_usd: its coder would give up"
        )
    return lines
