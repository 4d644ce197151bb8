"""A session in one file, read as what it is: bytes of a stranger. Pure; it holds one record at a time.

Every length is checked before anything is kept for it, every record against the only one that may stand there. What
comes out before the end is not yet believed: only `End`, its digest and its signature say that all of it is whole.
"""

import hashlib
import hmac
import re
from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, datetime
from typing import Any, Final

from orchestrator.domain.capsules import (
    CELL,
    CELLS,
    ENCODINGS,
    END,
    FORMAT,
    HEAD,
    HEADER,
    KEPT,
    LEDGER,
    MAGIC,
    MANIFEST,
    MAX_CELL_BYTES,
    MOST,
    NAMESPACE,
    PIECE,
    PIECES,
    WORKSPACE,
    End,
    Header,
)
from orchestrator.domain.claims import MAX_COUNT, count_in, json_of, object_of, text_in
from orchestrator.domain.errors import InvalidRequestError, OrchestratorError
from orchestrator.domain.identifiers import session_id_of
from orchestrator.domain.kept_results import ENDINGS, sound_rest
from orchestrator.domain.manifests import read_manifest
from orchestrator.domain.model import CellText, Ending, ExecutionRecord
from orchestrator.domain.signing import key_of
from orchestrator.domain.snapshots import MAX_PIECE_BYTES, Manifest, Piece
from orchestrator.domain.wire import ProtocolViolationError

Item = Header | Manifest | Piece | tuple[ExecutionRecord, ...] | CellText | End

_MOST_LABEL: Final = 200
_MOST_BOUND: Final = 1_000  # names of one execution
_MOST_SEED: Final = 2**63
_ENVIRONMENT: Final = re.compile("[0-9a-f]{8,64}")
# What may follow what; pieces, and where cells end, are counted beside it.
_NEXT: Final = {HEADER: MANIFEST, MANIFEST: NAMESPACE, NAMESPACE: WORKSPACE, WORKSPACE: PIECES, LEDGER: CELLS}


class CapsuleRefusedError(OrchestratorError):
    """It is no capsule, not whole, or not as it was signed. Nothing of it was kept."""

    code = "invalid_request"


class CapsuleReader:
    """Fed with chunks in any cut, it yields what is whole. After a refusal it is of no more use."""

    def __init__(self, *, most_bytes: int) -> None:
        self._most = most_bytes
        self._read = 0
        self._whole = hashlib.sha256()
        self._buffer = bytearray()
        self._begun = False
        self._expected: bytes | None = HEADER  # None: nothing may follow
        self._wanted: list[str] = []  # digests of pieces yet to come, the next one last
        self._bodies: list[bytes] = []  # the manifest as text, then its first body
        self._executions = 0
        self._cells = 0
        self._cell_bytes = 0
        self._last_cell = 0

    def feed(self, chunk: bytes) -> list[Item]:
        """What is whole with that. Raises CapsuleRefusedError."""
        self._read += len(chunk)
        if self._read > self._most:
            raise _refused(f"it has more than the {self._most:,} bytes that are allowed")
        self._buffer += chunk
        try:
            return list(self._items())
        except (ProtocolViolationError, InvalidRequestError) as error:
            raise _refused(str(error)) from error

    def finish(self) -> None:
        """There is no more. Raises CapsuleRefusedError where something is missing."""
        if self._expected is not None or self._buffer:
            raise _refused("it ends too early")

    def _items(self) -> Iterator[Item]:
        if not self._begun:
            if not MAGIC.startswith(bytes(self._buffer[: len(MAGIC)])):
                raise ProtocolViolationError("it does not begin as a capsule does")
            if len(self._buffer) < len(MAGIC):
                return
            self._whole.update(MAGIC)
            del self._buffer[: len(MAGIC)]
            self._begun = True
        while self._buffer:
            if self._expected is None:
                raise ProtocolViolationError("something follows its end")
            if len(self._buffer) < HEAD.size:
                return
            kind, size = HEAD.unpack_from(self._buffer)
            self._require_place(kind, size)
            if len(self._buffer) < HEAD.size + size:
                return
            record = bytes(self._buffer[: HEAD.size + size])
            del self._buffer[: HEAD.size + size]
            if kind != END:
                self._whole.update(record)
            item = self._item(kind, record[HEAD.size :])
            if item is not None:
                yield item

    def _require_place(self, kind: bytes, size: int) -> None:
        """Before its bytes are waited for."""
        ends = kind == END and self._expected == CELLS
        if kind != self._expected and not ends:
            raise ProtocolViolationError(f"a record {kind!r} stands where {self._expected!r} should")
        if size > MOST[kind]:
            raise ProtocolViolationError(f"a record {kind!r} of {size} bytes is over its cap of {MOST[kind]}")
        if kind == CELLS and (self._cells >= KEPT or self._cell_bytes + size > MAX_CELL_BYTES + KEPT * CELL.size):
            raise ProtocolViolationError("it has more cells than an installation keeps")

    def _item(self, kind: bytes, body: bytes) -> Item | None:
        self._expected = _NEXT.get(kind, kind)
        readers: Mapping[bytes, Callable[[bytes], Item | None]] = {
            HEADER: self._header,
            MANIFEST: self._bodies.append,
            NAMESPACE: self._bodies.append,
            WORKSPACE: self._manifest,
            PIECES: self._piece,
            LEDGER: self._ledger,
            CELLS: self._cell,
            END: self._end,
        }
        return readers[kind](body)

    def _header(self, body: bytes) -> Header:
        header = _header(body)
        self._executions = header.executions
        return header

    def _ledger(self, body: bytes) -> tuple[ExecutionRecord, ...]:
        return _ledger(body, self._executions)

    def _manifest(self, workspace: bytes) -> Manifest:
        text, namespace = self._bodies
        manifest = read_manifest(text, namespace, workspace)
        self._bodies.clear()
        if _ENVIRONMENT.fullmatch(manifest.environment) is None:
            raise ProtocolViolationError("its environment is no digest")
        if manifest.execution != self._executions:
            raise ProtocolViolationError("its executions are not those of its snapshot")
        wanted = dict.fromkeys((*manifest.namespace.pieces, *manifest.workspace.pieces))
        self._wanted = list(reversed(wanted))
        self._expected = PIECES if self._wanted else LEDGER
        return manifest

    def _piece(self, body: bytes) -> Piece:
        if len(body) < PIECE.size:
            raise ProtocolViolationError("a piece is too short")
        raw, encoding, raw_size, digest = PIECE.unpack_from(body)
        data = body[PIECE.size :]
        wanted = self._wanted.pop()
        if raw.hex() != wanted:
            raise ProtocolViolationError(f"piece {raw.hex()} stands where {wanted} should")
        if encoding >= len(ENCODINGS) or raw_size > MAX_PIECE_BYTES:
            raise ProtocolViolationError(f"piece {wanted} is over its cap, or of an unknown encoding")
        if not hmac.compare_digest(hashlib.sha256(data).digest(), digest):
            raise ProtocolViolationError(f"piece {wanted} is not what its digest says")
        self._expected = PIECES if self._wanted else LEDGER
        return Piece(wanted, raw_size, ENCODINGS[encoding], data)

    def _cell(self, body: bytes) -> CellText:
        if len(body) < CELL.size:
            raise ProtocolViolationError("a cell is too short")
        number, output_bytes, *sizes = CELL.unpack_from(body)
        if sum(sizes) != len(body) - CELL.size or output_bytes > MAX_COUNT:
            raise ProtocolViolationError("a cell's sizes do not fit")
        if not self._last_cell < number <= self._executions:
            raise ProtocolViolationError(f"cell {number} stands where it should not")
        self._last_cell = number
        self._cells += 1
        self._cell_bytes += len(body)
        code_end = CELL.size + sizes[0]
        code, output = _text(body[CELL.size : code_end]), _text(body[code_end : code_end + sizes[1]])
        return CellText(number, code, output, output_bytes, sound_rest(_text(body[code_end + sizes[1] :])))

    def _end(self, body: bytes) -> End:
        self._expected = None
        digest = self._whole.digest()
        if len(body) != MOST[END] or not hmac.compare_digest(body[: len(digest)], digest):
            raise ProtocolViolationError("it was altered: its SHA-256 is not the one that it names")
        return End(digest, body[len(digest) :])


