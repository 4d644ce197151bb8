"""Runs one cell as a notebook does: last value, `_`, top-level await, tracebacks of the user's lines only."""

import __future__

import ast
import builtins
import errno
import io
import linecache
import signal
import sys
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, field
from types import CodeType, FrameType, ModuleType
from typing import TYPE_CHECKING, Any, TypeVar

from agent import pristine
from agent.displays import Display, collect_figures, drop_figures
from agent.names import countable, stored_by
from agent.snapshot import process_state
from agent.tracebacks import line_reached, message, trace_text

if TYPE_CHECKING:
    import asyncio

# A cell may empty or replace builtins; this module's own functions keep what they were born with.
__builtins__ = pristine.BUILTINS  # type: ignore[assignment]

_FUTURE_FLAGS = sum(getattr(__future__, name).compiler_flag for name in __future__.all_feature_names)
_HANDLED_IN_CELLS = {
    signal.SIGALRM,
    signal.SIGVTALRM,
    signal.SIGPROF,
    signal.SIGUSR1,
    signal.SIGUSR2,
    signal.SIGTERM,
    signal.SIGHUP,
    signal.SIGQUIT,
    signal.SIGCHLD,
    signal.SIGIO,
}
_COROUTINE_FLAG = 0x80  # inspect.CO_COROUTINE, without importing inspect
MAX_TEXT = 64 * 1024  # bytes of a value's repr, and of a traceback
_MAX_SOURCES = 2_000_000  # characters of cell sources kept for tracebacks

Settled = TypeVar("Settled")
_ORIGINAL_BUILTINS = dict(vars(builtins))


@dataclass
class Report:
    """What became of a cell, in the worker's eyes."""

    status: str = "ok"  # ok, exception, interrupted, disk_full
    value: str | None = None
    error: tuple[str, str] | None = None  # type name and message
    traceback: str = ""
    bound: list[str] = field(default_factory=list)
    removed: list[str] = field(default_factory=list)
    displays: list[Display] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    exit_code: int = 0  # what sys.exit was given


