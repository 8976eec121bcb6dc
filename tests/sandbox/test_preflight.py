"""What an author is told of a train.py that works, of one that does not, and of one of which a preflight cannot tell."""

import copy
import multiprocessing
import re
import socket
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest

from data.profiles import PROFILES
from records import SOURCE_LIMIT_BYTES, HostFault, Preflighted
from sandbox.dataset import Dataset, Knobs
from sandbox.engines import Engine, cgroup, pick_engine
from sandbox.engines.docker import DockerEngine
from sandbox.engines.runc import RuncEngine
from sandbox.oversee import Cancelled
from sandbox.preflight import LIMITS, LINE_CHARS, QUOTED_LINES, preflight
from sandbox.sweep import sweep
from tests.sandbox.candidates import gate_probe, probe, trained_model
from tests.sandbox.fixtures import ROOT
from tests.sandbox.traces import traces

Try = Callable[..., Preflighted]
TRAIN = (ROOT / "train.py").read_text()


@pytest.fixture
def attempt(runc: Engine, dataset: Dataset, state_dir: Path) -> Iterator[Try]:
    """A preflight with one engine, of which nothing may be left. With the weight of everybody: tests run on busy machines."""

    def tried(source: str, *, cap_s: float = 240.0, data: Dataset = dataset, **limits: int) -> Preflighted:
        changed = replace(LIMITS, cpu_shares=None, **limits)
        return preflight(source, data, runc, limits=changed, cap_s=cap_s, state_dir=state_dir)

    yield tried
    assert traces(runc, state_dir) == []


def of_profile(dataset: Dataset, name: str) -> Dataset:
    """A dataset of that profile of which there is the manifest alone."""
    manifest = dataset.manifest.model_copy(update={"knobs": Knobs.model_validate(PROFILES[name])})
    return replace(dataset, path=Path("/nowhere"), manifest=manifest)


# ---- what works ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("profile", ["cpu", "h100"])
def test_the_train_py_of_the_repository_passes_whatever_it_is_made_for(
    attempt: Try, dataset: Dataset, profile: str
) -> None:
    found = attempt(TRAIN, data=of_profile(dataset, profile))
    assert found.outcome == "passes", found.text
    assert re.fullmatch(r"started, trained for [1-9]\d* steps, submitted and was scored, all in \d+ s", found.text)


def test_it_goes_with_every_engine_and_nothing_is_left(engine: Engine, dataset: Dataset, state_dir: Path) -> None:
    limits = replace(LIMITS, cpu_shares=None)
    found = preflight(trained_model(), dataset, engine, limits=limits, state_dir=state_dir)
    assert found.outcome == "passes", found.text
    found = preflight(probe("raise ValueError('no')"), dataset, engine, limits=limits, state_dir=state_dir)
    assert found.outcome == "fails" and "ValueError: no" in found.text
    limits = replace(limits, cpu_s=1)
    found = preflight(probe("while True: pass"), dataset, engine, limits=limits, state_dir=state_dir)
    assert found.outcome == "unknown" and "took more than 1 s of CPU time" in found.text
    assert traces(engine, state_dir) == []


SEEN = """
start()
config = json.load(open("/lab/config.json"))
print({name: config["profile"][name] for name in ("depth", "max_seq_len", "total_batch_tokens", "head_dim")})
print(config["device"], config["vocab_size"], os.path.getsize("/data/train.bin") // 2 % 65)
raise SystemExit(3)
"""


def test_sizes_are_cut_down_the_vocabulary_is_not_and_the_device_is_the_cpu(attempt: Try, dataset: Dataset) -> None:
    text = attempt(gate_probe(SEEN), data=of_profile(dataset, "h100")).text
    assert "{'depth': 2, 'max_seq_len': 64, 'total_batch_tokens': 512, 'head_dim': 128}\ncpu 8192 0" in text


