"""What hostile cells have at hand: it runs inside sandboxes, as a cell of its own before them."""

import ctypes
import errno
import json
import mmap
import os
import platform
import resource
import shutil
import signal
import socket
import stat
import struct
import subprocess
import sys
import time  # noqa: F401 - for the cells
from collections.abc import Callable
from typing import Any

NUMBERS: dict[str, dict[str, int]] = globals().get("NUMBERS", {})  # of system calls, by machine; given before

libc = ctypes.CDLL(None, use_errno=True)
libc.syscall.restype = ctypes.c_long


def call(name: str | int, *arguments: Any) -> str:
    """A system call by its name or number: done, or the errno. Integers go as they are, with all 64 bits."""
    number = NUMBERS[platform.machine()][name] if isinstance(name, str) else name
    given = [ctypes.c_long(one) if isinstance(one, int) else one for one in arguments]
    return "done" if libc.syscall(ctypes.c_long(number), *given) >= 0 else errno.errorcode[ctypes.get_errno()]


def tried(act: Callable[..., Any], *arguments: Any) -> str:
    """A call of Python's: done, or the errno."""
    try:
        act(*arguments)
    except OSError as error:
        return errno.errorcode[error.errno or 0]
    return "done"


def in_child(act: Callable[..., Any], *arguments: Any) -> str:
    """What a forked child answers; the signal, where that ended it. Whatever it changes ends with it."""
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            signal.alarm(5)
            os.write(writing, str(act(*arguments)).encode())
        finally:
            os._exit(0)
    os.close(writing)
    with open(reading, "rb") as said:
        answer = said.read().decode()
    status = os.waitpid(child, 0)[1]
    return signal.Signals(os.WTERMSIG(status)).name if os.WIFSIGNALED(status) else answer


def read(path: str) -> str:
    """Whether a file tells anything."""
    try:
        with open(path, "rb") as file:
            return "told" if file.read(4096) else "empty"
    except OSError as error:
        return errno.errorcode[error.errno or 0]


def look(path: str) -> str:
    """Whether something is looked at, be it a file, a directory or a link."""
    if not os.path.lexists(path):
        return "ENOENT"
    try:
        return "done" if os.readlink(path) else "empty"
    except OSError as error:
        if error.errno != errno.EINVAL:  # which says that it is no link
            return errno.errorcode[error.errno or 0]
    return tried(os.listdir, path) if os.path.isdir(path) else read(path)


