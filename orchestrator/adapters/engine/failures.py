"""What the SDK raises, as one sentence about what was being done; and which failures pass by themselves."""

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager

from docker.errors import APIError, DockerException, ImageNotFound
from requests.exceptions import RequestException

from orchestrator.domain.errors import EngineUnavailableError, ImageGoneError

_CONFLICT = 409
_SERVER_ERROR = 500
_LOOK = "Look whether the engine runs: `orchestrator engine ensure`."
_FULL = os.strerror(errno.ENOSPC).lower()
_MAKE_ROOM = "Make room on the engine's disk; `docker system df` says what takes it."
_NOBODY_THERE = frozenset({errno.ECONNREFUSED, errno.ENOENT, errno.EHOSTUNREACH, errno.ENETUNREACH})


class EngineUnreachableError(EngineUnavailableError):
    """Nobody took the request: nothing was done, so that anything may be asked again."""


class EngineFaltersError(EngineUnavailableError):
    """The engine failed or hung up midway; only what is idempotent may be asked again."""


class EngineSilentError(EngineFaltersError):
    """It took the request and gave no answer in time, or none at all: what was asked for may yet be done."""


class EngineConflictError(EngineUnavailableError):
    """It exists already, or something else is being done to it."""

    retryable = False


class IsolationUnmetError(EngineUnavailableError):
    """The engine cannot isolate sandboxes as the settings ask for; nothing was made."""

    retryable = False


@contextmanager
def engine_failures(doing: str) -> Iterator[None]:
    """Map failures; `doing` begins a sentence, such as 'Creating a sandbox'."""
    try:
        yield
    except ImageNotFound as failure:
        raise ImageGoneError(
            "The engine does not have the sandbox image.", hint="Run `orchestrator image build`."
        ) from failure
    except APIError as failure:
        raise _of_answer(doing, failure) from failure
    except (DockerException, RequestException, OSError) as failure:
        if _nobody_there(failure):
            raise EngineUnreachableError(f"{doing} failed: no Docker Engine answers.", hint=_LOOK) from failure
        raise EngineSilentError(f"{doing} failed: {_first_line(failure)}.", hint=_LOOK) from failure


def _of_answer(doing: str, failure: APIError) -> EngineUnavailableError:
    status = failure.response.status_code if failure.response is not None else 0
    sentence = f"{doing} failed: the engine says: {_first_line(failure.explanation or failure)}."
    if status == _CONFLICT:
        return EngineConflictError(sentence)
    if status >= _SERVER_ERROR:
        full = _FULL in sentence
        return EngineFaltersError(sentence, hint=_MAKE_ROOM if full else "Look at the engine's log.")
    return EngineUnavailableError(sentence, hint="The engine may be too old or lack a feature; see its log.")


def _first_line(failure: object) -> str:
    return str(failure).strip().split("\n", 1)[0][:500].rstrip(".")


def _nobody_there(failure: BaseException) -> bool:
    """Whether the connection itself was refused; the SDK hides that under several layers."""
    todo: list[object] = [failure]
    for _ in range(12):
        if not todo:
            break
        one = todo.pop()
        if isinstance(one, OSError) and one.errno in _NOBODY_THERE:
            return True
        if isinstance(one, BaseException):
            todo += [one.__cause__, one.__context__, *one.args, getattr(one, "reason", None)]
    return False
