"""Functions of the standard library as they were before any cell ran.

Cells patch modules and empty builtins. What the worker does between cells uses these, and each of its modules begins
with builtins of its own (`__builtins__ = …`), which its functions keep.
"""

import builtins

# Of `signal` itself, which makes enumerations of what these answer, with builtins that cells can reach.
from _signal import pthread_sigmask  # type: ignore[import-not-found]
from _signal import signal as set_handler
from _thread import allocate_lock, start_new_thread
from fcntl import F_DUPFD_CLOEXEC, F_GETFL, fcntl
from os import O_RDONLY, O_RDWR, O_WRONLY, close, dup2, fork, getpid, listdir, read, setsid, stat, waitpid, write
from os import _exit as leave
from os import open as open_descriptor
from resource import RLIMIT_NOFILE, RUSAGE_SELF, getrlimit, getrusage, setrlimit
from signal import SIG_BLOCK, SIG_SETMASK, SIGINT, Signals, default_int_handler
from socket import CMSG_LEN, MSG_DONTWAIT, SCM_RIGHTS, SOL_SOCKET, recv_fds
from socket import socket as socket_of
from sys import __unraisablehook__ as print_unraisable
from threading import current_thread, get_ident
from threading import enumerate as threads
from time import thread_time

BUILTINS = dict(vars(builtins))

__all__ = [
    "BUILTINS",
    "CMSG_LEN",
    "F_DUPFD_CLOEXEC",
    "F_GETFL",
    "MSG_DONTWAIT",
    "O_RDONLY",
    "O_RDWR",
    "O_WRONLY",
    "RLIMIT_NOFILE",
    "RUSAGE_SELF",
    "SCM_RIGHTS",
    "SIGINT",
    "SIG_BLOCK",
    "SIG_SETMASK",
    "SOL_SOCKET",
    "Signals",
    "allocate_lock",
    "close",
    "current_thread",
    "default_int_handler",
    "dup2",
    "fcntl",
    "fork",
    "get_ident",
    "getpid",
    "getrlimit",
    "getrusage",
    "leave",
    "listdir",
    "open_descriptor",
    "print_unraisable",
    "pthread_sigmask",
    "read",
    "recv_fds",
    "set_handler",
    "setrlimit",
    "setsid",
    "socket_of",
    "start_new_thread",
    "stat",
    "thread_time",
    "threads",
    "waitpid",
    "write",
]
