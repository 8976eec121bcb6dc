"""What can go wrong at the other end of the line, and when it does.

Slips in tool calls are also made where a tool is strict: other servers of the same API do not hold their models to a schema.
"""

import json
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from enum import Enum
from typing import Any

from tests.minds.blocks import Block, Body, tokens


@dataclass(frozen=True)
class Failure:
    """An error in place of an answer."""

    status: int
    kind: str
    message: str
    retry_after_s: int | None = None
    error_code: str | None = None


@dataclass(frozen=True)
class Stall:
    """The request is taken, and nothing is sent for so long; then the line is dead."""

    seconds: float


class Line(Enum):
    """The connection or its content is broken."""

    HANG_UP = "closed without an answer"
    INTERRUPTED = "closed in the middle of the answer"
    TRUNCATED = "an answer whose JSON stops half-way"
    NOT_JSON = "status 200 with a page for people"
    OVERLOADED_LATE = "a stream that begins well and ends in an error; without a stream, just the error"


@dataclass(frozen=True)
class Reply:
    content: list[Block]
    stop_reason: str
    stop_details: dict[str, Any] | None = None


@dataclass(frozen=True)
class Slip:
    """A proper answer of the API in which the model did something else."""

    bend: Callable[[Body, list[Block]], Reply] = field(repr=False)


Fault = Failure | Stall | Line | Slip


def reply(content: list[Block]) -> Reply:
    """An answer as it should be."""
    called = any(block["type"] == "tool_use" for block in content)
    return Reply(content, "tool_use" if called else "end_turn")


# ---- slips of the model ----------------------------------------------------------------------------------------------


def refuse(body: Body, content: list[Block]) -> Reply:
    """A classifier stops the answer before it begins."""
    details = {
        "type": "refusal",
        "category": "cyber",
        "explanation": "This request was declined because it could enable cyber harm.",
    }
    return Reply([], "refusal", details)


