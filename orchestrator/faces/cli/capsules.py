"""`orchestrator session export` and `import`, and `orchestrator trust`: sessions that leave and come."""

import asyncio
import os
import secrets
import sys
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import aclosing, contextmanager, suppress
from pathlib import Path
from typing import Annotated, Any, BinaryIO, Final

import typer

from orchestrator.domain.errors import InvalidRequestError
from orchestrator.domain.model import LOCAL_TENANT
from orchestrator.domain.orders import MAX_CHUNK_BYTES
from orchestrator.faces.cli.completion import session_names, tenant_names
from orchestrator.faces.cli.failures import told_to_the_terminal
from orchestrator.faces.cli.orders import tell_act, tell_list, tell_one
from orchestrator.faces.cli.output import AsJson, Column, DataDir, DryRun, Yes, confirmed, show_one
from orchestrator.faces.cli.reach import Office, at_office
from orchestrator.faces.cli.shown import moment, plain, size

trust_commands = typer.Typer(
    help="Whose session files may be imported: code of their authors runs here.", no_args_is_help=True
)

_STREAM: Final = "-"  # standard input, or output
_Session = Annotated[str, typer.Argument(autocompletion=session_names)]
_Tenant = Annotated[str, typer.Option(help="By name or id.", autocompletion=tenant_names)]
_Target = Annotated[str, typer.Argument(help="The file to write; - for standard output.")]
_Source = Annotated[str, typer.Argument(help="The file to read; - for standard input.")]
_EXPORTED: Final = (Column("SESSION", "session"), Column("BYTES", "bytes", size), Column("SIGNED BY", "signed_by"))
_NOTEBOOK: Final = _EXPORTED[:2]
_IMPORTED: Final = (
    Column("SESSION", "session"),
    Column("SIGNER", "signer", lambda name: plain(name) if name else "this installation"),
    Column("FINGERPRINT", "fingerprint"),
    Column("CELLS", "executions"),
    Column("NAMES", "names"),
    Column("FILES", "files"),
    Column("STORED", "stored_bytes", size),
    Column("WRITTEN", "written_at", moment),
    Column("PYTHON", "python"),
)
_SIGNERS: Final = (
    Column("NAME", "name"),
    Column("FINGERPRINT", "fingerprint"),
    Column("ADDED", "added_at", moment),
    Column("KEY", "key"),
)


def add_to(session_commands: typer.Typer) -> None:
    """The two commands are about sessions."""
    session_commands.command("export")(export)
    session_commands.command("import")(bring_in)


def export(
    session: _Session,
    target: _Target,
    *,
    ipynb: Annotated[bool, typer.Option("--ipynb", help="Only cells and output, as a notebook.")] = False,
    sequence: Annotated[int | None, typer.Option(help="An earlier snapshot; by default the session as it is.")] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace the file where there is one.")] = False,
    tenant: _Tenant = LOCAL_TENANT,
    data_dir: DataDir = None,
    as_json: AsJson = False,
) -> None:
    """Write a session to one signed file, for another installation; or its cells to a notebook.

    The file is not encrypted: it holds all that the session holds.
    """
    with told_to_the_terminal():
        if ipynb and sequence is not None:
            raise InvalidRequestError("A notebook has the cells that are kept, and is of no snapshot.")
        given = {"session": session, "tenant": tenant, **({} if ipynb else {"sequence": sequence})}
        order = "session.notebook" if ipynb else "session.export"
        with _written(target, force=force) as file:
            said = at_office(data_dir, lambda office: _received(office, order, given, file), whole=True)
        if target != _STREAM:
            show_one(said, _NOTEBOOK if ipynb else _EXPORTED, as_json=as_json)


async def _received(office: Office, order: str, given: Mapping[str, Any], file: BinaryIO) -> Mapping[str, Any]:
    said: Mapping[str, Any] = {}
    async with aclosing(office.answers(order, given)) as answers:
        async for answer in answers:
            if isinstance(answer, bytes):
                file.write(answer)
            elif isinstance(answer, Mapping):
                said = answer
    return said


@contextmanager
def _written(target: str, *, force: bool) -> Iterator[BinaryIO]:
    """A file beside the target that takes its place when all is written; private, since it holds what users have."""
    if target == _STREAM:
        if sys.stdout.isatty():
            raise InvalidRequestError("A session's file is not for a terminal.", hint="Name a file, or use a pipe.")
        yield sys.stdout.buffer
        sys.stdout.buffer.flush()
        return
    path = Path(target)
    partial = path.with_name(f"{path.name}.{secrets.token_hex(4)}.partial")
    try:
        if path.exists() and not force:
            raise _is_there(path)
        try:
            descriptor = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
            with os.fdopen(descriptor, "wb") as file:
                yield file
                file.flush()
                os.fsync(file.fileno())
            if force:
                partial.replace(path)
            else:
                path.hardlink_to(partial)  # which replaces nothing that has come meanwhile
        except FileExistsError:
            raise _is_there(path) from None
        except OSError as failure:
            raise InvalidRequestError(f"{path} cannot be written: {failure.strerror}.") from failure
    finally:
        with suppress(OSError):
            partial.unlink()


