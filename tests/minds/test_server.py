"""The double, seen through the SDK that the product uses: what it refuses, what it counts, how it fails."""

import asyncio
import json
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import anthropic
import httpx2
import pytest

from tests.minds.blocks import Block, Body
from tests.minds.faults import FAULTS, OVERLOADED, Stall, at_rate, either, outage, script
from tests.minds.policy import say
from tests.minds.rules import MODELS
from tests.minds.server import KEY, MessagesServer

ROOT = Path(__file__).parents[2]
MODEL = "claude-sonnet-5-5"
TOOL: Any = {
    "name": "propose",
    "description": "Propose a change.",
    "input_schema": {
        "type": "object",
        "properties": {"title": {"type": "string"}, "change": {"type": "string"}},
        "required": ["title", "change"],
        "additionalProperties": False,
    },
}
CALL = {"type": "tool_use", "name": "propose", "input": {"title": "Wider", "change": "Set MLP_RATIO to 5. " * 20}}


def caller(body: Body) -> list[Block]:
    """Calls the first tool it is offered; without tools it talks."""
    return [{"type": "text", "text": "Here is one."}, dict(CALL)] if body.get("tools") else say("Hello.")


class Clock:
    """Seconds that pass only when a test says so."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def server() -> Iterator[MessagesServer]:
    with MessagesServer(caller, clock=Clock()) as running:
        yield running
    assert running.errors == []


HTTP = anthropic.DefaultHttpxClient()
"""One pool for all clients: to make one takes longer than a request."""


def client(server: MessagesServer, **options: Any) -> anthropic.Anthropic:
    given = {"api_key": KEY, "base_url": server.url, "max_retries": 0, "timeout": 10.0, "http_client": HTTP, **options}
    return anthropic.Anthropic(**given)


def ask(server: MessagesServer, **changes: Any) -> Any:
    """One request, good unless changed."""
    request: dict[str, Any] = {"model": MODEL, "max_tokens": 1000, "messages": [user("Hello?")], **changes}
    return client(server).messages.create(**request)


def user(*content: Any) -> dict[str, Any]:
    return {
        "role": "user",
        "content": content[0] if len(content) == 1 and isinstance(content[0], str) else list(content),
    }


def text(words: str, **more: Any) -> dict[str, Any]:
    return {"type": "text", "text": words, **more}


def result(use: str, content: str = "Noted.") -> dict[str, Any]:
    return {"type": "tool_result", "tool_use_id": use, "content": content}


def turn(message: Any) -> dict[str, Any]:
    """An answer as a client sends it back."""
    return {"role": "assistant", "content": [block.model_dump(exclude_none=True) for block in message.content]}


def refusal(server: MessagesServer, **changes: Any) -> str:
    with pytest.raises(anthropic.BadRequestError) as caught:
        ask(server, **changes)
    body: Any = caught.value.body
    assert body["type"] == "error" and body["error"]["type"] == "invalid_request_error"
    assert body["request_id"] == caught.value.request_id == server.calls[-1].request_id
    return str(body["error"]["message"])


# ---- a good request --------------------------------------------------------------------------------------------------


def test_an_answer_has_the_shape_of_the_api(server: MessagesServer) -> None:
    answer = ask(server, tools=[TOOL])
    assert [block.type for block in answer.content] == ["thinking", "text", "tool_use"]
    assert answer.content[0].thinking == "" and answer.content[0].signature
    assert answer.content[2].id.startswith("toolu_") and answer.content[2].input == CALL["input"]
    assert (answer.type, answer.role, answer.model, answer.stop_reason) == ("message", "assistant", MODEL, "tool_use")
    assert answer.id.startswith("msg_") and answer._request_id.startswith("req_")
    assert answer.usage.output_tokens > answer.usage.output_tokens_details.thinking_tokens > 0
    assert ask(server).stop_reason == "end_turn"


def test_thinking_is_shown_to_who_asks_for_it(server: MessagesServer) -> None:
    shown = ask(server, thinking={"type": "adaptive", "display": "summarized"})
    assert "answer in words" in shown.content[0].thinking


def test_without_thinking_up_front_the_answer_begins_with_what_was_asked(server: MessagesServer) -> None:
    assert [block.type for block in ask(server, thinking={"type": "between_tools"}).content] == ["text"]
    assert [block.type for block in ask(server, model="local-7b").content] == ["text"]


def test_async_clients_are_served_at_the_same_time() -> None:
    together = threading.Barrier(8)

    def wait_for_all(body: Body) -> list[Block]:
        together.wait(30)
        return caller(body)

    async def ask_eight(url: str) -> list[str]:
        async with anthropic.AsyncAnthropic(api_key=KEY, base_url=url, max_retries=0) as sdk:
            asked = [
                sdk.messages.create(model=MODEL, max_tokens=9000, messages=[{"role": "user", "content": "?"}])
                for _ in range(8)
            ]
            return [message.id for message in await asyncio.gather(*asked)]

    with MessagesServer(wait_for_all) as server:
        assert len(set(asyncio.run(ask_eight(server.url)))) == len(server.calls) == 8


def test_a_stream_adds_up_to_the_same_answer(server: MessagesServer) -> None:
    answer = stream(server, max_tokens=100_000, tools=[TOOL])
    kept = server.calls[-1].reply
    assert [block.model_dump(exclude_none=True) for block in answer.content] == kept["content"]
    assert (answer.stop_reason, answer.usage.output_tokens) == ("tool_use", kept["usage"]["output_tokens"])
    follow = [user("Hello?"), turn(answer), user(result(answer.content[-1].id))]
    assert ask(server, messages=follow, tools=[TOOL]).content


def test_every_request_is_kept(server: MessagesServer) -> None:
    ask(server)
    with pytest.raises(anthropic.BadRequestError):
        ask(server, extra_body={"temperature": 0.5})
    good, refused = server.calls
    assert (good.path, good.status, good.body["messages"]) == (
        "/v1/messages",
        200,
        [{"role": "user", "content": "Hello?"}],
    )
    assert good.headers["authorization"] == f"Bearer {KEY}" and good.reply["content"][1] == {
        "type": "text",
        "text": "Hello.",
    }
    assert (refused.status, refused.body["temperature"]) == (400, 0.5)
    assert server.messages() == [good]


def test_tokens_can_be_counted_beforehand(server: MessagesServer) -> None:
    messages: Any = [user("x" * 35)]
    counted = client(server).messages.count_tokens(model=MODEL, messages=messages, system="y" * 8)
    assert counted.input_tokens == 10 + 3  # 35 / 3.5, and 8 / 3.5 rounded up


# ---- what is refused -------------------------------------------------------------------------------------------------


def test_a_key_is_needed_and_must_be_right(server: MessagesServer) -> None:
    with pytest.raises(anthropic.AuthenticationError, match="invalid x-api-key"):
        ask(server, extra_headers={"authorization": "Bearer another"})
    bare = HTTP.post(f"{server.url}/v1/messages", json={}, headers={"anthropic-version": "2023-06-01"})
    needed = {"type": "authentication_error", "message": "x-api-key header is required"}
    assert (bare.status_code, bare.json()["error"]) == (401, needed)


def test_a_version_is_needed(server: MessagesServer) -> None:
    bare = HTTP.post(f"{server.url}/v1/messages", json={}, headers={"x-api-key": KEY})
    assert (bare.status_code, bare.json()["error"]["message"]) == (400, "anthropic-version: header is required")


def test_a_version_is_one_that_there_is(server: MessagesServer) -> None:
    assert "is not a valid version" in refusal(server, extra_headers={"anthropic-version": "2020-02-02"})
    assert ask(server, extra_headers={"anthropic-version": "2023-06-01", "x-api-key": KEY}).content


def test_what_is_not_json_is_refused(server: MessagesServer) -> None:
    headers = {"x-api-key": KEY, "anthropic-version": "2023-06-01"}
    for content in (b"{", b"[]"):
        assert HTTP.post(f"{server.url}/v1/messages", content=content, headers=headers).status_code == 400
    assert HTTP.post(f"{server.url}/v1/message", json={}, headers=headers).status_code == 404


@pytest.mark.parametrize("name", ["max_tokens", "messages", "model"])
def test_a_field_is_required(server: MessagesServer, name: str) -> None:
    body: dict[str, Any] = {"model": MODEL, "max_tokens": 9, "messages": [user("?")]}
    del body[name]
    headers = {"x-api-key": KEY, "anthropic-version": "2023-06-01"}
    answer = HTTP.post(f"{server.url}/v1/messages", json=body, headers=headers)
    assert (answer.status_code, answer.json()["error"]["message"]) == (400, f"{name}: Field required")


def test_an_unknown_model_is_not_found(server: MessagesServer) -> None:
    with pytest.raises(anthropic.NotFoundError, match="model: claude-2"):
        ask(server, model="claude-2")


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"extra_body": {"temperature": 0.7}}, "`temperature` is deprecated for this model."),
        ({"extra_body": {"top_p": 0.9}}, "`top_p` is deprecated for this model."),
        ({"extra_body": {"top_k": 5}}, "`top_k` is deprecated for this model."),
        ({"tools": [TOOL], "tool_choice": {"type": "any"}}, 'type "tool" and "any" are not supported'),
        (
            {"tools": [TOOL], "tool_choice": {"type": "tool", "name": "propose"}},
            'type "tool" and "any" are not supported',
        ),
        (
            {"messages": [user("?"), {"role": "assistant", "content": "{"}]},
            "does not support assistant message prefill",
        ),
        ({"thinking": {"type": "disabled"}}, '"thinking.type.disabled" is not supported'),
        (
            {"thinking": {"type": "enabled", "budget_tokens": 1024}, "max_tokens": 4000},
            '"thinking.type.enabled" is not supported',
        ),
    ],
)
def test_current_models_refuse_what_older_ones_took(
    server: MessagesServer, model: str, changes: Any, words: str
) -> None:
    assert words in refusal(server, model=model, **changes)
    local = {**changes, "model": "local-7b"}
    assert ask(server, **local).stop_reason in ("end_turn", "tool_use")


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"max_tokens": 0}, "max_tokens: Input should be greater than or equal to 1"),
        ({"extra_body": {"max_tokens": "many"}}, "max_tokens: Input should be a valid integer"),
        ({"max_tokens": 128_001, "timeout": 10.0}, "max_tokens: 128001 > 128000"),
        ({"messages": []}, "at least one message is required"),
        ({"messages": [{"role": "tool", "content": "?"}]}, "messages.0.role"),
        ({"messages": [{"role": "assistant", "content": "?"}, user("?")]}, 'first message must use the "user" role'),
        ({"messages": [user("?"), {"role": "assistant", "content": []}, user("?")]}, "must have non-empty content"),
        ({"messages": [user(text(""))]}, "text content blocks must be non-empty"),
        ({"messages": [user(text(" \n"))]}, "must contain non-whitespace text"),
        ({"messages": [user({"type": "tool_use", "id": "1", "name": "x", "input": {}})]}, "Input tag 'tool_use'"),
        ({"messages": [user(text("?", parsed_output=1))]}, "messages.0.content.0.text.parsed_output: Extra inputs"),
        ({"extra_body": {"response_format": "json"}}, "response_format: Extra inputs are not permitted"),
        ({"tool_choice": {"type": "auto"}}, "may only be specified while providing tools"),
        ({"tools": [{**TOOL, "name": "two words"}]}, "tools.0.custom.name: String should match pattern"),
        ({"tools": [{**TOOL, "name": "x" * 129}]}, "tools.0.custom.name: String should match pattern"),
        (
            {"tools": [{**TOOL, "input_schema": {"type": "array"}}]},
            "tools.0.custom.input_schema.type: Input should be 'object'",
        ),
        ({"tools": [TOOL, TOOL]}, "Tool names must be unique"),
        ({"tools": [{"name": "propose"}]}, "tools.0.custom.input_schema: Field required"),
        ({"tools": [{"type": "web_search_20250305", "name": "web_search", "input_schema": {}}]}, "is not implemented"),
        ({"messages": [user({"type": "text"})]}, "messages.0.content.0.text.text: Field required"),
        ({"messages": [user(text("?", cache_control={"type": "permanent"}))]}, "messages.0.content.0.cache_control"),
        ({"messages": [user(text("?", cache_control={"type": "ephemeral", "ttl": "2h"}))]}, "of '5m' or '1h'"),
        ({"system": [{"type": "image"}]}, "system.0: Input tag 'image'"),
        (
            {"tools": [{**TOOL, "strict": True, "input_schema": {"type": "object"}}]},
            "'additionalProperties' must be explicitly set to false",
        ),
        ({"output_config": {"effort": "extreme"}}, "output_config.effort"),
        ({"thinking": {"type": "between_tools"}, "output_config": {"effort": "max"}}, "between_tools"),
        ({"thinking": {"type": "between_tools"}, "model": "claude-opus-5-5"}, "between_tools"),
    ],
)
def test_a_malformed_request_is_refused(server: MessagesServer, changes: Any, words: str) -> None:
    assert words in refusal(server, **changes)


def test_a_strict_tool_may_not_bound_its_numbers(server: MessagesServer) -> None:
    fields = {"p": {"type": "number", "minimum": 0}}
    schema = {"type": "object", "properties": fields, "additionalProperties": False}
    assert "For 'number' type, properties minimum are not supported" in refusal(
        server, tools=[{**TOOL, "strict": True, "input_schema": schema}]
    )
    assert ask(server, tools=[{**TOOL, "input_schema": schema}]).content


def test_at_most_four_breakpoints(server: MessagesServer) -> None:
    marked = [text(f"{i}", cache_control={"type": "ephemeral"}) for i in range(5)]
    assert "A maximum of 4 blocks with cache_control may be provided. Found 5." in refusal(
        server, messages=[user(*marked)]
    )
    assert ask(server, messages=[user(*marked[:4])]).content
    hour = text("long", cache_control={"type": "ephemeral", "ttl": "1h"})
    assert "must not come after" in refusal(server, messages=[user(marked[0], hour)])


# ---- conversations with tools ----------------------------------------------------------------------------------------


def test_a_tool_call_is_answered_first_thing_in_the_next_message(server: MessagesServer) -> None:
    answer = ask(server, tools=[TOOL])
    use = answer.content[-1].id
    before = [user("Hello?"), turn(answer)]

    def follow(*content: Any) -> Any:
        return {"tools": [TOOL], "messages": [*before, user(*content)]}

    assert ask(server, **follow(result(use), text("Go on."))).stop_reason == "tool_use"
    unanswered = "`tool_use` ids were found without `tool_result` blocks immediately after"
    assert unanswered in refusal(server, **follow(text("Go on.")))
    assert unanswered in refusal(server, **follow(text("Go on."), result(use)))
    assert "unexpected `tool_use_id` found in `tool_result` blocks: toolu_x" in refusal(
        server, **follow(result(use), result("toolu_x"))
    )
    assert "content cannot be empty" in refusal(server, **follow({**result(use, ""), "is_error": True}))
    assert "must have a single result" in refusal(server, **follow(result(use), result(use)))


def test_a_call_that_comes_back_is_a_call(server: MessagesServer) -> None:
    """In a history that another server made, so that there is no thinking in it."""

    def history(*uses: dict[str, Any]) -> Any:
        called = {"role": "assistant", "content": list(uses)}
        return {"model": "local-7b", "messages": [user("?"), called, user(result("toolu_1"))]}

    use = {"type": "tool_use", "id": "toolu_1", "name": "propose", "input": {}}
    assert ask(server, **history(use)).content
    assert "tool_use.input: Input should be a valid dictionary" in refusal(server, **history({**use, "input": "{}"}))
    assert "`tool_use` ids must be unique" in refusal(server, **history(use, use))
    again = history(use)
    again["messages"] += again["messages"][1:]
    assert "`tool_use` ids must be unique" in refusal(server, **again)
    marked = {**result("toolu_1"), "content": [text("?", cache_control={"type": "ephemeral"})]}
    messages = [*history(use)["messages"][:2], user(marked)]
    assert "tool_result.content.cache_control" in refusal(server, model="local-7b", messages=messages)


def test_thinking_comes_back_as_it_was(server: MessagesServer) -> None:
    answer = ask(server, tools=[TOOL])
    thinking, *rest = turn(answer)["content"]

    def follow(*content: Any, first: str = "Hello?", **more: Any) -> Any:
        messages = [user(first), {"role": "assistant", "content": list(content)}, user(result(answer.content[-1].id))]
        return {"tools": [TOOL], "messages": messages, **more}

    assert ask(server, **follow(thinking, *rest)).content
    assert "Expected `thinking` or `redacted_thinking`, but found `text`" in refusal(server, **follow(*rest))
    assert "cannot be modified" in refusal(server, **follow({**thinking, "thinking": "I think so."}, *rest))
    assert "Invalid `signature` in `thinking` block" in refusal(
        server, **follow({**thinking, "signature": "AAAA"}, *rest)
    )


def test_thinking_is_bound_to_all_that_came_before_it(server: MessagesServer) -> None:
    """A conversation only grows: who rewrites its beginning is refused."""
    answer = ask(server, tools=[TOOL], system="Be brief.")
    follow: Any = {
        "tools": [TOOL],
        "system": "Be brief.",
        "messages": [user("Hello?"), turn(answer), user(result(answer.content[-1].id))],
    }
    marked = [user(text("Hello?", cache_control={"type": "ephemeral"})), *follow["messages"][1:]]
    assert ask(server, **{**follow, "messages": marked}).content
    edited = (
        {"messages": [user("Hello!"), *follow["messages"][1:]]},
        {"system": "Be long."},
        {"tools": [TOOL, {**TOOL, "name": "more"}]},
    )
    for change in edited:
        assert "The block is bound to a different conversation." in refusal(server, **{**follow, **change})
    assert ask(
        server, **{**follow, "system": "Be long.", "model": "claude-opus-5-5"}
    ).content  # another model drops it in silence


# ---- caching ---------------------------------------------------------------------------------------------------------
# 3,500 letters are 1,000 tokens; the tool is counted by the first answer of each test.

EPHEMERAL: dict[str, Any] = {"cache_control": {"type": "ephemeral"}}


def words(tokens: int, letter: str = "a", **more: Any) -> dict[str, Any]:
    return text(letter * (tokens * 7 // 2), **more)


def usage(message: Any) -> tuple[int, int, int]:
    """Written, read, neither."""
    return (
        message.usage.cache_creation_input_tokens,
        message.usage.cache_read_input_tokens,
        message.usage.input_tokens,
    )


def test_a_prefix_is_written_once_and_then_read(server: MessagesServer) -> None:
    system = [words(1000, **EPHEMERAL)]
    assert usage(ask(server, system=system, messages=[user(words(20))])) == (1000, 0, 20)
    assert usage(ask(server, system=system, messages=[user(words(30, "b"))])) == (0, 1000, 30)


def test_what_is_not_marked_is_not_cached(server: MessagesServer) -> None:
    for _ in range(2):
        assert usage(ask(server, system=[words(1000)], messages=[user(words(20))])) == (0, 0, 1020)


def test_a_growing_conversation_reads_what_it_had_and_writes_what_is_new(server: MessagesServer) -> None:
    first = user(words(1000, **EPHEMERAL))
    assert usage(ask(server, system=[words(600, "s", **EPHEMERAL)], messages=[first])) == (1600, 0, 0)
    more = [user(words(1000)), {"role": "assistant", "content": [words(50, "c")]}, user(words(200, "d", **EPHEMERAL))]
    assert usage(ask(server, system=[words(600, "s", **EPHEMERAL)], messages=more)) == (250, 1600, 0)


def test_one_other_byte_makes_another_prefix(server: MessagesServer) -> None:
    ask(server, system=[words(1000, "a", **EPHEMERAL)])
    assert usage(ask(server, system=[text("b" + "a" * 3499, **EPHEMERAL)], messages=[user(words(20))])) == (1000, 0, 20)


def test_tools_come_before_system_and_messages(server: MessagesServer) -> None:
    """Another tool is another prefix; another system keeps what is cached of the tools."""
    tool = {**TOOL, "description": "x" * 3500, **EPHEMERAL}
    written, _, rest = usage(ask(server, tools=[tool], system="One.", messages=[user(words(20))]))
    assert written > 1000 and rest == 20 + 2  # "One." is 4 bytes
    assert usage(ask(server, tools=[tool], system="Two and more.", messages=[user(words(20))])) == (0, written, 20 + 4)
    assert usage(ask(server, tools=[{**tool, "name": "other"}], messages=[user(words(20))]))[1] == 0


def test_below_the_minimum_nothing_is_cached(server: MessagesServer) -> None:
    for _ in range(2):
        assert usage(ask(server, system=[words(510, **EPHEMERAL)], messages=[user(words(20))])) == (0, 0, 530)
    assert usage(ask(server, system=[words(512, **EPHEMERAL)], messages=[user(words(20))])) == (512, 0, 20)


def test_a_breakpoint_looks_back_over_twenty_blocks(server: MessagesServer) -> None:
    ask(server, messages=[user(words(1000, **EPHEMERAL))])
    near = [words(1000), *(words(10, "c") for _ in range(18)), words(10, "d", **EPHEMERAL)]
    far = [words(1000), *(words(10, "e") for _ in range(19)), words(10, "f", **EPHEMERAL)]
    assert usage(ask(server, messages=[user(*near)])) == (190, 1000, 0)
    assert usage(ask(server, messages=[user(*far)])) == (1200, 0, 0)


def test_models_have_caches_of_their_own(server: MessagesServer) -> None:
    ask(server, system=[words(1000, **EPHEMERAL)])
    assert usage(
        ask(server, model="claude-opus-5-5", system=[words(1000, **EPHEMERAL)], messages=[user(words(20))])
    ) == (1000, 0, 20)


def test_another_tool_choice_keeps_system_and_loses_messages(server: MessagesServer) -> None:
    request: Any = {"tools": [TOOL], "system": [words(1000, **EPHEMERAL)], "messages": [user(words(600, **EPHEMERAL))]}
    written = usage(ask(server, **request))[0]
    assert usage(ask(server, **request, tool_choice={"type": "none"})) == (600, written - 600, 0)


def test_an_entry_lives_five_minutes_after_its_last_use() -> None:
    clock = Clock()
    system = [words(1000, **EPHEMERAL)]
    with MessagesServer(caller, clock=clock) as server:
        for at, expected in ((0, (1000, 0)), (299, (0, 1000)), (598, (0, 1000)), (898, (1000, 0))):
            clock.now = at
            assert usage(ask(server, system=system))[:2] == expected


def test_an_entry_is_used_by_whoever_reads_on_from_it() -> None:
    """Not only by who marks the same block again."""
    clock = Clock()
    with MessagesServer(caller, clock=clock) as server:
        ask(server, messages=[user(words(1000, **EPHEMERAL))])
        for clock.now, letter in ((299.0, "b"), (598.0, "c")):
            assert usage(ask(server, messages=[user(words(1000), words(10, letter, **EPHEMERAL))])) == (10, 1000, 0)


def test_an_hour_is_paid_apart_and_lasts_an_hour() -> None:
    clock = Clock()
    system = [words(1000, cache_control={"type": "ephemeral", "ttl": "1h"})]
    messages = [user(words(300, "b", **EPHEMERAL))]
    with MessagesServer(caller, clock=clock) as server:
        created = ask(server, system=system, messages=messages).usage.cache_creation
        assert (created.ephemeral_1h_input_tokens, created.ephemeral_5m_input_tokens) == (1000, 300)
        clock.now = 3599
        assert usage(ask(server, system=system, messages=messages)) == (300, 1000, 0)
        clock.now += 3600
        assert usage(ask(server, system=system, messages=messages)) == (1300, 0, 0)


def test_a_mark_on_the_request_is_one_on_its_last_block(server: MessagesServer) -> None:
    ask(server, messages=[user(words(1000))], **EPHEMERAL)
    more = [user(words(1000)), {"role": "assistant", "content": [words(50, "c")]}, user(words(200, "d"))]
    assert usage(ask(server, messages=more, **EPHEMERAL)) == (250, 1000, 0)


# ---- faults ----------------------------------------------------------------------------------------------------------


def with_fault(name: str, **options: Any) -> MessagesServer:
    return MessagesServer(caller, faults=script(FAULTS[name]), **options)


def test_a_rate_limit_says_when_to_come_back() -> None:
    with with_fault("rate_limited") as server:
        with pytest.raises(anthropic.RateLimitError) as caught:
            ask(server)
        assert caught.value.response.headers["retry-after"] == "1"
        assert ask(server).content  # only the first request had a fault


def test_a_spend_limit_is_a_rate_limit_that_waiting_does_not_lift() -> None:
    with with_fault("spend_limit") as server, pytest.raises(anthropic.EnforcedSpendLimitReachedError) as caught:
        ask(server)
    assert caught.value.status_code == 429 and "retry-after" not in caught.value.response.headers


@pytest.mark.parametrize(
    ("name", "status", "kind"), [("server_error", 500, "api_error"), ("overloaded", 529, "overloaded_error")]
)
def test_the_api_may_fail(name: str, status: int, kind: str) -> None:
    with with_fault(name) as server, pytest.raises(anthropic.InternalServerError) as caught:
        ask(server)
    body: Any = caught.value.body
    assert (caught.value.status_code, body["error"]["type"]) == (status, kind)


def stream(server: MessagesServer, **changes: Any) -> Any:
    """One request whose answer comes bit by bit, and what it comes to."""
    request: dict[str, Any] = {"model": MODEL, "max_tokens": 1000, "messages": [user("Hello?")], **changes}
    with client(server).messages.stream(**request) as events:
        return events.get_final_message()


def test_a_stream_may_end_in_an_error() -> None:
    with with_fault("overloaded_late") as server:
        with pytest.raises(anthropic.APIStatusError, match="overloaded_error"):
            stream(server)
        assert stream(server).stop_reason == "end_turn"
    with with_fault("overloaded_late") as server, pytest.raises(anthropic.InternalServerError):
        ask(server)


@pytest.mark.parametrize(
    ("name", "error"),
    [
        ("usage_limit", anthropic.BadRequestError),
        ("no_credit", anthropic.PaymentRequiredError),
        ("key_revoked", anthropic.AuthenticationError),
        ("no_permission", anthropic.PermissionDeniedError),
    ],
)
def test_some_failures_are_for_a_person_to_mend(name: str, error: type[anthropic.APIStatusError]) -> None:
    with with_fault(name) as server, pytest.raises(error):
        ask(server)


@pytest.mark.parametrize("name", ["hang_up", "interrupted"])
def test_the_line_may_die(name: str) -> None:
    with with_fault(name) as server, pytest.raises(anthropic.APIConnectionError):
        ask(server)


@pytest.mark.parametrize(
    ("name", "error"),
    [
        ("hang_up", anthropic.APIConnectionError),
        ("interrupted", httpx2.RemoteProtocolError),
        ("not_json", AssertionError),
    ],
)
def test_a_stream_dies_of_other_things(name: str, error: type[Exception]) -> None:
    """Not all of them errors of the SDK."""
    with with_fault(name) as server, pytest.raises(error):
        stream(server)


def test_a_stream_that_stops_is_no_error_at_all() -> None:
    """Whoever calls has to look for a stop_reason."""
    with with_fault("truncated") as server:
        assert stream(server).stop_reason is None


def test_the_api_may_be_silent() -> None:
    with MessagesServer(caller, faults=script(Stall(60.0))) as server, pytest.raises(anthropic.APITimeoutError):
        ask(server, timeout=0.2)


def test_half_an_answer_is_no_json() -> None:
    with with_fault("truncated") as server, pytest.raises(json.JSONDecodeError):
        ask(server)


def test_a_page_for_people_is_no_message() -> None:
    """The SDK returns the text as it is: whoever calls has to look at what comes back."""
    with with_fault("not_json") as server:
        assert not isinstance(ask(server), anthropic.types.Message)


def test_a_refusal_is_an_answer_without_content() -> None:
    with with_fault("refusal") as server:
        answer = ask(server, tools=[TOOL])
    assert (answer.stop_reason, answer.content, answer.stop_details.category) == ("refusal", [], "cyber")


def test_an_answer_may_be_cut_in_the_middle_of_a_tool_call() -> None:
    with with_fault("cut") as server:
        cut, whole = ask(server, tools=[TOOL]), ask(server, tools=[TOOL])
    assert (cut.stop_reason, whole.stop_reason) == ("max_tokens", "tool_use")
    assert cut.content[-1].type == "tool_use" and whole.content[-1].input["change"].startswith(
        cut.content[-1].input["change"]
    )
    assert len(cut.content[-1].input["change"]) < len(whole.content[-1].input["change"])


def test_max_tokens_cuts_by_itself(server: MessagesServer) -> None:
    """Thinking counts too."""
    whole = ask(server, tools=[TOOL])
    cut = ask(server, tools=[TOOL], max_tokens=whole.usage.output_tokens - 20)
    assert cut.stop_reason == "max_tokens" and cut.usage.output_tokens <= whole.usage.output_tokens - 20
    assert [block.type for block in ask(server, tools=[TOOL], max_tokens=1).content] == ["thinking"]


def slip(name: str) -> Any:
    with with_fault(name) as server:
        return ask(server, tools=[TOOL])


def test_the_model_may_talk_in_place_of_calling() -> None:
    answer = slip("no_call")
    assert answer.stop_reason == "end_turn" and [block.type for block in answer.content] == ["thinking", "text"]


def test_the_model_may_call_wrongly() -> None:
    assert "title" not in slip("missing_field").content[-1].input
    assert slip("wrong_type").content[-1].input["title"] == ["Wider"]
    assert set(slip("extra_field").content[-1].input) == {"title", "change", "confidence_level"}
    assert slip("unknown_tool").content[-1].name == "run_shell_command"


def test_faults_at_a_rate_are_the_same_for_the_same_seed() -> None:
    def faulty(seed: int) -> list[int]:
        schedule = at_rate(0.3, seed, [OVERLOADED])
        return [number for number in range(1000) if schedule(number, 0.0, {})]

    assert faulty(1) == faulty(1) != faulty(2)
    assert 250 < len(faulty(1)) < 350


def test_an_outage_begins_and_ends_by_the_clock() -> None:
    clock = Clock()
    faults = either(outage(10.0, 20.0), outage(30.0, 40.0, OVERLOADED))
    with MessagesServer(caller, faults=faults, clock=clock) as server:
        seen = []
        for at in (0.0, 10.0, 19.9, 20.0, 35.0, 40.0):
            clock.now = at
            try:
                ask(server)
                seen.append("ok")
            except anthropic.APIConnectionError:
                seen.append("dead")
            except anthropic.InternalServerError:
                seen.append("overloaded")
    assert seen == ["ok", "dead", "dead", "ok", "overloaded", "ok"]


# ---- a life of its own -----------------------------------------------------------------------------------------------


def test_a_stopped_server_refuses_and_comes_back_at_its_address() -> None:
    server = MessagesServer(caller).start()
    url, answer = server.url, ask(server)
    server.stop()
    with pytest.raises(anthropic.APIConnectionError):
        ask(server)
    with server:
        assert server.url == url and ask(server).id != answer.id


def test_another_process_goes_on_with_the_conversation(tmp_path: Path) -> None:
    """Killed and started again on the same port it knows the thinking that its predecessor signed."""
    record = tmp_path / "calls.jsonl"
    command = [sys.executable, "-m", "tests.minds.server", "--policy", "garbage", "--record", str(record)]
    with MessagesServer(caller) as before:
        answer = ask(before, tools=[TOOL])
    command += ["--port", str(before.port)]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None and process.stdout.readline().strip() == before.url
            follow = [user("Hello?"), turn(answer), user(result(answer.content[-1].id))]
            assert ask(before, tools=[TOOL], messages=follow).content
        finally:
            process.kill()
    (line,) = record.read_text().splitlines()
    assert json.loads(line)["body"]["messages"][0] == {"role": "user", "content": "Hello?"}
