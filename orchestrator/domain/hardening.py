"""The container spec of a sandbox: one pure function, one line of reason for each line of policy.

Nothing here depends on a session or a tenant, so that a sandbox can be started before anyone asks for it.
"""

from dataclasses import dataclass
from typing import Any, Literal

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
    lease: int = 1_800  # seconds that an agent without a host lives on


@dataclass(frozen=True, slots=True)
class Channel:
    """How the agent reaches the host: a directory of the host's, or (None) the engine's attach stream."""

    kind: Literal["unix", "attach"]
    directory: str | None = None


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
        "NetworkDisabled": True,
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
        "HostConfig": _host_config(uid, profile, channel),
    }


def _host_config(uid: int, profile: SandboxProfile, channel: Channel) -> dict[str, Any]:
    return {
        "NetworkMode": "none",
        "ReadonlyRootfs": True,
        "CapDrop": ["ALL"],
        "Privileged": False,
        "SecurityOpt": ["no-new-privileges"],  # with Docker's default seccomp profile
        "Memory": profile.memory,
        "MemorySwap": profile.memory,  # memory and swap together: no swap
        "NanoCpus": round(profile.cpus * 1_000_000_000),
        "PidsLimit": profile.pids,
        "Ulimits": [
            {"Name": "nofile", "Soft": profile.open_files, "Hard": profile.open_files},
            {"Name": "fsize", "Soft": profile.file_size, "Hard": profile.file_size},
            {"Name": "core", "Soft": 0, "Hard": 0},
        ],
        "Tmpfs": {
            # Executable, because people unpack wheels with compiled modules there.
            "/workspace": _tmpfs(uid, profile.workspace, profile.workspace_inodes, "0700", "exec"),
            "/tmp": _tmpfs(uid, profile.tmp, profile.tmp_inodes, "1777", "noexec"),  # noqa: S108 - inside the sandbox
            "/dev/shm": _tmpfs(uid, profile.shm, profile.shm_inodes, "1777", "noexec"),  # noqa: S108 - likewise
        },
        "Mounts": _mounts(channel),
        "IpcMode": "private",
        "PidMode": "",  # a pid namespace of its own
        "UTSMode": "",
        "CgroupnsMode": "private",
        "LogConfig": {"Type": "none", "Config": {}},  # output is the channel's business; no file on the host grows
        "RestartPolicy": {"Name": "no"},  # a sandbox is single use
        "AutoRemove": False,  # gone only when our record says so
        "Init": False,  # the supervisor is PID 1
        "OomKillDisable": False,
        "OomScoreAdj": 0,
    }


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
