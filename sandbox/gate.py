"""The gate: the host's end of the only conversation with a training candidate.

Newline-delimited JSON over a Unix socket, one connection. What arrives is hostile: lines are bounded, messages counted,
fields checked, and the first breach ends the run.
"""

import json
import os
import select
import socket
import time
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

LINE_BYTES = 4096
MESSAGES = 10_000
Count = Annotated[int, Field(ge=0, lt=2**53)]


class GateError(Exception):
    """The candidate broke the protocol."""


class Message(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)


class Ready(Message):
    """start_clock() was called and waits for `go`."""

    type: Literal["ready"]


class Report(Message):
    type: Literal["progress"]
    step: Count
    tokens: Count
    loss: float | None
    """None when it is not finite."""


class Submit(Message):
    """submit() begins to save."""

    type: Literal["submit"]
    step: Count
    tokens: Count


class Done(Message):
    """The weights are complete under their final name."""

    type: Literal["done"]


Incoming = Ready | Report | Submit | Done
INCOMING: TypeAdapter[Incoming] = TypeAdapter(Annotated[Incoming, Field(discriminator="type")])


class Gate:
    """Listens in `folder`, which is mounted into the container as /gate.

    Use as a context manager: the socket is closed at the end.
    """

    def __init__(self, folder: Path):
        self._listener = listen(folder)
        self._connection: socket.socket | None = None
        self._pending = b""
        self._messages = 0
        self.closed = False
        """The candidate has hung up."""

    def __enter__(self) -> "Gate":
        return self

    def __exit__(self, *_: object) -> None:
        self._listener.close()
        if self._connection is not None:
            self._connection.close()

    def receive(self, timeout_s: float) -> Incoming | None:
        """The next message, or None when none came in time or the candidate has hung up.

        Raises:
            GateError: what came is no message.
        """
        deadline = time.monotonic() + timeout_s
        while b"\n" not in self._pending:
            if len(self._pending) > LINE_BYTES:
                raise GateError(f"a line of more than {LINE_BYTES} bytes")
            if not self._read(max(0.0, deadline - time.monotonic())):
                return None
        line, _, self._pending = self._pending.partition(b"\n")
        self._messages += 1
        if self._messages > MESSAGES:
            raise GateError(f"more than {MESSAGES} messages")
        return parse(line)

    def _read(self, timeout_s: float) -> bool:
        if self.closed:
            time.sleep(timeout_s)
            return False
        source = self._connection or self._listener
        if not select.select([source], [], [], timeout_s)[0]:
            return False
        if self._connection is None:
            self._connection, _ = self._listener.accept()
            return True
        try:
            data = self._connection.recv(LINE_BYTES)
        except ConnectionError:
            data = b""
        self._pending += data
        self.closed = not data
        return bool(data)

    def go(self, budget_s: float, data_seed: int) -> None:
        """Answer `ready`: the clock runs."""
        self._send({"type": "go", "budget_s": budget_s, "data_seed": data_seed})

    def acknowledge(self) -> None:
        """Answer `done`: the process may exit."""
        self._send({"type": "ack"})

    def _send(self, message: dict[str, object]) -> None:
        assert self._connection is not None, "answers follow a message"
        self._connection.settimeout(1.0)
        try:
            self._connection.sendall(json.dumps(message).encode() + b"\n")
        except OSError:  # it hung up, or reads nothing: its loss, and its exit is noticed elsewhere
            self.closed = True


def listen(folder: Path, name: str = "gate.sock", connections: int = 1) -> socket.socket:
    """A Unix socket in `folder`, which is mounted into a container as /gate.

    Args:
        folder: of the run's directory.
        name: of the socket.
        connections: that may wait to be accepted.
    """
    listener = socket.socket(socket.AF_UNIX)
    directory = os.open(folder, os.O_PATH | os.O_DIRECTORY)
    try:
        # A socket's address has room for 107 bytes; a lab may lie deeper than that.
        listener.bind(f"/proc/self/fd/{directory}/{name}")
    finally:
        os.close(directory)
    # Whoever can see the folder may connect: the run's user, who is nobody here.
    (folder / name).chmod(0o666)
    listener.listen(connections)
    return listener


def parse(line: bytes) -> Incoming:
    """One line of the protocol.

    Raises:
        GateError: it is not.
    """
    if len(line) > LINE_BYTES:
        raise GateError(f"a line of more than {LINE_BYTES} bytes")
    try:
        return INCOMING.validate_json(line)
    except ValidationError as error:
        raise GateError(f"not a message of the protocol ({error.errors(include_input=False)[0]['type']})") from None
