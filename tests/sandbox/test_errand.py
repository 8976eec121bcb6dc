"""Agents that somebody else wrote, in their containers: what they can do, and what comes of what they should not."""

import os
import signal
import socket
import socketserver
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import TypeVar

import pytest

from records import Errand, Failure, FailureKind, HostFault, Returned
from sandbox.doors import CONNECTIONS, doors_to, is_behind, open_doors
from sandbox.engines import Engine, pick_engine
from sandbox.engines.cgroup import groups_named
from sandbox.errand import ANSWER_BYTES, LIMITS, run_errand
from sandbox.sweep import sweep
from tests.sandbox.fixtures import ROOT
from tests.sandbox.traces import traces

T = TypeVar("T")
MEBIBYTE = 2**20
TIGHT = replace(LIMITS, cpu_shares=None, memory_bytes=512 * MEBIBYTE, tmp_bytes=16 * MEBIBYTE, pids=64)
"""With the weight of everybody: a busy machine would keep the tests waiting."""


def send(
    engine: Engine,
    state_dir: Path,
    *command: str,
    agent: Path | None = None,
    hosts: tuple[str, ...] = (),
    timeout_s: float = 120.0,
    cancel: threading.Event | None = None,
    **variables: str,
) -> Returned:
    errand = Errand(
        command=[*command],
        agent=agent,
        files={"task.md": "Make it better.\n"},
        answers=["train.py", "patch.diff"],
        timeout_s=timeout_s,
        hosts=[*hosts],
        variables=variables,
    )
    return run_errand(errand, engine, limits=TIGHT, state_dir=state_dir, cancel=cancel)


@pytest.fixture(scope="module")
def echo() -> Iterator[int]:
    """Port of a server on the host's loopback that says what it is told."""

    class Echo(socketserver.StreamRequestHandler):
        def handle(self) -> None:
            self.wfile.write(b"heard " + self.rfile.readline())

    with served(Echo) as port:
        yield port


@contextmanager
def served(handler: type[socketserver.BaseRequestHandler]) -> Iterator[int]:
    """Port of a server on the host's loopback."""
    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server.server_address[1]
        server.shutdown()


# ---- what it may do --------------------------------------------------------------------------------------------------


def test_it_reads_its_task_and_its_folder_and_leaves_an_answer(engine: Engine, state_dir: Path, tmp_path: Path) -> None:
    (tmp_path / "agent.sh").write_text('cat /task/task.md > /answer/train.py; echo "$WORD" >> /answer/train.py; pwd\n')
    tmp_path.chmod(0o755)
    returned = send(engine, state_dir, "sh", "/agent/agent.sh", agent=tmp_path, WORD="please")
    assert returned == Returned(files={"train.py": "Make it better.\nplease\n"}, failure=None, log="/tmp/work\n")
    assert traces(engine, state_dir) == []


TALK = """
import socket, sys
for host in sys.argv[1:]:
    name, port = host.split(":")
    try:
        with socket.create_connection((name, int(port)), timeout=30) as connection:
            connection.sendall(b"hello\\n")
            print(host, connection.makefile().readline() or "ended")
    except OSError as error:
        print(host, "cannot:", error)
"""


def test_it_reaches_the_hosts_that_are_named_and_no_other(engine: Engine, state_dir: Path, echo: int) -> None:
    named = (f"localhost:{echo}", "nobody.invalid:443")
    asked = (*named, f"localhost:{echo + 1}", "169.254.169.254:80", "example.com:443")
    said = send(engine, state_dir, "python", "-c", TALK, *asked, hosts=named).log.split("\n")
    assert f"localhost:{echo} heard hello" in said and "nobody.invalid:443 ended" in said
    assert [line.partition(":")[0] for line in said if "cannot:" in line] == ["localhost", "169.254.169.254", "example.com"]  # fmt: skip
    assert traces(engine, state_dir) == []


SEND_MUCH = """
import hashlib, random, socket, sys
much = random.Random(1).randbytes(8 * 2**20)
with socket.create_connection(("localhost", int(sys.argv[1]))) as connection:
    connection.sendall(much)
    connection.shutdown(socket.SHUT_WR)
    answer = connection.makefile("rb").read()
print(len(answer), answer == much[::-1])
"""


def test_what_is_said_to_a_host_arrives_whole_and_so_does_its_answer(runc: Engine, state_dir: Path) -> None:
    class Reverse(socketserver.StreamRequestHandler):
        def handle(self) -> None:
            self.wfile.write(self.rfile.read()[::-1])

    with served(Reverse) as port:
        returned = send(runc, state_dir, "python", "-c", SEND_MUCH, str(port), hosts=(f"localhost:{port}",))
    assert returned.log == f"{8 * MEBIBYTE} True\n", returned


