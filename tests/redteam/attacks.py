"""What a hostile train.py would try: each function returns what it achieved, or None.

This file runs in two places. On the host it is imported for its table, ATTACKS: which controls stop an attack. In a
container it is appended to inside/probes.py, whose `run` gives every attack a process of its own. The functions do as
little harm as a proof allows, because the positive controls run them where nothing stops them.
"""

import ctypes
import errno
import mmap
import os
import select
import signal
import socket
import stat
import threading
from collections.abc import Callable
from contextlib import suppress
from typing import Any

Facts = dict[str, Any]
Achieved = str | None
MEBIBYTE = 2**20
CLONE_NEWNS, CLONE_NEWUSER = 0x00020000, 0x10000000
MS_REMOUNT, MS_BIND = 32, 4096

ATTACKS: dict[str, tuple[Callable[[Facts], Achieved], tuple[str, ...]]] = {}
"""By name: the attack, and the controls that stop it; it succeeds when all of these are gone."""

libc = ctypes.CDLL(None, use_errno=True)


def stopped_by(*controls: str) -> Callable[[Callable[[Facts], Achieved]], Callable[[Facts], Achieved]]:
    def register(attack: Callable[[Facts], Achieved]) -> Callable[[Facts], Achieved]:
        ATTACKS[attack.__name__] = (attack, controls)
        return attack

    return register


# ---- the network -----------------------------------------------------------------------------------------------------


@stopped_by("NETWORK", "SECCOMP")
def talk_to_a_service_on_the_hosts_loopback(facts: Facts) -> Achieved:
    try:
        with socket.create_connection(("127.0.0.1", facts["tcp_port"]), timeout=2) as connection:
            return f"was told {connection.recv(100)!r}"
    except OSError:
        return None


@stopped_by("NETWORK", "SECCOMP")
def ask_a_name_server_on_the_hosts_loopback(facts: Facts) -> Achieved:
    """Data leaves a machine as the name that is asked for."""
    try:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
            client.settimeout(2)
            client.sendto(b"weights.of.last.night.example", ("127.0.0.1", facts["udp_port"]))
            return f"was answered {client.recv(100)!r}"
    except OSError:
        return None


@stopped_by("NETWORK")
def reach_an_abstract_socket_of_the_host(facts: Facts) -> Achieved:
    """As with containerd-shim's in CVE-2020-15257: file permissions and mount namespaces do not count for these."""
    try:
        with socket.socket(socket.AF_UNIX) as client:
            client.connect("\0" + facts["abstract_socket"])
            return "connected"
    except OSError:
        return None


@stopped_by("NETWORK")
def list_the_hosts_sockets(facts: Facts) -> Achieved:
    with open("/proc/net/unix") as file:
        return "sees it" if facts["abstract_socket"] in file.read() else None


@stopped_by("NETWORK")
def list_the_hosts_listeners(facts: Facts) -> Achieved:
    with open("/proc/net/tcp") as file:
        return "sees it" if f":{facts['tcp_port']:04X} " in file.read() else None


@stopped_by("NETWORK", "SECCOMP", "CAPABILITIES", "USER")
def sniff_packets(facts: Facts) -> Achieved:
    ETH_P_ALL = 0x0003
    try:
        with socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(ETH_P_ALL)) as sniffer:
            sniffer.bind(("lo", 0))
            sniffer.settimeout(2)
            with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
                client.sendto(b"x", ("127.0.0.1", facts["udp_port"]))
            return f"caught {len(sniffer.recv(100))} bytes"
    except OSError:
        return None


@stopped_by("SECCOMP")
def talk_to_the_hypervisor(facts: Facts) -> Achieved:
    """Network namespaces do not hold vsock."""
    try:
        socket.socket(socket.AF_VSOCK, socket.SOCK_STREAM).close()
        return "has a socket"
    except OSError:
        return None


@stopped_by("SECCOMP")
def listen_to_the_kernels_announcements(facts: Facts) -> Achieved:
    NETLINK_ROUTE = 0
    try:
        with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, NETLINK_ROUTE) as listener:
            listener.bind((0, 0))
            return f"listens on port {listener.getsockname()[0]}"
    except OSError:
        return None