# ---- what does not ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("source", "says"),
    [
        ("def main(:\n    pass\n", "crash: exit code 1 before start_clock(): SyntaxError"),
        (probe("raise ValueError('the rate is\\x1b[31m negative\\u202e')"), "ValueError: the rate is negative\n(This was"),
        (gate_probe("start()"), "no_submit: ended while training without submitting a model"),
        (gate_probe("start(); say(type='progress', step=3, tokens=9, loss=None); time.sleep(60)"), "hopeless: the loss is not finite at step 3"),
        (gate_probe("start(); finish()"), "no_submit: it said it was done but left no model.safetensors"),
        (gate_probe("start(); open('/out/model.safetensors', 'wb').write(b'x' * 99); finish()"), "invalid: model.safetensors: not a safetensors file"),
        (trained_model(forward="return self.table(tokens)[:, :, :7]"), "invalid: rows 0–3: logits have shape [4, 32, 7], not [4, 32, 300]"),
        (trained_model(forward="return self.table(tokens) * float('nan')"), "invalid: row 0, position 0: the loss is nan"),
        ("#" * (SOURCE_LIMIT_BYTES + 1), "over the limit of 65536"),
    ],
    ids=["syntax", "at import", "no submit", "NaN loss", "no weights", "junk weights", "wrong shape", "NaN logits", "too large"],
)  # fmt: skip
def test_a_fault_is_told_in_a_few_lines(attempt: Try, source: str, says: str) -> None:
    found = attempt(source)
    assert found.outcome == "fails" and says in found.text, found.text
    assert "on a CPU, with PROFILE cut down to max_seq_len 32, depth 2" in found.text


def test_a_wrong_shape_in_training_is_told_with_the_candidates_own_frames_alone(attempt: Try) -> None:
    before, after = "self.embedding = nn.Embedding(VOCAB_SIZE, WIDTH)", "self.embedding = nn.Embedding(VOCAB_SIZE, 129)"
    assert TRAIN.count(before) == 1
    found = attempt(TRAIN.replace(before, after))
    assert found.outcome == "fails" and "mat1 and mat2 shapes cannot be multiplied" in found.text.splitlines()[0]
    assert 'File "/lab/train.py", line' in found.text and "site-packages" not in found.text, found.text


def test_a_flood_of_output_does_not_come_back(attempt: Try) -> None:
    found = attempt(
        probe("for _ in range(2000): print('x' * 2000, file=sys.stderr)\nraise ValueError('after the flood')")
    )
    assert found.outcome == "fails" and found.text.endswith("ValueError: after the flood")
    assert "x" * LINE_CHARS in found.text and len(found.text) < 1000 + (QUOTED_LINES + 1) * LINE_CHARS


# ---- of what cannot be told ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("source", "limits", "says"),
    [
        (probe("print('spinning')\nwhile True: pass"), {"cpu_s": 1}, "took more than 1 s of CPU time, on one CPU"),
        (gate_probe("start()\nwhile True: pass"), {"cpu_s": 1}, "took more than 1 s of CPU time, on one CPU"),
        (probe("time.sleep(60)"), {"cap_s": 1}, "took longer than 1 s, on one CPU"),
        (trained_model().replace("step=1", "step=0"), {}, "submitted without having reported a step in 1 s"),
        (probe("block = bytearray(600 * 2**20)"), {"memory_bytes": 256 * 2**20}, "out of memory before start_clock()"),
    ],
    ids=["never starts", "never ends", "sleeps", "no step", "large"],
)  # fmt: skip
def test_what_is_too_slow_or_too_large_is_not_called_wrong(
    attempt: Try, source: str, limits: dict[str, int], says: str
) -> None:
    found = attempt(source, **limits)
    assert found.outcome == "unknown" and says in found.text, found.text
    assert "not known whether it works\n(This was" in found.text
    assert found.text.endswith("Its last output:\nspinning") == ("spinning" in source)


# ---- untrusted, as ever ----------------------------------------------------------------------------------------------


def test_there_is_no_network(attempt: Try) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        reach = f"import socket\nsocket.create_connection(('127.0.0.1', {port}), 5)\nprint('reached')"
        found = attempt(probe(reach))
        assert found.outcome == "fails" and "reached" not in found.text.splitlines(), found.text
        assert "Error" in found.text.splitlines()[0]
        with socket.create_connection(("127.0.0.1", port), 5):
            pass


