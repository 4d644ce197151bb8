"""What a sandbox is asked about itself, and what has to come back: a line for each protection, that can fail."""

from typing import Any

from orchestrator.domain.hardening import MASKED_PATHS, SYSCTLS, SandboxProfile
from orchestrator.domain.probing import Probe, Wanted

_CGROUPS = "Use an engine with working memory, cpu and pids cgroups; `docker info` warns of what is missing."
_ENGINE = "Look at the engine's version, runtime and log; another runtime may ignore this part of a spec."
_RDONLY, _NOSUID, _NODEV, _NOEXEC = 1, 2, 4, 8  # of statvfs on Linux
_MIB = 1024 * 1024
_CALLS = """[
    called(_libc.unshare(0x10000000)), called(_libc.ptrace(16, 1, 0, 0)), tried(socket.socket, 16, 3, 0),
    called(_libc.memfd_create(b'probe', 0)), tried(socket.socket().setsockopt, 1, 13, bytes(8)),
]"""
# The kernel's first namespaces have fixed numbers.
_OF_THE_HOST = {"ipc": 0xEFFFFFFF, "uts": 0xEFFFFFFE, "pid": 0xEFFFFFFC, "cgroup": 0xEFFFFFFB}
_OUR_ANSWERS = ["EPERM", "EPERM", "EAFNOSUPPORT", "ENOSYS", "EPERM"]


def _path_of(sysctl: str) -> str:
    return f"/proc/sys/{sysctl.replace('.', '/')}"


def _limits(profile: SandboxProfile) -> dict[str, list[int]]:
    return {
        "NOFILE": [profile.open_files, profile.open_files],
        "FSIZE": [profile.file_size, profile.file_size],
        "CORE": [1, 1],
        "MEMLOCK": [profile.locked_memory, profile.locked_memory],
        "MSGQUEUE": [0, 0],
        "SIGPENDING": [profile.pending_signals, profile.pending_signals],
        "NICE": [0, 0],
        "RTPRIO": [0, 0],
        "STACK": [profile.stack, profile.stack_most],
    }


def _limits_hold(answer: dict[str, list[int]], wanted: Wanted) -> bool:
    limits = _limits(wanted.profile)
    (soft, hard), (most, _) = answer["NOFILE"], limits["NOFILE"]
    # The worker keeps some descriptors for itself, so its own soft limit is lower.
    return 0 < soft <= most == hard and {**answer, "NOFILE": limits["NOFILE"]} == limits


def _tmpfs_holds(answer: Any, wanted: Wanted) -> bool:  # noqa: ANN401 - whatever came back
    profile = wanted.profile
    sizes = [profile.workspace, profile.tmp, profile.shm]
    inodes = [profile.workspace_inodes, profile.tmp_inodes, profile.shm_inodes]
    flags = [_NOSUID | _NODEV, _NOSUID | _NODEV | _NOEXEC, _NOSUID | _NODEV | _NOEXEC]
    found = zip(answer, sizes, inodes, flags, strict=True)
    # The kernel rounds a size up to whole pages.
    return all(0 <= a[0] - size < _MIB and a[1] == count and a[2] & flag == flag for a, size, count, flag in found)


def _no_swap(answer: list[list[str] | None], _: Wanted) -> bool:
    of_v2, of_v1, memory_of_v1, of_host = answer
    if of_v2 is None and of_v1 is None:  # nothing is counted: it holds as long as there is none
        return of_host == ["0"]
    return of_v2 == ["0"] or (of_v1 is not None and of_v1 == memory_of_v1)  # memory and swap together


def _cpus_hold(answer: list[str], wanted: Wanted) -> bool:
    quota, period = (float(number) for number in answer)
    return 0 < quota / period <= wanted.profile.cpus * 1.001


def _namespaces_hold(answer: list[str], _: Wanted) -> bool:
    found = zip(answer, _OF_THE_HOST.items(), strict=True)
    return all(link.startswith(f"{name}:[") and link != f"{name}:[{number}]" for link, (name, number) in found)


