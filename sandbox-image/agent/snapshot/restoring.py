"""Brings a namespace back in a fresh worker: modules, code, groups, names in their order, process state.

Each group is bounded in time and fails alone. Where loading can't be interrupted (it hangs in C, or ends the process),
the supervisor knows from the announcements which group it was, and starts another worker with that one quarantined.
"""

import contextlib
import io
import signal
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from time import process_time
from types import FrameType
from typing import Any

from agent import plain_json, pristine
from agent.snapshot import process_patches, process_state
from agent.snapshot.loading import PREFIX, Loader, words_for
from agent.snapshot.pieces import DamagedError, Fetch, PieceReader

__builtins__ = pristine.BUILTINS  # type: ignore[assignment]

_WHY_CAREFUL = (
    "",
    "it was not tried when it was saved, and other values have ended the process that loaded them",
    "too many values have ended the process that loaded them",
)
_REPEAT = 0.2  # seconds after which a swallowed time-out is raised again
_ASLEEP = 0.02  # of a processor: what takes less hangs
_MORE_STEPS = 10  # looks after the first one, which together take three times the bound
_LONGEST_MORE = 30.0  # seconds that count as the bound there: the host has its own patience


class LoadTimeoutError(BaseException):
    """Loading takes too long; not an Exception, so that little swallows it."""


@dataclass
class Restored:
    """What came back, and what did not."""

    names: int = 0
    lost: list[tuple[str, str]] = field(default_factory=list)  # (name, why)
    state_lost: list[tuple[str, str]] = field(default_factory=list)  # (part of the process state, why)


class BodyError(ValueError):
    """This is no body of a manifest that this agent knows."""


def wanted(body: bytes) -> list[str]:
    """The digests of a body's pieces, each once, in the order in which `restore` asks for them."""
    return [digest for digest, _ in _read(body)["pieces"]]


def groups_of(body: bytes) -> list[list[str]]:
    """For each number of a group that a restore announces, the names that are quarantined with it."""
    fields = _read(body)
    bound: dict[str, list[str]] = {}
    for name, slot in fields["code"].items():
        bound.setdefault(slot, []).append(name)
    return [
        [*(name for slot in row.get("code", ()) for name in bound.get(slot, ())), *row.get("names", ())]
        for row in fields["groups"]
    ]


def restore(
    namespace: dict[str, Any],
    body: bytes,
    fetch: Fetch,
    seed: int,
    *,
    announce: Callable[[int], None] = lambda _group: None,
    quarantined: Mapping[int, str] | None = None,
    bound: float = 30.0,
    careful: int = 0,
) -> Restored:
    """Fill the namespace of the module `__main__`; `bound` in seconds is for each group. Raises BodyError.

    `careful` is for a body whose groups have ended many processes: 1 loads only groups that have loaded when they were
    saved, 2 only those that hold nothing but plain values, without imports and state.
    """
    fields = _read(body)
    failed = _distrusted(fields, careful) | dict(quarantined or {})
    return _Restore(namespace, fields, fetch, seed, announce=announce, failed=failed, bound=bound).run()


def _distrusted(body: dict[str, Any], careful: int) -> dict[int, str]:
    """The numbers of what is not loaded with so much care, and why."""
    rows = enumerate(body["groups"])
    failed = {number: _WHY_CAREFUL[careful] for number, row in rows if row.get("trust", 0) < careful}
    if careful > 1:
        behind = len(body["groups"]) + len(body["imports"]) + len(body["modules"]) + 1
        failed |= dict.fromkeys(range(len(body["groups"]), behind), _WHY_CAREFUL[careful])
    return failed


