"""Opens the rows of sandboxes, so that none is left open whose caller went away."""

import asyncio
from collections.abc import Callable

from orchestrator.domain.model import SandboxRecord
from orchestrator.domain.ports import Records
from orchestrator.services.tasks import Tasks


class SandboxRows:
    """What is opened joins `ours`; `discard` has a row closed that nobody wants any more."""

    def __init__(self, records: Records, tasks: Tasks, ours: set[str], discard: Callable[[str], None]) -> None:
        self._records = records
        self._tasks = tasks
        self._ours = ours
        self._discard = discard
        self.openings: set[asyncio.Task[None]] = set()

    async def open(self, image: str) -> SandboxRecord:
        """A row, which is closed again where its caller goes away while it is made."""
        row: asyncio.Future[SandboxRecord] = asyncio.get_running_loop().create_future()
        opening = self._tasks.spawn(self._open_for(row, image), "open a sandbox's row")
        self.openings.add(opening)
        opening.add_done_callback(self.openings.discard)
        try:
            return await row
        except asyncio.CancelledError:
            if row.done() and not row.cancelled() and row.exception() is None:  # it came at the same moment
                self._discard(row.result().id)
            raise

    async def _open_for(self, row: "asyncio.Future[SandboxRecord]", image: str) -> None:
        try:
            record = await self._records.open_sandbox(image)
        except Exception as error:  # noqa: BLE001 - it belongs to who waits for the row
            if not row.done():
                row.set_exception(error)
            return
        self._ours.add(record.id)
        if row.done():
            self._discard(record.id)
        else:
            row.set_result(record)
