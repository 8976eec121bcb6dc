"""What there is to attack on a host: secrets, services, a process, memory, each of them the test's own."""

import ctypes
import os
import secrets
import socket
import stat
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

libc = ctypes.CDLL(None, use_errno=True)
IPC_CREAT, IPC_RMID = 0o1000, 0
MQ_OPEN, MQ_UNLINK, NAME_TO_HANDLE_AT = 240, 241, 303  # x86-64
AT_FDCWD, HANDLE_BYTES = -100, 128


@contextmanager
def a_host_worth_attacking(folder: Path) -> Iterator[dict[str, Any]]:
    """What the attacks must know of it; gone after the block.

    Args:
        folder: on the file system on which the lab's state lies.
    """
    secret = secrets.token_hex(16)
    with ExitStack() as stack:
        stack.enter_context(a_variable_with(secret))
        victim = stack.enter_context(a_process_with(secret))
        yield {
            "secret": secret,
            "tcp_port": stack.enter_context(a_service(socket.SOCK_STREAM)),
            "udp_port": stack.enter_context(a_service(socket.SOCK_DGRAM)),
            "victim": victim,
            "victim_root": f"/proc/{victim}/root",
            "hostname": os.uname().nodename,
            "disk": a_disk(),
            "secret_handle": handle_of(folder, secret),
            "shm_key": stack.enter_context(a_segment_with(b"secret")),
            "semaphore_key": stack.enter_context(a_semaphore()),
            "queue": stack.enter_context(a_message_queue()),
        }


@contextmanager
def a_variable_with(secret: str) -> Iterator[None]:
    """In the environment of this process, which starts the containers."""
    os.environ["AUTORESEARCH_TEST_KEY"] = secret
    yield
    del os.environ["AUTORESEARCH_TEST_KEY"]


@contextmanager
def a_process_with(secret: str) -> Iterator[int]:
    """Its pid; the secret is in its arguments and in its environment."""
    command = [sys.executable, "-c", "print(flush=True); input()", secret]
    with subprocess.Popen(command, env={"API_KEY": secret}, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.readline()
        yield process.pid
        process.kill()


@contextmanager
def a_service(kind: socket.SocketKind) -> Iterator[int]:
    """Port on the loopback where whoever asks is answered."""
    with socket.socket(socket.AF_INET, kind) as server:
        server.bind(("127.0.0.1", 0))
        if kind == socket.SOCK_STREAM:
            server.listen(64)
        threading.Thread(target=answer, args=(server, kind), daemon=True).start()
        yield server.getsockname()[1]
        with suppress(OSError):  # wakes the thread; a datagram socket has nothing to shut down
            server.shutdown(socket.SHUT_RDWR)


def answer(server: socket.socket, kind: socket.SocketKind) -> None:
    try:
        while True:
            if kind == socket.SOCK_STREAM:
                with server.accept()[0] as connection:
                    connection.sendall(b"secret")
            else:
                sender = server.recvfrom(100)[1]
                if sender is None:  # nobody sent this: the socket is being closed
                    return
                server.sendto(b"secret", sender)
    except OSError:  # closed
        pass


def a_disk() -> tuple[int, int]:
    """Major and minor number of a block device that the host itself can read."""
    for folder in sorted(Path("/sys/dev/block").iterdir()):
        name = (folder / "uevent").read_text().partition("DEVNAME=")[2].split()[0]
        with suppress(OSError), Path("/dev", name).open("rb"):
            major, minor = folder.name.split(":")
            return int(major), int(minor)
    raise FileNotFoundError("no block device of this machine can be read")


def handle_of(folder: Path, secret: str) -> str:
    """What open_by_handle_at(2) takes for a file that only root can open, in hexadecimal digits."""
    path = folder / "secret"
    path.write_text(secret)
    path.chmod(stat.S_IRUSR)
    handle = ctypes.create_string_buffer(HANDLE_BYTES.to_bytes(4, "little"), 8 + HANDLE_BYTES)
    mount = ctypes.c_int()
    if libc.syscall(NAME_TO_HANDLE_AT, AT_FDCWD, bytes(path), handle, ctypes.byref(mount), 0) != 0:
        raise OSError(ctypes.get_errno(), "name_to_handle_at")
    return handle.raw.hex()


@contextmanager
def a_segment_with(content: bytes) -> Iterator[int]:
    """Key of a System V shared memory segment that everybody may read."""
    libc.shmat.restype = ctypes.c_void_p
    key = 1 + secrets.randbelow(2**30)
    segment = libc.shmget(key, 4096, IPC_CREAT | 0o666)
    ctypes.memmove(libc.shmat(segment, None, 0), content, len(content))
    yield key
    libc.shmctl(segment, IPC_RMID, None)


@contextmanager
def a_semaphore() -> Iterator[int]:
    key = 1 + secrets.randbelow(2**30)
    semaphore = libc.semget(key, 1, IPC_CREAT | 0o666)
    yield key
    libc.semctl(semaphore, 0, IPC_RMID)


@contextmanager
def a_message_queue() -> Iterator[str]:
    """Name of a POSIX message queue that everybody may read."""
    name = f"autoresearch-{secrets.token_hex(8)}"
    before = os.umask(0)
    descriptor = libc.syscall(MQ_OPEN, name.encode(), os.O_CREAT | os.O_RDWR, 0o666, None)
    os.umask(before)
    yield name
    os.close(descriptor)
    libc.syscall(MQ_UNLINK, name.encode())
