"""Starts an agent in its container, as the first process there: when this one ends, all others do.

It reads /lab/errand.json: the command, and for every host that the agent may reach the address at which it appears in here
and the Unix socket that leads to it. Standard library alone.
"""

import json
import os
import socket
import subprocess
import sys
from contextlib import suppress
from pathlib import Path
from threading import Thread, Timer

CHUNK_BYTES = 64 * 1024
WORK = Path("/tmp/work")
GRACE_S = 5.0
LATE = 124
"""Exit status, as timeout(1) has it."""


def serve(listener: socket.socket, path: str) -> None:
    while True:
        near, _ = listener.accept()
        Thread(target=join, args=(near, path), daemon=True).start()


def join(near: socket.socket, path: str) -> None:
    """Pass on what one connection says, in both directions, until both sides are done."""
    with near, socket.socket(socket.AF_UNIX) as far, suppress(OSError):
        far.connect(path)
        back = Thread(target=pump, args=(far, near), daemon=True)
        back.start()
        pump(near, far)
        back.join()


def pump(source: socket.socket, target: socket.socket) -> None:
    with suppress(OSError):
        while data := source.recv(CHUNK_BYTES):
            target.sendall(data)
    with suppress(OSError):
        target.shutdown(socket.SHUT_WR)


def await_end(child: int) -> int:
    """Exit status of a child, as a shell has it. Collects every other process that ends meanwhile."""
    while True:
        pid, status = os.wait()
        if pid == child:
            code = os.waitstatus_to_exitcode(status)
            return code if code >= 0 else 128 - code


def main() -> None:
    errand = json.loads(Path("/lab/errand.json").read_text())
    for address, port, path in errand["doors"]:
        Thread(target=serve, args=(socket.create_server((address, port)), path), daemon=True).start()
    # The host ends it in time; if that is dead, this does.
    Timer(errand["timeout_s"] + GRACE_S, os._exit, [LATE]).start()
    WORK.mkdir()
    os.environ["PATH"] = f"{Path(sys.executable).parent}:{os.environ['PATH']}"  # its `python` is this one
    try:
        child = subprocess.Popen(errand["command"], cwd=WORK)
    except OSError as error:
        print(f"{errand['command'][0]}: {error.strerror}", file=sys.stderr, flush=True)
        os._exit(1)
    os._exit(await_end(child.pid))


main()
