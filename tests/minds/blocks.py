"""A request of the Messages API as what the API makes of it: tools, then system, then messages, each a row of blocks."""

import hashlib
import json
from collections.abc import Iterator
from typing import Any, NamedTuple

Block = dict[str, Any]
Body = dict[str, Any]


class Place(NamedTuple):
    """A block of the prompt and where it stands."""

    where: str
    """As the API's messages name it: tools.0, system.1, messages.2.content.0."""
    role: str
    """tool, system, user or assistant."""
    block: Block


def as_blocks(content: Any) -> list[Block]:
    """Content is a list of blocks, or a string that stands for one block of text."""
    return [{"type": "text", "text": content}] if isinstance(content, str) else list(content or [])


def places(body: Body) -> Iterator[Place]:
    """All blocks, in the order in which the model reads them and the cache counts them."""
    for i, tool in enumerate(body.get("tools") or []):
        yield Place(f"tools.{i}", "tool", tool)
    for i, block in enumerate(as_blocks(body.get("system"))):
        yield Place(f"system.{i}", "system", block)
    for i, message in enumerate(body["messages"]):
        for j, block in enumerate(as_blocks(message["content"])):
            yield Place(f"messages.{i}.content.{j}", message["role"], block)


def text_in(content: Any) -> str:
    """The text of a string or of a list of blocks."""
    return "\n".join(block.get("text", "") for block in as_blocks(content))


def canonical(block: Block) -> str:
    """The block as it is hashed: byte by byte as it came, only without cache_control, which is a mark and no content."""
    return json.dumps({name: value for name, value in block.items() if name != "cache_control"}, ensure_ascii=False)


def sha256(*parts: str) -> str:
    return hashlib.sha256("\0".join(parts).encode("utf-8", "surrogatepass")).hexdigest()


def tokens(block: Block) -> int:
    """⌈bytes ÷ 3.5⌉ of what a model reads of a block in UTF-8: a made-up tokenizer, but the same one everywhere.

    Of text its text; of a tool result its text; of a tool call its name and its input as JSON; of thinking the signature, which
    stands for what is not shown; of a tool all of it, as JSON.
    """
    match block.get("type"):
        case "text":
            read = block["text"]
        case "tool_result":
            read = text_in(block.get("content"))
        case "tool_use":
            read = block["name"] + json.dumps(block["input"], ensure_ascii=False)
        case "thinking":
            read = block["thinking"] + block["signature"]
        case _:
            read = canonical(block)
    return -(-2 * len(read.encode("utf-8", "surrogatepass")) // 7)
