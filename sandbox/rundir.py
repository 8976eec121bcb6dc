"""The run directory: where the files of one run lie while it lasts, and which process they belong to."""

import json
import re
import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import psutil

from records import BadInput, HostFault
from sandbox.mounts import unmount_below

UNNAMED = ".new-"
UNNAMED_S = 60.0
"""A directory without an owner may be that young."""
RUN_ID = re.compile(r"[a-z0-9][a-z0-9_.-]{0,63}")


class Owner(NamedTuple):
    """A host process, told apart from a later one of the same pid by its start, and from one before a reboot."""

    pid: int
    started: float
    boot_id: str

    @classmethod
    def this_process(cls) -> "Owner":
        process = psutil.Process()
        return cls(process.pid, process.create_time(), _boot_id())

    @property
    def alive(self) -> bool:
        if self.boot_id != _boot_id():
            return False
        try:
            process = psutil.Process(self.pid)
            return process.create_time() == self.started and process.status() != psutil.STATUS_ZOMBIE
        except psutil.NoSuchProcess:
            return False


def _boot_id() -> str:
    return Path("/proc/sys/kernel/random/boot_id").read_text().strip()


def runs_dir(state_dir: Path) -> Path:
    return state_dir.resolve() / "runs"


@contextmanager
def run_directory(state_dir: Path, run_id: str) -> Iterator[Path]:
    """A directory of this run alone, which nobody but this user can enter; removed at the end, mounts in it included.

    Raises:
        BadInput: the run id is not one.
        HostFault: a run of this id exists, or the directory could not be removed.
    """
    if not RUN_ID.fullmatch(run_id):
        raise BadInput(f"run id {run_id!r}: use up to 64 of a-z 0-9 . _ - and begin with a letter or digit")
    path = runs_dir(state_dir) / run_id
    path.parent.mkdir(parents=True, exist_ok=True)
    path.parent.chmod(0o700)
    # Under its name it has an owner from the first moment on.
    unnamed = Path(tempfile.mkdtemp(prefix=UNNAMED, dir=path.parent))
    (unnamed / "owner.json").write_text(json.dumps(Owner.this_process()._asdict()))
    try:
        unnamed.rename(path)
    except OSError:
        shutil.rmtree(unnamed)
        raise HostFault(f"a run named {run_id} is going on, or died and was not swept yet") from None
    try:
        yield path
    finally:
        remove_directory(path)


def readable_folder(path: Path) -> Path:
    """A new folder that a run's user can read, once it is mounted: the run directory around it is closed."""
    path.mkdir()
    path.chmod(0o755)
    return path


def write_readable(path: Path, content: bytes) -> None:
    """A new file that a run's user can read, and nobody changes."""
    path.write_bytes(content)
    path.chmod(0o444)


def is_abandoned(path: Path) -> bool:
    """Whether the process that a run directory belongs to is dead."""
    try:
        return not Owner(**json.loads((path / "owner.json").read_text())).alive
    except (OSError, ValueError, TypeError):
        return not (path.name.startswith(UNNAMED) and path.exists() and time.time() - path.stat().st_mtime < UNNAMED_S)


def remove_directory(path: Path) -> None:
    """Unmount what is mounted in a run directory, then delete it: nothing that a candidate wrote is walked into."""
    unmount_below(path)
    shutil.rmtree(path, ignore_errors=True)
    if path.exists():
        raise HostFault(f"{path} could not be removed: delete it by hand")