class _Restore:
    def __init__(
        self,
        namespace: dict[str, Any],
        body: dict[str, Any],
        fetch: Fetch,
        seed: int,
        *,
        announce: Callable[[int], None],
        failed: dict[int, str],
        bound: float,
    ) -> None:
        self._namespace = namespace
        self._body = body
        self._announce = announce
        self._failed = failed
        self._bound = bound
        self._loader = Loader(namespace)
        self._reader = PieceReader(body["pieces"], _uses(body), fetch, seed)
        self._pack: tuple[int, Any] = (-1, b"")
        self._state: dict[str, Any] = {}
        self._report = Restored()

    def run(self) -> Restored:
        self._report.state_lost += process_state.apply(self._body["early"])
        self._import_modules()
        for number, row in enumerate(self._body["groups"]):
            self._group(number, row)
        self._put_in_order()
        missing = [(key, why) for key, why in self._body["not_saved"]]
        self._report.state_lost += [*missing, *self._apply_state()]
        process_state.loaded()
        self._report.names = sum(1 for name in self._body["order"] if name in self._namespace)
        return self._report

    # What comes before and after the groups has numbers behind theirs, so that it can be quarantined as they are.

    def _import_modules(self) -> None:
        wanted = [(None, module) for module in self._body["imports"]] + list(self._body["modules"].items())
        for number, (name, module) in enumerate(wanted, len(self._body["groups"])):
            why = self._failed.get(number)
            if why is None:
                self._announce(number)
                try:
                    with self._clock(number):
                        __import__(module)
                        if name is not None:
                            self._namespace[name] = sys.modules[module]
                    continue
                except BaseException as error:
                    why = words_for(error)
            if name is not None:
                self._report.lost.append((name, f"importing {module!r}: {why}"))

    def _apply_state(self) -> list[tuple[str, str]]:
        number = sum(len(self._body[key]) for key in ("groups", "imports", "modules"))
        why = self._failed.get(number)
        if why is not None:
            return [(key, why) for key in self._state]
        self._announce(number)
        process_patches.look()  # what is set from here on is the session's
        return process_state.apply(self._state)

    def _group(self, number: int, row: dict[str, Any]) -> None:
        if row.get("byte_code") and self._body["python"][:2] != list(sys.version_info[:2]):
            self._failed[number] = "its byte code is of Python {}.{}".format(*self._body["python"])
        lost = next((other for other in row.get("needs", ()) if other in self._failed), None)
        if number not in self._failed and lost is not None:
            self._failed[number] = f"it needs what did not come back: {self._failed[lost]}"[:400]
        if number not in self._failed:
            self._announce(number)
            try:
                stream = self._stream(row)
                with self._clock(number):
                    self._load(row, stream)
            except LoadTimeoutError:
                self._failed[number] = "loading it timed out"
            except DamagedError as error:
                self._failed[number] = str(error)
            except BaseException as error:
                self._failed[number] = words_for(error)
            else:
                return
        self._lose(row, self._failed[number])

    def _clock(self, number: int) -> contextlib.AbstractContextManager[None]:
        return _Clock(self._bound, lambda: self._announce(number)).running()

    def _load(self, row: dict[str, Any], stream: Any) -> None:
        def read(kind: str, index: int, target: memoryview) -> None:
            self._reader.read_into(row[kind][index][1], target)

        code, names, state = (row.get(key, []) for key in ("code", "names", "state"))
        objects = self._loader.load(stream, [size for size, _ in row.get("buffers", ())], read)
        self._loader.keep(code, names, objects, self._body["code"])
        self._state.update(zip(state, objects[len(code) + len(names) :], strict=True))

    def _stream(self, row: dict[str, Any]) -> Any:
        number, offset, size = row["pack"]
        indexes = self._body["packs"][number]
        if self._pack[0] != number and offset == 0 and size == self._reader.size(indexes):
            return self._file(indexes, size)
        if self._pack[0] != number:
            self._pack = (number, self._reader.read(indexes))
        stream = memoryview(self._pack[1])[offset : offset + size]
        if len(stream) != size:
            raise DamagedError("a group lies outside its pack")
        return stream

    def _file(self, indexes: list[int], size: int) -> io.BytesIO:
        """A large group, which has its pack to itself: read to where it is loaded from."""
        # Nobody else has these zeros, so that they are written into where they lie.
        file = io.BytesIO(bytes(len(PREFIX) + size))
        with file.getbuffer() as memory, memory[: len(PREFIX)] as prefix, memory[len(PREFIX) :] as rest:
            prefix[:] = PREFIX
            self._reader.read_into(indexes, rest)
        return file

    def _lose(self, row: dict[str, Any], why: str) -> None:
        slots = set(row.get("code", ()))
        bound = [name for name, slot in self._body["code"].items() if slot in slots]
        self._report.lost += [(name, why) for name in (*bound, *row.get("names", ()))]
        self._report.state_lost += [(key, why) for key in row.get("state", ())]

    def _put_in_order(self) -> None:
        ordered = {name: self._namespace.pop(name) for name in self._body["order"] if name in self._namespace}
        self._namespace.update({sys.intern(name): value for name, value in ordered.items()})


def _uses(body: dict[str, Any]) -> Iterator[int]:
    for pack in body["packs"]:
        yield from pack
    for row in body["groups"]:
        for _, indexes in (*row.get("arrays", ()), *row.get("buffers", ())):
            yield from indexes


def _read(body: bytes) -> dict[str, Any]:
    try:
        fields = plain_json.read(body)
    except ValueError as error:
        raise BodyError("a manifest's body is not JSON") from error
    if not isinstance(fields, dict) or fields.get("version") != 1:
        raise BodyError("a manifest's body of another version")
    return fields


class _Clock:
    """How long loading one group may take: `bound` seconds of the processor, and not much longer if it hangs.

    Where others have the processor, an import takes many times its own time, and nothing is given up for that.
    """

    def __init__(self, bound: float, still: Callable[[], None]) -> None:
        self._bound = bound
        self._still = still
        self._begun = self._used = process_time()
        self._step = bound
        self._left = _MORE_STEPS

    @contextlib.contextmanager
    def running(self) -> Iterator[None]:
        """While the block runs, LoadTimeoutError is raised in it where it is time."""
        before = signal.signal(signal.SIGALRM, self._look)
        signal.setitimer(signal.ITIMER_REAL, self._step)
        try:
            yield
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)
            signal.signal(signal.SIGALRM, before)

    def _look(self, _number: int, _frame: FrameType | None) -> None:
        before, self._used = self._used, process_time()
        hangs = self._used - before < _ASLEEP * self._step
        if hangs or self._used - self._begun >= self._bound or not self._left:
            self._left = 0
            signal.setitimer(signal.ITIMER_REAL, _REPEAT)
            raise LoadTimeoutError
        self._left -= 1
        self._step = min(self._bound, _LONGEST_MORE) * 3 / _MORE_STEPS
        signal.setitimer(signal.ITIMER_REAL, self._step)
        self._still()
