"""Runs in a container and tries what each control of a launch profile forbids.

A probe returns what it could do or see that it should not, or None. It is named after its control (profile.Control). Each
runs in a process of its own, so that one that is killed for what it does takes no other along. Standard library only.
The first line printed is BEGIN, the last one is JSON: {probe: {"seen": str | null, "error": str | null}}.
"""

import ctypes
import errno
import json
import mmap
import os
import resource
import select
import signal
import socket
import stat
import time
import traceback
from collections.abc import Callable
from typing import Any

MEBIBYTE = 2**20
PATIENCE_S = 20.0
BEGIN = "probing"
STANDARD_DEVICES = {"null", "zero", "full", "random", "urandom", "tty", "ptmx", "pts/ptmx", "console"}

Facts = dict[str, Any]
"""What the host tells: the profile's values, and names of its own that must not be seen."""
Seen = str | None


def has_own_kernel(facts: Facts) -> bool:
    """gVisor answers system calls itself: filters and namespaces of the host's kernel are then not what holds."""
    return os.uname().version != str(facts["kernel"])


libc = ctypes.CDLL(None, use_errno=True)

# ---- who it is -------------------------------------------------------------------------------------------------------


def user(facts: Facts) -> Seen:
    return "is root" if 0 in (*os.getresuid(), *os.getresgid(), *os.getgroups()) else None


def capabilities(facts: Facts) -> Seen:
    sets = {name: value for name, value in status().items() if name.startswith("Cap") and int(value, 16)}
    return f"has {sets}" if sets else None


def no_new_privileges(facts: Facts) -> Seen:
    PR_GET_NO_NEW_PRIVS = 39
    return None if libc.prctl(PR_GET_NO_NEW_PRIVS, 0, 0, 0, 0) == 1 else "could gain privileges by exec"


def status() -> dict[str, str]:
    with open("/proc/self/status") as file:
        return {name: value.strip() for name, _, value in (line.partition(":") for line in file)}


# ---- system calls ----------------------------------------------------------------------------------------------------

ITSELF = 2**62
"""Stands for the caller's pid."""
CLONE_NEWUSER = 0x10000000
AF_PACKET, AF_ALG, AF_VSOCK = 17, 38, 40

# name: (number on x86-64, arguments that do no harm). Where the call needs privileges, the arguments are wrong on
# purpose: EINVAL, EFAULT or ENOENT tells that the kernel's own code was reached.
SYSCALLS: dict[str, tuple[int | bytes, ...]] = {
    "ptrace": (101, 0, 0, 0, 0),
    "process_vm_readv": (310, ITSELF, 0, 0, 0, 0, 0),
    "process_vm_writev": (311, ITSELF, 0, 0, 0, 0, 0),
    "kcmp": (312, ITSELF, ITSELF, 0, 0, 0),
    "pidfd_getfd": (438, -1, 0, 0),
    "bpf": (321, 9999, 0, 0),
    "perf_event_open": (298, 0, 0, -1, -1, 0),
    "userfaultfd": (323, 1),
    "splice": (275, -1, 0, -1, 0, 1, 0),
    "tee": (276, -1, -1, 1, 0),
    "vmsplice": (278, -1, 0, 0, 0),
    "io_uring_setup": (425, 1, 0),
    "io_uring_enter": (426, -1, 0, 0, 0, 0, 0),
    "io_uring_register": (427, -1, 0, 0, 0),
    "keyctl": (250, 0, -3, 1, 0, 0),
    "add_key": (248, b"user", b"probe", b"x", 1, -3),
    "request_key": (249, 0, 0, 0, 0),
    "unshare": (272, CLONE_NEWUSER),
    "clone": (56, CLONE_NEWUSER | signal.SIGCHLD, 0, 0, 0, 0),
    "setns": (308, -1, 0),
    "clone3": (435, 0, 0),
    "mount": (165, 0, 0, 0, 0, 0),
    "umount2": (166, b"/nowhere", 0),
    "pivot_root": (155, 0, 0),
    "chroot": (161, b"/nowhere"),
    "fsopen": (430, 0, 0),
    "fsmount": (432, -1, 0, 0),
    "open_tree": (428, -1, 0, 0),
    "move_mount": (429, -1, 0, -1, 0, 0),
    "mount_setattr": (442, -1, 0, 0, 0, 0),
    "open_by_handle_at": (304, -1, 0, 0),
    "name_to_handle_at": (303, -1, 0, 0, 0, 0),
    "init_module": (175, 0, 0, 0),
    "finit_module": (313, -1, 0, 0),
    "delete_module": (176, 0, 0),
    "kexec_load": (246, 0, 0, 0, -1),
    "reboot": (169, 0, 0, 0, 0),
    "swapon": (167, 0, 0),
    "acct": (163, b"/nowhere"),
    "quotactl": (179, 0, 0, 0, 0),
    "syslog": (103, 99, 0, 0),
    "sethostname": (170, 0, -1),
    "settimeofday": (164, 1, 0),
    "clock_settime": (227, 0, 0),
    "clock_adjtime": (305, 0, 0),
    "adjtimex": (159, 0),
    "iopl": (172, 4),
    "ioperm": (173, 0, 1, 99),
    "modify_ldt": (154, 99, 0, 0),
    "personality": (135, 0x0040000),
    "lookup_dcookie": (212, 0, 0, 0),
    "move_pages": (279, ITSELF, 0, 0, 0, 0, 0),
    "migrate_pages": (256, -1, 0, 0, 0),
    "fanotify_init": (300, 0, 0),
    "socket AF_INET": (41, socket.AF_INET, socket.SOCK_STREAM, 0),
    "socket AF_INET6": (41, socket.AF_INET6, socket.SOCK_DGRAM, 0),
    "socket AF_NETLINK": (41, socket.AF_NETLINK, socket.SOCK_RAW, 0),
    "socket AF_PACKET": (41, AF_PACKET, socket.SOCK_RAW, 0),
    "socket AF_ALG": (41, AF_ALG, socket.SOCK_SEQPACKET, 0),
    "socket AF_VSOCK": (41, AF_VSOCK, socket.SOCK_STREAM, 0),
}


