"""Steps that the suite of the pieces shares."""

import hashlib
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, aclosing
from pathlib import Path

from orchestrator.adapters.store.pieces.store import PiecesPolicy
from orchestrator.domain.snapshot_ports import Pieces, SnapshotReader
from orchestrator.domain.snapshots import (
    DamagedPiece,
    Encoding,
    Manifest,
    Piece,
    SavedFile,
    SavedName,
    Section,
    SnapshotIntent,
    StoredSnapshot,
)

KEY = "a" * 32
OTHER = "b" * 32
SEED = 2**62 + 1

# Opens the one data directory of a test, as often as the test likes.
Opener = Callable[..., AbstractAsyncContextManager[Pieces]]
NO_FLOOR = PiecesPolicy(floor_bytes=0)


def digest_of(content: bytes) -> str:
    """A raw digest, as an agent could make it."""
    return hashlib.blake2b(content, digest_size=16).hexdigest()


def piece(content: bytes) -> Piece:
    return Piece(digest_of(content), len(content), Encoding.RAW, content)


def intent_of(sequence: int, head: int | None, *, key: str = KEY, replaces: bool = False) -> SnapshotIntent:
    return SnapshotIntent(key, sequence, 1, sequence, sequence, head, replaces, SEED)


def manifest_of(
    intent: SnapshotIntent, namespace: Sequence[bytes], workspace: Sequence[bytes] = (), body: bytes = b"body"
) -> Manifest:
    return Manifest(
        sequence=intent.sequence,
        incarnation=intent.incarnation,
        execution=intent.execution,
        environment="environment",
        python="3.11",
        names=tuple(
            SavedName(f"v{i}", "value", "bytes", len(content), "saved", None, None, digest_of(content))
            for i, content in enumerate(namespace)
        ),
        files=tuple(
            SavedFile(f"f{i}", "file", len(content), intent.execution, digest_of(content))
            for i, content in enumerate(workspace)
        ),
        namespace=Section(body, tuple(dict.fromkeys(map(digest_of, namespace)))),
        workspace=Section(body, tuple(dict.fromkeys(map(digest_of, workspace)))),
    )


async def save(
    pieces: Pieces,
    sequence: int,
    head: int | None,
    namespace: Sequence[bytes],
    *,
    key: str = KEY,
    workspace: Sequence[bytes] = (),
    sent: Sequence[bytes] | None = None,
) -> StoredSnapshot:
    """A whole snapshot; `sent` is what the agent sends of it, all by default."""
    intent = intent_of(sequence, head, key=key)
    async with await pieces.begin(intent) as writer:
        for content in (*namespace, *workspace) if sent is None else sent:
            await writer.put(piece(content))
        return await writer.commit(manifest_of(intent, namespace, workspace))


async def contents_of(reader: SnapshotReader) -> Mapping[str, bytes | str]:
    """What a reader yields: for each raw digest its bytes, or the reason why it is refused."""
    read: dict[str, bytes | str] = {}
    async with aclosing(reader.pieces()) as stream:
        async for found in stream:
            read[found.raw_digest] = found.reason if isinstance(found, DamagedPiece) else found.data
    return read


async def saved_contents(pieces: Pieces, sequence: int, *, key: str = KEY) -> Mapping[str, bytes | str]:
    async with await pieces.open_snapshot(key, sequence) as reader:
        return await contents_of(reader)


def expected(*contents: bytes) -> dict[str, bytes]:
    return {digest_of(content): content for content in contents}


async def collect_all(pieces: Pieces, key: str = KEY) -> int:
    """Collect to the end: how many bytes the file lost."""
    returned = 0
    while True:
        step = await pieces.collect(key)
        returned += step.bytes_returned
        if not step.more:
            return returned


async def sequences(pieces: Pieces, head: int, key: str = KEY) -> list[int]:
    return [summary.sequence for summary in (await pieces.history(key, head)).snapshots]


async def is_sound(pieces: Pieces, head: int | None, key: str = KEY) -> bool:
    return not (await pieces.check(key, head)).problems


def most_memory() -> int:
    """KiB that this process ever used. `getrusage` would count what its parent had when it was forked."""
    (line,) = [line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM:")]
    return int(line.split()[1])
