"""Kernels of the champion: made without data, handed to those that come after it, and worth nothing to a graph that changed."""

import hashlib
import threading
from pathlib import Path

import pytest

from sandbox.dataset import Dataset
from sandbox.device import find_device
from sandbox.engines import Engine
from sandbox.kernels import KEPT, compile_kernels
from sandbox.oversee import Cancelled
from sandbox.profile import Limits
from tests.sandbox.candidates import gate_probe, known_model, trained_model
from tests.sandbox.fixtures import Measure

MEBIBYTE = 2**20
LIMITS = Limits(cpus=2, memory_bytes=2048 * MEBIBYTE, tmp_bytes=256 * MEBIBYTE, shm_bytes=16 * MEBIBYTE, out_bytes=64 * MEBIBYTE)  # fmt: skip

KEEPS = """
config = json.load(open("/lab/config.json"))
if config.get("keep_kernels"):
    with open("/out/kernels.tar", "w") as file:
        file.write(" ".join(sorted(os.listdir("/data"))) + "|kernels")
print(start())
"""


def compiled(source: str, dataset: Dataset, engine: Engine, state_dir: Path, **options: object) -> Path | None:
    given: dict[str, object] = {"device": find_device("cpu"), "limits": LIMITS, "state_dir": state_dir, **options}
    return compile_kernels(source, dataset, engine, **given)  # type: ignore[arg-type]


def test_kernels_are_made_once_and_without_data(
    engine: Engine, dataset: Dataset, state_dir: Path, tmp_path: Path
) -> None:
    source = gate_probe(f"# {tmp_path}\n{KEEPS}")
    path = compiled(source, dataset, engine, state_dir)
    assert path is not None and path.read_text() == "|kernels", "there was nothing in /data, and no `go` after it"
    made = path.stat().st_ctime_ns
    assert compiled(source, dataset, engine, state_dir) == path and path.stat().st_ctime_ns == made
    other = compiled(source + "\n", dataset, engine, state_dir)
    assert other is not None and other != path


def test_a_run_gets_them_read_only_and_says_so_in_its_receipt(run: Measure, tmp_path: Path) -> None:
    kernels = tmp_path / "kernels.tar"
    kernels.write_text("made before")
    measured = run(
        gate_probe("""
        print(open("/cache/kernels.tar").read(), sorted(os.listdir("/cache")))
        for write in (lambda: open("/cache/kernels.tar", "a"), lambda: open("/cache/more", "w"), lambda: os.unlink("/cache/kernels.tar")):
            try:
                write()
                print("written")
            except OSError as error:
                print(type(error).__name__)
        start()
        """),
        kernels=kernels,
    )
    first, *refused = measured.log_tail.splitlines()
    assert first == "made before ['kernels.tar']" and len(refused) == 3 and "written" not in refused
    assert measured.kernels_sha256 == hashlib.sha256(b"made before").hexdigest()
    assert run(gate_probe("print(os.path.exists('/cache/kernels.tar'))")).log_tail.strip() == "False"


def test_scoring_gets_none(run_once: Measure, tmp_path: Path) -> None:
    kernels = tmp_path / "kernels.tar"
    kernels.write_bytes(b"\0" * 10240)  # an empty archive
    forward = "import os; assert not os.path.exists('/cache/kernels.tar'); return self.table(tokens)"
    measured = run_once(trained_model(forward=forward), kernels=kernels)
    assert measured.failure is None, measured
    assert measured.kernels_sha256 == hashlib.sha256(kernels.read_bytes()).hexdigest()


@pytest.mark.parametrize("content", [b"no archive", b"\0" * 700, b"kernels" * 1000])
def test_kernels_that_are_none_do_not_end_a_run(run_once: Measure, tmp_path: Path, content: bytes) -> None:
    kernels = tmp_path / "kernels.tar"
    kernels.write_bytes(content)
    measured = run_once(known_model(), kernels=kernels)
    assert measured.failure is None, measured


@pytest.mark.parametrize(
    "code",
    [
        "sys.exit(3)",
        "start()",  # and no kernels
        "os.symlink('/lab/config.json', '/out/kernels.tar'); start()",
        "open('/out/kernels.tar', 'wb').truncate(2**20); start()",
        "say(type='done')",
    ],
)
def test_a_start_up_that_does_not_make_them_is_no_error(
    runc: Engine, dataset: Dataset, state_dir: Path, code: str
) -> None:
    assert compiled(gate_probe(code), dataset, runc, state_dir) is None
    assert not list((state_dir / "runs").iterdir())


def test_only_the_latest_are_kept(runc: Engine, dataset: Dataset, state_dir: Path) -> None:
    paths = [compiled(gate_probe(f"# {number}\n{KEEPS}"), dataset, runc, state_dir) for number in range(KEPT + 2)]
    assert [path is not None and path.exists() for path in paths] == [False] * 2 + [True] * KEPT


def test_a_start_up_that_is_cancelled_ends_at_once(runc: Engine, dataset: Dataset, state_dir: Path) -> None:
    cancel = threading.Event()
    cancel.set()
    with pytest.raises(Cancelled):
        compiled(gate_probe("time.sleep(600)"), dataset, runc, state_dir, cancel=cancel)


COMPILES = """
    from torch._dynamo.utils import counters
    for factor in FACTORS:
        torch.compile(lambda x: (x.sin() * factor).sum(), dynamic=False)(torch.ones(64)).item()
    print(dict(counters["inductor"]))
    prepare.start_clock()"""


def test_only_a_graph_that_changed_is_compiled_again(
    runc: Engine, dataset: Dataset, state_dir: Path, run_once: Measure
) -> None:
    """The real compiler, for the CPU: it counts its own hits and misses."""

    def compiling(factors: str) -> str:
        return known_model().replace("    prepare.start_clock()", COMPILES.replace("FACTORS", factors))

    kernels = compiled(compiling("[2]"), dataset, runc, state_dir)
    assert kernels is not None
    limits = {"memory_bytes": LIMITS.memory_bytes, "tmp_bytes": LIMITS.tmp_bytes, "pids": 512}
    measured = run_once(compiling("[2, 3]"), kernels=kernels, limits=limits)
    assert measured.failure is None, measured
    assert "'fxgraph_cache_hit': 1" in measured.log_tail and "'fxgraph_cache_miss': 1" in measured.log_tail