def reaches_kernel(name: str) -> Seen:
    """What a call came to, or None where it was refused (EPERM) or seems not to exist (ENOSYS)."""
    number, *arguments = SYSCALLS[name]
    itself = os.getpid()
    child = os.fork()
    if child == 0:  # some of these change the process that calls them
        ctypes.set_errno(0)
        given = (itself if argument == ITSELF else argument for argument in arguments)
        result = libc.syscall(number, *(ctypes.c_long(a) if isinstance(a, int) else a for a in given))
        os._exit(0 if result >= 0 else ctypes.get_errno())
    _, ended = os.waitpid(child, 0)
    if os.WIFSIGNALED(ended) or os.WEXITSTATUS(ended) in (errno.EPERM, errno.ENOSYS, errno.EACCES):
        return None
    return errno.errorcode.get(os.WEXITSTATUS(ended), "success")


def seccomp(facts: Facts) -> Seen:
    if has_own_kernel(facts):
        return None
    reached = {name: result for name in SYSCALLS if (result := reaches_kernel(name))}
    return f"reaches {', '.join(f'{name} ({result})' for name, result in reached.items())}" if reached else None


# ---- what it sees ----------------------------------------------------------------------------------------------------


def shared_namespace(facts: Facts, kind: str) -> Seen:
    if has_own_kernel(facts):
        return None
    shared = os.readlink(f"/proc/self/ns/{kind}") == facts["namespaces"][kind]
    return f"shares the host's {kind} namespace" if shared else None


def network(facts: Facts) -> Seen:
    with open("/proc/net/dev") as file:
        interfaces = [line.split(":")[0].strip() for line in file if ":" in line]
    if set(interfaces) - {"lo"}:
        return f"sees interfaces {interfaces}"
    with socket.socket(socket.AF_UNIX) as client:  # an abstract name belongs to the network, not to a file system
        try:
            client.connect("\0" + facts["abstract_socket"])
            return "reaches a socket of the host"
        except OSError:
            return shared_namespace(facts, "net")


def processes(facts: Facts) -> Seen:
    return shared_namespace(facts, "pid")


def ipc(facts: Facts) -> Seen:
    return shared_namespace(facts, "ipc")


def hostname(facts: Facts) -> Seen:
    return shared_namespace(facts, "uts")