def test_there_is_no_text_of_the_dataset(attempt: Try, dataset: Dataset, tmp_path: Path) -> None:
    row = bytes(dataset.rows("train")[0, :17])
    look = f"""
    row = bytes.fromhex("{row.hex()}")
    holds = lambda path: row in open(path, "rb").read()
    print(os.path.exists({str(dataset.path)!r}), os.listdir("/data"))
    start()
    print(os.listdir("/data"), holds("/data/train.bin"))
    raise SystemExit(3)
    """
    found = attempt(gate_probe(look))
    assert "False []\n['train.bin'] False" in found.text
    assert row in (dataset.path / "train.bin").read_bytes()


@pytest.mark.parametrize(("shares", "weights"), [(LIMITS.cpu_shares, {1, 2}), (None, {100, 1024})])
def test_it_has_the_least_weight_on_the_cpu(
    engine: Engine, dataset: Dataset, state_dir: Path, shares: int | None, weights: set[int]
) -> None:
    """Of cgroup v2 or v1. What names no weight has everybody's."""
    cancel, limits = threading.Event(), replace(LIMITS, cpu_shares=shares)
    with ThreadPoolExecutor(1) as pool:
        going = pool.submit(
            preflight, probe("time.sleep(60)"), dataset, engine, limits=limits, state_dir=state_dir, cancel=cancel
        )
        try:
            assert weight(engine) in weights
        finally:
            cancel.set()
        with pytest.raises(Cancelled):
            going.result()
    assert traces(engine, state_dir) == []


def weight(engine: Engine) -> int:
    """CPU weight of the one container that runs; waits for it."""
    for _ in range(600):
        time.sleep(0.05)
        for name in {left.name for left in engine.leftovers()}:
            pid = pid_of(engine, name)
            for group in [] if pid is None else cpu_groups(pid):
                for file in (group / "cpu.shares", group / "cpu.weight"):
                    if file.exists():
                        return int(file.read_text())
    raise AssertionError("no container started")


def pid_of(engine: Engine, name: str) -> int | None:
    if isinstance(engine, DockerEngine):
        containers = engine.client.containers(filters={"name": name})
        return int(engine.client.inspect_container(name)["State"]["Pid"]) or None if containers else None
    assert isinstance(engine, RuncEngine)
    file = engine.bundles / name / "pid"
    return int(file.read_text()) if file.exists() and file.read_text() else None


def cpu_groups(pid: int) -> list[Path]:
    """Directories of a container's own cgroup that may hold its weight."""
    lines = [line.split(":", 2) for line in Path(f"/proc/{pid}/cgroup").read_text().splitlines()]
    roots = {"cpu": cgroup.ROOT / "cpu", "": cgroup.ROOT}
    return [
        roots[key] / path.lstrip("/")
        for _, controllers, path in lines
        for key in roots
        if key in controllers.split(",") and path != "/"
    ]


# ---- when the host fails ---------------------------------------------------------------------------------------------


def test_an_engine_that_starts_nothing_is_a_host_fault(runc: Engine, dataset: Dataset, state_dir: Path) -> None:
    broken = copy.copy(runc)
    assert isinstance(broken, RuncEngine)
    broken.program = "/nowhere/runc"
    with pytest.raises(HostFault, match="runc"):
        preflight(probe(""), dataset, broken, state_dir=state_dir)
    sweep([runc], state_dir)
    assert traces(runc, state_dir) == []


def sleep_for_ever(dataset: Path, state_dir: Path) -> None:
    preflight(
        probe("time.sleep(600)"), Dataset.open(dataset), pick_engine("runc", state_dir=state_dir), state_dir=state_dir
    )


def test_a_living_preflight_is_not_swept_and_what_a_killed_caller_leaves_is(
    runc: Engine, dataset: Dataset, state_dir: Path
) -> None:
    host = multiprocessing.get_context("spawn").Process(target=sleep_for_ever, args=(dataset.path, state_dir))
    host.start()
    try:
        weight(runc)  # it runs
        assert sweep([runc], state_dir) == []
        assert any("preflight-" in trace for trace in traces(runc, state_dir))
    finally:
        host.kill()
        host.join()
    assert any("container" in line for line in sweep([runc], state_dir))
    assert traces(runc, state_dir) == []