# ---- the file system -------------------------------------------------------------------------------------------------


def can_write(path: str) -> Achieved:
    """Opens for writing, and writes nothing."""
    try:
        os.close(os.open(path, os.O_WRONLY | os.O_APPEND))
        return f"opened {path} for writing"
    except OSError:
        return None


@stopped_by("READ_ONLY_ROOT", "USER")
def plant_a_file_in_the_root(facts: Facts) -> Achieved:
    try:
        os.close(os.open("/planted", os.O_CREAT | os.O_EXCL | os.O_WRONLY))
        os.unlink("/planted")
        return "made /planted"
    except OSError:
        return None


@stopped_by("READ_ONLY_ROOT", "USER")
def add_a_user(facts: Facts) -> Achieved:
    return can_write("/etc/passwd")


@stopped_by("SECCOMP", "CAPABILITIES", "USER")
def remount_the_root_writable(facts: Facts) -> Achieved:
    return "remounted /" if libc.mount(None, b"/", None, MS_REMOUNT | MS_BIND, None) == 0 else None


@stopped_by("SECCOMP", "CAPABILITIES", "USER")
def mount_a_fresh_proc_without_masks(facts: Facts) -> Achieved:
    os.mkdir("/tmp/fresh-proc")
    try:
        if libc.mount(b"proc", b"/tmp/fresh-proc", b"proc", 0, None) != 0:
            return None
        with open("/tmp/fresh-proc/interrupts") as file:
            shown = file.read(20)
        libc.umount2(b"/tmp/fresh-proc", 2)
        return f"read {shown!r}"
    finally:
        os.rmdir("/tmp/fresh-proc")


@stopped_by("SECCOMP", "CAPABILITIES", "USER")
def mount_control_groups(facts: Facts) -> Achieved:
    """The first step of every release_agent escape (CVE-2022-0492)."""
    os.mkdir("/tmp/groups")
    try:
        for kind, options in ((b"cgroup", b"memory"), (b"cgroup2", None)):
            if libc.mount(kind, b"/tmp/groups", kind, 0, options) == 0:
                names = os.listdir("/tmp/groups")
                libc.umount2(b"/tmp/groups", 2)
                return f"mounted {len(names)} files"
        return None
    finally:
        os.rmdir("/tmp/groups")


@stopped_by("SECCOMP")
def become_root_of_a_new_user_namespace(facts: Facts) -> Achieved:
    """And mount there: the way to most kernel bugs of the last years."""
    uid = os.getuid()
    if libc.unshare(CLONE_NEWUSER | CLONE_NEWNS) != 0:
        return None
    try:
        with open("/proc/self/uid_map", "w") as file:
            file.write(f"0 {uid} 1")
    except OSError:
        return None
    mounted = libc.mount(b"none", b"/tmp", b"tmpfs", 0, None) == 0
    return f"is uid {os.getuid()}, {'mounted' if mounted else 'did not mount'}"


@stopped_by("MOUNTS")
def read_files_of_the_host(facts: Facts) -> Achieved:
    for folder, _, names in os.walk("/rows"):
        for name in names:
            try:
                with open(os.path.join(folder, name)) as file:
                    return f"read {len(file.read(100))} bytes of {os.path.join(folder, name)}"
            except (OSError, UnicodeDecodeError):
                continue
    return None


@stopped_by("DEVICES", "CAPABILITIES", "USER")
def read_the_hosts_disk(facts: Facts) -> Achieved:
    """Make a node of its number, open it."""
    try:
        os.mknod("/dev/stolen", stat.S_IFBLK | 0o600, os.makedev(*facts["disk"]))
        with open("/dev/stolen", "rb") as disk:
            return f"read {len(disk.read(512))} bytes"
    except OSError:
        return None


