"""The container spec of a sandbox: one pure function, one line of reason for each line of policy.

Nothing here depends on a session or a tenant, so that a sandbox can be started before anyone asks for it.
"""

from dataclasses import dataclass, replace
from typing import Any, Literal, Self

from orchestrator.domain.model import PRODUCT

MIB = 1024 * 1024
CHANNEL_MOUNT = "/run/channel"
# One constant of the product: hashes of strings, and with them the order of sets, survive a wake anywhere.
PYTHON_HASH_SEED = "20241110"
ENTRYPOINT = ("/opt/environment/bin/python", "-S", "-s", "-P", "/opt/agent/agent/__main__.py")

LABEL_PRODUCT = "session-orchestrator.product"
LABEL_INSTALLATION = "session-orchestrator.installation"
LABEL_SANDBOX = "session-orchestrator.sandbox"
LABEL_ENVIRONMENT = "session-orchestrator.environment"
LABEL_CREATED = "session-orchestrator.created"

# Read as empty. Naming any replaces the engine's own list, so these are all that an engine of any version masks by
# default, and what else tells of the host or of other sandboxes and is read by no library.
MASKED_PATHS = (
    "/proc/acpi",  # firmware's tables
    "/proc/asound",  # sound cards
    "/proc/buddyinfo",  # how the host's memory lies
    "/proc/bus",  # devices
    "/proc/cmdline",  # how the host was started: disks, switched-off protections
    "/proc/config.gz",  # which protections its kernel has
    "/proc/diskstats",  # disks, and how busy others keep them
    "/proc/driver",
    "/proc/dynamic_debug",
    "/proc/fs",  # the host's disks by name
    "/proc/interrupts",  # keystrokes and packets by their time
    "/proc/iomem",
    "/proc/ioports",
    "/proc/kallsyms",  # where the kernel's functions lie
    "/proc/kcore",  # the host's memory
    "/proc/key-users",  # the user ids of all containers that hold keys
    "/proc/keys",  # keyrings know no containers
    "/proc/kmsg",
    "/proc/latency_stats",
    "/proc/locks",  # which files others have locked: those of open files, and how many, in every pid namespace
    "/proc/modules",
    "/proc/mtrr",
    "/proc/pagetypeinfo",
    "/proc/partitions",
    "/proc/pressure",  # the load of the whole host, finely
    "/proc/sched_debug",  # the host's processes
    "/proc/schedstat",
    "/proc/scsi",  # takes disks away
    "/proc/slabinfo",
    "/proc/softirqs",  # as interrupts
    "/proc/spl",  # pools of ZFS, and what goes in and out of them
    "/proc/swaps",
    "/proc/timer_list",  # the host's processes, and clocks to the nanosecond
    "/proc/timer_stats",
    "/proc/vmallocinfo",
    "/sys/devices/virtual/dmi",  # serial numbers
    "/sys/devices/virtual/powercap",  # energy used, which tells of what others compute
    "/sys/firmware",
    "/sys/fs/bpf",
    "/sys/fs/btrfs",  # the host's disks by name, and what is written to them; so are the next ones
    "/sys/fs/ext4",
    "/sys/fs/f2fs",
    "/sys/fs/pstore",  # what the host's kernel said before it died
    "/sys/fs/xfs",
    "/sys/hypervisor",
    "/sys/kernel/boot_params",  # what the firmware has handed over
    "/sys/kernel/debug",
    "/sys/kernel/irq",  # interrupts again
    "/sys/kernel/notes",  # has told where the kernel lies
    "/sys/kernel/security",
    "/sys/kernel/slab",
    "/sys/kernel/tracing",
    "/sys/kernel/vmcoreinfo",  # where in memory the kernel's own dump would be described
    "/sys/module",  # parameters of drivers
    "/sys/power",  # sleep and wake
)
# As engines have it by default: what must be readable and never written, should a capability be left by mistake.
READ_ONLY_PATHS = ("/proc/irq", "/proc/sys", "/proc/sysrq-trigger")
# Least, first and most bytes that wait at one end of a TCP connection. The kernel's own most is megabytes, of a pool
# that the host has for all: the agent bounds how many sockets there are, and this how much of it each takes.
_TCP_BUFFER = "4096 65536 131072"
SYSCTLS = {"net.ipv4.tcp_rmem": _TCP_BUFFER, "net.ipv4.tcp_wmem": _TCP_BUFFER}


