"""Reading a prompt as its reader would: headings, fenced material, facts. The only place that knows how prompts are laid out."""

import re
from collections.abc import Iterator
from typing import Any, NamedTuple

from tests.minds.blocks import Block, Body, as_blocks, text_in

OPENING = re.compile(r"^(`{3,})[\w-]*[ \t]*$")
ASSIGNMENT = re.compile(
    r"^([A-Z][A-Z0-9_]*)[ \t]*=[ \t]*([-+]?\d[\d_]*(?:\.\d*)?(?:[eE][-+]?\d+)?)(?=[ \t]*(?:#|$))", re.MULTILINE
)
KNOB_LINE = re.compile(
    r"^[ \t]*[-*][ \t]+`?([A-Z][A-Z0-9_]*)[ \t]*(?:=|:|→)[ \t]*([-+]?\d[\d_]*(?:\.\d*)?(?:[eE][-+]?\d+)?)`?[ \t]*$",
    re.MULTILINE,
)


class Fence(NamedTuple):
    """Material between two lines of backticks."""

    heading: str
    """The last heading before it, in lower case."""
    text: str


class Turn(NamedTuple):
    """A tool call of this conversation, and what came of it."""

    name: str
    input: dict[str, Any]
    result: str
    failed: bool
    """It was marked as an error."""


def prompt_text(body: Body) -> str:
    """Everything that was said to the model apart from results of tools."""
    said = [text_in(body.get("system"))]
    for message in body["messages"]:
        if message["role"] == "user":
            said += [block["text"] for block in as_blocks(message["content"]) if block["type"] == "text"]
    return "\n\n".join(said)


def turns(body: Body) -> list[Turn]:
    """The conversation's tool calls, oldest first."""
    blocks = [block for message in body["messages"] for block in as_blocks(message["content"])]
    results = {block["tool_use_id"]: block for block in blocks if block["type"] == "tool_result"}
    calls = [(block, results.get(block["id"], {})) for block in blocks if block["type"] == "tool_use"]
    return [
        Turn(call["name"], call["input"], text_in(result.get("content")), bool(result.get("is_error")))
        for call, result in calls
    ]


TYPES: dict[str, type | tuple[type, ...]] = {
    **{"string": str, "array": list, "object": dict, "boolean": bool, "integer": int},
    "number": (int, float),
}


def sound_turns(body: Body) -> list[Turn]:
    """The calls whose input was what the tool takes: after another one, a model would say the same again, but properly."""
    return [turn for turn in turns(body) if is_sound(turn, tools(body).get(turn.name))]


def is_sound(turn: Turn, tool: Block | None) -> bool:
    if tool is None:
        return False
    fields = tool["input_schema"].get("properties", {})
    given = all(name in turn.input for name in tool["input_schema"].get("required", fields))
    kinds = [(value, fields[name].get("type")) for name, value in turn.input.items() if name in fields]
    return (
        given
        and len(kinds) == len(turn.input)
        and all(isinstance(value, TYPES.get(kind, object)) for value, kind in kinds)
    )


def fences(text: str) -> list[Fence]:
    """All fenced material. A fence ends with as many backticks as it began with, so that it may hold shorter ones."""
    found: list[Fence] = []
    heading, marker, lines = "", "", list[str]()
    for line in text.split("\n"):
        if marker:
            if line.rstrip() == marker:
                found.append(Fence(heading, "\n".join(lines)))
                marker, lines = "", []
            else:
                lines.append(line)
        elif opening := OPENING.match(line):
            marker = opening[1]
        elif line.startswith("#"):
            heading = line.lstrip("#").strip().lower()
    return found


def outside_fences(text: str) -> str:
    """What the prompt itself says."""
    kept, marker = list[str](), ""
    for line in text.split("\n"):
        if marker:
            marker = "" if line.rstrip() == marker else marker
        elif opening := OPENING.match(line):
            marker = opening[1]
        else:
            kept.append(line)
    return "\n".join(kept)


def source(text: str) -> str | None:
    """The train.py that the prompt shows: the longest fence that defines both of its functions."""
    programs = [fence.text for fence in fences(text) if "def build_model(" in fence.text and "def main(" in fence.text]
    return max((program for program in programs if not is_diff(program)), key=len, default=None)


def diff(text: str) -> str | None:
    """The unified diff that the prompt shows; an empty one if there is a fence for it with nothing in it."""
    shown = [fence for fence in fences(text) if is_diff(fence.text)]
    empty = [
        fence
        for fence in fences(text)
        if re.search(r"\bdiff\b|what was done", fence.heading) and not fence.text.strip()
    ]
    return next((fence.text for fence in [*shown, *empty]), None)


def is_diff(text: str) -> bool:
    return bool(re.search(r"^@@ .* @@", text, re.MULTILINE)) and bool(re.search(r"^--- ", text, re.MULTILINE))


def hypothesis(text: str) -> str:
    """What was promised: the material under headings that sound like it, or else all that is neither train.py nor a diff."""
    material = [fence for fence in fences(text) if not is_diff(fence.text) and "def build_model(" not in fence.text]
    promised = [fence.text for fence in material if re.search("hypothesis|promise|to do|change", fence.heading)]
    return "\n\n".join(promised or [fence.text for fence in material])


def replacements(text: str) -> list[tuple[str, str]]:
    """The edits that a hypothesis spells out: pairs of fences, the text that goes and the text that comes in its place."""
    parts = [fence.text for fence in fences(text)]
    return list(zip(parts[::2], parts[1::2], strict=False))


def knobs(text: str) -> dict[str, str]:
    """Constants that shall be set, as written: lines `NAME = value` of a list, or `Set NAME to value`."""
    listed = dict(KNOB_LINE.findall(outside_fences(text)))
    told = re.findall(r"\b[Ss]et `?([A-Z][A-Z0-9_]*)`? (?:to|=) `?([-+]?\d[\d_.eE+-]*\d|\d)`?", hypothesis(text))
    return listed or dict(told)


def constants(program: str) -> dict[str, str]:
    """Numeric constants of a train.py, as written."""
    return dict(ASSIGNMENT.findall(program))


def changed_lines(unified: str) -> Iterator[tuple[str, str]]:
    """Sign and text of each changed line of a diff, without blank ones."""
    for line in unified.split("\n"):
        if line[:1] in ("+", "-") and not line.startswith(("+++", "---")) and line[1:].strip():
            yield line[0], line[1:]


def wants_lesson(text: str) -> bool:
    """Whether a reviewer is asked what a result teaches: there is one, or nothing to review."""
    return diff(text) is None or "lesson" in outside_fences(text).strip().split("\n")[-1].lower()


def number_asked(text: str) -> int:
    """How many proposals the prompt wants."""
    asked = re.search(r"\bpropose (?:up to |at most |exactly )?(\d+)\b", outside_fences(text), re.IGNORECASE)
    return int(asked[1]) if asked else 1


def tools(body: Body) -> dict[str, Block]:
    """Tools offered, by name."""
    return {tool["name"]: tool for tool in body.get("tools") or []}


def resolved(schema: Block, root: Block) -> Block:
    """A JSON schema itself, where it only points into the definitions of the whole."""
    while "$ref" in schema:
        schema = root["$defs"][schema["$ref"].rpartition("/")[2]]
    return schema
