"""How a command reaches the owner of a data directory: it asks the one that serves, or is the owner for a moment."""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Mapping
from contextlib import AsyncExitStack, aclosing, asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Protocol, TypeVar

import typer

from orchestrator.domain.errors import OwnedError
from orchestrator.domain.orders import Answer

if TYPE_CHECKING:
    from orchestrator.settings import Settings

T = TypeVar("T")
Line = Mapping[str, Any]
_WAIT_SECONDS: Final = 10.0  # for another command to end, or for an owner that begins or ends
_PAUSE: Final = 0.05  # seconds between two looks


class Office(Protocol):
    """Where orders are carried out, be it here or at the owner."""

    def answers(
        self, name: str, given: Line, *, chunks: AsyncIterator[bytes] | None = None
    ) -> AsyncGenerator[Answer, None]:
        """Carry out one order; see services/orders.py. Raises OrchestratorError."""


def at_office(data_dir: Path | None, work: Callable[[Office], Awaitable[T]], *, whole: bool = False) -> T:
    """Do that work with whoever owns the data directory; `whole` where an order needs engine and sessions. Which way
    was taken is told in a line on standard error. Raises OrchestratorError.
    """
    from orchestrator.owner_process import known_failure  # noqa: PLC0415 - imports of a server, which no help needs
    from orchestrator.settings import Settings  # noqa: PLC0415

    settings = Settings.load(data_dir=data_dir)

    async def working() -> T:
        async with _office(settings, whole=whole, say=_say) as office:
            return await work(office)

    try:
        return asyncio.run(working())
    except BaseExceptionGroup as failures:
        known = known_failure(failures)
        if known is None:
            raise
        raise known from failures


@asynccontextmanager
async def quiet_office(data_dir: Path | None) -> AsyncIterator[Office]:
    """For looks at the records of which nothing is said, such as a shell's. Raises OrchestratorError."""
    from orchestrator.settings import Settings  # noqa: PLC0415

    async with _office(Settings.load(data_dir=data_dir), whole=False, say=_keep_quiet) as office:
        yield office


@asynccontextmanager
async def beside(office: Office, data_dir: Path | None) -> AsyncIterator[Office]:
    """For an order beside one that the office is at: the same, or another link to the same owner, since each does one
    order at a time. Raises OrchestratorError.
    """
    from orchestrator.faces.admin_client import Link  # noqa: PLC0415
    from orchestrator.settings import Settings  # noqa: PLC0415

    if not isinstance(office, Link):
        yield office
        return
    async with _office(Settings.load(data_dir=data_dir), whole=True, say=_keep_quiet) as another:
        yield another


async def lines_of(office: Office, name: str, given: Line) -> list[Line]:
    """All objects of a short answer."""
    async with aclosing(office.answers(name, given)) as answers:
        return [answer async for answer in answers if isinstance(answer, Mapping)]


@asynccontextmanager
async def _office(settings: "Settings", *, whole: bool, say: Callable[[str], None]) -> AsyncIterator[Office]:
    loop = asyncio.get_running_loop()
    until = loop.time() + _WAIT_SECONDS
    async with AsyncExitStack() as stack:
        while True:
            try:
                office = await stack.enter_async_context(_owned(settings, whole=whole))
                say(f"no server runs; this command owns {settings.data_dir} meanwhile")
                break
            except OwnedError as owned:
                found = await _asked(settings, stack, owned, patient=loop.time() < until, say=say)
                if found is not None:
                    office = found
                    break
            await asyncio.sleep(_PAUSE)
        yield office


async def _asked(
    settings: "Settings", stack: AsyncExitStack, owned: OwnedError, *, patient: bool, say: Callable[[str], None]
) -> Office | None:
    """A link to the owner; None where it is worth the while to look again."""
    from orchestrator.faces.admin_client import NotListeningError, linked  # noqa: PLC0415
    from orchestrator.tenancy import holder  # noqa: PLC0415

    who = holder(settings.data_dir)
    if who is not None and who.kind == "library":
        raise owned
    if who is not None and who.socket is not None:
        try:
            link = await stack.enter_async_context(linked(Path(who.socket)))
        except NotListeningError:
            if not patient:
                raise
        else:
            say(f"asked process {who.pid}, which owns {settings.data_dir}")
            return link
    if not patient:
        raise owned
    return None


@asynccontextmanager
async def _owned(settings: "Settings", *, whole: bool) -> AsyncIterator[Office]:
    """Be the owner. Raises OwnedError."""
    if not whole:
        from orchestrator.tenancy import operating  # noqa: PLC0415

        async with operating(settings) as operations:
            yield operations
        return
    from orchestrator.app import Orchestrator  # noqa: PLC0415

    async with Orchestrator.open(settings, kind="command") as orchestrator:
        yield orchestrator.operations


def _say(text: str) -> None:
    typer.secho(text, err=True, dim=True)


def _keep_quiet(_text: str) -> None:
    """Say nothing."""