@dataclass(frozen=True, slots=True)
class SandboxProfile:
    """Limits of one sandbox. Sizes in bytes; tmpfs sizes count inside `memory`, since their pages are the cgroup's."""

    memory: int = 1024 * MIB  # and no swap beyond it
    cpus: float = 1.0
    pids: int = 256
    workspace: int = 256 * MIB
    workspace_inodes: int = 16_384
    tmp: int = 64 * MIB
    tmp_inodes: int = 8_192
    shm: int = 64 * MIB
    shm_inodes: int = 1_024
    open_files: int = 1_024
    file_size: int = 1024 * MIB  # RLIMIT_FSIZE: no sparse giants
    threads: int = 1  # of BLAS and OpenMP each
    locked_memory: int = 64 * 1024  # RLIMIT_MEMLOCK: keys, and nothing large
    pending_signals: int = 1_024  # RLIMIT_SIGPENDING: each, and each timer, is memory of the kernel's
    stack: int = 8 * MIB  # RLIMIT_STACK, as everywhere; without one, addresses are less random
    stack_most: int = 64 * MIB  # what a process may raise it to
    lease: int = 1_800  # seconds that an agent without a host lives on

    def of_memory(self, memory: int) -> Self:
        """The same with so many bytes of memory. Files live there, too: that a file system is full is told to who
        writes, that memory is full costs a process its life. So `/tmp` and `/dev/shm` may take an eighth of it each.
        """
        part = memory // 8
        return replace(self, memory=memory, tmp=min(self.tmp, part), shm=min(self.shm, part))


@dataclass(frozen=True, slots=True)
class Channel:
    """How the agent reaches the host: a directory of the host's, or (None) the engine's attach stream."""

    kind: Literal["unix", "attach"]
    directory: str | None = None


@dataclass(frozen=True, slots=True)
class Isolation:
    """What stands between a sandbox and the host's kernel, beside namespaces and limits."""

    seccomp: str  # the profile itself, as JSON
    runtime: str | None = None  # by the engine's name for it; None: the engine's default
    user_namespace: bool = False  # whether an engine is refused whose containers share the host's user ids
    own_seccomp: bool = False  # whether the profile is the operator's, in the place of ours
    allowed: frozenset[str] = frozenset()  # protections that need not be enforced, by their probes' names


def container_name(sandbox_id: str) -> str:
    """The container's name holds our id, so that a second create is a conflict and not a twin."""
    return f"so-{sandbox_id}"


def container_spec(
    *,
    installation: str,
    sandbox_id: str,
    uid: int,
    secret: str,
    image: str,
    environment: str,
    created: int,
    profile: SandboxProfile,
    isolation: Isolation,
    channel: Channel,
) -> dict[str, Any]:
    """The body of the engine's create request. `created` is in whole seconds since 1970.

    Fields are those of Docker's API 1.41, `POST /containers/create`; newer engines take the same.
    """
    attach = channel.kind == "attach"
    environment_variables = {
        "PATH": "/opt/environment/bin:/usr/local/bin:/usr/bin:/bin",
        "PYTHONHASHSEED": PYTHON_HASH_SEED,
        "LANG": "C.UTF-8",
        "TZ": "UTC",
        "SO_SANDBOX": sandbox_id,
        "SO_SECRET": secret,
        "SO_CHANNEL": channel.kind,
        "SO_LEASE": str(profile.lease),
        "SO_THREADS": str(profile.threads),
    }
    return {
        "Image": image,
        "Entrypoint": list(ENTRYPOINT),
        "Cmd": [],
        "Env": [f"{name}={value}" for name, value in environment_variables.items()],
        "User": f"{uid}:{uid}",  # a uid of its own: per-uid kernel limits are shared by all containers under one
        "WorkingDir": "/workspace",
        "Hostname": "sandbox",  # says nothing about the host
        "Domainname": "",  # likewise
        "NetworkDisabled": True,  # nor files of the host's about its network: no resolv.conf, no hosts
        "Tty": False,  # a terminal would mangle the attach stream
        "OpenStdin": attach,
        "StdinOnce": False,  # a lost attach must not close the agent's standard input
        "AttachStdin": attach,
        "AttachStdout": attach,
        "AttachStderr": False,
        "StopSignal": "SIGKILL",
        "Labels": {
            LABEL_PRODUCT: PRODUCT,
            LABEL_INSTALLATION: installation,
            LABEL_SANDBOX: sandbox_id,
            LABEL_ENVIRONMENT: environment,
            LABEL_CREATED: str(created),
        },
        "HostConfig": _host_config(uid, profile, isolation, channel),
    }