def test_connections_beyond_the_bound_are_ended_at_once(echo: int, tmp_path: Path) -> None:
    (door,) = doors_to([f"localhost:{echo}"])

    def connected(stack: ExitStack) -> socket.socket:
        client = stack.enter_context(socket.socket(socket.AF_UNIX))
        client.connect(str(tmp_path / door.socket))
        return client

    def heard(client: socket.socket) -> bytes | None:
        with suppress(ConnectionError):
            client.sendall(b"me\n")
            return client.recv(100) or None
        return None

    with open_doors([door], tmp_path), ExitStack() as stack:
        clients = [connected(stack) for _ in range(CONNECTIONS)]
        assert {heard(client) for client in clients} == {b"heard me\n"}
        assert heard(connected(stack)) is None
        clients[0].close()
        assert wait_for(lambda: heard(connected(stack))) == b"heard me\n", "one that ended has made room"


SOCKETS = """
import socket
kinds = [(socket.AF_INET6, socket.SOCK_STREAM), (socket.AF_INET, socket.SOCK_RAW), (socket.AF_NETLINK, socket.SOCK_RAW), (socket.AF_PACKET, socket.SOCK_RAW), (40, socket.SOCK_STREAM), (socket.AF_INET, socket.SOCK_STREAM)]
for kind in kinds:
    try:
        socket.socket(*kind, 0 if kind[1] != socket.SOCK_RAW else 1)
        print("made", *map(int, kind))
    except OSError:
        pass
print([line.split(":")[0].strip() for line in open("/proc/net/dev").readlines()[2:]])
"""


def test_with_a_named_host_it_has_tcp_on_its_loopback_and_nothing_else(runc: Engine, state_dir: Path) -> None:
    outside = subprocess.run([sys.executable, "-c", SOCKETS], capture_output=True, text=True, check=True).stdout
    assert outside.count("made") >= 5, "the same program makes them on the host"
    assert send(runc, state_dir, "python", "-c", SOCKETS, hosts=("localhost:1",)).log == "made 2 1\n['lo']\n"


def test_it_runs_in_an_image_of_ones_own(bare_image: str, state_dir: Path, echo: int) -> None:
    engine, host = pick_engine("docker", state_dir=state_dir, image=bare_image), f"localhost:{echo}"
    program = f"{TALK}\nopen('/answer/train.py', 'w').write(open('/task/task.md').read())"
    returned = send(engine, state_dir, "python", "-c", program, host, hosts=(host,))
    assert returned.files == {"train.py": "Make it better.\n"} and "heard hello" in returned.log
    assert traces(engine, state_dir) == []


def test_without_a_named_host_it_reaches_nothing(engine: Engine, state_dir: Path, echo: int) -> None:
    said = send(engine, state_dir, "python", "-c", TALK, f"127.0.0.1:{echo}").log
    assert "cannot: [Errno 1]" in said, said


@pytest.mark.parametrize(
    ("host", "address", "leads"),
    [
        ("localhost", "127.0.0.1", True),
        ("localhost", "::1", True),
        ("localhost", "10.0.0.5", False),
        ("api.example.com", "93.184.215.14", True),
        ("gpubox", "192.168.1.7", True),
        ("api.example.com", "127.0.0.1", False),
        ("api.example.com", "::1", False),
        ("api.example.com", "::ffff:127.0.0.1", False),
        ("api.example.com", "0.0.0.0", False),
        ("metadata.google.internal", "169.254.169.254", False),
    ],
)
def test_a_name_does_not_lead_where_it_should_not_whatever_answers_for_it(host: str, address: str, leads: bool) -> None:
    assert is_behind(host, address) == leads


# ---- what it may not -------------------------------------------------------------------------------------------------

LOOK = """
import os, sys
places = [os.path.expanduser("~root"), "/root", "/home", "/proc/1/environ", "/etc/shadow", *sys.argv[1:]]
for place in places:
    try:
        print(os.listdir(place) if os.path.isdir(place) else open(place, "rb").read())
    except OSError:
        pass
print(dict(os.environ))
"""


