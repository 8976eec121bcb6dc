"""What a candidate can see and touch. Each probe also runs outside, where it must find what the sandbox hides."""

import gc
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from sandbox.dataset import Dataset
from sandbox.device import find_device
from sandbox.engines import Engine
from sandbox.measure import measure
from sandbox.profile import UIDS, Limits
from tests.sandbox.candidates import gate_probe, probe
from tests.sandbox.fixtures import ROOT, Measure, measurer
from tests.sandbox.traces import traces

PROBE = """
import ctypes, socket
libc = ctypes.CDLL(None, use_errno=True)

def works(action, *arguments):
    try:
        action(*arguments)
        return True
    except OSError:
        return False

def call(number, *arguments):
    ctypes.set_errno(0)
    return libc.syscall(number, *arguments) >= 0

def make_file(path):
    with open(path, "x") as file:
        file.write("x")
    os.unlink(path)

status = dict(line.split(":", 1) for line in open("/proc/self/status"))
print(json.dumps({
    "uid": os.getuid(), "gid": os.getgid(), "groups": os.getgroups(),
    "capabilities": [int(status[name], 16) for name in ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb")],
    "no_new_privileges": int(status["NoNewPrivs"]), "seccomp": int(status["Seccomp"]),
    "interfaces": [line.split(":")[0].strip() for line in open("/proc/net/dev").readlines()[2:]],
    "writable": [path for path in ("/", "/lab", "/usr", "/etc", "/data", "/gate", "/var/tmp") if works(make_file, path + "/probe-7b1")],
    "inet": works(socket.socket, socket.AF_INET), "netlink": works(socket.socket, socket.AF_NETLINK, socket.SOCK_RAW),
    "vsock": works(socket.socket, 40),
    "unshare_user": call(272, 0x10000000), "userfaultfd": call(323, 0), "io_uring": call(425, 1, ctypes.create_string_buffer(120)),
    "ptrace": call(101, 0, 0, 0, 0), "keyctl": call(250, 0, -3, 1), "add_key": call(248, b"user", b"k", b"v", 1, -3),
    "environment": dict(os.environ), "hostname": os.uname().nodename, "pid": os.getpid(),
    "processes": sorted(int(name) for name in os.listdir("/proc") if name.isdigit()),
    "home": os.path.exists("/home") and bool(os.listdir("/home")), "shadow": os.path.exists("/etc/shadow"),
    "descriptors": sorted(int(name) for name in os.listdir("/proc/self/fd")),
    "files": sorted(os.path.join(folder, name) for top in ("/data", "/gate", "/out", "/lab") for folder, _, names in os.walk(top) for name in names),
    "devices": sorted(name for name in os.listdir("/dev")),
}))
sys.stdout.flush()
"""