def _header(body: bytes) -> Header:
    fields = object_of(json_of(body, limit=MOST[HEADER]), "header")
    if fields.get("format") != FORMAT:
        raise ProtocolViolationError("it is of a format that this version does not read")
    seed = text_in(fields, "seed", _MOST_LABEL)
    if not (seed.isascii() and seed.isdigit()) or int(seed) >= _MOST_SEED:
        raise ProtocolViolationError("its seed is none")
    return Header(
        product=text_in(fields, "product", _MOST_LABEL),
        session_id=session_id_of(text_in(fields, "session_id", _MOST_LABEL)),
        created_at=_time(fields.get("created_at")),
        executions=count_in(fields, "executions"),
        files_execution=count_in(fields, "files_execution"),
        seed=int(seed),
        signer=key_of(text_in(fields, "signer", _MOST_LABEL)),
        signer_name=text_in(fields, "signer_name", _MOST_LABEL),
    )


def _ledger(body: bytes, executions: int) -> tuple[ExecutionRecord, ...]:
    rows = json_of(body, limit=MOST[LEDGER])
    if not isinstance(rows, list) or len(rows) > KEPT:
        raise ProtocolViolationError("its ledger is none, or has more rows than an installation keeps")
    records = tuple(map(_execution, rows))
    numbers = [record.number for record in records]
    if numbers != sorted(set(numbers)) or any(not 1 <= number <= executions for number in numbers):
        raise ProtocolViolationError("its ledger is out of order")
    return records


def _execution(row: Any) -> ExecutionRecord:  # noqa: ANN401 - each field is checked here
    if not isinstance(row, list) or len(row) != 6:  # noqa: PLR2004 - as written
        raise ProtocolViolationError("a row of its ledger is none")
    number, outcome, started, finished, bound, removed = row
    if type(number) is not int or outcome not in ENDINGS:
        raise ProtocolViolationError("a row of its ledger has no number, or no outcome")
    ending: Ending = outcome
    at = None if finished is None else _time(finished)
    return ExecutionRecord(number, 0, ending, _time(started), at, _names(bound), _names(removed))


def _names(value: Any) -> tuple[str, ...]:  # noqa: ANN401 - checked here
    if not isinstance(value, list) or len(value) > _MOST_BOUND:
        raise ProtocolViolationError("a row of its ledger names too much")
    return tuple(text_in({"name": name}, "name", _MOST_LABEL) for name in value)


def _time(value: object) -> datetime:
    if not isinstance(value, str):
        raise ProtocolViolationError("a time is none")
    try:
        time = datetime.fromisoformat(value)
        return time.astimezone(UTC)
    except (ValueError, OverflowError) as error:
        raise ProtocolViolationError("a time is none") from error


def _text(stored: bytes) -> str:
    try:
        return stored.decode("utf-8", "surrogatepass")
    except UnicodeDecodeError as error:
        raise ProtocolViolationError("a text is none") from error


def _refused(why: str) -> CapsuleRefusedError:
    return CapsuleRefusedError(
        f"This is no capsule that could be imported: {why.rstrip('.')}.",
        hint="Nothing of it was kept. Export the session again.",
    )
