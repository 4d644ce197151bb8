"""Functions of the standard library as they were before any cell ran.

Cells patch modules and empty builtins. What the worker does between cells uses these, and each of its modules begins
with builtins of its own (`__builtins__ = …`), which its functions keep.
"""

import builtins
from fcntl import F_DUPFD_CLOEXEC, fcntl
from os import O_RDONLY, O_RDWR, O_WRONLY, close, dup2, fork, getpid, stat, waitpid, write
from os import _exit as leave
from os import open as open_descriptor
from resource import RLIMIT_NOFILE, getrlimit, setrlimit
from signal import SIG_BLOCK, SIG_SETMASK, SIGINT, Signals, default_int_handler, pthread_sigmask
from signal import signal as set_handler
from socket import CMSG_LEN, MSG_DONTWAIT, SCM_RIGHTS, SOL_SOCKET, recv_fds
from socket import socket as socket_of
from sys import __unraisablehook__ as print_unraisable
from threading import current_thread, get_ident
from threading import enumerate as threads

BUILTINS = dict(vars(builtins))

__all__ = [
    "BUILTINS",
    "CMSG_LEN",
    "F_DUPFD_CLOEXEC",
    "MSG_DONTWAIT",
    "O_RDONLY",
    "O_RDWR",
    "O_WRONLY",
    "RLIMIT_NOFILE",
    "SCM_RIGHTS",
    "SIGINT",
    "SIG_BLOCK",
    "SIG_SETMASK",
    "SOL_SOCKET",
    "Signals",
    "close",
    "current_thread",
    "default_int_handler",
    "dup2",
    "fcntl",
    "fork",
    "get_ident",
    "getpid",
    "getrlimit",
    "leave",
    "open_descriptor",
    "print_unraisable",
    "pthread_sigmask",
    "recv_fds",
    "set_handler",
    "setrlimit",
    "socket_of",
    "stat",
    "threads",
    "waitpid",
    "write",
]