def test_it_sees_no_credentials(runc: Engine, state_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ANTHROPIC_API_KEY", "sesame")
    (tmp_path / "receipt.key").write_text("sesame")
    look = ("-c", LOOK, str(tmp_path / "receipt.key"), str(state_dir))
    outside = subprocess.run([sys.executable, *look], capture_output=True, text=True, check=True).stdout
    assert outside.count("sesame") >= 2 and "runs" in outside, "the same look finds them on the host"
    inside = send(runc, state_dir, "python", *look)
    assert inside.failure is None and "'HOME': '/tmp'" in inside.log
    assert "sesame" not in inside.log and "runs" not in inside.log


TRAPS = {
    "ln -s /etc/passwd /answer/train.py": "train.py is a link or a special file",
    "ln -s /answer /answer/train.py": "train.py is a link or a special file",
    "mkfifo /answer/train.py": "train.py is not a regular file",
    "mkdir /answer/train.py": "train.py is not a regular file",
    "echo x > /answer/other; ln /answer/other /answer/train.py": "train.py has 2 links",
    "truncate -s 8M /answer/patch.diff": "patch.diff has holes",
    "truncate -s 1T /answer/patch.diff": "File size limit exceeded",
    f"head -c {ANSWER_BYTES + 1} /dev/zero > /answer/train.py": "over the limit of",
    "printf '\\377' > /answer/train.py": "train.py is not UTF-8 text",
    "exit 3": "exit code 3: no output",
    "echo because >&2; exit 3": "exit code 3: because",
    "kill -9 $$": "killed by SIGKILL: no output",
}


@pytest.mark.parametrize(("script", "why"), TRAPS.items(), ids=TRAPS)
def test_a_trap_in_place_of_an_answer_is_refused(runc: Engine, state_dir: Path, script: str, why: str) -> None:
    returned = send(runc, state_dir, "sh", "-c", script)
    assert returned.files == {} and returned.failure is not None
    assert why in returned.failure.message and "\n" not in returned.failure.message
    assert traces(runc, state_dir) == []


def test_what_it_writes_is_bounded_whatever_it_leaves(runc: Engine, state_dir: Path) -> None:
    script = """
    echo good > /answer/train.py; cat /dev/zero > /answer/more; (cd /answer; touch $(seq 2000))
    ls /answer | wc -l; du -sm /answer; touch /task/x /agent/x /lab/x; exit 0
    """
    returned = send(runc, state_dir, "sh", "-c", script)
    files, mebibytes = (int(line.split()[0]) for line in returned.log.splitlines() if line[:1].isdigit())
    assert files < 1000 and mebibytes <= TIGHT.out_bytes // MEBIBYTE
    assert returned.log.count("Read-only file system") == 3
    assert returned.files == {"train.py": "good\n"}


STUBBORN = """
import os, signal, time
for number in range(1, 65):
    try:
        signal.signal(number, signal.SIG_IGN)
    except (OSError, ValueError):
        pass
print("begun", flush=True)
for _ in range(4):
    if os.fork() == 0:
        os.setsid()
time.sleep(600)
"""


def test_one_that_ignores_its_time_is_ended_with_all_that_it_started(runc: Engine, state_dir: Path) -> None:
    returned = send(runc, state_dir, "python", "-c", STUBBORN, timeout_s=4.0)
    assert returned.failure == Failure(kind=FailureKind.TIMEOUT, message="took longer than 4 s")
    assert returned.log == "begun\n"
    assert traces(runc, state_dir) == []


def test_what_it_started_ends_with_it(runc: Engine, state_dir: Path) -> None:
    script = "(while :; do echo later > /answer/train.py; done) & echo now > /answer/patch.diff"
    returned = send(runc, state_dir, "sh", "-c", script)
    assert returned.failure is None and returned.files["patch.diff"] == "now\n"
    assert traces(runc, state_dir) == []


def test_it_can_be_called_back(runc: Engine, state_dir: Path) -> None:
    cancel = threading.Event()
    threading.Timer(1.0, cancel.set).start()
    with pytest.raises(HostFault, match="cancelled"):
        send(runc, state_dir, "sleep", "600", timeout_s=600, cancel=cancel)
    assert traces(runc, state_dir) == []


SENDER = """
import sys
from pathlib import Path
from records import Errand
from sandbox.engines import pick_engine
from sandbox.errand import run_errand
from tests.sandbox.test_errand import STUBBORN, TIGHT
state_dir = Path(sys.argv[1])
errand = Errand(command=["python", "-c", STUBBORN], agent=None, files={}, answers=["a"], timeout_s=1, hosts=["localhost:1"], variables={})
run_errand(errand, pick_engine("runc", state_dir=state_dir), limits=TIGHT, state_dir=state_dir)
"""


def test_one_whose_sender_is_killed_ends_in_time_and_its_remains_are_swept(runc: Engine, state_dir: Path) -> None:
    sender = subprocess.Popen([sys.executable, "-c", SENDER, str(state_dir)], cwd=ROOT)
    group = wait_for(lambda: next((found for left in runc.leftovers() for found in groups_named(left.name)), None))
    os.kill(sender.pid, signal.SIGKILL)
    sender.wait()
    wait_for(lambda: not (group / "cgroup.procs").read_text() or None)
    assert any("errand-" in what for what in sweep([runc], state_dir))
    assert traces(runc, state_dir) == []


def wait_for(look: Callable[[], T | None]) -> T:
    deadline = time.monotonic() + 120
    while (found := look()) is None:
        assert time.monotonic() < deadline, "it does not happen"
        time.sleep(0.05)
    return found
