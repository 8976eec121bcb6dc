"""A server of Anthropic's Messages API on loopback, with a policy in place of the model.

    python -m tests.minds.server --policy competent --port 8123 --record calls.jsonl --fault overloaded --fault-rate 0.1

It refuses what the API refuses (rules.py), accounts prompt caching as the API does (cache.py) and can fail in each way in which the
API fails (faults.py). What it answers comes from a policy (policy.py), which sees the request and nothing else.
"""

import argparse
import contextlib
import json
import socket
import sys
import threading
import time
import traceback
import uuid
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from tests.minds.blocks import Block, Body, places, tokens
from tests.minds.cache import PromptCache
from tests.minds.faults import (
    FAULTS,
    OVERLOADED,
    Failure,
    Fault,
    Line,
    Reply,
    Schedule,
    Slip,
    Stall,
    at_rate,
    cut,
    never,
    reply,
)
from tests.minds.policy import POLICIES, Policy
from tests.minds.rules import Refused, bad, check_body, check_headers, is_local, sign

KEY = "test-key"
SECRET = b"thinking of the test double"
"""Signs thinking blocks. The same in every process, so that a conversation outlives a restart."""


@dataclass
class Call:
    """One request and what became of it."""

    path: str
    headers: dict[str, str]
    body: Any
    at_s: float
    """On the server's clock."""
    status: int | None = None
    """None: the line went dead."""
    reply: Any = None
    request_id: str = field(default_factory=lambda: f"req_{uuid.uuid4().hex[:24]}")


class MessagesServer:
    """The API, from `with` to the end of it, or from start() to stop(). Started again it has the same address.

    Args:
        policy: request → blocks of the answer, without ids and without thinking; tool calls need `name` and `input`.
        faults: what goes wrong, and when.
        key: the one key it knows.
        port: on loopback; 0 takes a free one.
        clock: seconds; lifetimes of cached prompts and outages are counted on it.
        record: file that gets each call as a line of JSON, for tests in another process.

    Attributes:
        calls: every request so far, oldest first.
        errors: tracebacks of this server's own errors; a test should find none.
    """

    def __init__(
        self,
        policy: Policy,
        *,
        faults: Schedule = never,
        key: str = KEY,
        port: int = 0,
        clock: Callable[[], float] = time.monotonic,
        record: Path | None = None,
    ) -> None:
        self.policy = policy
        self.faults = faults
        self.key = key
        self.port = port
        self.clock = clock
        self.record = record
        self.cache = PromptCache()
        self.calls: list[Call] = []
        self.errors: list[str] = []
        self.asked = 0
        self.lock = threading.Lock()
        self.stopping = threading.Event()
        self.listener: Listener | None = None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def start(self) -> Self:
        self.stopping.clear()
        self.listener = Listener(self)
        self.port = self.listener.server_address[1]
        threading.Thread(target=self.listener.serve_forever, args=(0.02,), daemon=True).start()
        return self

    def stop(self) -> None:
        """Close the port and every connection, as a killed process would."""
        if self.listener is not None:
            self.stopping.set()
            self.listener.shutdown()
            self.listener.hang_up_all()
            self.listener.server_close()
            self.listener = None

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def messages(self) -> list[Call]:
        """The calls of /v1/messages that got an answer of the model."""
        with self.lock:
            return [call for call in self.calls if call.path == "/v1/messages" and call.status == 200]

    def answer(self, call: Call, raw: bytes) -> Fault | None:
        """Fill in a call's status and reply. Returns what is broken about the line, if anything."""
        try:
            check_headers(call.headers, self.key)
            call.body = parse(raw)
            if call.path == "/v1/messages/count_tokens":
                check_body(call.body, SECRET, counting=True)
                call.status, call.reply = 200, {"input_tokens": sum(tokens(place.block) for place in places(call.body))}
                return None
            if call.path != "/v1/messages":
                raise Refused(404, "not_found_error", "Not found")
            return self.create(call)
        except Refused as error:
            call.status, call.reply = error.status, failure_body(Failure(error.status, error.kind, error.message), call)
        except Exception:
            self.errors.append(traceback.format_exc())
            call.status, call.reply = 500, failure_body(Failure(500, "api_error", "error of the test double"), call)
        return None

    def create(self, call: Call) -> Fault | None:
        with self.lock:
            number, self.asked = self.asked, self.asked + 1
        fault = self.faults(number, call.at_s, call.body)
        if fault is Line.OVERLOADED_LATE and not call.body.get("stream"):
            fault = OVERLOADED
        if isinstance(fault, Failure):
            call.status, call.reply = fault.status, failure_body(fault, call)
            return fault
        if isinstance(fault, Stall) or fault is Line.HANG_UP:
            return fault
        check_body(call.body, SECRET)
        content = self.policy(call.body)
        bent = fault.bend(call.body, content) if isinstance(fault, Slip) else reply(content)
        call.status, call.reply = 200, message(call.body, bent, self.cache.account(call.body, call.at_s))
        return fault

    def keep(self, call: Call) -> None:
        with self.lock:
            self.calls.append(call)
            if self.record is not None:
                with self.record.open("a") as file:
                    file.write(json.dumps(asdict(call)) + "\n")


