"""Hostile cells, each named by its outcome: what a sandbox answers, and what one answers that lacks the protection.

A cell is one expression over what sandbox-image/attack/prelude.py defines. That it succeeds in a weakened sandbox, as
the tests show, is what makes its failure in ours prove something. `orchestrator doctor --attack` runs the same cells.
"""

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True, slots=True)
class Cell:
    """`answer` is exact. Without `without`, as tests name it, another answer comes, one of `then`: kernels differ."""

    outcome: str
    code: str
    answer: str
    without: str
    then: tuple[str, ...] = ("done",)
    machine: Literal["x86_64"] | None = None  # None: any
    landlock: int = 0  # the version of the kernel's that it takes to close it


@dataclass(frozen=True, slots=True)
class Trial:
    """A whole cell that wants to take its sandbox down; `ends` are the outcomes that it may have."""

    outcome: str
    code: str
    ends: tuple[str, ...]
    limit: float = 2.0  # seconds


KERNEL_SURFACE = (
    Cell("system_v_memory_is_refused", "call('shmget', 0, 4096, 0o1600)", "EPERM", "docker's filter"),
    Cell("system_v_queues_are_refused", "call('msgget', 0, 0o1600)", "EPERM", "docker's filter"),
    Cell("system_v_semaphores_are_refused", "call('semget', 0, 1, 0o1600)", "EPERM", "docker's filter"),
    Cell(
        "posix_queues_are_refused",
        "call('mq_open', b'queue', os.O_CREAT | os.O_RDWR, 0o600, 0)",
        "EPERM",
        "docker's filter",
        ("EMFILE",),  # by RLIMIT_MSGQUEUE, which stands behind it
    ),
    Cell("memory_files_are_not_there", "call('memfd_create', b'file', 0)", "ENOSYS", "docker's filter"),
    Cell("secret_memory_is_not_there", "call('memfd_secret', 0)", "ENOSYS", "no filter", ("done", "EMFILE")),
    Cell("io_uring_is_not_there", "call('io_uring_setup', 1, 0)", "ENOSYS", "no filter", ("EFAULT",)),
    Cell("userfaultfd_is_not_there", "call('userfaultfd', 1)", "ENOSYS", "no filter", ("done", "EPERM")),
    Cell("clone3_is_not_there", "call('clone3', 0, 0)", "ENOSYS", "no filter", ("EINVAL",)),
    Cell("openat2_is_not_there", "call('openat2', -100, b'/', 0, 0)", "ENOSYS", "docker's filter", ("EINVAL",)),
    Cell(
        "programs_without_a_name_are_not_run",
        "call('execveat', -1, b'', 0, 0, 0x1000)",
        "ENOSYS",
        "docker's filter",
        ("EBADF",),
    ),
    Cell("user_namespaces_are_refused", "in_child(call, 'unshare', 0x10000000)", "EPERM", "no filter"),
    Cell(
        "children_in_namespaces_are_refused",
        "in_child(call, 'clone', 0x10000011, 0, 0, 0, 0)",
        "EPERM",
        "no filter",
        ("donedone", "done"),
    ),
    Cell(
        "siblings_are_refused",
        "in_child(call, 'clone', 0x8011, 0, 0, 0, 0)",
        "EPERM",
        "docker's filter",
        ("donedone", "done"),
    ),
    Cell(
        "processes_do_not_share_descriptors",
        "in_child(call, 'clone', 0x411, 0, 0, 0, 0)",
        "EPERM",
        "docker's filter",
        ("donedone", "done"),
    ),
    Cell("threads_have_no_descriptors_apart", "in_child(call, 'close_range', 1000, 1000, 2)", "EPERM", "no filter"),
    Cell(
        "locks_of_open_files_are_not_there",
        "call('fcntl', pair[0].fileno(), 36, struct.pack('hhqqi4x', 1, 0, 0, 1, 0))",
        "EINVAL",
        "docker's filter",
    ),
    Cell("mounts_are_refused", "call('open_tree', -100, b'/', 0)", "EPERM", "no filter"),
    Cell("tracing_is_refused", "in_child(call, 'ptrace', 0, 0, 0, 0)", "EPERM", "docker's filter"),
    Cell(
        "memory_of_processes_is_not_read", "call('process_vm_readv', os.getpid(), 0, 0, 0, 0, 0)", "EPERM", "no filter"
    ),
    Cell("descriptors_of_processes_are_not_taken", "call('pidfd_getfd', -1, 0, 0)", "EPERM", "no filter", ("EBADF",)),
    Cell("processes_are_not_compared", "call('kcmp', os.getpid(), os.getpid(), 0, 0, 0)", "EPERM", "no filter"),
    Cell("keyrings_are_refused", "call('keyctl', 0, -3, 0)", "EPERM", "no filter", ("done", "ENOKEY")),
    Cell("keys_are_refused", "call('add_key', b'user', b'mine', b'x', 1, -2)", "EPERM", "no filter"),
    Cell("bpf_is_refused", "call('bpf', 0, 0, 1 << 20)", "EPERM", "no filter", ("E2BIG",)),
    Cell(
        "performance_counters_are_refused",
        "call('perf_event_open', 0, 0, -1, -1, 0)",
        "EPERM",
        "no filter",
        ("EFAULT",),
    ),
    Cell("filters_of_ones_own_are_refused", "call('seccomp', 1, 0, 0)", "EPERM", "docker's filter", ("EFAULT",)),
    Cell("randomness_of_addresses_stays", "in_child(call, 'personality', 0x20000)", "EPERM", "docker's filter"),
    Cell("splice_is_refused", "call('splice', -1, 0, -1, 0, 1, 0)", "EPERM", "docker's filter", ("EBADF",)),
    Cell("tee_is_refused", "call('tee', -1, -1, 1, 0)", "EPERM", "docker's filter", ("EBADF",)),
    Cell("vmsplice_is_refused", "call('vmsplice', -1, 0, 0, 0)", "EPERM", "docker's filter", ("EBADF",)),
    Cell("the_page_cache_is_not_looked_at", "call('mincore', 0, 0, 0)", "EPERM", "docker's filter"),
    Cell("files_have_no_handles", "call('name_to_handle_at', -100, 0, 0, 0, 0)", "EPERM", "no filter", ("EFAULT",)),
    Cell("file_systems_are_not_watched", "call('fanotify_init', 0x200, 0)", "EPERM", "no filter"),
    Cell("memory_is_not_placed", "in_child(call, 'set_mempolicy', 0, 0, 0)", "EPERM", "no filter", ("done", "ENOSYS")),
    Cell("protection_keys_are_refused", "call('pkey_free', -1)", "EPERM", "no filter", ("EINVAL", "ENOSYS")),
    Cell("clocks_are_not_steered", "call('adjtimex', 0)", "EPERM", "docker's filter", ("EFAULT",)),
    Cell("older_asynchronous_io_is_refused", "call('io_setup', 1, 0)", "EPERM", "docker's filter", ("EFAULT",)),
    Cell("ids_stay", "call('setuid', os.getuid())", "EPERM", "docker's filter"),
    Cell("segments_are_refused", "call('modify_ldt', 0, 0, 0)", "EPERM", "docker's filter", machine="x86_64"),
    Cell(
        "calls_of_32_bits_end_the_process",
        "in_child(call_of_32_bits)",
        "SIGSYS",
        "docker's filter",
        ("True",),
        "x86_64",
    ),
    Cell(
        "calls_of_x32_end_the_process",
        "in_child(call, 0x40000000 + 39)",
        "SIGSYS",
        "no filter",
        ("done", "ENOSYS"),
        "x86_64",
    ),
    Cell("devices_are_not_made", "tried(os.mknod, '/tmp/device', 0o20600, 0)", "EPERM", "docker's filter"),
    Cell(
        "huge_pages_of_the_host_are_not_taken",
        "call('mmap', 0, 1 << 21, 3, 0x40022, -1, 0)",
        "EPERM",
        "docker's filter",
        ("done", "ENOMEM"),
    ),
    Cell("pages_are_not_merged", "call('madvise', 0, 0, 12)", "EPERM", "docker's filter", ("done", "EINVAL")),
    Cell("orphans_stay_with_pid_1", "in_child(call, 'prctl', 36, 1, 0, 0, 0)", "EPERM", "docker's filter"),
    Cell("nobody_types_for_others", "call('ioctl', 1, 0x5412, b'x')", "EPERM", "docker's filter", ("ENOTTY",)),
    Cell(
        "high_halves_of_arguments_do_not_get_around",
        "call('ioctl', 1, 0x5412 + (1 << 32), b'x')",
        "EPERM",
        "docker's filter",
        ("ENOTTY",),
    ),
)

