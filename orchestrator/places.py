"""Where things lie: the configuration, the data directory, the runtime directory, and the owner's socket in it.

Only the standard library's lightest modules are imported here, because the relay of `orchestrator mcp` needs these
answers in milliseconds. For the same reason what decides them is read here as well as in `settings.py`; a test holds
the two readings equal. The configuration is only read where there is one.
"""

import hashlib
import os
import stat

DATA_DIR_VARIABLE = "ORCHESTRATOR_DATA_DIR"
RUNTIME_DIR_VARIABLE = "ORCHESTRATOR_RUNTIME_DIR"
CONFIG_VARIABLE = "ORCHESTRATOR_CONFIG"
DIRECTORY_NAME = "session-orchestrator"
CONFIG_NAME = "config.toml"
SYSTEM_CONFIG = f"/etc/{DIRECTORY_NAME}/{CONFIG_NAME}"
LOCK_NAME = "owner.lock"  # in the data directory; its lock says that somebody owns it, its text says who
START_LOCK_NAME = "start.lock"  # in the data directory; held by the one relay that is starting an owner
LOG_NAME = "owner.log"  # in the data directory
MAX_SOCKET_PATH_BYTES = 107  # what a unix socket's address holds, less the closing zero

_PRIVATE = 0o700
_SHARED_BITS = 0o077
_WRITABLE_BITS = 0o022


class PlaceError(Exception):
    """A directory cannot be used: one sentence that says why, and a hint that says what to do."""

    def __init__(self, message: str, hint: str) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint


def normal(path: str) -> str:
    """The absolute path that `path` names, with a leading `~` replaced by the home directory."""
    return os.path.abspath(os.path.expanduser(path))  # noqa: PTH100, PTH111 - pathlib costs the relay milliseconds


def config_file() -> str | None:
    """The configuration: `$ORCHESTRATOR_CONFIG`, or ours in `$XDG_CONFIG_HOME` or `~/.config`, or in `/etc`.

    None where none of the usual ones is there; whether the named one is, shows when it is read.
    """
    if configured := os.environ.get(CONFIG_VARIABLE):
        return normal(configured)
    for path in (f"{_standard_home('XDG_CONFIG_HOME', '~/.config')}/{CONFIG_NAME}", SYSTEM_CONFIG):
        if os.path.lexists(path):
            return path
    return None


def data_directory() -> str:
    """`$ORCHESTRATOR_DATA_DIR`, or as configured, or our directory in `$XDG_DATA_HOME` or `~/.local/share`.

    Raises PlaceError where the configuration cannot be read.
    """
    return _configured(DATA_DIR_VARIABLE, "data_dir") or usual_data_directory()


def usual_data_directory() -> str:
    """Where it lies if nobody says otherwise."""
    return _standard_home("XDG_DATA_HOME", "~/.local/share")


def _standard_home(variable: str, fallback: str) -> str:
    """Our directory in one of the desktop standard's, which says to ignore relative ones."""
    home = os.environ.get(variable, "")
    return f"{(home if home.startswith('/') else normal(fallback)).rstrip('/')}/{DIRECTORY_NAME}"


def _configured(variable: str, name: str) -> str | None:
    if given := os.environ.get(variable):
        return normal(given)
    if (path := config_file()) is None:
        return None
    from orchestrator.configuration import ConfigurationError, read_configuration  # noqa: PLC0415 - seldom needed

    try:
        value = read_configuration(path).get(name)
    except ConfigurationError as failure:
        raise PlaceError(f"{failure}.", "Correct it, or name another one in " + CONFIG_VARIABLE + ".") from failure
    return normal(value) if isinstance(value, str) and value else None


def runtime_directory() -> str:
    """`$ORCHESTRATOR_RUNTIME_DIR`, or as configured, or `usual_runtime_directory`. Raises PlaceError likewise."""
    return _configured(RUNTIME_DIR_VARIABLE, "runtime_dir") or usual_runtime_directory()


def usual_runtime_directory() -> str:
    """Ours in the user's runtime directory, in /run (root), or among temporary files.

    The user's runtime directory is looked for where it usually lies, too: some MCP clients start servers without
    `$XDG_RUNTIME_DIR`, and every relay should come to the same answer.
    """
    user = os.geteuid()
    for candidate in (os.environ.get("XDG_RUNTIME_DIR", ""), f"/run/user/{user}"):
        if candidate.startswith("/") and _is_own_directory(candidate, user):
            return f"{candidate.rstrip('/')}/{DIRECTORY_NAME}"
    if user == 0:
        return f"/run/{DIRECTORY_NAME}"
    return f"{os.environ.get('TMPDIR') or '/tmp'}/{DIRECTORY_NAME}-{user}"  # noqa: S108 - private_directory checks it