@stopped_by("DEVICES", "CAPABILITIES", "USER")
def open_a_device_of_the_host(facts: Facts) -> Achieved:
    for name in ("kmsg", "loop-control", "fuse", "mem"):
        try:
            os.close(os.open(f"/dev/{name}", os.O_RDONLY | os.O_NONBLOCK))
            return f"opened /dev/{name}"
        except OSError:
            continue
    return None


@stopped_by("SECCOMP", "CAPABILITIES", "USER")
def open_a_file_of_the_host_by_its_handle(facts: Facts) -> Achieved:
    """What a file is called, and what is mounted, does not count for those who may say its number."""
    handle = bytes.fromhex(facts["secret_handle"])
    with open("/lab/probes.py") as anchor:  # lies on the same file system
        opened = libc.syscall(304, anchor.fileno(), handle, os.O_RDONLY)
    return f"read {os.read(opened, 100)!r}" if opened >= 0 else None


@stopped_by("READ_ONLY_PATHS", "USER")
def drop_the_hosts_caches(facts: Facts) -> Achieved:
    return can_write("/proc/sys/vm/drop_caches")


# ---- the kernel ------------------------------------------------------------------------------------------------------


@stopped_by("READ_ONLY_PATHS", "USER")
def name_a_program_for_core_dumps(facts: Facts) -> Achieved:
    """The host's kernel would run it as root."""
    return can_write("/proc/sys/kernel/core_pattern")


@stopped_by("READ_ONLY_PATHS", "USER")
def switch_off_address_randomisation(facts: Facts) -> Achieved:
    return can_write("/proc/sys/kernel/randomize_va_space")


@stopped_by("MASKED_PATHS")
def watch_keystrokes_by_interrupts(facts: Facts) -> Achieved:
    try:
        with open("/proc/interrupts") as file:
            return f"read {len(file.read(200))} bytes" if file.read(1) else None
    except OSError:
        return None


@stopped_by("MASKED_PATHS", "USER")
def read_the_hosts_timers(facts: Facts) -> Achieved:
    try:
        with open("/proc/timer_list") as file:
            return "read it" if file.read(1) else None
    except OSError:
        return None


@stopped_by("SECCOMP")
def call_the_kernel_in_32_bits(facts: Facts) -> Achieved:
    """int 0x80, getpid: another table of system calls, which a careless filter does not see."""
    code = mmap.mmap(-1, mmap.PAGESIZE, prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC)
    code.write(bytes.fromhex("b814000000cd80c3"))
    function = ctypes.CFUNCTYPE(ctypes.c_int)(ctypes.addressof(ctypes.c_char.from_buffer(code)))
    result = function()
    return f"was told {result}" if result == os.getpid() else None


@stopped_by("SECCOMP")
def spray_the_kernels_key_store(facts: Facts) -> Achieved:
    add_key, user, process_keyring = 248, b"user", -2
    made = sum(libc.syscall(add_key, user, b"spray-%d" % i, b"x" * 64, 64, process_keyring) > 0 for i in range(10))
    return f"made {made} keys" if made else None


def refused(result: int) -> bool:
    """Refused or unknown; any other error comes from the kernel's own code, which was reached."""
    return result < 0 and ctypes.get_errno() in (errno.EPERM, errno.EACCES, errno.ENOSYS)


@stopped_by("PROCESSES", "SECCOMP", "CAPABILITIES", "USER")
def restart_the_machine(facts: Facts) -> Achieved:
    """With a wrong password, see reboot(2): whoever may not is told before it is looked at."""
    result = libc.syscall(169, 0, 0, 0, 0)
    return None if refused(result) else f"was told {errno.errorcode[ctypes.get_errno()]}"


@stopped_by("SECCOMP")
def set_the_hosts_clock(facts: Facts) -> Achieved:
    CLOCK_REALTIME = 0
    result = libc.syscall(227, CLOCK_REALTIME, 0)  # to a time at address 0
    return None if refused(result) else f"was told {errno.errorcode[ctypes.get_errno()]}"