def cut_in_call(body: Body, content: list[Block]) -> Reply:
    """max_tokens is reached in the middle of the first tool call."""
    calls = [at for at, block in enumerate(content) if block["type"] == "tool_use"]
    if not calls:
        return cut(content, sum(map(tokens, content)) // 2)
    before = sum(map(tokens, content[: calls[0]]))
    return cut(content, before + tokens(content[calls[0]]) // 2)


def cut(content: list[Block], limit: int) -> Reply:
    """What of an answer fits into so many tokens."""
    kept: list[Block] = []
    for block in content:
        if tokens(block) <= limit:
            kept.append(block)
            limit -= tokens(block)
            continue
        room = limit * 7 // 2
        if block["type"] == "text" and room:
            kept.append({**block, "text": block["text"].encode()[:room].decode(errors="ignore")})
        if block["type"] == "tool_use":
            kept.append({**block, "input": cut_input(block["input"], room - len(block["name"]))})
        return Reply(kept, "max_tokens")
    return reply(kept)


def cut_input(values: dict[str, Any], room: int) -> dict[str, Any]:
    """The fields that fit into so many bytes of JSON; a text that does not fit is cut, and what comes after it is lost."""
    kept: dict[str, Any] = {}
    for name, value in values.items():
        over = len(json.dumps({**kept, name: value}, ensure_ascii=False).encode()) - room
        if over <= 0:
            kept[name] = value
            continue
        if isinstance(value, str) and over < len(value):
            kept[name] = value[:-over]
        break
    return kept


def say_only(body: Body, content: list[Block]) -> Reply:
    """The model says what it would do, and does not do it."""
    said = "; ".join(f"I would call {block['name']} now" for block in content if block["type"] == "tool_use")
    return Reply([{"type": "text", "text": f"{said or 'I am not sure'}."}], "end_turn")


def with_call(change: Callable[[Body, Block], Block]) -> Callable[[Body, list[Block]], Reply]:
    """A slip in every tool call of the answer."""

    def bend(body: Body, content: list[Block]) -> Reply:
        return reply([change(body, block) if block["type"] == "tool_use" else block for block in content])

    return bend


def without_field(body: Body, call: Block) -> Block:
    return {**call, "input": dict(list(call["input"].items())[1:])}


def wrong_type(body: Body, call: Block) -> Block:
    """The first field is a list of what it should be, or a text where a list is due."""
    fields = list(call["input"].items())
    changed = [(name, "many" if isinstance(value, list) else [value]) for name, value in fields[:1]]
    return {**call, "input": dict([*changed, *fields[1:]])}


def extra_field(body: Body, call: Block) -> Block:
    return {**call, "input": {**call["input"], "confidence_level": "very high"}}


def unknown_tool(body: Body, call: Block) -> Block:
    return {**call, "name": "run_shell_command", "input": {"command": "python train.py"}}


RATE_LIMITED = Failure(
    429, "rate_limit_error", "This request would exceed your organization's rate limit.", retry_after_s=1
)
SPEND_LIMIT = Failure(
    429,
    "rate_limit_error",
    "Your organization has reached its monthly spend cap.",
    error_code="enforced_spend_limit_reached",
)
OVERLOADED = Failure(529, "overloaded_error", "Overloaded")

FAULTS: dict[str, Fault] = {
    "rate_limited": RATE_LIMITED,
    "spend_limit": SPEND_LIMIT,
    "server_error": Failure(500, "api_error", "Internal server error"),
    "overloaded": OVERLOADED,
    "usage_limit": Failure(400, "invalid_request_error", "You have reached your specified API usage limits."),
    "no_credit": Failure(402, "billing_error", "There is an issue with your billing or payment information."),
    "key_revoked": Failure(401, "authentication_error", "invalid x-api-key"),
    "no_permission": Failure(403, "permission_error", "Your API key does not have permission to use this model."),
    "stall": Stall(30.0),
    "hang_up": Line.HANG_UP,
    "interrupted": Line.INTERRUPTED,
    "truncated": Line.TRUNCATED,
    "not_json": Line.NOT_JSON,
    "overloaded_late": Line.OVERLOADED_LATE,
    "refusal": Slip(refuse),
    "cut": Slip(cut_in_call),
    "no_call": Slip(say_only),
    "missing_field": Slip(with_call(without_field)),
    "wrong_type": Slip(with_call(wrong_type)),
    "extra_field": Slip(with_call(extra_field)),
    "unknown_tool": Slip(with_call(unknown_tool)),
}
"""By the names that the command line takes."""


# ---- when ------------------------------------------------------------------------------------------------------------

Schedule = Callable[[int, float, Body], Fault | None]
"""(number of the request to /v1/messages from 0, seconds on the server's clock, its JSON) → what goes wrong with it."""


def never(number: int, now: float, body: Body) -> Fault | None:
    return None


def script(*faults: Fault | None) -> Schedule:
    """The first for the first request, and so on; nothing after the last."""
    return lambda number, now, body: faults[number] if number < len(faults) else None


def at_rate(rate: float, seed: int, faults: Sequence[Fault]) -> Schedule:
    """Each request has one of the faults with a probability; which ones is fixed by the seed and its number."""

    def schedule(number: int, now: float, body: Body) -> Fault | None:
        dice = random.Random(f"{seed} {number}")
        return dice.choice(faults) if dice.random() < rate else None

    return schedule


def outage(start_s: float, end_s: float, fault: Fault = Line.HANG_UP) -> Schedule:
    """Every request of a span of the clock fails."""
    return lambda number, now, body: fault if start_s <= now < end_s else None


def either(*schedules: Schedule) -> Schedule:
    """The first fault that any of them has."""

    def schedule(number: int, now: float, body: Body) -> Fault | None:
        return next((fault for each in schedules if (fault := each(number, now, body))), None)

    return schedule
