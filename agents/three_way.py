"""Three-way merges: what changed from one text to another, made in a third one as well."""

import os
import tempfile
from collections.abc import Collection
from pathlib import Path

from agents.knobs import resolve, set_knobs
from agents.settings import Profile
from agents.syntax import BadCandidate
from ledger.champion import run_git
from records import HostFault

MEMORY = Path("/dev/shm")
"""Folder without a disk behind it, where there is one: the three files live for milliseconds."""
MOST_CONFLICTS = 127
"""`git merge-file` exits with the number of conflicts, this many at most; anything above is an error."""


def merge(base: str, ours: str, theirs: str) -> str | None:
    """`ours` with all that changed from `base` to `theirs`; None where both changed the same lines, or lines that touch.

    By git, outside any repository: no hook, attribute or setting of the user's has a say.

    Raises:
        MissingComponent: git is not installed.
        HostFault: git could not read or write.
    """
    texts = {"ours": ours, "base": base, "theirs": theirs}
    if any("\0" in text for text in texts.values()):
        return None  # git takes it for a binary file; no candidate has one
    memory = MEMORY if os.access(MEMORY, os.W_OK) else None
    with tempfile.TemporaryDirectory(prefix="autoresearch-merge-", dir=memory) as name:
        folder = Path(name).resolve()
        for side, text in texts.items():
            (folder / side).write_bytes(text.encode("utf-8", "surrogatepass"))
        nobody = {"GIT_CEILING_DIRECTORIES": str(folder.parent), "GIT_CONFIG_NOSYSTEM": "1", "HOME": name}
        nobody |= {"GIT_CONFIG_GLOBAL": os.devnull, "GIT_ATTR_NOSYSTEM": "1", "XDG_CONFIG_HOME": name}
        done = run_git(folder, "merge-file", "-p", "-q", "--diff3", *texts, variables=nobody)
    if done.code < 0 or done.code > MOST_CONFLICTS:
        raise HostFault(f"git merge-file failed: {done.error}")
    return None if done.code else done.output.decode("utf-8", "surrogatepass")


def carry(base: str, ours: str, theirs: str, knobs: Collection[str], profile: Profile) -> str | None:
    """As `merge`, for programs: constants that stand line by line do not conflict if each was changed on one side only.

    Args:
        base: program that was changed.
        ours: program to make the change in.
        theirs: program with the change.
        knobs: constants that the change is about, if it is about nothing else.
        profile: what PROFILE[...] holds.
    """
    merged = merge(base, ours, theirs)
    if merged is not None or not knobs:
        return merged
    try:
        before, here, after = (resolve(source, profile) for source in (base, ours, theirs))
        if any(here[name] != before[name] for name in knobs):
            return None
        return set_knobs(ours, {name: after[name] for name in knobs}, profile)
    except (BadCandidate, KeyError):
        return None