@stopped_by("SECCOMP", "CAPABILITIES", "USER")
def read_the_kernels_log(facts: Facts) -> Achieved:
    SYSLOG_ACTION_READ_ALL = 3
    size = libc.syscall(103, SYSLOG_ACTION_READ_ALL, ctypes.create_string_buffer(100), 100)
    return f"read {size} bytes" if size >= 0 else None


@stopped_by("SECCOMP")
def hand_the_kernel_a_queue_of_work(facts: Facts) -> Achieved:
    """io_uring: work that no filter of system calls sees."""
    ring = libc.syscall(425, 1, ctypes.create_string_buffer(120))
    return f"has ring {ring}" if ring >= 0 else None


@stopped_by("SECCOMP")
def lend_a_file_of_the_host_to_a_pipe(facts: Facts) -> Achieved:
    """The first step of Dirty Pipe (CVE-2022-0847): a page of a file that it may only read lies in a pipe that it may write."""
    _, writing = os.pipe()
    with open("/lab/probes.py") as file:
        lent = libc.syscall(275, file.fileno(), None, writing, None, 1, 0)
    return f"lent {lent} bytes" if lent > 0 else None


@stopped_by("SECCOMP")
def halt_the_kernel_in_a_page_fault(facts: Facts) -> Achieved:
    """userfaultfd: what wins the races of most exploits."""
    UFFD_USER_MODE_ONLY = 1
    result = libc.syscall(323, UFFD_USER_MODE_ONLY)
    return f"has descriptor {result}" if result >= 0 else None


@stopped_by("SECCOMP", "CAPABILITIES", "USER")
def run_a_program_in_the_kernel(facts: Facts) -> Achieved:
    """bpf: a map is enough to show it."""
    BPF_MAP_CREATE, BPF_MAP_TYPE_ARRAY = 0, 2
    request = b"".join(field.to_bytes(4, "little") for field in (BPF_MAP_TYPE_ARRAY, 4, 4, 1, 0)) + bytes(100)
    result = libc.syscall(321, BPF_MAP_CREATE, request, 72)
    return f"has map {result}" if result >= 0 else None


@stopped_by("SECCOMP", "CAPABILITIES", "USER")
def watch_the_machine_through_its_counters(facts: Facts) -> Achieved:
    PERF_TYPE_SOFTWARE, PERF_COUNT_SW_CPU_CLOCK, SIZE = 1, 0, 128
    request = PERF_TYPE_SOFTWARE.to_bytes(4, "little") + SIZE.to_bytes(4, "little")
    request += PERF_COUNT_SW_CPU_CLOCK.to_bytes(8, "little") + bytes(SIZE - 16)
    result = libc.syscall(298, request, -1, 0, -1, 0)  # everybody's, on CPU 0
    return f"has counter {result}" if result >= 0 else None


@stopped_by("SECCOMP")
def take_the_randomness_out_of_its_addresses(facts: Facts) -> Achieved:
    ADDR_NO_RANDOMIZE = 0x0040000
    return "did" if libc.personality(ADDR_NO_RANDOMIZE) >= 0 else None


# ---- neighbours ------------------------------------------------------------------------------------------------------


@stopped_by("PROCESSES", "USER")
def kill_a_process_of_the_host(facts: Facts) -> Achieved:
    """Only asks whether it could (signal 0)."""
    try:
        os.kill(facts["victim"], 0)
        return f"may signal {facts['victim']}"
    except OSError:
        return None


@stopped_by("PROCESSES")
def read_the_command_line_of_a_process_of_the_host(facts: Facts) -> Achieved:
    try:
        with open(f"/proc/{facts['victim']}/cmdline") as file:
            return "sees the argument" if facts["secret"] in file.read() else None
    except OSError:
        return None


@stopped_by("PROCESSES", "USER", "CAPABILITIES")
def read_the_environment_of_a_process_of_the_host(facts: Facts) -> Achieved:
    try:
        with open(f"/proc/{facts['victim']}/environ") as file:
            return "found the secret" if facts["secret"] in file.read() else None
    except OSError:
        return None