@pytest.fixture(scope="module")
def inside(engine: Engine, dataset: Dataset, state_dir: Path) -> dict[str, object]:
    """What the probe finds in a training container before `go`."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AUTORESEARCH_TEST_SECRET", "sesame")
        found = json.loads(measurer(engine, dataset, state_dir)(probe(PROBE)).log_tail)
    assert isinstance(found, dict)
    return found


@pytest.fixture(scope="session")
def outside() -> dict[str, object]:
    """What the same probe finds on the host."""
    environment = os.environ | {"AUTORESEARCH_TEST_SECRET": "sesame"}
    output = subprocess.run(
        [sys.executable, "-c", probe(PROBE)], env=environment, capture_output=True, check=True
    ).stdout
    found = json.loads(output)
    assert isinstance(found, dict)
    return found


def test_a_candidate_is_nobody_and_can_do_nothing(inside: dict[str, object], outside: dict[str, object]) -> None:
    assert inside["uid"] in UIDS and inside["gid"] in UIDS
    assert set(inside["groups"]) <= {inside["gid"]}  # type: ignore[call-overload]
    assert inside["capabilities"] == [0] * 5
    assert (inside["no_new_privileges"], inside["seccomp"]) == (1, 2)
    assert (inside["writable"], bool(outside["writable"])) == ([], True)
    for call in ("inet", "netlink", "vsock", "unshare_user", "userfaultfd", "io_uring", "ptrace", "keyctl", "add_key"):
        assert inside[call] is False, call
    assert all(outside[call] for call in ("inet", "netlink", "unshare_user", "ptrace", "keyctl", "add_key")), outside


def test_a_candidate_sees_nothing_of_the_host(inside: dict[str, object], outside: dict[str, object]) -> None:
    assert inside["interfaces"] == ["lo"]
    assert "AUTORESEARCH_TEST_SECRET" in outside["environment"]  # type: ignore[operator]
    assert "AUTORESEARCH_TEST_SECRET" not in inside["environment"]  # type: ignore[operator]
    assert (inside["hostname"], inside["pid"], inside["processes"]) == ("lab", 1, [1])
    assert len(outside["processes"]) > 1  # type: ignore[arg-type]
    assert (inside["shadow"], outside["shadow"]) == (False, True)
    assert not inside["home"]
    assert len(inside["descriptors"]) <= 4  # type: ignore[arg-type]
    allowed = {"core", "fd", "full", "mqueue", "null", "ptmx", "pts", "random", "shm", "stderr", "stdin", "stdout", "tty", "urandom", "zero", "console"}  # fmt: skip
    assert set(inside["devices"]) <= allowed  # type: ignore[call-overload]


def test_there_is_no_training_data_before_go(inside: dict[str, object], run: Measure) -> None:
    expected = ["/gate/gate.sock", "/lab/config.json", "/lab/prepare.py", "/lab/train.py"]
    assert inside["files"] == expected
    after = run(gate_probe("start()\nprint(json.dumps(os.listdir('/data')))"))
    assert json.loads(after.log_tail) == ["train.bin"]


def test_training_data_cannot_be_changed(run: Measure, dataset: object) -> None:
    code = """
    start()
    for attempt in (lambda: os.chmod("/data/train.bin", 0o666), lambda: open("/data/train.bin", "r+b"), lambda: os.unlink("/data/train.bin")):
        try:
            attempt()
            print("changed")
        except OSError:
            pass
    print("tried")
    """
    assert run(gate_probe(code)).log_tail == "tried\n"


def test_disks_are_bounded(run: Measure) -> None:
    code = """
    def fill(path):
        try:
            with open(path, "wb", buffering=0) as file:
                while True:
                    file.write(bytes(2**20))
        except OSError:
            return os.path.getsize(path) // 2**20
    print(json.dumps([fill(path) for path in ("/tmp/bomb", "/dev/shm/bomb", "/out/bomb")]))
    """
    tmp, shm, out = json.loads(run(probe(code)).log_tail)
    assert 0 < tmp <= 64 and 0 < shm <= 16 and 0 < out <= 16


def test_out_is_bounded_in_files(run: Measure) -> None:
    code = """
    made = 0
    try:
        for made in range(100_000):
            open(f"/out/{made}", "x").close()
    except OSError:
        print(made)
    """
    assert 100 < int(run(probe(code)).log_tail) < 2000


def test_a_fork_bomb_is_contained_and_gone_afterwards(run: Measure, engine: Engine, state_dir: Path) -> None:
    code = """
    made = 0
    try:
        while made < 10_000:
            if os.fork() == 0:
                os.setsid()
                time.sleep(600)
                os._exit(0)
            made += 1
    except OSError:
        print(made)
    """
    assert 10 < int(run(probe(code)).log_tail) < 64
    assert traces(engine, state_dir) == []


@pytest.fixture(scope="module")
def warm(engine: Engine, dataset: Dataset, state_dir: Path) -> None:
    """The engine keeps no more descriptors than it has now."""
    for _ in range(6):  # the Docker SDK keeps a connection for each URL that it has asked, and 25 of them
        measurer(engine, dataset, state_dir)(probe(""))


@pytest.mark.usefixtures("warm")
@pytest.mark.parametrize("source", [probe("raise SystemExit(3)"), gate_probe("start(); time.sleep(60)")])
def test_nothing_is_left_of_a_run(run: Measure, engine: Engine, state_dir: Path, source: str) -> None:
    counts = [count_descriptors()]
    while len(counts) < 6 and (len(counts) == 1 or counts[-1] > counts[-2]):
        for _ in range(2):
            run(source, budget_s=0.2, limits={"grace_s": 0.5})
        assert traces(engine, state_dir) == []
        counts.append(count_descriptors())
    assert counts[-1] <= counts[-2], f"more with every run: {counts}"


def count_descriptors() -> int:
    gc.collect()  # closes the connections that the Docker SDK has let go of
    return len(list(Path("/proc/self/fd").iterdir()))


SEARCH = """
import stat

