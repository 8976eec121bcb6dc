"""A conversation with a language model: it answers by calling tools, until one of them ends the task.

The tools are all that it can do. Their arguments are checked against pydantic records, from which their schemas come; what is
wrong goes back to it, a bounded number of times. Nothing else that it writes has any effect.
"""

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Generic, NamedTuple, TypeVar

from anthropic.types import Message
from pydantic import BaseModel, ValidationError

from agents.fence import clean, one_line
from agents.minds.line import Line, Request
from agents.prompt import Prompt
from agents.settings import ModelSettings

T = TypeVar("T")

RESULT_LIMIT_CHARACTERS = 70_000
"""Of what a tool gives back: a whole train.py, with line numbers."""


class Unusable(Exception):
    """Why a tool call did nothing, in words for the model."""


class NoAnswer(Exception):
    """The model did not come to an end: it refused, or what it wrote could not be used again and again."""


class Done(NamedTuple, Generic[T]):
    """What a tool returns that ends the task."""

    answer: T


@dataclass(frozen=True)
class Tool(Generic[T]):
    """Something that the model may call."""

    name: str
    description: str
    takes: type[BaseModel]
    """Its arguments; fields have their descriptions for the model to read."""
    use: Callable[[Any], "Done[T] | str"]
    """Gets the checked arguments; raises Unusable. Its text goes back to the model."""

    @property
    def schema(self) -> dict[str, Any]:
        """As the Messages API takes it."""
        return {"name": self.name, "description": self.description, "input_schema": schema_of(self.takes)}


def schema_of(model: type[BaseModel]) -> dict[str, Any]:
    """JSON schema of a record, without the titles and class docstrings that say nothing to a model."""

    def bare(node: Any, of_properties: bool = False) -> Any:
        if isinstance(node, list):
            return [bare(item) for item in node]
        if not isinstance(node, dict):
            return node
        kept = node.items() if of_properties else ((k, v) for k, v in node.items() if k != "title")
        return {key: bare(value, key in ("properties", "$defs") and not of_properties) for key, value in kept}

    schema: dict[str, Any] = bare(model.model_json_schema())
    schema.pop("description", None)
    return schema


async def converse(line: Line, prompt: Prompt, tools: Sequence[Tool[T]], *, turns: int) -> T:
    """Let the model work on a task with its tools.

    Args:
        line: to the model.
        prompt: its stable part is what the API may keep.
        tools: at least one of which ends the task.
        turns: answers that it may take.

    Raises:
        NoAnswer: it refused, or did not end the task in time.
        Unavailable, BadInput, TooDear, Broke: as `Line.ask`.
    """
    by_name = {tool.name: tool for tool in tools}
    system, messages, schemas = opening(line.settings, prompt, [tool.schema for tool in tools])
    spoilt, why = 0, "it answered too often without coming to an end"
    for _ in range(turns):
        message = await line.ask(Request(system, marked(messages), schemas))
        if message.stop_reason == "refusal":
            # What it began to write is not to be built upon: the same is asked again.
            spoilt, why = spoilt + 1, f"the model refuses: {refusal_of(message)}"
        else:
            results, complaint, done = use_tools(message, by_name)
            if done is not None:
                return done.answer
            spoilt, why = (0, why) if complaint is None else (spoilt + 1, complaint)
            messages += turn_of(message, results, complaint)
        if spoilt > line.settings.reasks:
            raise NoAnswer(why)
    raise NoAnswer(f"no result after {turns} answers ({why})")


def opening(settings: ModelSettings, prompt: Prompt, schemas: list[dict[str, Any]]) -> Request:
    """What a task begins with."""
    system = [text_block(prompt.stable, {"type": "ephemeral", "ttl": settings.cache})]
    messages: list[dict[str, Any]] = [{"role": "user", "content": [text_block(prompt.task)]}]
    return Request(system, messages, schemas)


def use_tools(message: Message, tools: dict[str, Tool[T]]) -> tuple[list[dict[str, Any]], str | None, Done[T] | None]:
    """Do what an answer asks for, in its order.

    Returns:
        A result for every call; what could not be used of it, if anything; and the end, if one of them was that.
    """
    results: list[dict[str, Any]] = []
    complaint: str | None = None
    cut = message.stop_reason == "max_tokens"
    for block in message.content:
        if block.type != "tool_use":
            continue
        try:
            if cut:
                raise Unusable("your answer was cut off at its greatest length; say it in fewer words")
            found = call_tool(tools, block.name, block.input)
            if isinstance(found, Done):
                return results, complaint, found
            results.append(result_block(block.id, found))
        except Unusable as error:
            complaint = one_line(str(error), 600)
            results.append(result_block(block.id, str(error), is_error=True))
    if not results:
        complaint = "your answer was cut off at its greatest length" if cut else "you called no tool"
        complaint += f"; answer by calling one of: {', '.join(tools)}"
    return results, complaint, None


def call_tool(tools: dict[str, Tool[T]], name: str, arguments: object) -> "Done[T] | str":
    """Raises Unusable."""
    tool = tools.get(name)
    if tool is None:
        raise Unusable(f"there is no tool {one_line(name, 60)}; there are: {', '.join(tools)}")
    try:
        checked = tool.takes.model_validate(arguments)
    except ValidationError as error:
        faults = (f"{'.'.join(map(str, e['loc'])) or 'arguments'}: {e['msg']}" for e in error.errors()[:5])
        raise Unusable(f"{name} cannot take that: {one_line('; '.join(faults), 1000)}") from None
    return tool.use(checked)


# ---- blocks of the Messages API --------------------------------------------------------------------------------------


def text_block(text: str, cache: dict[str, str] | None = None) -> dict[str, Any]:
    return {"type": "text", "text": text or "(nothing)"} | ({"cache_control": cache} if cache else {})


def result_block(id: str, text: str, *, is_error: bool = False) -> dict[str, Any]:
    content = [text_block(clean(text, RESULT_LIMIT_CHARACTERS))]
    return {"type": "tool_result", "tool_use_id": id, "content": content} | ({"is_error": True} if is_error else {})


def turn_of(message: Message, results: list[dict[str, Any]], complaint: str | None) -> list[dict[str, Any]]:
    """The model's answer and ours. Its blocks go back as they came: thinking has a signature."""
    said = [json.loads(block.model_dump_json(exclude_none=True)) for block in message.content]
    said = [block for block in said if block != {"type": "text", "text": ""}]  # the API gives them, and refuses them
    ours = results or [text_block(complaint or "")]
    if not said:
        return [{"role": "user", "content": ours}]  # the API joins two turns of the same side
    return [{"role": "assistant", "content": said}, {"role": "user", "content": ours}]


def marked(messages: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """With the end marked as worth keeping: the next turn of the conversation begins with all of it."""
    *before, last = messages
    *blocks, end = last["content"]
    return [*before, {**last, "content": [*blocks, {**end, "cache_control": {"type": "ephemeral"}}]}]


def refusal_of(message: Message) -> str:
    details = message.stop_details
    said = (getattr(details, name, None) for name in ("category", "explanation"))
    return one_line(": ".join(part for part in said if part) or "it does not say why")
