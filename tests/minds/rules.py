"""What the Messages API refuses, with its status, type of error and words.

Sources: platform.claude.com/docs/en/models/{opus,sonnet,haiku}-5-5/migration-guide, …/docs/en/api/errors,
…/docs/en/build-with-claude/preserved-thinking, …/docs/en/agents-and-tools/tool-use, and the messages that users report.

Where current models differ, the rules here are those of the strictest: what passes here passes with each of them. So forced tools
and `thinking: disabled` on Haiku 5.5 are refused here, although the API may take them; `between_tools` passes on Sonnet 5.5
alone. Images, documents, server tools, system messages between turns and beta headers are not implemented, and refused. A model called
local-* stands for another server of the same API, which takes sampling parameters, forced tools and a prefilled answer, and does not think.
"""

import base64
import hmac
import json
import re
from collections.abc import Iterator, Mapping
from typing import Any

from tests.minds.blocks import Block, Body, as_blocks, canonical, places, sha256

MODELS = ("claude-opus-5-5", "claude-sonnet-5-5", "claude-haiku-5-5", "claude-fable-5-1", "claude-fable-5-2")
VERSIONS = ("2023-06-01", "2026-10-21")
"""The second has no sampling parameters at all (…/docs/en/api/versioning); it is what the SDK sends."""
MAXIMUM_TOKENS = 128_000
FIELDS = {
    *(
        "model",
        "messages",
        "max_tokens",
        "system",
        "tools",
        "tool_choice",
        "thinking",
        "output_config",
        "cache_control",
    ),
    *("stop_sequences", "stream", "metadata", "service_tier", "temperature", "top_p", "top_k", "inference_geo"),
}
TOOL_FIELDS = {
    *("name", "description", "input_schema", "cache_control", "strict", "type", "input_examples"),
    *("eager_input_streaming", "defer_loading", "allowed_callers"),
}
BLOCK_FIELDS = {
    "text": {"type", "text", "citations", "cache_control"},
    "tool_use": {"type", "id", "name", "input", "caller", "toolset_name", "cache_control"},
    "tool_result": {"type", "tool_use_id", "content", "is_error", "toolset_name", "cache_control"},
    "thinking": {"type", "thinking", "signature"},
}
BLOCKS_OF = {"user": {"text", "tool_result"}, "assistant": {"text", "tool_use", "thinking"}}
TOOL_NAME = re.compile(r"[a-zA-Z0-9_-]{1,128}")
EFFORTS = ("low", "medium", "high", "xhigh", "max")
NOT_STRICT = {
    *("minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "multipleOf", "minLength", "maxLength", "maxItems"),
}
"""Keywords of JSON schema that a strict tool may not use."""


class Refused(Exception):
    """A request that the API does not answer."""

    def __init__(self, status: int, kind: str, message: str) -> None:
        super().__init__(message)
        self.status, self.kind, self.message = status, kind, message


def bad(message: str) -> Refused:
    return Refused(400, "invalid_request_error", message)


def is_local(model: str) -> bool:
    return model.startswith("local-")


# ---- the request -----------------------------------------------------------------------------------------------------


def check_headers(headers: Mapping[str, str], key: str) -> None:
    """Raise Refused unless the headers carry the key, in either of the two ways, and a version. Names are in lower case."""
    given = headers.get("x-api-key") or headers.get("authorization", "").removeprefix("Bearer ")
    if not given:
        raise Refused(401, "authentication_error", "x-api-key header is required")
    if given != key:
        raise Refused(401, "authentication_error", "invalid x-api-key")
    version = headers.get("anthropic-version")
    if not version:
        raise bad("anthropic-version: header is required")
    if version not in VERSIONS:
        raise bad(f"anthropic-version: {version} is not a valid version")


def check_body(body: Any, secret: bytes, *, counting: bool = False) -> None:
    """Raise Refused with the first rule that a request breaks.

    Args:
        body: the JSON of the request.
        secret: what the thinking blocks of this API are signed with.
        counting: for count_tokens, which takes no max_tokens.
    """
    if not isinstance(body, dict):
        raise bad("Input should be an object")
    for name in ("model", "messages") if counting else ("model", "max_tokens", "messages"):
        if body.get(name) is None:
            raise bad(f"{name}: Field required")
    refuse_extra("", body, FIELDS)
    if body["model"] not in MODELS and not is_local(str(body["model"])):
        raise Refused(404, "not_found_error", f"model: {body['model']}")
    if not counting:
        check_max_tokens(body)
    if not is_local(body["model"]):
        check_settings(body)
    check_tools(body)
    check_messages(body)
    check_tool_results(body["messages"])
    check_cache_control(body)
    if not is_local(body["model"]):
        check_thinking(body, secret)


def refuse_extra(where: str, found: dict[str, Any], known: set[str]) -> None:
    if extra := [name for name in found if name not in known]:
        raise bad(f"{where}{'.' if where else ''}{extra[0]}: Extra inputs are not permitted")


def check_max_tokens(body: Body) -> None:
    limit = body["max_tokens"]
    if not isinstance(limit, int) or isinstance(limit, bool):
        raise bad("max_tokens: Input should be a valid integer")
    if limit < 1:
        raise bad("max_tokens: Input should be greater than or equal to 1")
    if limit > MAXIMUM_TOKENS:
        text = f"max_tokens: {limit} > {MAXIMUM_TOKENS}, which is the maximum allowed number of output tokens for {body['model']}"
        raise bad(text)


def check_settings(body: Body) -> None:
    """What current models do not take any more."""
    for name in ("temperature", "top_p", "top_k"):
        if body.get(name) is not None:
            raise bad(f"`{name}` is deprecated for this model.")
    if (body.get("tool_choice") or {}).get("type") in ("any", "tool"):
        raise bad('tool_choice: type "tool" and "any" are not supported for this model.')
    effort = (body.get("output_config") or {}).get("effort")
    if effort not in (None, *EFFORTS):
        raise bad("output_config.effort: Input should be 'low', 'medium', 'high', 'xhigh' or 'max'")
    thinking = (body.get("thinking") or {}).get("type", "adaptive")
    if thinking == "between_tools" and body["model"] == "claude-sonnet-5-5":
        if effort in ("xhigh", "max"):
            raise bad(f'"thinking.type.between_tools" is not supported with effort "{effort}".')
    elif thinking != "adaptive":
        advice = 'Use "thinking.type.adaptive" and "output_config.effort" to control thinking behavior.'
        raise bad(f'"thinking.type.{thinking}" is not supported for this model. {advice}')


# ---- tools -----------------------------------------------------------------------------------------------------------


def check_tools(body: Body) -> None:
    tools = body.get("tools") or []
    if body.get("tool_choice") and not tools:
        raise bad("tool_choice: tool_choice may only be specified while providing tools.")
    for i, tool in enumerate(tools):
        where = f"tools.{i}.custom"
        for name in ("name", "input_schema"):
            if tool.get(name) is None:
                raise bad(f"{where}.{name}: Field required")
        refuse_extra(where, tool, TOOL_FIELDS)
        if tool.get("type") not in (None, "custom"):
            raise bad(f"tools.{i}: Input tag '{tool['type']}' is not implemented by this server")
        if not TOOL_NAME.fullmatch(tool["name"]):
            raise bad(f"{where}.name: String should match pattern '^[a-zA-Z0-9_-]{{1,128}}$'")
        if not isinstance(tool["input_schema"], dict) or tool["input_schema"].get("type") != "object":
            raise bad(f"{where}.input_schema.type: Input should be 'object'")
        if tool.get("strict"):
            check_strict(where, tool["input_schema"])
    if len({tool["name"] for tool in tools}) < len(tools):
        raise bad("tools: Tool names must be unique.")


def check_strict(where: str, schema: Any) -> None:
    """A strict tool's schema keeps to what its answers can be held to (…/tool-use/strict-tool-use)."""
    for node in schemas(schema):
        if node.get("type") == "object" and node.get("additionalProperties") is not False:
            raise bad(f"{where}: For 'object' type, 'additionalProperties' must be explicitly set to false")
        if wrong := sorted(NOT_STRICT & set(node)):
            raise bad(f"{where}: For '{node.get('type')}' type, properties {', '.join(wrong)} are not supported")


def schemas(schema: Any) -> Iterator[dict[str, Any]]:
    """A schema and all schemas in it."""
    if not isinstance(schema, dict):
        return
    yield schema
    below = [*schema.get("properties", {}).values(), *schema.get("$defs", {}).values(), schema.get("items")]
    for inner in [*below, *schema.get("anyOf", []), *schema.get("allOf", [])]:
        yield from schemas(inner)


# ---- messages --------------------------------------------------------------------------------------------------------


def check_messages(body: Body) -> None:
    messages = body["messages"]
    if not isinstance(messages, list) or not messages:
        raise bad("messages: at least one message is required")
    for i, message in enumerate(messages):
        refuse_extra(f"messages.{i}", message, {"role", "content"})
        if message.get("role") not in BLOCKS_OF:
            raise bad(f"messages.{i}.role: Input should be 'user' or 'assistant'")
        if not message.get("content"):
            raise bad(
                f"messages.{i}: all messages must have non-empty content except for the optional final assistant message"
            )
    if messages[0]["role"] != "user":
        raise bad('messages: first message must use the "user" role')
    for place in places(body):
        if place.role != "tool":
            check_block(place.where, place.role, place.block)
    if messages[-1]["role"] == "assistant" and not is_local(body["model"]):
        raise bad(
            "This model does not support assistant message prefill. The conversation must end with a user message."
        )


def check_block(where: str, role: str, block: Any) -> None:
    kind = block.get("type") if isinstance(block, dict) else None
    if kind not in BLOCKS_OF.get(role, {"text"}):
        raise bad(f"{where}: Input tag '{kind}' is not expected in a message of role '{role}'")
    refuse_extra(f"{where}.{kind}", block, BLOCK_FIELDS[kind])
    required = {"text": ("text",), "tool_use": ("id", "name", "input"), "tool_result": ("tool_use_id",)}
    for name in required.get(kind, ("thinking", "signature")):
        if block.get(name) is None:
            raise bad(f"{where}.{kind}.{name}: Field required")
    if kind == "text":
        check_text(block["text"])
    if kind == "tool_use" and not isinstance(block["input"], dict):
        raise bad(f"{where}.tool_use.input: Input should be a valid dictionary")
    if kind == "tool_result":
        if block.get("is_error") and not block.get("content"):
            raise bad(f"{where}.tool_result: content cannot be empty if `is_error` is true")
        for inner in as_blocks(block["content"]) if isinstance(block.get("content"), list) else []:
            check_block(f"{where}.tool_result.content", "tool", inner)
            refuse_extra(
                f"{where}.tool_result.content", inner, {"type", "text"}
            )  # a breakpoint in here is not implemented


def check_text(text: str) -> None:
    if not text:
        raise bad("messages: text content blocks must be non-empty")
    if not text.strip():
        raise bad("messages: text content blocks must contain non-whitespace text")


def check_tool_results(messages: list[dict[str, Any]]) -> None:
    """Each tool_use is answered by one tool_result, at the head of the next message, and nothing else is answered."""
    asked: list[str] = []
    for i, message in enumerate([*messages, {"role": "user", "content": ""}]):
        content = as_blocks(message["content"])
        answers = [block["tool_use_id"] for block in content if block["type"] == "tool_result"]
        for j, block in enumerate(content):
            if block["type"] == "tool_result" and block["tool_use_id"] not in asked:
                rule = "Each `tool_result` block must have a corresponding `tool_use` block in the previous message."
                raise bad(
                    f"messages.{i}.content.{j}: unexpected `tool_use_id` found in `tool_result` blocks: {block['tool_use_id']}. {rule}"
                )
        if len(set(answers)) < len(answers):
            raise bad(
                f"messages.{i}: each tool_use must have a single result. Found multiple `tool_result` blocks with one id"
            )
        head = [block.get("tool_use_id") for block in content[: len(answers)]]
        if missing := [name for name in asked if name not in head]:
            rule = "Each `tool_use` block must have a corresponding `tool_result` block in the next message."
            raise bad(
                f"messages.{i - 1}: `tool_use` ids were found without `tool_result` blocks immediately after: {', '.join(missing)}. {rule}"
            )
        asked = [block["id"] for block in content if block["type"] == "tool_use"]
    every = [
        block["id"] for message in messages for block in as_blocks(message["content"]) if block["type"] == "tool_use"
    ]
    if len(set(every)) < len(every):
        raise bad("messages: `tool_use` ids must be unique")


def check_cache_control(body: Body) -> None:
    marked = [(place.where, place.block) for place in places(body) if place.block.get("cache_control")]
    marked += [("", body)] if body.get("cache_control") else []
    for where, block in marked:
        control = block["cache_control"]
        if control.get("type") != "ephemeral" or control.get("ttl", "5m") not in ("5m", "1h"):
            raise bad(f"{where}.cache_control: Input should be of type 'ephemeral' with a ttl of '5m' or '1h'")
    if len(marked) > 4:
        raise bad(f"A maximum of 4 blocks with cache_control may be provided. Found {len(marked)}.")
    lifetimes = [block["cache_control"].get("ttl", "5m") for _, block in marked]
    if lifetimes != sorted(lifetimes):
        raise bad("a ttl='1h' cache_control block must not come after a ttl='5m' cache_control block.")


# ---- thinking --------------------------------------------------------------------------------------------------------


def sign(body: Body, shown: str, secret: bytes) -> Block:
    """A thinking block at the head of the answer to a request; what the client gets to read of it is signed with it.

    The signature needs no memory to be checked, so that a server that was restarted knows the blocks of the one before.
    """
    text = json.dumps({"model": body["model"], "prefix": prefix(body, len(body["messages"]))})
    seal = hmac.new(secret, f"{text}{shown}".encode(), "sha256").hexdigest()
    return {"type": "thinking", "thinking": shown, "signature": base64.b64encode(f"{seal}{text}".encode()).decode()}


def prefix(body: Body, messages: int) -> str:
    """Hash of tools, system and the first messages: what thinking is bound to. Where a breakpoint stands does not matter."""
    rows = places({**body, "messages": body["messages"][:messages]})
    return sha256(*(f"{row.role} {canonical(row.block)}" for row in rows))


def check_thinking(body: Body, secret: bytes) -> None:
    """Thinking comes back as it was, with all before it as it was; a turn that used a tool comes back with its thinking."""
    between_tools = (body.get("thinking") or {}).get("type") == "between_tools"
    for i, message in enumerate(body["messages"]):
        content = as_blocks(message["content"])
        kinds = [block["type"] for block in content]
        if "tool_use" in kinds and kinds[0] != "thinking" and not between_tools:
            rule = "a final `assistant` message must start with a thinking block"
            raise bad(
                f"messages.{i}.content.0.type: Expected `thinking` or `redacted_thinking`, but found `{kinds[0]}`. When `thinking` is enabled, {rule}."
            )
        for j, block in enumerate(content):
            if block["type"] == "thinking":
                check_signature(f"messages.{i}.content.{j}", block, body, i, secret)


def check_signature(where: str, block: Block, body: Body, message: int, secret: bytes) -> None:
    invalid = f"{where}: Invalid `signature` in `thinking` block"
    try:
        text = base64.b64decode(block["signature"], validate=True).decode()
        claim = json.loads(text[64:])
    except ValueError:
        raise bad(invalid) from None
    seal = hmac.new(secret, f"{text[64:]}{block['thinking']}".encode(), "sha256").hexdigest()
    if not hmac.compare_digest(seal, text[:64]):
        rule = "These blocks must remain as they were in the original response."
        raise bad(
            f"{where}: `thinking` or `redacted_thinking` blocks in the latest assistant message cannot be modified. {rule}"
        )
    if claim["model"] == body["model"] and claim["prefix"] != prefix(body, message):
        advice = 'Remove the block, or set `thinking.block_binding.prefix_mismatch_behavior` to "drop_block".'
        raise bad(f"{invalid}. The block is bound to a different conversation. {advice}")
