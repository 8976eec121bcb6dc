"""Whether the role files of a lab can be played, found out before a night and without a key."""

from collections.abc import Iterator
from pathlib import Path
from typing import Literal, NamedTuple

from agents.minds.desk import Desk, NoKey
from agents.prices import Prices
from agents.role import RoleFile
from agents.settings import SETTINGS
from orgs.lab import Lab
from orgs.orgfile import OrgFile
from records import BadInput


class Checked(NamedTuple):
    """One role, in an org or by itself."""

    org: str
    """Its org file; empty for a role file by itself."""
    role: str
    """Empty where the org file could not be read."""
    file: str
    outcome: Literal["ok", "no key", "wrong"]
    """`no key`: that is all that is missing."""
    says: str
    """Its mind and model, or what is wrong, with file and line."""


def check_lab(lab: Lab) -> list[Checked]:
    """The files of roles/ by themselves, and the roles of every org of orgs/."""
    prices = Prices.load()
    files = ((name, lab.root / "roles" / f"{name}.md") for name in SETTINGS)
    found = [check_role(lab, "", name, RoleFile(path), prices) for name, path in files if path.is_file()]
    for path in sorted((lab.root / "orgs").glob("*.toml")):
        try:
            found += check_org(lab, path)
        except BadInput as error:
            found.append(Checked(shown(lab, path), "", "", "wrong", str(error)))
    return found


def check_org(lab: Lab, path: Path) -> Iterator[Checked]:
    """The roles of an org. Raises BadInput if its org file, or its table of prices, is wrong."""
    org = OrgFile.load(path, lab.root)
    prices = org.prices(lab.root)
    for name, seat in org.roles.items():
        yield check_role(lab, shown(lab, path), name, seat.role_file(lab.root), prices)


def check_role(lab: Lab, org: str, name: str, file: RoleFile, prices: Prices) -> Checked:
    """One role: its settings, its mind, and its prompt for a made-up task."""
    shown_file = shown(lab, file.path)
    try:
        role = file.load()
        settings = role.settings(SETTINGS[name])
        played_by = settings.mind if settings.model is None else f"{settings.mind}, {settings.model}"
        role.check(name, Desk(name, lab.root, prices=prices))
    except NoKey as error:
        return Checked(org, name, shown_file, "no key", f"{played_by}; {error}")
    except BadInput as error:
        return Checked(org, name, shown_file, "wrong", str(error))
    return Checked(org, name, shown_file, "ok", played_by)


def shown(lab: Lab, path: Path) -> str:
    """Relative to the lab where it lies in it."""
    path = path.resolve()
    return str(path.relative_to(lab.root)) if path.is_relative_to(lab.root) else str(path)