LONGEST = max(map(len, NEEDLES))
buffer = bytearray(2**20 + LONGEST)  # one for all files: fresh memory for each chunk takes longer than reading it

def holds(path):
    try:
        status = os.lstat(path)
        if not stat.S_ISREG(status.st_mode) or status.st_size < len(NEEDLES[0]):
            return False
        with open(path, "rb", buffering=0) as file:
            end = 0
            while True:
                kept = min(end, LONGEST)
                buffer[:kept] = buffer[end - kept:end]
                count = file.readinto(memoryview(buffer)[kept:])
                if not count:
                    return False
                end = kept + count
                if any(buffer.find(needle, 0, end) >= 0 for needle in NEEDLES):
                    return True
    except (OSError, ValueError):
        return False

def found(root):
    paths = []
    for folder, folders, files in os.walk(root):
        folders[:] = [name for name in folders if folder != "/" or name not in ("proc", "sys")]
        paths += [os.path.join(folder, name) for name in files]
    reading, writing = os.pipe()
    for half in range(2):  # one for each CPU
        if os.fork() == 0:
            os.write(writing, json.dumps([path for path in paths[half::2] if holds(path)]).encode() + b"\\n")
            os._exit(0)
    ended = [os.wait()[1] for half in range(2)]
    first, second = map(json.loads, os.read(reading, 2**16).splitlines())
    return {"looked": len(paths), "found": first + second, "ended": ended}
"""


@pytest.mark.timeout(600)
def test_of_everything_that_can_be_read_before_go_nothing_holds_training_text(
    runc: Engine, state_dir: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """The same search finds it in /data once the clock runs; validation and test text are not there even then."""
    folder = tmp_path_factory.mktemp("secret")
    rng = np.random.default_rng(0)
    words = ["".join(map(chr, rng.integers(97, 123, 8))) for _ in range(3000)]
    for i in range(300):
        (folder / f"{i}.txt").write_text(" ".join(rng.choice(words, 500)))
    command = [sys.executable, str(ROOT / "prepare.py"), "--corpus", "local", str(folder), "--profile", "cpu"]
    knobs = ["--max-seq-len", "32", "--vocab-size", "300", "--eval-tokens", "32768", "--out", str(folder / "set")]
    subprocess.run([*command, *knobs], cwd=folder, check=True, capture_output=True)
    dataset = Dataset.open(folder / "set")
    splits = {"train": dataset.rows("train"), "val": dataset.rows("val"), "test": dataset.unsealed(lambda _: None)}
    needles = [np.array(rows[0]).tobytes() for rows in splits.values()] + [words[0].encode()]
    listed = [needle.hex() for needle in needles]  # or it would find its own source
    code = f"NEEDLES = [bytes.fromhex(n) for n in {listed}]\n{SEARCH}\nbefore = found('/')\nstart()\nprint(json.dumps([before, found('/data')]))"
    limits = Limits(
        cpus=2, memory_bytes=2**30, tmp_bytes=2**20, out_bytes=2**20, startup_s=240.0, grace_s=30.0, stolen_cpu=1.0
    )
    measured = measure(gate_probe(code), dataset, runc, budget_s=1.0, seed=1, device=find_device("cpu"), limits=limits, state_dir=state_dir)  # fmt: skip
    before, after = json.loads(measured.log_tail)
    assert before["looked"] > 5000 and before["found"] == [] and before["ended"] == [0, 0]
    assert after["found"] == ["/data/train.bin"]
    rows = splits["train"]
    assert all(needle not in np.array(rows).tobytes() for needle in needles[1:])
