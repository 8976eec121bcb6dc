"""docs/failpoints.md, as data."""

import re
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parents[2]


class Row(NamedTuple):
    name: str
    processes: list[str]


def rows() -> list[Row]:
    lines = (ROOT / "docs" / "failpoints.md").read_text(encoding="utf-8").splitlines()
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines if line.startswith("| `")]
    assert all(len(row) == 4 and all(row) for row in cells)
    return [Row(name.strip("`"), processes.split(", ")) for name, processes, *_ in cells]


def reached_in_code() -> list[str]:
    """Names in calls of failpoint.reach, a name for each call."""
    folders = ("agents", "data", "ledger", "orgs", "sandbox")
    files = [path for folder in folders for path in sorted((ROOT / folder).rglob("*.py"))]
    calls = [
        call for path in files for call in re.findall(r"failpoint\.reach\((.*)\)", path.read_text(encoding="utf-8"))
    ]
    return [name for call in calls for name in re.findall(r'"([^"]+)"', call)]