def socket_path(runtime_dir: str, data_dir: str) -> str:
    """Where the owner of `data_dir` listens. Raises PlaceError where the path is too long for a socket."""
    real = os.path.realpath(data_dir)
    digest = hashlib.blake2b(os.fsencode(real), digest_size=8).hexdigest()
    path = f"{runtime_dir}/{digest}.sock"
    if len(os.fsencode(path)) > MAX_SOCKET_PATH_BYTES:
        raise PlaceError(
            f"The runtime directory {runtime_dir} has too long a path for a unix socket in it.",
            f"Set {RUNTIME_DIR_VARIABLE} to a shorter one.",
        )
    return path


def private_directory(path: str) -> None:
    """Make the directory, or check that it is ours alone: no link, our user, closed to everyone else.

    Raises PlaceError. Used for the runtime directory, where a stranger could have been there first. One that has our
    name and could be read, but not written, by others is closed to them.
    """
    try:
        os.makedirs(path, _PRIVATE, exist_ok=True)  # noqa: PTH103 - see normal()
        found = os.lstat(path)
        if _is_ours_but_readable(path, found):
            os.chmod(path, _PRIVATE)  # noqa: PTH101 - see normal()
            found = os.lstat(path)
    except OSError as failure:
        raise PlaceError(
            f"The runtime directory {path} cannot be made: {failure.strerror}.",
            f"Set {RUNTIME_DIR_VARIABLE} to a directory that you may write to.",
        ) from failure
    if not stat.S_ISDIR(found.st_mode):
        fault = "is not a directory"
    elif found.st_uid != os.geteuid():
        fault = f"belongs to user {found.st_uid}"
    elif found.st_mode & _SHARED_BITS:
        fault = f"is open to other users (mode {stat.S_IMODE(found.st_mode):04o})"
    else:
        return
    raise PlaceError(
        f"The runtime directory {path} {fault}.",
        f"Remove it, or set {RUNTIME_DIR_VARIABLE} to a directory of your own with mode 0700.",
    )


def ensure_data_directory(path: str) -> None:
    """Make the data directory with mode 0700, or check that it is ours; an empty one is closed to other users.

    A link to a directory elsewhere is welcome here. Raises PlaceError.
    """
    try:
        os.makedirs(path, _PRIVATE, exist_ok=True)  # noqa: PTH103 - see normal()
        found = os.stat(path)  # noqa: PTH116 - see normal()
        shared = found.st_mode & _SHARED_BITS
        if found.st_uid == os.geteuid() and shared and not os.listdir(path):  # noqa: PTH208 - see normal()
            os.chmod(path, _PRIVATE)  # noqa: PTH101 - see normal()
            shared = 0
    except OSError as failure:
        raise PlaceError(
            f"The data directory {path} cannot be used: {failure.strerror}.",
            f"Set {DATA_DIR_VARIABLE} or --data-dir to a directory that you may write to.",
        ) from failure
    if found.st_uid != os.geteuid():
        raise PlaceError(
            f"The data directory {path} belongs to user {found.st_uid}.",
            f"Run as that user, or set {DATA_DIR_VARIABLE} or --data-dir to a directory of your own.",
        )
    if shared:
        raise PlaceError(
            f"The data directory {path} is open to other users (mode {stat.S_IMODE(found.st_mode):04o}).",
            f"Close it with `chmod 700 {path}` if it is meant for sessions, or choose another.",
        )


def _is_ours_but_readable(path: str, found: os.stat_result) -> bool:
    return (
        os.path.basename(path).startswith(DIRECTORY_NAME)  # noqa: PTH119 - see normal()
        and stat.S_ISDIR(found.st_mode)
        and found.st_uid == os.geteuid()
        and not found.st_mode & _WRITABLE_BITS
        and bool(found.st_mode & _SHARED_BITS)
    )


def _is_own_directory(path: str, user: int) -> bool:
    try:
        found = os.stat(path)  # noqa: PTH116 - see normal()
    except OSError:
        return False
    return stat.S_ISDIR(found.st_mode) and found.st_uid == user