def cgroup(facts: Facts) -> Seen:
    return shared_namespace(facts, "cgroup")


def mount_options() -> dict[str, set[str]]:
    """Options of each mount by its target: proc(5), mountinfo, fields 5 and 6."""
    with open("/proc/self/mountinfo") as file:
        return {fields[4]: set(fields[5].split(",")) for fields in map(str.split, file)}


def read_only_root(facts: Facts) -> Seen:
    return None if "ro" in mount_options()["/"] else "the root is mounted writable"


def masked_paths(facts: Facts) -> Seen:
    visible = [path for path in facts["masked_paths"] if shows_something(path)]
    return f"reads {', '.join(visible)}" if visible else None


def shows_something(path: str) -> bool:
    try:
        if os.path.isdir(path):
            return bool(os.listdir(path))
        with open(path, "rb") as file:
            return bool(file.read(1))
    except OSError:
        return False


def read_only_paths(facts: Facts) -> Seen:
    if has_own_kernel(facts):
        return None
    options = mount_options()
    writable = [p for p in facts["read_only_paths"] if os.path.exists(p) and "ro" not in options.get(p, ())]
    return f"{', '.join(writable)} not mounted read-only" if writable else None


def mounts(facts: Facts) -> Seen:
    unknown = [target for target in mount_options() if target not in facts["mounts"]]
    unknown = [target for target in unknown if target.split("/")[1] not in ("proc", "sys", "dev")]
    return f"something is mounted on {', '.join(sorted(unknown))}" if unknown else None


def devices(facts: Facts) -> Seen:
    found = set()
    for folder, _, names in os.walk("/dev"):
        for path in (os.path.join(folder, name) for name in names):
            mode = os.lstat(path).st_mode
            if stat.S_ISCHR(mode) or stat.S_ISBLK(mode):
                found.add(path)
    unknown = {path for path in found - set(facts["devices"]) if path[5:] not in STANDARD_DEVICES}
    if has_own_kernel(facts):  # what else is there, it makes itself
        unknown = {path for path in unknown if "nvidia" in path}
    return f"has {', '.join(sorted(unknown))}" if unknown else None


def environment(facts: Facts) -> Seen:
    unknown = set(os.environ) - set(facts["environment"])
    return f"has {', '.join(sorted(unknown))}" if unknown else None


def gate(facts: Facts) -> Seen:
    """No control: what a candidate must reach."""
    with socket.socket(socket.AF_UNIX) as client:
        client.connect("/gate/gate.sock")
        return "reached"


# ---- what it may use -------------------------------------------------------------------------------------------------


def memory(facts: Facts) -> Seen:
    size = facts["memory_bytes"] + 64 * MEBIBYTE
    block = mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    for offset in range(0, size, mmap.PAGESIZE):
        block[offset] = 1
    return f"holds {size // MEBIBYTE} MiB"


def pids(facts: Facts) -> Seen:
    children = []
    try:
        for _ in range(facts["pids"] + 8):
            child = os.fork()
            if child == 0:
                signal.pause()
            children.append(child)
        return f"has {len(children)} processes"
    except OSError:
        return None
    finally:
        for child in children:
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)


def cpu(facts: Facts) -> Seen:
    """A few processes spin for a while: they get all that is there, or the share that they may use, which must be less."""
    reading, writing = os.pipe()
    children = [spinner(0.6, writing) for _ in range(4)]
    for child in children:
        os.waitpid(child, 0)
    share = sum(map(float, os.read(reading, 2**16).split())) / 0.6
    return f"uses {share:.2f} CPUs" if share > facts["cpus"] * 1.6 else None


def spinner(seconds: float, report: int) -> int:
    """A process that tells how long it ran: by what it sees of a clock, since gVisor's accounts count waiting too."""
    child = os.fork()
    if child == 0:
        ran, before = 0.0, time.monotonic()
        until = before + seconds
        while before < until:
            now = time.monotonic()
            if now - before < 1e-3:
                ran += now - before
            before = now
        os.write(report, f"{ran}\n".encode())
        os._exit(0)
    return child


def cpuset(facts: Facts) -> Seen:
    for wanted in (os.sched_getaffinity(0), range(os.cpu_count() or 1)):
        try:
            os.sched_setaffinity(0, wanted)
        except OSError:
            continue
        if extra := os.sched_getaffinity(0) - set(facts["cpuset"]):
            return f"runs on CPUs {sorted(extra)} too"
    return None