def enlarged(option: int) -> str:
    """Whether a buffer of a socket gets the size that is asked for."""
    with socket.socket() as one:
        before = one.getsockopt(socket.SOL_SOCKET, option)
        one.setsockopt(socket.SOL_SOCKET, option, 3 * before // 4)
        return "stays" if one.getsockopt(socket.SOL_SOCKET, option) == before else "done"


def zygote() -> int:
    """The process id of what workers are forked from, and have their command line of."""
    for name in os.listdir("/proc"):
        if name.isdigit() and int(name) != os.getpid():
            with open(f"/proc/{name}/cmdline", "rb") as file:
                if b"zygote" in file.read().split(b"\0"):
                    return int(name)
    raise LookupError("there is no zygote")


def call_of_32_bits() -> bool:
    """Getpid through the gate of 32-bit programs; x86 alone has it."""
    code = mmap.mmap(-1, 4096, prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC)
    code.write(bytes.fromhex("b814000000cd80c3"))  # mov eax, 20; int 0x80; ret
    return bool(ctypes.CFUNCTYPE(ctypes.c_int)(ctypes.addressof(ctypes.c_char.from_buffer(code)))() > 0)


def timers() -> str:
    """What ends a hunger for timers."""
    answers = {call("timer_create", 1, 0, ctypes.byref(ctypes.c_int())) for _ in range(1500)}
    return " ".join(sorted(answers - {"done"})) or "done"


def run_in_tmp() -> str:
    """A program of one's own, run where nothing should."""
    with open("/tmp/run", "w", encoding="ascii") as file:
        file.write("#!/bin/sh")
    os.chmod("/tmp/run", 0o700)
    return tried(subprocess.run, ["/tmp/run"])


def files_in_tmp() -> str:
    """What ends a hunger for files."""
    os.mkdir("/tmp/many")

    def make() -> None:
        for number in range(8200):
            os.close(os.open(f"/tmp/many/{number}", os.O_CREAT))

    try:
        return tried(make)
    finally:
        shutil.rmtree("/tmp/many")


def write(path: str, text: str) -> str:
    """Open for writing, and write."""

    def act() -> None:
        with open(path, "w", encoding="ascii") as file:
            file.write(text)

    return tried(act)


def agents() -> list[int]:
    """The descriptors that the agent works through: sockets and pipes, up high."""
    found = []
    for number in map(int, os.listdir("/proc/self/fd")):
        try:
            mode = os.fstat(number).st_mode
        except OSError:
            continue
        if number >= 512 and (stat.S_ISFIFO(mode) or stat.S_ISSOCK(mode)):
            found.append(number)
    return found


def say(data: bytes) -> None:
    """To the supervisor, by whatever leads there."""
    for number in agents():
        try:
            os.set_blocking(number, False)
            os.write(number, data)
        except OSError:
            continue
        finally:
            os.set_blocking(number, True)


def frame(header: dict[str, Any], parts: bytes = b"") -> bytes:
    """As the agent writes them, whatever the header says."""
    head = json.dumps(header).encode()
    return struct.pack(">2sBxII", b"SO", 1, len(head), len(parts)) + head + parts


def number() -> int:
    """Of the execution that runs."""
    return int(sys._getframe(1).f_code.co_filename.removeprefix("<cell ").removesuffix(">"))


def fill(path: str) -> str:
    """What ends a file that grows; then it is gone."""

    def grow() -> None:
        with open(path, "wb") as file:
            while True:
                file.write(bytes(1 << 20))

    try:
        return tried(grow)
    finally:
        os.remove(path)


def files(directory: str, count: int) -> str:
    """What ends so many files; then they are gone."""
    home = os.path.join(directory, "many")
    os.mkdir(home)

    def make() -> None:
        for number in range(count):
            os.close(os.open(os.path.join(home, str(number)), os.O_CREAT))

    try:
        return tried(make)
    finally:
        shutil.rmtree(home)


def giant() -> str:
    """A file to be made larger."""
    with open("/workspace/giant", "wb"):
        return "/workspace/giant"


def hunger(take: Callable[[], Any]) -> tuple[str, bool]:
    """What ends the taking of something for ever, and that it took more than a handful."""
    held = []

    def more() -> None:
        while True:
            held.append(take())

    return tried(more), len(held) > 100


def watch() -> int:
    """A queue of what happens to files."""
    queue = libc.inotify_init()
    if queue < 0:
        raise OSError(ctypes.get_errno(), "inotify_init")
    return int(queue)


def mappings() -> str:
    """What ends a hunger for mappings, no two of which can be joined."""
    held: list[mmap.mmap] = []
    protections = (mmap.PROT_READ, mmap.PROT_READ | mmap.PROT_WRITE)

    def more() -> None:
        held.extend(mmap.mmap(-1, 4096, prot=protections[number % 2]) for number in range(200_000))

    return tried(more)


def limit_raised(name: str) -> str:
    """One more than the most of a limit."""
    number = getattr(resource, name)
    most = resource.getrlimit(number)[1]
    try:
        resource.setrlimit(number, (most + 1, most + 1))
    except ValueError:  # which is how Python tells of it
        return "EPERM"
    return "done"


def queued_signals() -> str:
    """What ends a hunger for queued signals, which are blocked meanwhile."""
    number = signal.SIGRTMIN + 5
    signal.pthread_sigmask(signal.SIG_BLOCK, [number])
    answers = {"EAGAIN" if libc.sigqueue(os.getpid(), number, 0) else "done" for _ in range(1500)}
    while signal.sigtimedwait([number], 0) is not None:
        pass
    return " ".join(sorted(answers - {"done"})) or "done"


pair = socket.socketpair()
_instruction = ctypes.create_string_buffer(struct.pack("HBBI", 6, 0, 0, 0xFFFF))  # accepts everything
bpf = struct.pack("HxxxxxxQ", 1, ctypes.addressof(_instruction))
