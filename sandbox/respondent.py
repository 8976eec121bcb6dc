"""A scoring container as the host sees it: something that is asked about rows, a batch at a time, and is not believed."""

import json
import select
import socket
import threading
import time
from pathlib import Path
from types import TracebackType

import numpy as np
from numpy.typing import NDArray

from records import FailureKind
from sandbox.engines import Container
from sandbox.failure import EngineLost, Faulted, classify, describe_exit, last_line
from sandbox.gate import LINE_BYTES, listen
from sandbox.oversee import POLL_S, Cancelled

FAREWELL_S = 2.0
"""A container that hung up may take this long to end."""

Tokens = NDArray[np.uint16] | NDArray[np.uint32]
Numbers = NDArray[np.float32]


NUMBERS = b"\0"
"""Begins an answer that has them; any other byte begins a line that says why it has none."""


class Respondent:
    """Asks the model in one scoring container.

    A question may be asked while the answer to the one before is still due, which keeps a GPU busy; no more than two are
    then under way. Every method raises Faulted when the candidate's code fails, is too slow or answers anything but
    numbers; the message names the rows.

    Args:
        gate_dir: is mounted into the container as /gate.
        cancel: ends the conversation early when set.
    """

    def __init__(self, gate_dir: Path, cancel: threading.Event):
        self._listener = listen(gate_dir)
        self._cancel = cancel
        self._socket: socket.socket | None = None
        self._container: Container
        self._cap_s = self._deadline = 0.0
        self._due: list[tuple[str, tuple[int, int]]] = []
        """What was asked about, and the shape of the answer."""

    def __enter__(self) -> "Respondent":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._listener.close()
        if self._socket is not None:
            self._socket.close()

    def begin(self, container: Container, import_s: float, cap_s: float) -> None:
        """Let the container import the candidate once it has imported torch, for which it has `import_s`; from then on it has
        `cap_s` for everything it is asked.

        Raises:
            EngineLost: it did not come so far, and none of that was the candidate's doing.
        """
        self._container = container
        deadline = time.monotonic() + import_s
        while not select.select([self._listener], [], [], POLL_S)[0]:
            if self._cancel.is_set():
                raise Cancelled("cancelled")
            if container.wait(0.0):
                ending = container.ending()
                raise EngineLost(
                    f"the scorer did not start: {describe_exit(ending.exit_code)}: {last_line(ending.log)}"
                )
            if time.monotonic() >= deadline:
                raise EngineLost(f"the scorer did not start within {import_s:g} s")
        self._socket, _ = self._listener.accept()
        self._socket.setblocking(False)
        self._cap_s, self._deadline = cap_s, time.monotonic() + cap_s
        self._due.append(("its first rows", (0, 0)))
        self._send(b'"begin"\n')
        self._due.clear()

    def ask_losses(self, rows: Tokens, about: str) -> None:
        """Ask for the loss of each target given all of the row before it.

        Args:
            rows: tokens, [B, T + 1].
            about: names them, for messages ("rows 0–63").
        """
        self._due.append((about, (len(rows), rows.shape[1] - 1)))
        self._ask("losses", rows, b"")

    def ask_logits(self, rows: Tokens, cuts: NDArray[np.uint32], vocab_size: int, about: str) -> None:
        """Ask for the logits at one position of each row.

        Args:
            rows: tokens, [B, T].
            cuts: the positions, [B].
            vocab_size: how many logits there are.
            about: names the rows.
        """
        self._due.append((about, (len(rows), vocab_size)))
        self._ask("logits", rows, cuts.astype("<u4").tobytes())

    def _ask(self, what: str, rows: Tokens, more: bytes) -> None:
        question = {"ask": what, "rows": rows.shape[0], "length": rows.shape[1]}
        self._send(json.dumps(question).encode() + b"\n" + rows.astype(rows.dtype.newbyteorder("<")).tobytes() + more)

    def answer(self) -> Numbers:
        """The numbers that the oldest question asked for, float32; whatever the candidate says they are."""
        about, shape = self._due[0]
        if self._receive(1) != NUMBERS:
            reason = b""
            while not reason.endswith(b"\n") and len(reason) < LINE_BYTES:
                reason += self._receive(1)
            raise Faulted(FailureKind.INVALID, f"{about}: {reason.decode(errors='replace')}")
        numbers = np.frombuffer(self._receive(shape[0] * shape[1] * 4), "<f4").reshape(shape)
        del self._due[0]
        return numbers

    # ---- the socket --------------------------------------------------------------------------------------------------

    def _send(self, data: bytes) -> None:
        assert self._socket is not None, "begin() comes first"
        left = memoryview(data)
        while left:
            self._await(writing=True)
            try:
                left = left[self._socket.send(left) :]
            except BlockingIOError:
                continue
            except OSError:
                raise self._ended() from None

    def _receive(self, size_bytes: int) -> bytearray:
        assert self._socket is not None, "begin() comes first"
        data = bytearray(size_bytes)
        left = memoryview(data)
        while left:
            self._await(writing=False)
            try:
                count = self._socket.recv_into(left)
            except BlockingIOError:
                continue
            except OSError:
                count = 0
            if count == 0:
                raise self._ended()
            left = left[count:]
        return data

    def _await(self, writing: bool) -> None:
        """Wait until the socket is ready, or until there is no point in waiting."""
        assert self._socket is not None, "begin() comes first"
        sockets, nobody = [self._socket], list[socket.socket]()
        while True:
            if self._cancel.is_set():
                raise Cancelled("cancelled")
            if time.monotonic() >= self._deadline:
                raise Faulted(
                    FailureKind.TIMEOUT, f"scoring took longer than {self._cap_s:g} s; it was at {self._about}"
                )
            if any(select.select(nobody if writing else sockets, sockets if writing else nobody, [], POLL_S)):
                return
            # A child of a dead process may hold the socket open.
            if self._container.wait(0.0):
                raise self._ended()

    def _ended(self) -> Faulted:
        """Why there will be no answer."""
        if not self._container.wait(FAREWELL_S):
            return Faulted(FailureKind.INVALID, f"{self._about}: it hung up instead of answering")
        ending = self._container.ending()
        if ending.exit_code == 0 and not ending.oom_killed:
            return Faulted(FailureKind.INVALID, f"{self._about}: it ended instead of answering")
        return classify(ending, f"while scoring {self._about}")

    @property
    def _about(self) -> str:
        return self._due[0][0]