def nofile(facts: Facts) -> Seen:
    held: list[int] = []
    try:
        while len(held) <= facts["nofile"]:
            held.append(os.dup(0))
        return f"holds {len(held)} descriptors"
    except OSError:
        return None
    finally:
        for descriptor in held:
            os.close(descriptor)


def fsize(facts: Facts) -> Seen:
    path = "/tmp/probe-fsize"
    try:
        with open(path, "wb") as file:
            file.truncate(facts["file_bytes"] + 1)
        return f"makes a file of {facts['file_bytes'] + 1} bytes"
    except OSError:
        return None
    finally:
        os.unlink(path)


def core(facts: Facts) -> Seen:
    """With 0, a program that core_pattern names would be started on the host; with 1, nothing is dumped at all (core(5))."""
    limit = resource.getrlimit(resource.RLIMIT_CORE)[1]
    return None if limit == 1 else f"may dump core: {'any size' if limit < 0 else f'{limit} bytes, or to a program'}"


def fills(folder: str, limit_bytes: int) -> Seen:
    made: list[str] = []
    written = 0
    try:
        while written < limit_bytes + MEBIBYTE:
            made.append(f"{folder}/probe-{len(made)}")
            with open(made[-1], "wb", buffering=0) as file:
                written += file.write(bytes(MEBIBYTE))
        return f"wrote {written} bytes to {folder}"
    except OSError:
        return None
    finally:
        for path in made:
            os.unlink(path)


def tmp(facts: Facts) -> Seen:
    return fills("/tmp", facts["tmp_bytes"])


def shm(facts: Facts) -> Seen:
    return fills("/dev/shm", facts["shm_bytes"])


def out(facts: Facts) -> Seen:
    return fills("/out", facts["out_bytes"])


def out_files(facts: Facts) -> Seen:
    made = 0
    try:
        for made in range(facts["out_files"] + 100):
            open(f"/out/probe-{made}", "x").close()
        return f"made {made + 1} files in /out"
    except OSError:
        return None
    finally:
        for name in os.listdir("/out"):
            os.unlink(f"/out/{name}")


def output(facts: Facts) -> Seen:
    """Prints for half a second, as fast as it goes."""
    chunk, printed, began = (b" " * 4095 + b"\n") * 16, 0, time.monotonic()
    while (spent := time.monotonic() - began) < 0.5:
        printed += os.write(1, chunk)
    allowed = facts["output_bytes_s"] * spent + 4 * MEBIBYTE  # what pipes and an engine's buffers hold
    return f"printed {printed // MEBIBYTE} MiB in {spent:.1f} s" if printed > 2 * allowed else None


# ---- running them ----------------------------------------------------------------------------------------------------


def run(probe: Callable[[Facts], Seen], facts: Facts) -> dict[str, Seen]:
    """A probe's finding, from a process of its own."""
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(reading)
        try:
            finding = {"seen": probe(facts), "error": None}
        except BaseException:
            finding = {"seen": None, "error": traceback.format_exc(limit=-1).strip().splitlines()[-1]}
        os.write(writing, json.dumps(finding).encode())
        os._exit(0)
    os.close(writing)
    answered = bool(select.select([reading], [], [], PATIENCE_S)[0])
    if not answered:
        os.kill(child, signal.SIGKILL)
    answer = os.read(reading, 2**16) if answered else b""
    os.close(reading)
    _, ended = os.waitpid(child, 0)
    if answer:
        return dict(json.loads(answer))
    if not answered:
        return {"seen": None, "error": f"no answer in {PATIENCE_S:.0f} s"}
    # Killed for what it did: then it was stopped. Anything else is not known to be a control.
    killed = os.WIFSIGNALED(ended) and os.WTERMSIG(ended) in (signal.SIGKILL, signal.SIGSYS, signal.SIGXFSZ)
    return {"seen": None, "error": None if killed else f"ended without an answer ({ended})"}


def main(names: list[str], facts: Facts) -> None:
    print(BEGIN, flush=True)
    findings = {name: run(globals()[name], facts) for name in names}
    print("\n" + json.dumps(findings), flush=True)
