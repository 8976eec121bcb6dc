"""Whatever lies in /out when a candidate is dead, the host copies one plain file of the run's user, or nothing."""

import os
import socket
from collections.abc import Callable
from pathlib import Path

import pytest

from records import FailureKind
from sandbox.collect import collect
from sandbox.failure import Faulted
from tests.components import require

UID = 61_234
NAME = "model.safetensors"


@pytest.fixture
def out(tmp_path: Path) -> Path:
    require(os.geteuid() == 0, "files of another user can be made by root only")
    folder = tmp_path / "out"
    folder.mkdir()
    return folder


def write(path: Path, content: bytes = b"weights", uid: int = UID) -> None:
    path.write_bytes(content)
    os.chown(path, uid, uid)


def taken(out: Path, limit_bytes: int = 100) -> bytes:
    copy = out.parent / "copy"
    collect(out, NAME, copy, uid=UID, limit_bytes=limit_bytes)
    return copy.read_bytes()


def test_a_plain_file_is_copied(out: Path) -> None:
    write(out / NAME)
    assert taken(out) == b"weights"


def symlink_to_secret(out: Path) -> None:
    write(out.parent / "secret")
    (out / NAME).symlink_to(out.parent / "secret")


def symlink_within(out: Path) -> None:
    write(out / "other")
    (out / NAME).symlink_to("other")


def hard_link(out: Path) -> None:
    write(out / "other")
    (out / NAME).hardlink_to(out / "other")


def fifo(out: Path) -> None:
    os.mkfifo(out / NAME)


def socket_file(out: Path) -> None:
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(out / NAME))


def device(out: Path) -> None:
    os.mknod(out / NAME, 0o600 | 0o020000, os.makedev(1, 5))  # /dev/zero


def somebody_elses(out: Path) -> None:
    write(out / NAME, uid=0)


def too_large(out: Path) -> None:
    write(out / NAME, bytes(101))


def sparse(out: Path) -> None:
    write(out / NAME)
    os.truncate(out / NAME, 2**40)


def holes(out: Path) -> None:
    write(out / NAME, b"")
    os.truncate(out / NAME, 100)


TRAPS = [
    symlink_to_secret,
    symlink_within,
    hard_link,
    fifo,
    socket_file,
    device,
    somebody_elses,
    too_large,
    sparse,
    holes,
]


@pytest.mark.parametrize(
    "trap", [*TRAPS, lambda out: (out / NAME).mkdir()], ids=[*(t.__name__ for t in TRAPS), "folder"]
)
def test_a_trap_is_invalid_and_nothing_of_it_is_copied(out: Path, trap: Callable[[Path], None]) -> None:
    trap(out)
    with pytest.raises(Faulted) as fault:
        taken(out)
    assert fault.value.failure.kind == FailureKind.INVALID
    assert not (out.parent / "copy").exists()


def test_nothing_there_is_no_submit(out: Path) -> None:
    with pytest.raises(Faulted) as fault:
        taken(out)
    assert fault.value.failure.kind == FailureKind.NO_SUBMIT


def naive_copy(out: Path) -> bytes:
    """What a collector does that believes in names. It does not wait for a writer, as it well might."""
    descriptor = os.open(out / NAME, os.O_RDONLY | os.O_NONBLOCK)
    try:
        return os.read(descriptor, 200)
    finally:
        os.close(descriptor)


@pytest.mark.parametrize(
    ("trap", "taken"),
    [
        (symlink_to_secret, b"weights"),
        (symlink_within, b"weights"),
        (hard_link, b"weights"),
        (fifo, b""),
        (device, bytes(200)),
        (somebody_elses, b"weights"),
        (too_large, bytes(101)),
        (sparse, b"weights" + bytes(193)),
        (holes, bytes(100)),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_a_collector_that_believes_in_names_falls_into_the_trap(
    out: Path, trap: Callable[[Path], None], taken: bytes
) -> None:
    trap(out)
    assert naive_copy(out) == taken
