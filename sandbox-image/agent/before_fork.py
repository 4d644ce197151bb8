"""What has to be in order before the worker is forked, so that the copy can go on where the worker is.

A fork copies one thread. Pools of libgomp would be waited for in the copy for ever, so they are let go of. A thread in
the middle of a library's parallel region could hold up the fork itself, so it is waited for: as long as this one keeps
Python's lock, the others cannot begin anything new.
"""

import ctypes
import gc
import os
from io import BufferedRandom, BufferedWriter, FileIO, TextIOWrapper
from threading import Thread
from weakref import ref

from agent import pristine
from agent.snapshot import process_state
from agent.streams import HIGH

__builtins__ = pristine.BUILTINS  # type: ignore[assignment]

_HARD = 2  # of omp_pause_resource_all: all threads and memory of the pools
_LOADED_ONLY = os.RTLD_NOLOAD | os.RTLD_NOW
_OPENMP = ("libgomp", "libomp", "libiomp")
_SEVERAL = os.environ.get("OMP_NUM_THREADS", "1") != "1"  # threads of libraries, as the zygote was told
_LOOKS, _PAUSE = 100, 2000  # microseconds between two looks at threads
_TYPE, _REGULAR, _WRITING = 0o170000, 0o100000, 0o3  # of a file; of how it was opened
_BUFFERED = (BufferedWriter, BufferedRandom)
_flush_text, _flush_bytes = TextIOWrapper.flush, BufferedWriter.flush
_usleep = ctypes.PyDLL(None).usleep  # keeps Python's lock


class _Library(ctypes.Structure):
    """What dl_iterate_phdr says of one."""

    _fields_ = (
        ("address", ctypes.c_void_p),
        ("name", ctypes.c_char_p),
        ("headers", ctypes.c_void_p),
        ("header_count", ctypes.c_uint16),
        ("loaded", ctypes.c_ulonglong),  # libraries so far, in all
        ("unloaded", ctypes.c_ulonglong),
    )


_Visit = ctypes.PYFUNCTYPE(ctypes.c_int, ctypes.POINTER(_Library), ctypes.c_size_t, ctypes.c_void_p)
_each_library = ctypes.PyDLL(None).dl_iterate_phdr


class OpenMp:
    """The OpenMP libraries of this process."""

    def __init__(self) -> None:
        self._loaded = -1  # libraries, when they were looked through last
        self._counted = 0
        self._count = _Visit(self._first)
        self._found: list[ctypes.CDLL] = []

    def pause(self) -> None:
        """Have them let go of their threads; the next parallel region makes new ones."""
        _each_library(self._count, None)
        if self._counted != self._loaded:
            self._loaded = self._counted
            self._found = [library for name in _names() if (library := _openmp(name)) is not None]
        for library in self._found:
            library.omp_pause_resource_all(_HARD)

    def _first(self, library: "ctypes._Pointer[_Library]", _size: int, _data: object) -> int:
        self._counted = library.contents.loaded
        return 1  # the others would say the same


def _names() -> list[bytes]:
    names: list[bytes] = []

    def visit(library: "ctypes._Pointer[_Library]", _size: int, _data: object) -> int:
        names.append(library.contents.name or b"")
        return 0

    _each_library(_Visit(visit), None)
    return names


def _openmp(name: bytes) -> ctypes.CDLL | None:
    path = name.decode("utf-8", "surrogateescape")
    if not path.rpartition("/")[2].startswith(_OPENMP):
        return None
    try:
        library = ctypes.CDLL(path, mode=_LOADED_ONLY)
        library.omp_pause_resource_all.argtypes = (ctypes.c_int,)
    except (AttributeError, OSError):  # an old one
        return None
    return library


class OpenFiles:
    """Python's files that cells write to: what lies in their buffers would be written by the worker and by its copy.

    To find them all objects are walked, which is dear: only where regular files are open for writing, and not again as
    long as these are the same.
    """

    def __init__(self) -> None:
        self._descriptors: frozenset[tuple[int, int, int]] = frozenset()
        self._files: list[ref[object]] = []

    def flush(self) -> None:
        """Write out what they hold."""
        descriptors = _written_to()
        if not descriptors:
            return
        files = [file() for file in self._files]
        if descriptors != self._descriptors or None in files:
            files = [one for one in gc.get_objects() if _is_plain_file(one)]
            self._descriptors, self._files = descriptors, [ref(file) for file in files]
        for file in files:
            try:
                if type(file) is TextIOWrapper:
                    _flush_text(file)
                elif type(file) in _BUFFERED:
                    _flush_bytes(file)  # type: ignore[arg-type]
            except (OSError, ValueError):  # the disk is full, or it was closed
                continue


def _written_to() -> frozenset[tuple[int, int, int]]:
    found = []
    for name in pristine.listdir("/proc/self/fd"):
        fd = int(name)
        if fd < 3 or fd >= HIGH:  # noqa: PLR2004 - the standard streams
            continue
        try:
            status = pristine.stat(fd)
            flags = pristine.fcntl(fd, pristine.F_GETFL)
        except OSError:
            continue
        if status.st_mode & _TYPE == _REGULAR and flags & _WRITING:
            found.append((fd, status.st_dev, status.st_ino))
    return frozenset(found)


def _is_plain_file(one: object) -> bool:
    """Whether it is made of nothing but the standard library's own parts: flushing it runs no code of the user's."""
    if type(one) is TextIOWrapper:
        try:
            one = one.buffer
        except (AttributeError, ValueError):  # it was detached, or never begun
            return False
    if type(one) not in _BUFFERED:
        return False
    try:
        return type(one.raw) is FileIO  # type: ignore[attr-defined]
    except (AttributeError, ValueError):
        return False


def safe_to_fork() -> bool:
    """Threads in the middle of native code are waited for, but not for long: whether a fork cannot hang then.

    It can where libraries have several threads. With one each there is nothing that it would have to wait for.
    """
    others = [thread.native_id for thread in other_threads()]
    for _ in range(_LOOKS if others else 0):
        if not any(_runs(number) for number in others):
            return True
        _usleep(_PAUSE)
    return not (others and _SEVERAL)


def other_threads() -> list[Thread]:
    """Those of Python that live beside this one; none where the session has replaced what would tell."""
    try:
        return [thread for thread in pristine.threads() if thread is not pristine.current_thread()]
    except Exception:
        return []


def _runs(thread: int | None) -> bool:
    try:
        fd = pristine.open_descriptor(f"/proc/self/task/{thread}/stat", pristine.O_RDONLY)
    except OSError:
        return False  # it has ended
    try:
        return pristine.read(fd, 512).rpartition(b") ")[2][:1] == b"R"
    finally:
        pristine.close(fd)


def random_state() -> dict[str, object]:
    """What a fork loses, as parts of the process's state."""
    try:
        return process_state.before_fork()
    except BaseException:  # the session has replaced the module `random`
        return {}


open_mp = OpenMp()
open_files = OpenFiles()
