"""The pristine interpreter that workers are forked from.

It has never seen the channel or its secret, runs no user code, and is not dumpable; a fork of it becomes a worker in
milliseconds, with everything imported. It speaks with the supervisor over descriptor FD: each message asks for one
worker and carries three descriptors: the worker's end of its own socket, a pipe for its answers, and one for what is
said at a crash.
"""

import gc
import os
import shutil
import signal
import socket
from typing import NoReturn

from agent import worker
from agent.processes import set_dumpable, set_oom_score

_WORKER_OOM_SCORE = 500  # dies before supervisor and zygote, where the kernel heeds it
_WORKER_NICENESS = 10  # the supervisor keeps its turn while cells spin
_FONT_CACHE = "/opt/environment/share/matplotlib"


def main(fd: int) -> NoReturn:
    """Fork a worker for each message, until the supervisor is gone."""
    set_dumpable(dumpable=False)
    supervisor = socket.socket(fileno=fd)
    gc.collect()
    gc.freeze()  # keeps shared pages shared
    _provide_font_cache()
    while True:
        message, descriptors, _, _ = socket.recv_fds(supervisor, 16, 3)
        if not message:
            os._exit(0)
        _fork(supervisor, *descriptors)
        for descriptor in descriptors:
            os.close(descriptor)


def _fork(supervisor: socket.socket, link: int, answers: int, crash_report: int) -> None:
    # Twice, so that the worker is a child of PID 1, which learns how it ended.
    intermediate = os.fork()
    if intermediate:
        os.waitpid(intermediate, 0)
        return
    if os.fork():
        os._exit(0)
    supervisor.close()
    os.setsid()  # a cell that kills its process group reaches neither zygote nor supervisor
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    set_oom_score(_WORKER_OOM_SCORE)
    os.nice(_WORKER_NICENESS)
    set_dumpable(dumpable=True)
    worker.main(link, answers, crash_report)


def _provide_font_cache() -> None:
    # matplotlib insists on a writable directory and would build its font list anew for seconds.
    target = os.environ.get("MPLCONFIGDIR")
    if target and os.path.isdir(_FONT_CACHE) and not os.path.exists(target):
        try:
            shutil.copytree(_FONT_CACHE, target)
        except OSError:
            pass  # without it the first figure is slow, and that is all