HOST = (
    Cell("syncing_a_file_is_not_done", "tried(os.fsync, os.pipe()[1])", "done", "docker's filter", ("EINVAL",)),
    Cell("syncing_data_is_not_done", "tried(os.fdatasync, os.pipe()[1])", "done", "docker's filter", ("EINVAL",)),
    Cell("syncing_a_file_system_is_not_done", "call('syncfs', -1)", "done", "docker's filter", ("EBADF",)),
    Cell("syncing_a_range_is_not_done", "call('sync_file_range', -1, 0, 0, 0)", "done", "docker's filter", ("EBADF",)),
    Cell("the_hosts_cache_is_not_dropped", "call('fadvise64', -1, 0, 0, 4)", "done", "docker's filter", ("EBADF",)),
    Cell(
        "pressure_of_the_host_is_not_told",
        "read('/proc/pressure/cpu')",
        "ENOENT",
        "engine's masks",
        ("told", "ENOENT", "EOPNOTSUPP"),
    ),
    Cell("users_of_keys_are_not_told", "read('/proc/key-users')", "empty", "engine's masks", ("told",)),
    Cell("disks_of_the_host_are_not_told", "read('/proc/diskstats')", "empty", "engine's masks", ("told",)),
    Cell("the_hosts_start_is_not_told", "read('/proc/cmdline')", "empty", "engine's masks", ("told",)),
    Cell("interrupts_are_not_told", "read('/proc/interrupts')", "empty", "engine's masks", ("told",)),
    Cell(
        "drivers_are_not_told", "'told' if os.listdir('/sys/module') else 'empty'", "empty", "engine's masks", ("told",)
    ),
    Cell("where_the_kernel_lies_is_not_told", "read('/proc/kallsyms')", "empty", "engine's masks", ("told",)),
    Cell("the_kernels_notes_are_not_told", "read('/sys/kernel/notes')", "empty", "engine's masks", ("told",)),
    Cell("the_hosts_resolver_is_not_told", "read('/etc/resolv.conf')", "empty", "files of the network", ("told",)),
    Cell(
        "locked_memory_is_bounded",
        "in_child(call, 'mmap', 0, 1 << 20, 3, 0x2022, -1, 0)",
        "EAGAIN",
        "much locked memory",
    ),
    Cell("timers_are_bounded", "in_child(timers)", "EAGAIN", "engine's ulimits"),
    Cell("programs_in_tmp_are_not_run", "run_in_tmp()", "EACCES", "exec everywhere", ("done", "ENOEXEC")),
    Cell("inodes_are_bounded", "files_in_tmp()", "ENOSPC", "many inodes"),
)