@stopped_by("PROCESSES", "USER", "CAPABILITIES")
def enter_the_hosts_root_by_a_process(facts: Facts) -> Achieved:
    try:
        return f"sees {len(os.listdir(facts['victim_root']))} files"
    except OSError:
        return None


@stopped_by("PROCESSES", "USER", "CAPABILITIES", "SECCOMP")
def attach_a_debugger_to_the_host(facts: Facts) -> Achieved:
    PTRACE_SEIZE, PTRACE_DETACH = 0x4206, 17
    if libc.ptrace(PTRACE_SEIZE, facts["victim"], None, None) != 0:
        return None
    libc.ptrace(PTRACE_DETACH, facts["victim"], None, None)
    return f"attached to {facts['victim']}"


@stopped_by("IPC")
def read_a_neighbours_shared_memory(facts: Facts) -> Achieved:
    libc.shmat.restype = ctypes.c_void_p
    segment = libc.shmget(facts["shm_key"], 0, 0)
    if segment < 0:
        return None
    SHM_RDONLY = 0o10000
    address = libc.shmat(segment, None, SHM_RDONLY)
    return f"read {ctypes.string_at(address, 6)!r}" if address not in (None, 2**64 - 1) else None


@stopped_by("IPC", "SECCOMP")
def read_a_neighbours_mail(facts: Facts) -> Achieved:
    """POSIX message queues; the name goes without its slash."""
    queue = libc.syscall(240, facts["queue"].encode(), os.O_RDONLY | os.O_NONBLOCK, 0, 0)
    return f"opened the queue as {queue}" if queue >= 0 else None


@stopped_by("IPC")
def meddle_with_a_neighbours_semaphore(facts: Facts) -> Achieved:
    semaphore = libc.semget(facts["semaphore_key"], 0, 0)
    return f"has it as {semaphore}" if semaphore >= 0 else None


@stopped_by("PROCESSES", "USER", "CAPABILITIES", "SECCOMP")
def join_a_namespace_of_the_host(facts: Facts) -> Achieved:
    CLONE_NEWUTS = 0x04000000
    try:
        with open(f"/proc/{facts['victim']}/ns/uts") as namespace:
            return "joined it" if libc.setns(namespace.fileno(), CLONE_NEWUTS) == 0 else None
    except OSError:
        return None


@stopped_by("PROCESSES", "USER", "CAPABILITIES")
def signal_everybody(facts: Facts) -> Achieved:
    """Only asks whether there is anybody (signal 0), itself and pid 1 apart."""
    try:
        os.kill(-1, 0)
        return "somebody would hear it"
    except OSError:
        return None


@stopped_by("SECCOMP")
def debug_another_process_of_its_own(facts: Facts) -> Achieved:
    """The filter's own weak spot: whoever traces a process can change the calls that it makes."""
    PTRACE_SEIZE = 0x4206
    child = sleeper()
    try:
        return f"attached to {child}" if libc.ptrace(PTRACE_SEIZE, child, None, None) == 0 else None
    finally:
        end(child)


@stopped_by("SECCOMP")
def write_into_the_memory_of_another_process(facts: Facts) -> Achieved:
    target = ctypes.create_string_buffer(8)
    place = (ctypes.c_uint64 * 2)(ctypes.addressof(target), 8)
    child = sleeper()
    try:
        written = libc.process_vm_writev(child, place, 1, place, 1, 0)
        return f"wrote {written} bytes" if written > 0 else None
    finally:
        end(child)


@stopped_by("SECCOMP")
def take_a_descriptor_of_another_process(facts: Facts) -> Achieved:
    child = sleeper()
    try:
        taken = libc.syscall(438, os.pidfd_open(child), 1, 0)
        return f"took one as {taken}" if taken >= 0 else None
    finally:
        end(child)


def sleeper() -> int:
    """A child that does nothing."""
    child = os.fork()
    if child == 0:
        signal.pause()
        os._exit(0)
    return child


def end(child: int) -> None:
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)