# ---- what is said ----------------------------------------------------------------------------------------------------


def parse(raw: bytes) -> Any:
    try:
        return json.loads(raw)
    except ValueError as error:
        raise bad(f"The request body is not valid JSON: {error}") from None


def failure_body(failure: Failure, call: Call) -> dict[str, Any]:
    error: dict[str, Any] = {"type": failure.kind, "message": failure.message}
    if failure.error_code is not None:
        error["details"] = {"error_code": failure.error_code}
    return {"type": "error", "error": error, "request_id": call.request_id}


def message(body: Body, bent: Reply, usage: dict[str, Any]) -> dict[str, Any]:
    """The answer as the API words it: thinking first, ids given, cut at max_tokens."""
    thinking = think(body, bent.content)
    cost = -(-2 * len(thinking.encode()) // 7)  # what was thought is paid, shown or not
    content = [
        {**block, "id": f"toolu_{uuid.uuid4().hex[:24]}"} if block["type"] == "tool_use" else block
        for block in bent.content
    ]
    if cost + sum(map(tokens, content)) > body["max_tokens"]:
        bent = cut(content, max(0, body["max_tokens"] - cost))
        content = bent.content
    head = [sign(body, thinking if shows_thinking(body) else "", SECRET)] if thinking else []
    spent = {"output_tokens": cost + sum(map(tokens, content)), "output_tokens_details": {"thinking_tokens": cost}}
    return {
        "id": f"msg_{uuid.uuid4().hex[:24]}",
        "type": "message",
        "role": "assistant",
        "model": body["model"],
        "content": [*head, *content],
        "stop_reason": bent.stop_reason,
        "stop_sequence": None,
        "stop_details": bent.stop_details,
        "usage": {**usage, **spent, "service_tier": "standard"},
    }


def think(body: Body, content: list[Block]) -> str:
    """What a model might think before such an answer; nothing where it does not think."""
    if is_local(body["model"]) or (body.get("thinking") or {}).get("type") == "between_tools" or not content:
        return ""
    plans = [f"call {block['name']}" if block["type"] == "tool_use" else "answer in words" for block in content]
    return f"What was asked is clear. I will {', then '.join(plans)}."


def shows_thinking(body: Body) -> bool:
    return (body.get("thinking") or {}).get("display") == "summarized"


def events(reply: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """The answer as a stream (…/docs/en/build-with-claude/streaming)."""
    start = {**reply, "content": [], "stop_reason": None, "stop_details": None}
    yield {"type": "message_start", "message": {**start, "usage": {**reply["usage"], "output_tokens": 1}}}
    for index, block in enumerate(reply["content"]):
        shell, deltas = deltas_of(block)
        yield {"type": "content_block_start", "index": index, "content_block": shell}
        for delta in deltas:
            yield {"type": "content_block_delta", "index": index, "delta": delta}
        yield {"type": "content_block_stop", "index": index}
    ending = {name: reply[name] for name in ("stop_reason", "stop_sequence", "stop_details")}
    yield {"type": "message_delta", "delta": ending, "usage": {"output_tokens": reply["usage"]["output_tokens"]}}
    yield {"type": "message_stop"}


def deltas_of(block: Block) -> tuple[Block, list[Block]]:
    """An empty block, and what fills it."""
    match block["type"]:
        case "text":
            return {**block, "text": ""}, [{"type": "text_delta", "text": part} for part in pieces(block["text"])]
        case "tool_use":
            parts = pieces(json.dumps(block["input"]))
            return {**block, "input": {}}, [{"type": "input_json_delta", "partial_json": part} for part in parts]
        case _:
            parts = pieces(block["thinking"])
            told = [{"type": "thinking_delta", "thinking": part} for part in parts]
            return {**block, "thinking": "", "signature": ""}, [
                *told,
                {"type": "signature_delta", "signature": block["signature"]},
            ]


def pieces(text: str, length: int = 400) -> list[str]:
    return [text[at : at + length] for at in range(0, len(text), length)]


# ---- the line --------------------------------------------------------------------------------------------------------


class Listener(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 128

    def __init__(self, api: MessagesServer) -> None:
        self.api = api
        self.open: set[socket.socket] = set()
        super().__init__(("127.0.0.1", api.port), Handler)

    def process_request(self, request: Any, client_address: Any) -> None:
        self.open.add(request)
        super().process_request(request, client_address)

    def shutdown_request(self, request: Any) -> None:
        self.open.discard(request)
        super().shutdown_request(request)

    def hang_up_all(self) -> None:
        for connection in list(self.open):
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that hangs up is no error of ours; anything else is."""
        if not isinstance(sys.exception(), OSError):
            self.api.errors.append(traceback.format_exc())


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    server: Listener

    def do_POST(self) -> None:
        api = self.server.api
        raw = self.rfile.read(int(self.headers.get("content-length", 0)))
        headers = {name.lower(): value for name, value in self.headers.items()}
        call = Call(self.path.partition("?")[0], headers, None, api.clock())
        fault = api.answer(call, raw)
        api.keep(call)
        if isinstance(fault, Stall):
            api.stopping.wait(fault.seconds)
        if call.status is None:
            self.close_connection = True
            return
        self.send(call, fault)

    def do_GET(self) -> None:
        call = Call(self.path, {}, None, self.server.api.clock(), status=404)
        call.reply = failure_body(Failure(404, "not_found_error", "Not found"), call)
        self.send(call, None)

    def send(self, call: Call, fault: Fault | None) -> None:
        kind, data = "application/json", json.dumps(call.reply).encode()
        if call.status == 200 and call.path == "/v1/messages" and call.body.get("stream"):
            kind = "text/event-stream"
            told = list(events(call.reply))
            if fault is Line.OVERLOADED_LATE:
                told = [*told[: len(told) // 2], failure_body(OVERLOADED, call)]
            data = b"".join(f"event: {event['type']}\ndata: {json.dumps(event)}\n\n".encode() for event in told)
        if fault is Line.NOT_JSON:
            kind, data = "text/html", b"<html><body>Please log in to use this network.</body></html>"
        if fault is Line.TRUNCATED:
            data = data[: len(data) // 2]
        self.send_response(call.status or 500)
        self.send_header("content-type", kind)
        self.send_header("content-length", str(len(data)))
        self.send_header("request-id", call.request_id)
        if isinstance(fault, Failure) and fault.retry_after_s is not None:
            self.send_header("retry-after", str(fault.retry_after_s))
        self.end_headers()
        if fault is Line.INTERRUPTED:
            data, self.close_connection = data[: len(data) // 2], True
        self.wfile.write(data)

    def log_message(self, format: str, *args: Any) -> None:
        """Calls are kept, not printed."""


# ---- as a process of its own -----------------------------------------------------------------------------------------


def main() -> None:
    parser = argparse.ArgumentParser(
        description="Serve the Messages API on loopback; prints its address and runs until killed."
    )
    parser.add_argument("--policy", choices=sorted(POLICIES), default="competent")
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--key", default=KEY)
    parser.add_argument("--record", type=Path)
    parser.add_argument("--fault", action="append", choices=sorted(FAULTS), default=[])
    parser.add_argument("--fault-rate", type=float, default=0.0)
    parser.add_argument("--fault-seed", type=int, default=0)
    given = parser.parse_args()
    faults = (
        at_rate(given.fault_rate, given.fault_seed, [FAULTS[name] for name in given.fault]) if given.fault else never
    )
    server = MessagesServer(POLICIES[given.policy], faults=faults, key=given.key, port=given.port, record=given.record)
    with server:
        print(server.url, flush=True)
        threading.Event().wait()


if __name__ == "__main__":
    main()