NETWORK = (
    Cell("netlink_is_not_there", "tried(socket.socket, 16, 3, 0)", "EAFNOSUPPORT", "docker's filter"),
    Cell(
        "the_hypervisor_is_not_reached",
        "tried(socket.socket, 40, 1, 0)",
        "EAFNOSUPPORT",
        "no filter",
        ("done", "EAFNOSUPPORT"),
    ),
    Cell("packets_are_not_seen", "tried(socket.socket, 17, 3, 0)", "EAFNOSUPPORT", "docker's filter", ("EPERM",)),
    Cell(
        "multipath_tcp_is_refused",
        "tried(socket.socket, 2, 1, 262)",
        "EPERM",
        "docker's filter",
        ("done", "EPROTONOSUPPORT"),
    ),
    Cell(
        "udplite_is_refused", "tried(socket.socket, 2, 2, 136)", "EPERM", "docker's filter", ("done", "EPROTONOSUPPORT")
    ),
    Cell("sctp_is_refused", "tried(socket.socket, 2, 1, 132)", "EPERM", "docker's filter", ("done", "EPROTONOSUPPORT")),
    Cell("ping_is_refused", "tried(socket.socket, 2, 2, 1)", "EPERM", "docker's filter", ("done", "EACCES")),
    Cell("closes_do_not_linger", "tried(socket.socket().setsockopt, 1, 13, bytes(8))", "EPERM", "docker's filter"),
    Cell("sockets_take_no_filters", "tried(pair[0].setsockopt, 1, 26, bpf)", "EPERM", "docker's filter"),
    Cell(
        "tls_stays_out_of_the_kernel",
        "tried(socket.socket().setsockopt, 6, 31, b'tls')",
        "EPERM",
        "docker's filter",
        ("ENOENT", "ENOTCONN", "ENOPROTOOPT"),
    ),
    Cell(
        "out_of_band_data_is_refused",
        "tried(pair[0].send, b'x', 1)",
        "EPERM",
        "docker's filter",
        ("done", "EOPNOTSUPP"),
    ),
    Cell("buffers_of_what_is_sent_keep_their_size", "enlarged(socket.SO_SNDBUF)", "stays", "docker's filter"),
    Cell("buffers_of_what_is_received_keep_their_size", "enlarged(socket.SO_RCVBUF)", "stays", "docker's filter"),
    Cell(
        "pairs_are_unix_sockets",
        "tried(socket.socketpair, 30, 1)",
        "EPERM",
        "docker's filter",
        ("done", "EAFNOSUPPORT"),
    ),
)