class Interpreter:
    """The namespace of a session, and what running cells in it needs."""

    def __init__(self, asked_to_stop: Callable[[int], bool]) -> None:
        self._asked_to_stop = asked_to_stop
        self.module = ModuleType("__main__")
        self.namespace: dict[str, Any] = self.module.__dict__
        self.namespace["__builtins__"] = builtins
        sys.modules["__main__"] = self.module
        self._runner: asyncio.Runner | None = None
        self._forgotten: list[asyncio.Runner] = []  # of workers that this one took over from
        self._sources: OrderedDict[str, int] = OrderedDict()
        self._source_characters = 0
        self._interruptible = False
        self._signalled = False  # SIGINT came while no cell could be interrupted
        self._mask: set[Any] = set()  # the signals that cells have blocked
        self._codes: list[CodeType] = []  # of the present cell
        self._reached = 0  # the last line of it that began to run
        self._raised = False  # the present cell's interrupt was raised
        self._swallowed = False  # and Python dropped it
        pristine.set_handler(signal.SIGURG, self._nudged)
        sys.unraisablehook = self._unraisable
        self._await_signals()

    def run(self, code: str, execution: int) -> Report:
        """Run a cell and describe what it did. Raises nothing."""
        report = Report()
        self.namespace["__builtins__"] = builtins
        before = {name: id(value) for name, value in self.namespace.copy().items() if type(name) is str}
        filename = f"<cell {execution}>"
        self._remember_source(filename, code)
        self._codes, self._reached = [], 0
        pristine.pthread_sigmask(pristine.SIG_SETMASK, self._mask)
        self._guarded(report, lambda: self._execute(code, filename, report), execution)
        self._restore_builtins(report)
        self._guarded(report, lambda: self._collect(report))
        self._await_signals()
        self._name_changes(report, before)
        return report

    def settled(self, act: Callable[[], Settled]) -> Settled:
        """Do what is no cell and runs the session's code: signals are a cell's, and what it leaves is put in order."""
        pristine.pthread_sigmask(pristine.SIG_SETMASK, self._mask)
        try:
            return act()
        finally:
            self._restore_builtins(Report())
            self._await_signals()

    def forget_loop(self) -> int | None:
        """In a copy that takes over: asyncio's loop waits on what is not its own; how many tasks go with it, if it was.

        It is kept and left alone: closing it would only tell of tasks that nobody can end any more.
        """
        runner, self._runner = self._runner, None
        if runner is None:
            return None
        self._forgotten.append(runner)
        import asyncio

        try:
            asyncio.set_event_loop(None)
            return len(asyncio.all_tasks(runner.get_loop()))
        except Exception:  # the session has changed asyncio
            return 0

    def _guarded(self, report: Report, act: Callable[[], None], execution: int | None = None) -> None:
        try:
            try:
                self._interruptible = True
                # A signal that came before this line was for this cell, or came too late for the one before.
                if execution is not None and self._signalled and self._asked_to_stop(execution):
                    raise KeyboardInterrupt
                act()
            finally:
                self._interruptible = self._signalled = self._raised = self._swallowed = False
        except BaseException as error:
            report.status = "interrupted" if isinstance(error, KeyboardInterrupt) else "exception"
            report.error = report.error or (type(error).__name__, "")

    def _await_signals(self) -> None:
        """Between cells no handler of a cell's runs; what comes meanwhile is delivered in the next one."""
        while True:
            try:
                pristine.set_handler(pristine.SIGINT, self._sigint)
                blocked = pristine.pthread_sigmask(pristine.SIG_BLOCK, _HANDLED_IN_CELLS)
                self._mask = blocked - {pristine.SIGINT}
                pristine.pthread_sigmask(pristine.SIG_SETMASK, self._mask | _HANDLED_IN_CELLS)
            except BaseException:  # noqa: S112 - a handler's last word
                continue
            return

    def _sigint(self, _number: int, _frame: FrameType | None) -> None:
        if self._interruptible:
            self._raised = True
            raise KeyboardInterrupt
        self._signalled = True

    def _nudged(self, _number: int, _frame: FrameType | None) -> None:
        """The supervisor's nudge has ended a blocking system call; an interrupt that was dropped is raised again."""
        if self._swallowed and self._interruptible:
            self._swallowed = False
            raise KeyboardInterrupt

    def _unraisable(self, dropped: "sys.UnraisableHookArgs") -> None:
        """Python prints and drops what is raised in a `__del__` or in the callback of a weak reference."""
        self._swallowed |= self._raised and dropped.exc_type is KeyboardInterrupt
        pristine.print_unraisable(dropped)

    def _execute(self, code: str, filename: str, report: Report) -> None:
        try:
            body, last = self._compile(code, filename)
            self._codes = [part for part in (body, last) if part is not None]
            if body is not None:
                self._evaluate(body)
            if last is not None:
                self._show(self._evaluate(last), report)
            self._reached = sys.maxsize
        except SystemExit as exit_:
            report.notes.append(_exit_note(exit_))
            report.exit_code = exit_.code & 0xFF if isinstance(exit_.code, int) else int(exit_.code is not None)
            self._reached = line_reached(exit_.__traceback__, filename)
        except BaseException as error:
            self._restore_builtins(report)
            self._reached = line_reached(error.__traceback__, filename)
            self._describe_error(error, report)

    def _compile(self, code: str, filename: str) -> tuple[CodeType | None, CodeType | None]:
        flags = ast.PyCF_ALLOW_TOP_LEVEL_AWAIT | process_state.future["flags"]
        tree = compile(code, filename, "exec", flags | ast.PyCF_ONLY_AST, dont_inherit=True)
        last = None
        if tree.body and isinstance(tree.body[-1], ast.Expr) and not _ends_with_semicolon(code, tree.body[-1]):
            expression = ast.Expression(tree.body.pop().value)
            last = compile(expression, filename, "eval", flags, dont_inherit=True)
        body = compile(tree, filename, "exec", flags, dont_inherit=True) if tree.body else None
        if body is not None:
            process_state.future["flags"] |= body.co_flags & _FUTURE_FLAGS
        return body, last

    def _evaluate(self, code: CodeType) -> Any:
        result = eval(code, self.namespace)  # noqa: S307 - running the user's code is what a sandbox is for
        if not code.co_flags & _COROUTINE_FLAG:
            return result
        if self._runner is None or self._runner.get_loop().is_closed():
            import asyncio  # dear, and few cells await

            self._runner = asyncio.Runner()
        # asyncio turns SIGINT into a cancellation of the task, if it finds Python's own handler.
        pristine.set_handler(pristine.SIGINT, pristine.default_int_handler)
        try:
            return self._runner.run(result)
        finally:
            pristine.set_handler(pristine.SIGINT, self._sigint)

    def _show(self, value: object, report: Report) -> None:
        if value is None:
            return
        self.namespace["_"] = value
        text = repr(value)
        report.value = text if type(text) is str else str.__str__(text)

    def _describe_error(self, error: BaseException, report: Report) -> None:
        kind = type(error)
        if isinstance(error, KeyboardInterrupt):
            report.status = "interrupted"
        elif isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
            report.status = "disk_full"
        else:
            report.status = "exception"
        report.error = (type.__dict__["__name__"].__get__(kind), message(error))
        report.traceback = trace_text(error)

    def _collect(self, report: Report) -> None:
        # A cell that was asked to stop has only its grace left, which drawing might use up.
        report.displays, notes = collect_figures() if report.status != "interrupted" else ([], drop_figures())
        report.notes += notes

    def _restore_builtins(self, report: Report) -> None:
        current = vars(builtins)
        missing = [name for name, was in _ORIGINAL_BUILTINS.items() if current.get(name) is None and was is not None]
        if missing:
            current.update({name: _ORIGINAL_BUILTINS[name] for name in missing})
            report.notes.append(f"The cell removed {len(missing)} builtins, such as {missing[-1]}: they were put back.")

    def _remember_source(self, filename: str, code: str) -> None:
        # An entry without a modification time is never checked against a file.
        cache = linecache.cache
        if type(cache) is not dict:  # a cell has replaced it; tracebacks then lack their lines
            return
        cache[filename] = (len(code), None, _lines(code), filename)
        self._sources[filename] = len(code)
        self._source_characters += len(code)
        while len(self._sources) > 1 and self._source_characters > _MAX_SOURCES:
            oldest, characters = self._sources.popitem(last=False)
            self._source_characters -= characters
            cache.pop(oldest, None)

    def _name_changes(self, report: Report, before: dict[str, int]) -> None:
        now = {name: id(value) for name, value in self.namespace.copy().items() if type(name) is str}
        changed = [name for name, identity in now.items() if before.get(name) != identity]
        # An id can be reused by the object that replaced another; the cell's code knows better.
        stored = [name for code in self._codes for name in stored_by(code, self._reached)]
        rebound = [name for name in stored if name in now]
        report.bound = [name for name in dict.fromkeys([*changed, *rebound]) if countable(name)]
        report.removed = [name for name in before if name not in now and countable(name)]


def _exit_note(exit_: SystemExit) -> str:
    code = exit_.code
    if code is None or type(code) is int:
        return f"The cell ended itself by sys.exit({'' if code is None else code}); the session goes on."
    return f"The cell ended itself by sys.exit: {message(exit_)}; the session goes on."


def _lines(code: str) -> list[str]:
    # As the tokenizer sees them; str.splitlines ends lines at form feeds and more.
    return io.StringIO(code, newline=None).readlines()


def _ends_with_semicolon(code: str, last: ast.Expr) -> bool:
    lines = _lines(code)
    end = last.end_lineno or 0
    rest = lines[end - 1].encode()[last.end_col_offset or 0 :] if 0 < end <= len(lines) else b""
    return rest.lstrip().startswith(b";")
