"""A process that writes records until it is killed; it prints each execution's number after its commit."""

import asyncio
import sys
from pathlib import Path

from orchestrator.adapters.store.records import open_records
from orchestrator.adapters.system_clock import SystemClock
from orchestrator.domain.ports import Records
from tests.contract.records.steps import ready_session, run_cell


async def _write(records: Records, name: str) -> None:
    session = await ready_session(records, name)
    while True:
        number = await run_cell(records, session, bound=["x", f"y{session.executions}"])
        sys.stdout.write(f"{name} {number}\n")
        sys.stdout.flush()


async def _main(path: Path) -> None:
    async with open_records(path, SystemClock()) as records, asyncio.TaskGroup() as group:
        await records.recover("the writer was killed")
        for i in range(4):
            group.create_task(_write(records, f"s{i}"))


if __name__ == "__main__":
    asyncio.run(_main(Path(sys.argv[1])))
