"""A session out of a stranger's bytes: checked to the end before anything of it counts."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Final

from orchestrator.domain.access import LOCAL_CALLER, Caller
from orchestrator.domain.capsule_reading import CapsuleReader, CapsuleRefusedError, Item
from orchestrator.domain.capsules import End, Header
from orchestrator.domain.errors import InvalidRequestError, OrchestratorError, PermissionDeniedError
from orchestrator.domain.identifiers import session_id_of
from orchestrator.domain.import_ports import Arrival, ImportRecords
from orchestrator.domain.model import CellText, ExecutionRecord, Session
from orchestrator.domain.ports import Engine
from orchestrator.domain.quotas import Quotas, exceeded
from orchestrator.domain.signing import Signing, fingerprint
from orchestrator.domain.snapshot_ports import SnapshotWriter
from orchestrator.domain.snapshots import Manifest, Piece, SnapshotIntent
from orchestrator.services.admission import Admission
from orchestrator.services.checks import shutting_down
from orchestrator.services.equipment import Equipment
from orchestrator.services.jobs import Job, carry_out
from orchestrator.services.metering import Metering
from orchestrator.services.sessions import Sessions
from orchestrator.services.trust import Trust

_BESIDE: Final = 64 * 1024 * 1024  # bytes of a capsule that are no pieces, at most
_CHUNK: Final = 1024 * 1024  # bytes that are looked at in one go


@dataclass(frozen=True, slots=True)
class ImportReport:
    """What came, and from whom. `notes` are sentences for whoever asked for it."""

    session_id: str
    executions: int
    names: int
    files: int
    stored_bytes: int
    written_at: datetime  # as the capsule says
    product: str
    signer: str  # the name under which it is trusted here; empty: this installation
    key: str
    fingerprint: str
    environment: str
    python: str
    notes: tuple[str, ...]


@dataclass(slots=True)
class _Draft:
    """What has come of a capsule; its pieces are in the file."""

    room: tuple[int | None, int | None]  # bytes and files that may come
    header: Header | None = None
    signer: str = ""
    intent: SnapshotIntent | None = None
    writer: SnapshotWriter | None = None
    manifest: Manifest | None = None
    executions: Sequence[ExecutionRecord] = ()
    cells: list[CellText] = field(default_factory=list)
    stored_bytes: int = 0
    is_signed: bool = False


class Imports:
    """Brings capsules in, only into new sessions of the caller's tenant."""

    def __init__(
        self,
        sessions: Sessions,
        equipment: Equipment,
        imports: ImportRecords,
        admission: Admission,
        metering: Metering,
        *,
        engine: Engine,
        signing: Signing,
        trust: Trust,
    ) -> None:
        self._sessions = sessions
        self._records = equipment.records
        self._pieces = equipment.pieces
        self._tasks = equipment.tasks
        self._most_bytes = equipment.limits.saving.most_bytes
        self._imports = imports
        self._admission = admission
        self._metering = metering
        self._engine = engine
        self._signing = signing
        self._trust = trust

    async def bring_in(
        self, session_id: str, chunks: AsyncIterator[bytes], *, caller: Caller = LOCAL_CALLER
    ) -> ImportReport:
        """Make a session of that capsule, asleep; nothing of it has run yet. It is there, whole, when this answers.

        Raises InvalidRequestError where the id is taken, CapsuleRefusedError for what is no capsule or was altered,
        PermissionDeniedError where its signer is not trusted or the caller may not, QuotaError, StoreFullError.
        Nothing stays of one that fails. Cancelled before all has come, nothing stays; afterwards it has happened or
        not.
        """
        caller.require("use")
        wanted = session_id_of(session_id)
        return await self._admission.act(
            caller, "import", wanted, lambda quotas: self._bring_in(wanted, chunks, caller.tenant, quotas)
        )

    async def _bring_in(
        self, session_id: str, chunks: AsyncIterator[bytes], tenant: str, quotas: Quotas
    ) -> ImportReport:
        await self._require_free(tenant, session_id)
        draft = _Draft(await self._metering.room(tenant))
        intent = await self._imports.plan_import(0, 0)  # for its key, by which everything is found again
        with self._sessions.arriving(intent.key):
            draft.intent = intent
            try:
                await self._receive(draft, chunks)
            except BaseException:
                await self._forget(intent.key)
                raise
            job: Job[Session] = Job()
            settling = carry_out(job, lambda: self._settle(draft, tenant, session_id, quotas.sessions), shutting_down())
            task = self._tasks.spawn(settling, f"import {intent.key[:8]}")
            try:
                await job.answer()
            finally:
                await asyncio.wait([task])
        return await self._report(session_id, draft)

    async def _receive(self, draft: _Draft, chunks: AsyncIterator[bytes]) -> None:
        most = min(self._most_bytes, self._most_bytes if draft.room[0] is None else draft.room[0])
        reader = CapsuleReader(most_bytes=most + _BESIDE)
        async for chunk in chunks:
            for start in range(0, len(chunk), _CHUNK):
                # Off the loop: a manifest may have a million items, and all of it is hashed.
                for item in await asyncio.to_thread(reader.feed, bytes(chunk[start : start + _CHUNK])):
                    await self._take(draft, item)
        reader.finish()
        if not draft.is_signed:
            raise CapsuleRefusedError("This capsule bears no signature.")

    async def _take(self, draft: _Draft, item: Item) -> None:
        match item:
            case Header():
                draft.signer = await self._signer_of(item)
                draft.header = item
            case Manifest():
                await self._begin(draft, item)
            case Piece():
                await self._put(draft, item)
            case CellText():
                draft.cells.append(item)
            case End():
                self._require_signed(draft, item)
            case _:
                draft.executions = item

    async def _signer_of(self, header: Header) -> str:
        """Before anything else is read. That it has really signed is told by the end."""
        name = await self._trust.name_of(header.signer)
        if name is None:
            raise PermissionDeniedError(
                f"The signer of this capsule is not trusted here: key {header.signer}, fingerprint "
                f"{fingerprint(header.signer)}; it calls itself {header.signer_name!r}.",
                hint="Code of its author runs when the session wakes. Compare the key with its owner, and trust it by a"
                " name of your choice; then import again.",
            )
        return name

    async def _begin(self, draft: _Draft, manifest: Manifest) -> None:
        files, room = len(manifest.files) + manifest.unlisted_files, draft.room[1]
        if room is not None and files > room:
            raise exceeded("files", files, room)
        if draft.header is None or draft.intent is None:
            raise CapsuleRefusedError("This capsule has no header.")
        header = draft.header
        draft.intent = replace(draft.intent, execution=header.executions, seed=header.seed)
        draft.manifest = replace(
            manifest,
            sequence=draft.intent.sequence,
            incarnation=draft.intent.incarnation,
            files_execution=min(header.files_execution, header.executions),
        )
        draft.writer = await self._pieces.begin(draft.intent)

    async def _put(self, draft: _Draft, piece: Piece) -> None:
        draft.stored_bytes += len(piece.data)
        room = draft.room[0]
        if room is not None and draft.stored_bytes > room:
            raise exceeded("stored_bytes", draft.stored_bytes, room)
        if draft.writer is not None:
            await draft.writer.put(piece)

    def _require_signed(self, draft: _Draft, end: End) -> None:
        key = "" if draft.header is None else draft.header.signer
        if not self._signing.verify(bytes.fromhex(key), end.signature, end.message):
            raise CapsuleRefusedError(
                "The signature of this capsule is wrong: somebody has altered it.", hint="Nothing of it was kept."
            )
        draft.is_signed = True

    async def _settle(self, draft: _Draft, tenant: str, session_id: str, most: int | None) -> Session:
        """Whoever goes away now has it or has it not, never half of it."""
        if draft.writer is None or draft.manifest is None or draft.intent is None:
            raise CapsuleRefusedError("This capsule holds no session.")
        key = draft.intent.key
        try:
            stored = await draft.writer.commit(draft.manifest)
            await self._pieces.note_cells(key, draft.cells)
            arrival = Arrival(tenant, session_id, draft.intent, stored, draft.executions)
            session = await self._imports.import_session(arrival, most=most)
        except BaseException:
            await self._forget_unless_known(key, tenant, session_id)
            raise
        if session is None:
            await self._forget(key)
            raise _taken(session_id)
        return session

    async def _forget_unless_known(self, key: str, tenant: str, session_id: str) -> None:
        """A commit that was not answered may have happened; where nobody can say, the next recovery sees to it."""
        found = await self._records.find_session(tenant, session_id)
        if found is None or found.key != key:
            await self._forget(key)

    async def _forget(self, key: str) -> None:
        """Also where the caller is cancelled."""
        await asyncio.wait([self._tasks.spawn(self._pieces.delete(key), f"forget {key[:8]}")])

    async def _require_free(self, tenant: str, session_id: str) -> None:
        if await self._records.find_session(tenant, session_id) is not None:
            raise _taken(session_id)

    async def _report(self, session_id: str, draft: _Draft) -> ImportReport:
        header, manifest = draft.header, draft.manifest
        if header is None or manifest is None:
            raise CapsuleRefusedError("This capsule holds no session.")
        who = f"{draft.signer!r}" if draft.signer else "this installation itself"
        notes = [f"Signed by {who}. When the session wakes, code of its author runs in its sandbox."]
        try:
            if (await self._engine.prepare(manifest.environment)).environment != manifest.environment:
                notes.append(
                    f"Its environment, with Python {manifest.python}, is not here: it will wake in the present one, and"
                    " what does not come back there is named."
                )
        except OrchestratorError as error:
            notes.append(f"Whether its environment is here could not be found out: {error.message}")
        return ImportReport(
            session_id=session_id,
            executions=header.executions,
            names=len(manifest.names) + manifest.unlisted_names,
            files=len(manifest.files) + manifest.unlisted_files,
            stored_bytes=draft.stored_bytes,
            written_at=header.created_at,
            product=header.product,
            signer=draft.signer,
            key=header.signer,
            fingerprint=fingerprint(header.signer),
            environment=manifest.environment,
            python=manifest.python,
            notes=tuple(notes),
        )


def _taken(session_id: str) -> InvalidRequestError:
    return InvalidRequestError(
        f"There is a session {session_id!r} already.", hint="A capsule is imported only into a new one: choose another."
    )
