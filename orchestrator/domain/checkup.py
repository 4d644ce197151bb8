"""What is looked at beside the engine: disk, records, clock, keys, leftovers; when it is worth a word. Pure."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final, Literal

from orchestrator.domain.hardening import MIB

EXPIRES_SOON: Final = timedelta(days=14)
_CLOCK_SLACK: Final = timedelta(minutes=5)  # between what was written last and a clock that was set right since
_LARGE_WAL: Final = 64 * MIB
_NAMED: Final = 3  # of many
_ENGINE_ROOM: Final = 2 * 1024 * MIB  # an image takes one


@dataclass(frozen=True, slots=True)
class Check:
    """One thing that was looked at. `look`: it works, and somebody should look; `wrong`: it does not."""

    name: str
    verdict: Literal["fine", "look", "wrong"]
    seen: str
    remedy: str | None = None


@dataclass(frozen=True, slots=True)
class KeyExpiry:
    """A key that opens something still, and when that ends."""

    tenant: str
    name: str
    prefix: str
    expires_at: datetime


@dataclass(frozen=True, slots=True)
class RecordsHealth:
    """The records as a reader beside their owner finds them. Sizes in bytes."""

    schema: int
    known_schema: int
    faults: tuple[str, ...]  # of the file, in SQLite's words
    size: int
    wal: int
    counts: tuple[tuple[str, int], ...]  # rows by table
    newest: datetime | None
    keys: tuple[KeyExpiry, ...]
    sessions: frozenset[str]
    sandboxes: frozenset[str]  # with an open row
    installation: str


def disk(name: str, path: str, free: int, floor: int) -> Check:
    """How much room there is, and whether that is more than the floor."""
    seen = f"{free // MIB:,} MiB free at {path}"
    if free < floor:
        remedy = f"Free some: below {floor // MIB:,} MiB sessions are not saved."
        return Check(name, "wrong", seen, remedy)
    if free < 2 * floor:
        return Check(name, "look", seen, f"Free some: it is close to the floor of {floor // MIB:,} MiB.")
    return Check(name, "fine", seen)


def engine_disk(path: str, free: int) -> Check:
    """Room for images and containers."""
    seen = f"{free // MIB:,} MiB free at {path}"
    if free < _ENGINE_ROOM:
        return Check("engine disk", "look", seen, "Free some: an image takes about 1 GB; `docker system df` says more.")
    return Check("engine disk", "fine", seen)


def records(path: str, found: RecordsHealth) -> Iterator[Check]:
    """The file: whole, of a schema that is known, and not held up by a reader."""
    if found.faults:
        remedy = "End the owner, copy the directory, and restore a backup; what is whole can be read until then."
        yield Check("records", "wrong", f"{path}: {'; '.join(found.faults[:_NAMED])}", remedy)
    elif found.schema > found.known_schema:
        seen = f"{path} has schema {found.schema}; this version knows {found.known_schema}"
        yield Check("records", "wrong", seen, "Upgrade session-orchestrator, or choose another data directory.")
    else:
        rows = ", ".join(f"{count:,} {table}" for table, count in found.counts)
        seen = f"schema {found.schema} of {found.known_schema}, {found.size // 1024:,} KiB, whole; {rows}"
        yield Check("records", "fine", seen)
    if found.wal > _LARGE_WAL:
        remedy = "A reader may hold it up; it is put back when the owner ends."
        yield Check("records log", "look", f"{found.wal // MIB:,} MiB are not in the file yet", remedy)


def clock(newest: datetime | None, now: datetime) -> Check:
    """Whether it has gone back behind what was written last."""
    if newest is not None and newest > now + _CLOCK_SLACK:
        seen = f"it says {now:%Y-%m-%d %H:%M}, and the records were written at {newest:%Y-%m-%d %H:%M}"
        return Check("clock", "wrong", seen, "Set it right (timedatectl status); keys and the audit go by it.")
    return Check("clock", "fine", f"{now:%Y-%m-%d %H:%M:%S} UTC")


def keys(found: Sequence[KeyExpiry], now: datetime) -> Iterator[Check]:
    """Those that open something still, and will not for long."""
    soon = sorted((key for key in found if now < key.expires_at <= now + EXPIRES_SOON), key=lambda key: key.expires_at)
    for key in soon:
        seen = f"{key.prefix} ({key.name}, of tenant {key.tenant}) expires at {key.expires_at:%Y-%m-%d %H:%M} UTC"
        yield Check("key", "look", seen, f"`orchestrator key rotate {key.prefix}` makes another one like it.")
    if not soon:
        yield Check("keys", "fine", f"none expires within {EXPIRES_SOON.days} days")


def leftovers(what: str, orphans: Sequence[str], remedy: str) -> Check:
    """Things that no row tells of."""
    if orphans:
        few = ", ".join(orphans[:_NAMED]) + (", …" if len(orphans) > _NAMED else "")
        return Check(f"orphaned {what}", "look", f"{len(orphans)}: {few}", remedy)
    return Check(f"orphaned {what}", "fine", "none")
