"""The worker's part of a save: a fork that goes on saving while the worker goes on."""

from collections.abc import Callable, Sequence
from typing import Any

from agent import pristine
from agent.before_fork import open_mp, other_threads, random_state, safe_to_fork
from agent.save_child import Beside, SaveChild
from agent.streams import HIGH
from agent.wire import Header

__builtins__ = pristine.BUILTINS  # type: ignore[assignment]


def begin(
    namespace: dict[str, Any],
    header: Header,
    parts: Sequence[bytes],
    descriptors: Sequence[int],
    tell: Callable[[Header], None],
) -> None:
    """Fork what saves, and tell its process id; null where none could be started, or none safely."""
    pipe, connection = descriptors
    told = {"type": "saving", "save": header["save"]}
    try:
        if not safe_to_fork():
            tell({**told, "pid": None})
            return
        open_mp.pause()
        before = random_state()
        beside = Beside(pristine.getpid(), len(other_threads()))
        # Twice, so that the child is PID 1's to reap, and no wait() of a user's thread sees it.
        intermediate = pristine.fork()
        if intermediate == 0:
            _fork_again(SaveChild(namespace, before, beside, header, parts), pipe, connection, told, tell)
        pristine.waitpid(intermediate, 0)
    except Exception:  # no process, or what the session has changed
        tell({**told, "pid": None})
    finally:
        pristine.close(pipe)
        pristine.close(connection)


def _fork_again(child: SaveChild, pipe: int, connection: int, told: Header, tell: Callable[[Header], None]) -> None:
    try:
        pid = pristine.fork()
        if pid == 0:
            child.run(pipe, pristine.socket_of(fileno=connection), HIGH)
        tell({**told, "pid": pid})
    except OSError:
        tell({**told, "pid": None})
    finally:
        pristine.leave(0)
