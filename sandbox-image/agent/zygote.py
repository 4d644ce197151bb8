"""The pristine interpreter that workers are forked from.

It has never seen the channel or its secret, runs no user code, and is not dumpable; a fork of it becomes a worker in
milliseconds, with everything imported. It speaks with the supervisor over descriptor FD. The message `worker` carries
three descriptors: the worker's end of its own socket, a pipe for its answers, and one for what is said at a crash.
`rehearse` carries one, over which groups of a snapshot come to be loaded in a fork of its own; its process id is told.
"""

import gc
import os
import resource
import shutil
import signal
import socket
from collections.abc import Callable
from typing import NoReturn

from agent import landlock, oom_score, worker
from agent.processes import set_dumpable
from agent.snapshot import process_patches, process_state, rehearsing

_HIDDEN = b"hidden"  # said once: from here on no process of the same uid can look into it
_WORKER_NICENESS = 10  # the supervisor keeps its turn while cells spin
_REHEARSAL_NICENESS = 15
_REHEARSAL_CPU = 120  # seconds of processor time; what hangs is ended long before
_FONT_CACHE = "/opt/environment/share/matplotlib"


def main(fd: int) -> NoReturn:
    """Fork a worker for each message, until the supervisor is gone."""
    set_dumpable(dumpable=False)
    supervisor = socket.socket(fileno=fd)
    supervisor.send(_HIDDEN)
    process_patches.look()
    gc.collect()
    gc.freeze()  # keeps shared pages shared
    _provide_font_cache()
    while True:
        message, descriptors, _, _ = socket.recv_fds(supervisor, 16, 3)
        if not message:
            os._exit(0)
        try:
            if message == b"worker":
                _fork(supervisor, _work, descriptors, tell=False)
            else:
                _fork(supervisor, _rehearse, descriptors, tell=True)
        except OSError:
            pass  # a cell has used up all processes: who asked sees the descriptors closed
        for descriptor in descriptors:
            os.close(descriptor)


def _fork(supervisor: socket.socket, act: Callable[..., NoReturn], descriptors: list[int], *, tell: bool) -> None:
    # Twice, so that it is a child of PID 1, which learns how it ended.
    intermediate = os.fork()
    if intermediate:
        os.waitpid(intermediate, 0)
        return
    try:
        pid = os.fork()
    except OSError:
        os._exit(1)
    if pid:
        if tell:
            supervisor.send(b"%d" % pid)
        os._exit(0)
    supervisor.close()
    os.setsid()  # a cell that kills its process group reaches neither zygote nor supervisor
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    act(*descriptors)


def _work(link: int, answers: int, crash_report: int) -> NoReturn:
    _settle(oom_score.WORKER, _WORKER_NICENESS)
    worker.main(link, answers, crash_report)


def _rehearse(connection: int) -> NoReturn:
    """What a fresh worker would make of a snapshot's groups. Its standard streams lead nowhere, as the zygote's do."""
    _settle(oom_score.EXPENDABLE, _REHEARSAL_NICENESS)
    resource.setrlimit(resource.RLIMIT_CPU, (_REHEARSAL_CPU, _REHEARSAL_CPU))
    worker.clean_path()
    process_state.mark()
    try:
        rehearsing.serve(socket.socket(fileno=connection), os._exit)
    finally:
        os._exit(1)


def _settle(score: int, niceness: int) -> None:
    """In this order: what is not dumpable may not write its score, and what Landlock holds may not either."""
    set_dumpable(dumpable=True)
    oom_score.give(score)
    os.nice(niceness)
    landlock.enter()  # each by itself: worker and rehearsals do not reach each other


def _provide_font_cache() -> None:
    # matplotlib insists on a writable directory and would build its font list anew for seconds.
    target = os.environ.get("MPLCONFIGDIR")
    if target and os.path.isdir(_FONT_CACHE) and not os.path.exists(target):
        try:
            shutil.copytree(_FONT_CACHE, target)
        except OSError:
            pass  # without it the first figure is slow, and that is all