def _host_config(uid: int, profile: SandboxProfile, isolation: Isolation, channel: Channel) -> dict[str, Any]:
    return {
        "Runtime": isolation.runtime or "",  # the engine's default
        "NetworkMode": "none",
        "ReadonlyRootfs": True,
        "CapDrop": ["ALL"],
        "Privileged": False,
        "SecurityOpt": ["no-new-privileges", f"seccomp={isolation.seccomp}"],
        "MaskedPaths": list(MASKED_PATHS),
        "ReadonlyPaths": list(READ_ONLY_PATHS),
        "Sysctls": dict(SYSCTLS),  # of the sandbox's own network
        **resource_limits(profile),
        "PidsLimit": profile.pids,
        "Ulimits": _ulimits(profile),
        "Tmpfs": {
            # Executable, because people unpack wheels with compiled modules there, and it is the only place that is
            # saved. Elsewhere programs that a cell has made have no business.
            "/workspace": _tmpfs(uid, profile.workspace, profile.workspace_inodes, "0700", "exec"),
            "/tmp": _tmpfs(uid, profile.tmp, profile.tmp_inodes, "1777", "noexec"),  # noqa: S108 - inside the sandbox
            "/dev/shm": _tmpfs(uid, profile.shm, profile.shm_inodes, "1777", "noexec"),  # noqa: S108 - likewise
        },
        "Mounts": _mounts(channel),
        "IpcMode": "private",
        "PidMode": "",  # a pid namespace of its own
        "UTSMode": "",
        "UsernsMode": "",  # whatever the engine maps stays mapped
        "CgroupnsMode": "private",
        "LogConfig": {"Type": "none", "Config": {}},  # output is the channel's business; no file on the host grows
        "RestartPolicy": {"Name": "no"},  # a sandbox is single use
        "AutoRemove": False,  # gone only when our record says so
        "Init": False,  # the supervisor is PID 1
        "OomKillDisable": False,
        "OomScoreAdj": 0,  # the floor inside: the worker raises its own, so it goes before PID 1, and before the host's
    }


def resource_limits(profile: SandboxProfile) -> dict[str, int]:
    """What a container that runs can be given anew, as fields of the engine's requests."""
    return {
        "Memory": profile.memory,
        "MemorySwap": profile.memory,  # memory and swap together: no swap
        "NanoCpus": round(profile.cpus * 1_000_000_000),
    }


def _ulimits(profile: SandboxProfile) -> list[dict[str, Any]]:
    # None of processes: the kernel counts those by user id, and the container has a count of its own (PidsLimit).
    limits = {
        "nofile": (profile.open_files, profile.open_files),
        "fsize": (profile.file_size, profile.file_size),
        # No file is that short. And only with 1 a crash does not start the program that `kernel.core_pattern` may name,
        # as root and on the host: see "RLIMIT_CORE of 1" in the kernel's fs/coredump.c.
        "core": (1, 1),
        "memlock": (profile.locked_memory, profile.locked_memory),
        "msgqueue": (0, 0),  # also through the file system of queues that engines mount
        "nice": (0, 0),  # a turn before others, and the next one: else whatever the engine has for itself
        "rtprio": (0, 0),
        "sigpending": (profile.pending_signals, profile.pending_signals),
        "stack": (profile.stack, profile.stack_most),
    }
    return [{"Name": name, "Soft": soft, "Hard": hard} for name, (soft, hard) in limits.items()]


def _tmpfs(uid: int, size: int, inodes: int, mode: str, execution: str) -> str:
    return f"rw,nosuid,nodev,{execution},size={size},nr_inodes={inodes},mode={mode},uid={uid},gid={uid}"


def _mounts(channel: Channel) -> list[dict[str, Any]]:
    if channel.directory is None:
        return []
    return [
        {
            "Type": "bind",
            "Source": channel.directory,
            "Target": CHANNEL_MOUNT,
            "ReadOnly": True,  # connecting still works
            "BindOptions": {"Propagation": "rprivate"},
        }
    ]
