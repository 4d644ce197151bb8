"""A session as a stream of bytes that another installation can read, signed by this one."""

import asyncio
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from typing import Final

from orchestrator.domain.access import LOCAL_CALLER, Caller
from orchestrator.domain.capsules import KEPT, MAX_CELL_BYTES, CapsuleWriter, Header
from orchestrator.domain.errors import InvalidRequestError
from orchestrator.domain.identifiers import session_id_of
from orchestrator.domain.import_ports import ImportRecords
from orchestrator.domain.model import CellText, ExecutionRecord, Session
from orchestrator.domain.notebooks import notebook
from orchestrator.domain.signing import Signing
from orchestrator.domain.snapshot_ports import SnapshotReader
from orchestrator.domain.snapshots import DamagedPiece, SnapshotDamagedError
from orchestrator.services.admission import Admission
from orchestrator.services.checks import not_found
from orchestrator.services.equipment import Equipment
from orchestrator.services.sessions import Sessions

_NAME_CHARACTERS: Final = 8  # of our key, by which we call ourselves


class Exports:
    """What leaves is one snapshot with its past; memory holds one piece of it, and the cells' text."""

    def __init__(
        self,
        sessions: Sessions,
        equipment: Equipment,
        imports: ImportRecords,
        admission: Admission,
        signing: Signing,
        *,
        product: str,
    ) -> None:
        self._sessions = sessions
        self._records = equipment.records
        self._pieces = equipment.pieces
        self._snapshots = equipment.snapshots
        self._upkeep = equipment.upkeep
        self._clock = equipment.clock
        self._imports = imports
        self._admission = admission
        self._signing = signing
        self._product = product

    async def export(
        self, session_id: str, *, sequence: int | None = None, caller: Caller = LOCAL_CALLER
    ) -> AsyncGenerator[bytes, None]:
        """The session at that snapshot; None: as it is, saved for it. For `aclosing`, where it may be left early; what
        was written then is no capsule.

        Whoever holds the bytes knows the seed of the session's digests: the session goes on under another one, so its
        next snapshot stores everything anew. Raises SessionNotFoundError, SnapshotNotFoundError, SnapshotDamagedError,
        QuotaError, PermissionDeniedError, and what a save raises.
        """
        caller.require("use")
        session, chosen = await self._admission.act(
            caller, "export", session_id, lambda _: self._chosen(session_id, sequence, caller.tenant)
        )
        async with await self._pieces.open_snapshot(session.key, chosen) as reader:
            await self._imports.seed_told(reader.snapshot.summary.seed)
            async with aclosing(self._stream(session, reader)) as chunks:
                async for chunk in chunks:
                    yield chunk

    async def notebook(self, session_id: str, *, caller: Caller = LOCAL_CALLER) -> str:
        """The cells that are kept and what they showed, as a notebook; nothing is woken, run or changed. Raises
        SessionNotFoundError, PermissionDeniedError.
        """
        caller.require("read")
        session = await self._records.find_session(caller.tenant, session_id_of(session_id))
        if session is None:
            raise not_found(session_id)
        listing = await self._snapshots.saved_listing_of(session.key)
        cells = await self._cells(session, session.executions)
        # Off the loop: pictures of many cells are encoded.
        return await asyncio.to_thread(notebook, cells, "3" if listing is None else listing.python, session.session_id)

    async def _chosen(self, session_id: str, sequence: int | None, tenant: str) -> tuple[Session, int]:
        if sequence is None:
            live = await self._sessions.find(session_id, tenant=tenant)
            return live.session, (await live.save()).summary.sequence
        session = await self._records.find_session(tenant, session_id_of(session_id))
        if session is None:
            raise not_found(session_id)
        await self._upkeep.used(session.key)  # not to be deleted for its age meanwhile
        return session, sequence

    async def _stream(self, session: Session, reader: SnapshotReader) -> AsyncGenerator[bytes, None]:
        writer, key = CapsuleWriter(), self._signing.public_key().hex()
        snapshot, manifest = reader.snapshot.summary, reader.snapshot.manifest
        ledger = await self._ledger(session, manifest.execution)
        cells = await self._cells(session, manifest.execution)
        yield writer.header(
            Header(
                product=self._product,
                session_id=session.session_id,
                created_at=self._clock.now(),
                executions=manifest.execution,
                files_execution=manifest.files_execution,
                seed=snapshot.seed,
                signer=key,
                signer_name=f"installation {key[:_NAME_CHARACTERS]}",
            )
        )
        try:
            yield await asyncio.to_thread(writer.manifest, manifest)
        except ValueError as error:
            raise InvalidRequestError("The session holds more names than a capsule can list.") from error
        async with aclosing(reader.pieces()) as pieces:
            async for piece in pieces:
                if isinstance(piece, DamagedPiece):
                    raise SnapshotDamagedError(
                        f"Piece {piece.raw_digest} of snapshot {snapshot.sequence} is damaged: {piece.reason}.",
                        hint="Export another snapshot of that session.",
                    )
                yield await asyncio.to_thread(writer.piece, piece)
        yield writer.ledger(ledger)
        for cell in cells:
            yield writer.cell(cell)
        yield writer.end(self._signing.sign(writer.unsigned().message))

    async def _ledger(self, session: Session, last: int) -> Sequence[ExecutionRecord]:
        rows = await self._records.executions(session.tenant, session.session_id)
        return sorted((row for row in rows if row.outcome and row.number <= last), key=lambda row: row.number)

    async def _cells(self, session: Session, last: int) -> Sequence[CellText]:
        """The newest that an installation would keep, oldest first; those not in the file yet are asked for."""
        found = {cell.number: cell for cell in await self._pieces.cells(session.key) if cell.number <= last}
        for row in await self._records.executions(session.tenant, session.session_id):
            fresh = self._sessions.fresh_text(session, row.number)
            if fresh is not None and row.number <= last:
                found[row.number] = fresh
        kept, size = [], 0
        for number in sorted(found, reverse=True):
            cell = found[number]
            size += sum(len(text.encode("utf-8", "surrogatepass")) for text in (cell.code, cell.output, cell.rest))
            if size > MAX_CELL_BYTES or number <= last - KEPT:
                break
            kept.append(cell)
        return kept[::-1]