PROBES: tuple[Probe, ...] = (
    Probe(
        "network",
        "there is no network but a loopback",
        _ENGINE,
        # The sockets tell also of a host that has no network itself: its services listen on that loopback.
        lambda _: "[sorted(os.listdir('/sys/class/net')), connected(), named_sockets()]",
        lambda answer, _: answer == [["lo"], "ENETUNREACH", []],
    ),
    Probe(
        "root",
        "the root file system is read-only",
        _ENGINE,
        lambda _: "os.statvfs('/').f_flag",
        lambda answer, _: bool(answer & _RDONLY),
    ),
    Probe(
        "user",
        "nothing runs as root",
        _ENGINE,
        lambda _: "[*os.getresuid(), *os.getresgid(), *os.getgroups()]",
        lambda answer, _: len(answer) > 0 and all(number > 0 for number in answer),
    ),
    Probe(
        "capabilities",
        "there are no capabilities, and none can be had",
        _ENGINE,
        lambda _: "[status(name) for name in ('CapInh', 'CapPrm', 'CapEff', 'CapBnd', 'CapAmb')]",
        lambda answer, _: [int(mask, 16) for mask in answer] == [0] * 5,
    ),
    Probe(
        "no-new-privileges",
        "no program gives privileges to who runs it",
        _ENGINE,
        lambda _: "status('NoNewPrivs')",
        lambda answer, _: answer == "1",
    ),
    Probe(
        "seccomp",
        "system calls pass a filter",
        "Use an engine and a kernel with seccomp. A runtime with a kernel of its own may have none: allow it then.",
        lambda _: "status('Seccomp')",
        lambda answer, _: answer == "2",
    ),
    Probe(
        "system-calls",
        "calls that must fail do fail",
        "Look whether the engine takes the profile (`docker info`), and whether your own profile closes enough.",
        lambda _: _CALLS,
        lambda answer, wanted: answer[0] != "done" if wanted.isolation.own_seccomp else answer == _OUR_ANSWERS,
    ),
    Probe(
        "memory",
        "what takes more memory than its share is killed",
        _CGROUPS,
        lambda wanted: f"in_child(lambda: filled({wanted.profile.memory + 16 * _MIB}))",
        lambda answer, _: answer == "SIGKILL",
    ),
    Probe(
        "swap",
        "no memory goes to the disk",
        "Switch swap accounting on (kernel parameter swapaccount=1), or swap off.",
        lambda _: (
            """[
            cgroup('memory.swap.max'), cgroup('memory/memory.memsw.limit_in_bytes'),
            cgroup('memory/memory.limit_in_bytes'),
            words('/proc/meminfo', 'SwapTotal:')[:1],
        ]"""
        ),
        _no_swap,
    ),
    Probe(
        "processes",
        "the number of processes and threads ends",
        _CGROUPS,
        lambda wanted: f"in_child(lambda: threads({wanted.profile.pids}))",
        lambda answer, wanted: 0 < answer < wanted.profile.pids,
    ),
    Probe(
        "processor",
        "the share of the processors ends",
        _CGROUPS,
        lambda _: "cgroup('cpu.max') or cgroup('cpu/cpu.cfs_quota_us') + cgroup('cpu/cpu.cfs_period_us')",
        _cpus_hold,
    ),
    Probe(
        "files",
        "what is writable has a size, a number of files, and no devices; programs run from /workspace only",
        _ENGINE,
        lambda _: "[size_of(path) for path in ('/workspace', '/tmp', '/dev/shm')]",
        _tmpfs_holds,
    ),
    Probe(
        "socket-buffers",
        "what waits in a connection within a sandbox has a bound",
        "Use Linux 4.15 or later. A runtime with a network of its own may not know this: allow it then.",
        lambda _: f"[words(path) for path in {[_path_of(name) for name in SYSCTLS]}]",
        lambda answer, _: answer == [value.split() for value in SYSCTLS.values()],
    ),
    Probe(
        "limits",
        "resource limits are those of the spec",
        _ENGINE,
        lambda wanted: f"{{name: limit(name) for name in {[*_limits(wanted.profile)]}}}",
        _limits_hold,
    ),
    Probe(
        "masked-paths",
        "/proc and /sys do not tell of the host",
        _ENGINE,
        lambda _: f"[path for path in {list(MASKED_PATHS)} if tells(path)]",
        lambda answer, _: answer == [],
    ),
    Probe(
        "namespaces",
        "processes, queues, names and cgroups are the sandbox's own",
        _ENGINE,
        lambda _: f"[os.readlink('/proc/self/ns/' + name) for name in {list(_OF_THE_HOST)}]",
        _namespaces_hold,
    ),
    Probe(
        "agent",
        "PID 1 cannot be looked into or bent",
        "Build the image again: `orchestrator image build`.",
        lambda _: (
            "[tried(open, '/proc/1/environ', 'rb'), tried(open, '/proc/1/mem', 'rb'), "
            "tried(resource.prlimit, 1, resource.RLIMIT_CPU)]"
        ),
        lambda answer, _: len(answer) > 0 and set(answer) <= {"EACCES", "EPERM"},
    ),
    Probe(
        "user-namespace",
        "user ids are not the host's, where that is required",
        "Set userns-remap in the engine's daemon.json, or use a rootless engine.",
        lambda _: "[int(number) for number in words('/proc/self/uid_map')]",
        lambda answer, wanted: not wanted.isolation.user_namespace or answer != [0, 0, 2**32 - 1],
    ),
    Probe(
        "log-driver",
        "nothing that a sandbox prints is written to the host's disk",
        _ENGINE,
        ("HostConfig", "LogConfig", "Type"),
        lambda answer, _: answer == "none",
    ),
    Probe(
        "runtime",
        "the runtime is the one that was asked for",
        "Add it to the engine's daemon.json, or unset ORCHESTRATOR_SANDBOX_RUNTIME for the engine's default.",
        ("HostConfig", "Runtime"),
        lambda answer, wanted: wanted.isolation.runtime in (None, answer),
    ),
    Probe(
        "landlock",
        "a cell cannot choose who dies first when memory ends, nor signal what it was forked from",
        "Use Linux 6.12 or later with Landlock switched on (5.19 closes a part); without it a cell can hurt its own "
        "session only.",
        lambda _: "tried(open, '/proc/self/comm', 'w')",
        lambda answer, _: answer == "EACCES",
        required=False,
    ),
)
