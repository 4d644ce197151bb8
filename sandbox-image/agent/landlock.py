"""Locks a process, and all that it forks, out of what a cell has no business with, where the kernel has Landlock.

Files can be changed only where cells may write: not /proc/self/oom_score_adj, with which a memory bomb would outlive
PID 1. Where the kernel can, signals reach only processes in the same domain: not the zygote, and no rehearsal. Reading
stays as it was. It needs no privilege, and nothing takes it back.
"""

import ctypes
import os

# Numbers of system calls and fields: the same on every architecture.
_CREATE_RULESET, _ADD_RULE, _RESTRICT_SELF = 444, 445, 446
_GET_ABI = 1  # flag: tell the version and make nothing
_RULE_PATH_BENEATH = 1
_PR_GET_NO_NEW_PRIVS = 39
# Before, moving a file from one directory to another is refused wherever Landlock is on.
_LEAST_ABI = 2
_ABI_TRUNCATE = 3
_ABI_SCOPES = 6

_WRITE_FILE = 1 << 1
# Remove directories and files; make devices, directories, files, sockets, pipes, links; move to another directory.
_CHANGE_DIRECTORY = sum(1 << bit for bit in range(4, 14))
_TRUNCATE = 1 << 14
_SCOPE_SIGNALS = 1 << 1

_WRITABLE = ("/workspace", "/tmp", "/dev/shm")
_DEVICES = ("/dev/null", "/dev/zero", "/dev/full", "/dev/random", "/dev/urandom", "/dev/tty", "/dev/pts")

_libc = ctypes.CDLL(None, use_errno=True)


class _Ruleset(ctypes.Structure):
    _fields_ = (("files", ctypes.c_uint64), ("network", ctypes.c_uint64), ("scoped", ctypes.c_uint64))


class _PathBeneath(ctypes.Structure):
    _fields_ = (("allowed", ctypes.c_uint64), ("directory", ctypes.c_int32))


def abi() -> int:
    """The kernel's version of Landlock that is of use here; 0 where there is none."""
    if _libc.prctl(_PR_GET_NO_NEW_PRIVS, 0, 0, 0, 0) != 1:
        return 0  # only what gains no privileges may lock itself in
    try:
        version = _call(_CREATE_RULESET, None, 0, _GET_ABI)
    except OSError:
        return 0
    return version if version >= _LEAST_ABI else 0


def enter() -> None:
    """Lock this process in; nothing where the kernel cannot. Raises OSError where it can and refuses."""
    version = abi()
    if version == 0:
        return
    writing = _WRITE_FILE | (_TRUNCATE if version >= _ABI_TRUNCATE else 0)
    rules = _Ruleset(writing | _CHANGE_DIRECTORY, 0, _SCOPE_SIGNALS if version >= _ABI_SCOPES else 0)
    # Older kernels take no longer structure than they know, unless what follows is zero.
    ruleset = _call(_CREATE_RULESET, ctypes.byref(rules), ctypes.sizeof(rules), 0)
    try:
        for path in _WRITABLE:
            _allow(ruleset, path, writing | _CHANGE_DIRECTORY)
        for path in _DEVICES:
            _allow(ruleset, path, _WRITE_FILE)
        _call(_RESTRICT_SELF, ruleset, 0)
    finally:
        os.close(ruleset)


def _allow(ruleset: int, path: str, allowed: int) -> None:
    try:
        directory = os.open(path, os.O_PATH | os.O_CLOEXEC)
    except FileNotFoundError:
        return
    try:
        rule = _PathBeneath(allowed, directory)
        _call(_ADD_RULE, ruleset, _RULE_PATH_BENEATH, ctypes.byref(rule), 0)
    finally:
        os.close(directory)


def _call(number: int, *arguments: object) -> int:
    long = [ctypes.c_long(one) if isinstance(one, int) else one for one in arguments]
    result: int = _libc.syscall(ctypes.c_long(number), *long)
    if result < 0:
        raise OSError(ctypes.get_errno(), "Landlock")
    return result