@stopped_by("HOSTNAME", "SECCOMP", "CAPABILITIES", "USER")
def rename_the_host(facts: Facts) -> Achieved:
    """To the name that it has."""
    name = facts["hostname"].encode()
    return "did" if libc.sethostname(name, len(name)) == 0 and os.uname().nodename == facts["hostname"] else None


@stopped_by("ENVIRONMENT")
def steal_keys_from_the_environment(facts: Facts) -> Achieved:
    return "found the secret" if facts["secret"] in os.environ.values() else None


@stopped_by("HOSTNAME")
def learn_the_hosts_name(facts: Facts) -> Achieved:
    return os.uname().nodename if os.uname().nodename == facts["hostname"] else None


def another_user() -> int:
    """One of the users of runs, and not the one that this run happens to have."""
    return 61_000 if os.getuid() != 61_000 else 61_001


@stopped_by("CAPABILITIES", "USER")
def become_the_user_of_another_run(facts: Facts) -> Achieved:
    try:
        os.setuid(another_user())
        return f"is {os.getuid()}"
    except OSError:
        return None


@stopped_by("CAPABILITIES", "USER")
def join_the_group_of_the_disks(facts: Facts) -> Achieved:
    try:
        os.setgroups([6])
        return f"is in {os.getgroups()}"
    except OSError:
        return None


@stopped_by("CAPABILITIES", "USER")
def give_a_file_away(facts: Facts) -> Achieved:
    path = "/tmp/given"
    os.close(os.open(path, os.O_CREAT | os.O_WRONLY))
    try:
        os.chown(path, another_user(), another_user())
        return "chowned it"
    except OSError:
        return None
    finally:
        os.unlink(path)


# ---- resources -------------------------------------------------------------------------------------------------------


@stopped_by("CAPABILITIES", "USER")
def go_before_everybody_else(facts: Facts) -> Achieved:
    try:
        return f"is at niceness {os.nice(-10)}"
    except OSError:
        return None


@stopped_by("SECCOMP", "CAPABILITIES", "USER")
def go_before_everybody_else_on_the_disk(facts: Facts) -> Achieved:
    IOPRIO_WHO_PROCESS, REAL_TIME = 1, 1 << 13
    return "did" if libc.syscall(251, IOPRIO_WHO_PROCESS, 0, REAL_TIME) == 0 else None


@stopped_by("CPUSET")
def pin_itself_to_every_cpu(facts: Facts) -> Achieved:
    with suppress(OSError):
        os.sched_setaffinity(0, range(os.cpu_count() or 1))
    extra = os.sched_getaffinity(0) - set(facts["cpuset"])
    return f"runs on CPUs {sorted(extra)} too" if extra else None


def hold(size: int) -> bytearray:
    block = bytearray(size)
    for offset in range(0, size, mmap.PAGESIZE):
        block[offset] = 1
    return block


@stopped_by("MEMORY")
def take_memory_with_many_processes(facts: Facts) -> Achieved:
    """Each of them holds little."""
    count, share = 8, facts["memory_bytes"] // 6
    reading, writing = os.pipe()
    children = [holder(share, writing) for _ in range(count)]
    os.close(writing)
    try:
        holding = 0
        while holding < count and all(map(alive, children)):
            if select.select([reading], [], [], 0.1)[0]:
                holding += len(os.read(reading, count))
        together = all(map(alive, children))
        return f"{count} processes hold {count * share // MEBIBYTE} MiB" if holding == count and together else None
    finally:
        for child in children:
            end(child)


def holder(size: int, report: int) -> int:
    """A child that holds memory, and reports so with a byte."""
    child = os.fork()
    if child == 0:
        block = hold(size)
        os.write(report, b"x")
        signal.pause()
        os._exit(len(block) & 1)
    return child


def alive(pid: int) -> bool:
    try:
        with open(f"/proc/{pid}/stat") as file:
            return file.read().rpartition(")")[2].split()[0] not in "ZX"
    except OSError:
        return False


