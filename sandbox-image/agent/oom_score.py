"""Whom the kernel is to end first when memory runs out, as far as it heeds that. Supervisor and zygote keep 0.

PID 1 says so for what is forked from a worker: Landlock lets nothing there write to /proc.
"""

import os

STANDING_BY, WORKER, EXPENDABLE = 100, 500, 1000


def give(score: int, process: int | str = "self") -> None:
    """To 0 at the least, where nothing has set a floor."""
    try:
        fd = os.open(f"/proc/{process}/oom_score_adj", os.O_WRONLY)
        try:
            os.write(fd, b"%d" % score)
        finally:
            os.close(fd)
    except OSError:
        pass  # a kernel that refuses still kills something; the verdict reads the counter