AGENT = (
    Cell("limits_of_pid_1_stay", "call('prlimit64', 1, 4, struct.pack('QQ', 0, 0), 0)", "EPERM", "docker's filter"),
    Cell("niceness_of_pid_1_stays", "call('setpriority', 0, 1, 1)", "EPERM", "docker's filter"),
    Cell("processors_of_pid_1_stay", "call('sched_setaffinity', 1, 8, b'\\xff' * 8)", "EPERM", "docker's filter"),
    Cell("policy_of_pid_1_stays", "call('sched_setscheduler', 1, 0, bytes(4))", "EPERM", "docker's filter"),
    Cell("turns_at_the_disk_stay", "call('ioprio_set', 1, 1, 0x6000)", "EPERM", "docker's filter"),
    Cell("pid_1_is_not_signalled", "tried(os.kill, 1, 0)", "EPERM", "no landlock", landlock=6),
    Cell("the_zygote_is_not_signalled", "tried(os.kill, zygote(), 0)", "EPERM", "no landlock", landlock=6),
    Cell("the_order_of_killing_stays", "write('/proc/self/oom_score_adj', '500')", "EACCES", "no landlock", landlock=1),
    Cell("nothing_in_proc_is_written", "write('/proc/self/comm', 'name')", "EACCES", "no landlock", landlock=1),
    Cell(
        "queues_are_not_made_as_files",
        "tried(os.open, '/dev/mqueue/one', os.O_CREAT | os.O_RDWR)",
        "EACCES",
        "no landlock",
        ("EMFILE",),
        landlock=1,
    ),
)

BY_KIND = {"kernel surface": KERNEL_SURFACE, "host": HOST, "network": NETWORK, "agent and channel": AGENT}
CELLS = tuple(cell for cells in BY_KIND.values() for cell in cells)

_FORKS = """
import os
while True:
    try: os.fork()
    except OSError: pass
"""
_THREADS = """
import threading, time
while True:
    try: threading.Thread(target=time.sleep, args=(60,), daemon=True).start()
    except RuntimeError: pass
"""
_DEAF = """
import signal
signal.pthread_sigmask(signal.SIG_BLOCK, range(1, 65))
while True: pass
"""
_HELD = """
held = []
while True: held.append(b'x' * (1 << 24))
"""

TRIALS = (
    Trial("fork_bombs_end_with_their_cell", _FORKS, ("timeout",)),
    Trial("memory_bombs_end_their_cell", _HELD, ("oom", "exception", "timeout"), 20.0),
    Trial("threads_without_end_end_with_their_cell", _THREADS, ("timeout",)),
    Trial("output_without_end_ends_with_its_cell", "while True: print('x' * 10_000)", ("timeout",)),
    Trial("a_cell_that_hears_no_signal_is_ended", _DEAF, ("timeout",)),
    # The kernel spares who asks, and what Landlock or PID 1's own place protects.
    Trial("killing_all_that_can_be_reached_ends_no_sandbox", "import os\nos.kill(-1, 9)", ("ok", "crashed")),
)
