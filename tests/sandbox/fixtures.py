import _ctypes
import io
import os
import shutil
import subprocess
import sys
import tarfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from docker.api.client import APIClient

from records import Measurement
from sandbox.dataset import Dataset
from sandbox.device import find_device
from sandbox.engines import Engine, pick_engine
from sandbox.engines.docker import DockerEngine
from sandbox.measure import measure
from sandbox.profile import Limits
from tests.components import require

ROOT = Path(__file__).parents[2]
Measure = Callable[..., Measurement]


@pytest.fixture(scope="session")
def state_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("lab") / ".autoresearch"


@pytest.fixture(scope="session")
def runc(state_dir: Path) -> Engine:
    require(shutil.which("runc") is not None and os.geteuid() == 0, "runc is missing (apt-get install runc, as root)")
    state_dir.mkdir(parents=True, exist_ok=True)
    return pick_engine("runc", state_dir=state_dir)


@pytest.fixture(scope="session", params=["runc", "docker", "docker-unprivileged"])
def engine(request: pytest.FixtureRequest, state_dir: Path) -> Engine:
    """Each engine in turn. `docker-unprivileged` is the docker engine as a user gets it who may not mount."""
    if request.param == "runc":
        runc: Engine = request.getfixturevalue("runc")
        return runc
    state_dir.mkdir(parents=True, exist_ok=True)
    request.getfixturevalue("docker_daemon")
    found = pick_engine("docker", state_dir=state_dir)
    assert isinstance(found, DockerEngine)
    found.privileged = request.param == "docker"
    return found


@pytest.fixture(scope="session")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    """A few hundred short rows, made by the real prepare.py."""
    folder = tmp_path_factory.mktemp("data")
    texts = folder / "texts"
    texts.mkdir()
    for source in sorted(Path(os.__file__).parent.glob("[a-d]*.py")):
        shutil.copy(source, texts)
    knobs = ["--max-seq-len", "32", "--vocab-size", "300", "--eval-tokens", "32768"]
    command = [sys.executable, str(ROOT / "prepare.py"), "--corpus", "local", str(texts), "--profile", "cpu", *knobs]
    subprocess.run([*command, "--out", str(folder / "set")], cwd=folder, check=True, capture_output=True)
    return Dataset.open(folder / "set")


@pytest.fixture
def run(engine: Engine, dataset: Dataset, state_dir: Path) -> Measure:
    """Measure a source with each engine in turn."""
    return measurer(engine, dataset, state_dir)


@pytest.fixture
def run_once(runc: Engine, dataset: Dataset, state_dir: Path) -> Measure:
    """Measure a source with one engine, where none can make a difference."""
    return measurer(runc, dataset, state_dir)


def measurer(engine: Engine, dataset: Dataset, state_dir: Path) -> Measure:
    """Measures a source through the production path, with tight limits that a test may override.

    Time alone is ample, and others may take all they want: a busy machine must not turn another failure into one of these.
    """

    def measured(
        source: str, *, budget_s: float = 1.0, limits: dict[str, float] | None = None, **options: object
    ) -> Measurement:
        mebibyte = 2**20
        given = {"cpus": 2, "memory_bytes": 1024 * mebibyte, "pids": 64, "grace_s": 10.0, "startup_s": 60.0}
        given |= {
            "stolen_cpu": 1.0,
            "tmp_bytes": 64 * mebibyte,
            "shm_bytes": 16 * mebibyte,
            "out_bytes": 16 * mebibyte,
            **(limits or {}),
        }
        arguments: dict[str, object] = {"budget_s": budget_s, "seed": 3, "limits": Limits(**given)}  # type: ignore[arg-type]
        arguments |= {"device": find_device("cpu"), **options}
        return measure(source, dataset, engine, state_dir=state_dir, **arguments)  # type: ignore[arg-type]

    return measured


@pytest.fixture(scope="module")
def bare_image(docker_daemon: str) -> Iterator[str]:
    """An image with a Python and nothing else: what docker/Dockerfile makes, as far as no registry is needed for it."""
    client = APIClient(base_url=docker_daemon, version="auto")
    prefix = Path(sys.base_prefix)
    needed = {prefix / "bin" / f"python{sys.version_info.major}.{sys.version_info.minor}"}
    programs = [*map(str, needed), _ctypes.__file__]
    libraries = subprocess.run(["ldd", *programs], capture_output=True, text=True, check=True).stdout
    needed |= {Path(word) for word in libraries.split() if word.startswith("/") and not word.endswith(":")}
    (libc,) = (path for path in needed if path.name == "libc.so.6")
    needed |= {libc.with_name(name) for name in ("libdl.so.2", "libpthread.so.0", "librt.so.1")}  # for GPU drivers
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", dereference=True) as archive:
        for path in needed:
            archive.add(path)
        library = prefix / "lib" / f"python{sys.version_info.major}.{sys.version_info.minor}"
        archive.add(library, filter=lambda m: None if m.name.endswith(("site-packages", "/test", ".a")) else m)
        link = tarfile.TarInfo("usr/local/bin/python")
        link.type, link.linkname = tarfile.SYMTYPE, str(prefix / "bin" / f"python3.{sys.version_info.minor}")
        archive.addfile(link)
    client.import_image_from_data(buffer.getvalue(), repository="autoresearch-bare", tag="test")
    yield "autoresearch-bare:test"
    client.remove_image("autoresearch-bare:test", force=True)
