"""Published ways out of a container, and the versions that close them: what runs the sandbox should not be older.

Only what a hostile process or file system inside can use is listed; flaws that need a hostile user of the host, a hostile
client of the daemon or a hostile build are not. Newest first. Read up to 2026-11-24 in each project's own advisories:
https://github.com/opencontainers/runc/security/advisories, https://github.com/moby/moby/security/advisories,
https://github.com/containerd/containerd/security/advisories, https://www.nvidia.com/en-us/security/
"""

import gzip
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import NamedTuple

from packaging.version import InvalidVersion, Version

from records import MissingComponent

NUMBER = re.compile(r"\d+(?:\.\d+)+(?:-?rc\.?\d+)?|\d{8}")
"""A version within what a program says of itself; gVisor counts by dates."""


class Advisory(NamedTuple):
    cve: str
    program: str
    fixed: tuple[str, ...]
    """First good version of each branch that has one, oldest branch first."""
    allows: str


ADVISORIES = (
    Advisory("CVE-2026-41579", "runc", ("1.3.6", "1.4.3", "1.5.0"), "limited writes on the host, by an image whose /dev is a link"),
    Advisory("CVE-2025-52881", "runc", ("1.2.8", "1.3.3", "1.4.0"), "misdirected writes of runc to /proc, by a race on shared mounts"),
    Advisory("CVE-2025-52565", "runc", ("1.2.8", "1.3.3", "1.4.0"), "a writable file of the kernel in place of the console"),
    Advisory("CVE-2025-31133", "runc", ("1.2.8", "1.3.3", "1.4.0"), "a writable file of the kernel in place of a masked one"),
    Advisory("CVE-2024-45310", "runc", ("1.1.14", "1.2.0"), "empty files and folders on the host, by a race on shared mounts"),
    Advisory("CVE-2024-21626", "runc", ("1.1.12",), "the host's file system, through a descriptor that runc left open"),
    Advisory("CVE-2023-28642", "runc", ("1.1.5",), "unmasked kernel files, by an image whose /proc is a link"),
    Advisory("CVE-2021-30465", "runc", ("1.0.0",), "the host's file system, by a race on mounts"),
    Advisory("CVE-2019-5736", "runc", ("1.0.0",), "another program in place of the host's runc"),
    Advisory("CVE-2026-42306", "docker", ("29.5.1",), "a folder of the host, by a race while a file is copied out of a running container"),
    Advisory("CVE-2019-14271", "docker", ("19.03.1",), "code on the host, while a file is copied out of a hostile container"),
    Advisory("CVE-2018-15664", "docker", ("18.09.7",), "files on the host, by a race while one is copied out of a running container"),
    Advisory("CVE-2020-15257", "containerd", ("1.3.9", "1.4.3"), "containerd's control socket, in the host's network"),
    Advisory("CVE-2026-24260", "nvidia-ctk", ("1.19.1",), "the host, by a race while a GPU is handed in"),
    Advisory("CVE-2025-23266", "nvidia-ctk", ("1.17.8",), "code on the host, by an image's variables"),
    Advisory("CVE-2025-23359", "nvidia-ctk", ("1.17.4",), "the host's file system, by links in an image"),
    Advisory("CVE-2024-0132", "nvidia-ctk", ("1.16.2",), "the host's file system, by links in an image"),
)  # fmt: skip

PACKAGES = {"docker": "docker.io", "nvidia-ctk": "nvidia-container-toolkit"}
"""Debian's name of a package, where it is not the program's."""
DOCUMENTS = Path("/usr/share/doc")


class Open(NamedTuple):
    """An advisory that a version on this machine falls under."""

    advisory: Advisory
    version: str

    def __str__(self) -> str:
        return f"{self.advisory.cve}: {self.advisory.program} {self.version} may give away {self.advisory.allows}"


def open_advisories(versions: Mapping[str, str], documents: Path = DOCUMENTS) -> list[Open]:
    """Advisories that these programs fall under. One whose version cannot be read falls under all of its own.

    A distribution that mends an old version says so in its changelog; what the changelog names counts as mended, if it is
    the changelog of the version at hand.

    Args:
        versions: by program, as the programs say them.
        documents: where the distribution keeps the changelogs of its packages.
    """
    found: list[Open] = []
    for program, said in versions.items():
        version, mended = number(said), changelog(program, said, documents)
        found += [
            Open(advisory, said or "of an unknown version")
            for advisory in ADVISORIES
            if advisory.program == program and not is_fixed(version, advisory.fixed) and advisory.cve not in mended
        ]
    return found


def refuse_open_advisories(versions: Mapping[str, str]) -> None:
    """Raises MissingComponent that names each of them."""
    found = open_advisories(versions)
    if found:
        fixes = "; ".join(latest_fix([o for o in found if o.advisory.program == name]) for name in programs_of(found))
        raise MissingComponent(f"strict refuses this machine's sandbox: {'; '.join(map(str, found))}. {fixes}")


def programs_of(found: Iterable[Open]) -> list[str]:
    return list(dict.fromkeys(problem.advisory.program for problem in found))


def latest_fix(found: Iterable[Open]) -> str:
    """What to install so that all of these, of one program, are closed."""
    newest = max((problem.advisory for problem in found), key=lambda advisory: Version(advisory.fixed[-1]))
    return f"install {newest.program} {' or '.join(newest.fixed)}, or later"


def number(said: str) -> Version | None:
    """The version in a program's own words, such as 1.1.5 in `1.1.5+ds1`, or None."""
    match = NUMBER.search(said)
    try:
        return None if match is None else Version(match[0])
    except InvalidVersion:
        return None


def is_fixed(version: Version | None, fixed: tuple[str, ...]) -> bool:
    """Whether a version is at or after the fix of its own branch (major.minor), or after the newest one of all."""
    if version is None:
        return False
    fixes = [Version(text) for text in fixed]
    return version >= fixes[-1] or any(fix.release[:2] == version.release[:2] and version >= fix for fix in fixes)


def changelog(program: str, said: str, documents: Path = DOCUMENTS) -> str:
    """Debian's changelog of the package that this version of a program came in; empty if it came otherwise."""
    path = documents / PACKAGES.get(program, program) / "changelog.Debian.gz"
    try:
        text = gzip.decompress(path.read_bytes()).decode(errors="replace")
    except (OSError, EOFError):
        return ""
    # The first line is `runc (1.1.5+ds1-1+deb12u1) bookworm-security; urgency=medium`; the program says `1.1.5+ds1`.
    _, _, packaged = text.partition("\n")[0].partition("(")
    return text if said and packaged.startswith(said) else ""
