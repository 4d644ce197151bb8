"""Keeps memory that this process will want again. It is a setting of all of it: for a process that is ours alone."""

import ctypes
import logging
import platform
from typing import Final

logger = logging.getLogger(__name__)

# Snapshots come and go in buffers of 1 MiB, tens of MiB at a time. glibc gives these back to the kernel when they are
# freed and has them zeroed page by page when they are wanted again, on the way of every large save. Up to so much stays
# here instead. See mallopt(3); 32 MiB is the most that glibc takes as a threshold for mmap.
_KEPT_BYTES: Final = 64 * 1024 * 1024
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3
_MMAP_BYTES: Final = 32 * 1024 * 1024


def keep_freed_memory() -> bool:
    """Let the allocator keep what is freed, up to 64 MiB; False where it is not glibc's, and all stays as it was."""
    if platform.libc_ver()[0] != "glibc":
        return False
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError):
        return False
    kept = all((mallopt(_M_MMAP_THRESHOLD, _MMAP_BYTES), mallopt(_M_TRIM_THRESHOLD, _KEPT_BYTES)))
    if not kept:
        logger.debug("the allocator refuses its settings: large saves take a little longer")
    return kept
