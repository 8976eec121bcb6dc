"""Applies a unified diff to one text, in memory: no path of it is ever opened."""

import re
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from agents.fence import one_line
from agents.syntax import BadCandidate

HUNK = re.compile(r"@@ -(\d+)(?:,(\d+))? \+(\d+)(?:,(\d+))? @@")
NO_NEWLINE = "\\"


class Hunk(NamedTuple):
    at: int
    """Line of the patch, 1-based."""
    first: int
    """Line of the old text that it begins with, 1-based."""
    old: list[str]
    new: list[str]


def apply_patch(source: str, patch: str, name: str) -> str:
    """The text with a patch applied, each of whose lines has to fit, as `git apply` has it.

    A hunk may stand at other lines than it says if its old lines stand together at exactly one place below the hunk before.

    Args:
        source: the text.
        patch: a unified diff that changes this one file.
        name: of the file; `a/name` and `b/name` do as well.

    Raises:
        BadCandidate: it is no such diff, names another file, or does not fit; the message names its line.
    """
    lines, done, result = lines_of(source), 0, list[str]()
    for hunk in read_hunks(lines_of(patch if patch.endswith("\n") else f"{patch}\n"), name):
        start = place(lines, hunk, done)
        result += [*lines[done:start], *hunk.new]
        done = start + len(hunk.old)
    return "".join([*result, *lines[done:]])


def lines_of(text: str) -> list[str]:
    """With their ends. Not splitlines(), to which more than a line feed is the end of a line."""
    return re.findall(r"[^\n]*\n|[^\n]+", text)


def place(lines: Sequence[str], hunk: Hunk, done: int) -> int:
    """0-based line at which a hunk fits, not above `done`. Raises BadCandidate."""
    size = len(hunk.old)
    stated = hunk.first - 1 if size else hunk.first  # nothing to replace: the new lines come after that line
    fitting = [i for i in range(done, len(lines) - size + 1) if lines[i : i + size] == hunk.old] if size else []
    if stated in fitting or (not size and done <= stated <= len(lines)):
        return stated
    if len(fitting) != 1:
        where = f"fits at {len(fitting)} places" if fitting else "does not fit"
        raise BadCandidate(f"patch.diff:{hunk.at}: this hunk {where}: its old lines must be those of the file")
    return fitting[0]


def read_hunks(patch: Sequence[str], name: str) -> Iterator[Hunk]:
    """Raises BadCandidate."""
    i, named = 0, False
    while i < len(patch):
        if patch[i].startswith("--- ") and i + 1 < len(patch) and patch[i + 1].startswith("+++ "):
            refuse_other_file(patch, i, name)
            if named:
                raise BadCandidate(f"patch.diff:{i + 1}: the file is named twice")
            i, named = i + 2, True
        elif named and (header := HUNK.match(patch[i])):
            hunk, i = read_hunk(patch, i, header)
            yield hunk
        elif named and patch[i].strip() and not patch[i].startswith("diff "):
            raise BadCandidate(f"patch.diff:{i + 1}: no part of a unified diff: {one_line(patch[i], 60)}")
        else:
            i += 1  # what stands above the names is for people
    if not named:
        raise BadCandidate("patch.diff: no unified diff: it lacks the lines `--- a/train.py` and `+++ b/train.py`")


def refuse_other_file(patch: Sequence[str], i: int, name: str) -> None:
    for number, line, prefix in ((i + 1, patch[i], "a/"), (i + 2, patch[i + 1], "b/")):
        path = line[4:].partition("\t")[0].strip()
        if path not in (name, prefix + name):
            raise BadCandidate(f"patch.diff:{number}: changes {one_line(path, 100)}; only {name} may be changed")


def read_hunk(patch: Sequence[str], at: int, header: re.Match[str]) -> tuple[Hunk, int]:
    """A hunk, and the line after it. Raises BadCandidate where it is shorter or longer than its header says."""
    first, old_size, _, new_size = (1 if group is None else int(group) for group in header.groups())
    old, new, i = list[str](), list[str](), at + 1
    while i < len(patch) and (len(old) < old_size or len(new) < new_size):
        sign, text = patch[i][0], patch[i][1:]
        if sign not in " +-" and patch[i].strip():
            break
        if sign in " -" or not patch[i].strip():
            old.append(text or "\n")
        if sign in " +" or not patch[i].strip():
            new.append(text or "\n")
        i += 1
        if i < len(patch) and patch[i].startswith(NO_NEWLINE):
            for side in (old,) if sign == "-" else (new,) if sign == "+" else (old, new):
                side[-1] = side[-1].removesuffix("\n")
            i += 1
    if (len(old), len(new)) != (old_size, new_size):
        raise BadCandidate(f"patch.diff:{at + 1}: this hunk has other lines than its header says")
    return Hunk(at + 1, first, old, new), i
