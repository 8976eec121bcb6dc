"""Showing untrusted text to a reader that may be a language model: capped, stripped, and marked as data."""

import re

LIMIT_CHARACTERS = 2000
CONTROL = re.compile(r"[^\S\n\t ]|[\x00-\x08\x0b-\x1f\x7f-\x9f\u200b-\u200f\u202a-\u202e\u2066-\u2069]")
"""Terminal controls, odd line ends, and invisible or direction-changing characters."""


def clean(text: str, limit: int = LIMIT_CHARACTERS) -> str:
    """The text without control characters, cut to a number of characters with a note of what was cut."""
    text = CONTROL.sub(" ", text.replace("\r\n", "\n"))
    return text if len(text) <= limit else f"{text[:limit]} [… {len(text) - limit} characters cut]"


def one_line(text: str, limit: int = 200) -> str:
    """The cleaned text on one line."""
    return clean(" ".join(text.split()), limit)


def quoted(text: str, limit: int = 200) -> str:
    """The cleaned text on one line, in backticks that it cannot close."""
    body = one_line(text, limit)
    ticks = "`" * (1 + max((len(run) for run in re.findall(r"`+", body)), default=0))
    pad = " " if body.startswith("`") or body.endswith("`") or not body else ""
    return f"{ticks}{pad}{body}{pad}{ticks}"


def fenced(text: str, limit: int = LIMIT_CHARACTERS) -> str:
    """The cleaned text in a code fence that it cannot close: longer than any run of backticks inside."""
    body = clean(text.rstrip("\n"), limit)
    longest = max((len(run) for run in re.findall(r"`+", body)), default=0)
    fence = "`" * max(3, longest + 1)
    return f"{fence}text\n{body}\n{fence}"


def numbered(text: str, first: int = 1) -> str:
    """Each line with its number, as in a listing."""
    return "\n".join(f"{number:4} {line}" for number, line in enumerate(text.split("\n"), first))