@stopped_by("MEMORY", "FSIZE")
def take_memory_as_anonymous_files(facts: Facts) -> Achieved:
    file = os.memfd_create("bomb")
    written, block = 0, bytes(MEBIBYTE)
    try:
        while written < facts["memory_bytes"] + 32 * MEBIBYTE:
            written += os.write(file, block)
    except OSError:
        return None
    return f"holds {written // MEBIBYTE} MiB in a file without a name"


@stopped_by("MEMORY")
def take_memory_as_shared_segments(facts: Facts) -> Achieved:
    libc.shmat.restype = ctypes.c_void_p
    IPC_PRIVATE, IPC_RMID, size = 0, 0, 32 * MEBIBYTE
    count = facts["memory_bytes"] // size + 2
    for _ in range(count):
        segment = libc.shmget(IPC_PRIVATE, size, 0o600)
        address = libc.shmat(segment, None, 0)
        libc.shmctl(segment, IPC_RMID, None)  # gone with its last user
        ctypes.memset(address, 1, size)
    return f"holds {count * size // MEBIBYTE} MiB"


@stopped_by("PIDS")
def bomb_with_threads(facts: Facts) -> Achieved:
    threading.stack_size(65_536)
    done = threading.Event()
    count = facts["pids"] + 8
    try:
        for _ in range(count):
            threading.Thread(target=done.wait, daemon=True).start()
        return f"has {count} threads"
    except RuntimeError:
        return None
    finally:
        done.set()


@stopped_by("PIDS")
def bomb_with_zombies(facts: Facts) -> Achieved:
    """They use no memory to speak of, but each has a number."""
    children = []
    try:
        for _ in range(facts["pids"] + 8):
            child = os.fork()
            if child == 0:
                os._exit(0)
            children.append(child)
        return f"left {len(children)} zombies"
    except OSError:
        return None
    finally:
        for child in children:
            os.waitpid(child, 0)


@stopped_by("NOFILE")
def bomb_with_sockets(facts: Facts) -> Achieved:
    held: list[socket.socket] = []
    try:
        while len(held) <= facts["nofile"]:
            held += socket.socketpair()
        return f"holds {len(held)} sockets"
    except OSError as error:
        if error.errno != errno.EMFILE:
            raise
        return None
    finally:
        for end in held:
            end.close()


@stopped_by("OUT_FILES")
def leave_a_million_files(facts: Facts) -> Achieved:
    made = 0
    try:
        for made in range(1_000_000):
            os.mknod(f"/out/{made}")
            if made == 20_000:
                return f"made {made} files, and could go on"
    except OSError:
        return None
    finally:
        for name in os.listdir("/out"):
            os.unlink(f"/out/{name}")
    return None


@stopped_by("OUT_FILES")
def leave_a_million_files_with_newlines(facts: Facts) -> Achieved:
    made = 0
    try:
        for made in range(20_000):
            os.symlink("/etc/passwd", f"/out/\n\x1b[2J{made}")
        return f"made {made + 1} links"
    except OSError:
        return None
    finally:
        for name in os.listdir("/out"):
            os.unlink(f"/out/{name}")


@stopped_by("FSIZE")
def leave_a_file_of_a_terabyte(facts: Facts) -> Achieved:
    path = "/out/sparse"
    try:
        with open(path, "wb") as file:
            file.truncate(2**40)
        return "made it"
    except OSError:
        return None
    finally:
        os.unlink(path)


@stopped_by("TMP", "SHM", "OUT")
def fill_the_hosts_memory_through_files(facts: Facts) -> Achieved:
    """Each place holds a little more than it may."""
    written = 0
    try:
        for folder in ("/tmp", "/dev/shm", "/out"):
            for i in range(facts["place_bytes"] // MEBIBYTE + 4):
                with open(f"{folder}/fill-{i}", "wb", buffering=0) as file:
                    written += file.write(bytes(MEBIBYTE))
        return f"wrote {written // MEBIBYTE} MiB"
    except OSError:
        return None
    finally:
        for folder in ("/tmp", "/dev/shm", "/out"):
            for name in os.listdir(folder):
                if name.startswith("fill-"):
                    os.unlink(f"{folder}/{name}")