def _is_there(path: Path) -> InvalidRequestError:
    return InvalidRequestError(f"{path} is there already.", hint="Choose another name, or say --force to replace it.")


def bring_in(
    session: Annotated[str, typer.Argument(help="The id that the new session gets.")],
    source: _Source,
    *,
    tenant: _Tenant = LOCAL_TENANT,
    yes: Yes = False,
    dry_run: DryRun = False,
    data_dir: DataDir = None,
    as_json: AsJson = False,
) -> None:
    """Make a new session of such a file. Its author's code runs when the session wakes: trust the signer first."""

    async def work(office: Office, descriptor: int) -> None:
        plan = [
            f"would make session {session} of {tenant} out of {source}, where a trusted signer has signed it",
            "when the session wakes, code of the file's author runs in its sandbox",
        ]
        if not await confirmed(plan, "Do it?", yes=yes, dry_run=dry_run):
            return
        given = {"session": session, "tenant": tenant}
        async with aclosing(office.answers("session.import", given, chunks=_chunks(descriptor))) as answers:
            async for answer in answers:
                if isinstance(answer, Mapping):
                    show_one(answer, _IMPORTED, as_json=as_json)
                    for note in answer["notes"]:
                        typer.echo(plain(note), err=True)

    with told_to_the_terminal():
        if source == _STREAM and not (yes or dry_run):
            raise InvalidRequestError(
                "Standard input holds the file, and cannot answer a question.", hint="Say --yes to have it done."
            )
        with _opened(source) as descriptor:
            at_office(data_dir, lambda office: work(office, descriptor), whole=True)


@contextmanager
def _opened(source: str) -> Iterator[int]:
    """A descriptor to read it from. Raises InvalidRequestError."""
    if source == _STREAM:
        yield sys.stdin.fileno()
        return
    try:
        file = Path(source).open("rb")  # noqa: SIM115 - closed below
    except OSError as failure:
        raise InvalidRequestError(f"{source} cannot be read: {failure.strerror}.") from failure
    with file:
        yield file.fileno()


async def _chunks(descriptor: int) -> AsyncIterator[bytes]:
    """What comes; a pipe that says nothing holds up nothing else."""
    loop, readable = asyncio.get_running_loop(), asyncio.Event()
    try:
        loop.add_reader(descriptor, readable.set)
    except PermissionError:  # a file, which is always readable
        readable.set()
    try:
        while await readable.wait() and (chunk := _read(descriptor)):
            yield chunk
            if loop.remove_reader(descriptor):
                readable.clear()
                loop.add_reader(descriptor, readable.set)
    finally:
        loop.remove_reader(descriptor)


def _read(descriptor: int) -> bytes:
    try:
        return os.read(descriptor, MAX_CHUNK_BYTES)
    except OSError as failure:
        raise InvalidRequestError(f"The file cannot be read to its end: {failure.strerror}.") from failure


@trust_commands.command("list")
def list_signers(*, data_dir: DataDir = None, as_json: AsJson = False) -> None:
    """List whose files may be imported."""
    with told_to_the_terminal():
        tell_list(data_dir, "trust.list", {}, _SIGNERS, as_json=as_json, whole=True)


@trust_commands.command("key")
def own_key(*, data_dir: DataDir = None, as_json: AsJson = False) -> None:
    """Show the public key that others are to trust for files of this installation."""
    with told_to_the_terminal():
        columns = (Column("KEY", "key"), Column("FINGERPRINT", "fingerprint"))
        tell_one(data_dir, "trust.key", {}, columns, as_json=as_json, whole=True)


@trust_commands.command("add")
def add_signer(
    name: Annotated[str, typer.Argument(help="Of your choice; what a signer calls itself is only a claim.")],
    key: Annotated[str, typer.Argument(help="64 hexadecimal characters, compared with their owner's word.")],
    *,
    data_dir: DataDir = None,
    as_json: AsJson = False,
) -> None:
    """Let files of that signer be imported from now on."""
    with told_to_the_terminal():
        tell_one(data_dir, "trust.add", {"name": name, "key": key}, _SIGNERS, as_json=as_json, whole=True)


@trust_commands.command("remove")
def remove_signer(
    name: str, *, yes: Yes = False, dry_run: DryRun = False, data_dir: DataDir = None, as_json: AsJson = False
) -> None:
    """Let files of that signer be imported no more; sessions that came stay."""
    with told_to_the_terminal():
        tell_act(
            data_dir,
            "trust.remove",
            {"name": name},
            (Column("NAME", "name"), Column("REMOVED", "removed")),
            looks=("trust.list", {}),
            plan=lambda _: [f"would trust the signer {name} no more"],
            yes=yes,
            dry_run=dry_run,
            as_json=as_json,
        )
