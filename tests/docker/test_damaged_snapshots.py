"""Files of sessions that are not what was stored: a wake brings what is sound, says what is not, and goes on."""

import asyncio
import random
import shutil
import sqlite3
import zlib
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, closing
from dataclasses import dataclass
from pathlib import Path

import docker
import pytest

from orchestrator.adapters.store.pieces.file import PAGE_BYTES
from orchestrator.adapters.store.pieces.store import DIRECTORY_NAME
from orchestrator.app import RECORDS_NAME, Orchestrator
from orchestrator.domain.errors import StoreUnusableError
from orchestrator.domain.model import ExecutionResult
from orchestrator.settings import Settings
from tests import leaks
from tests.contract.pieces.test_sqlite_damage import alter_manifest, flip
from tests.docker.conftest import what_is_left

# Both sessions bind the same names in as many snapshots, so that one's file could pass for the other's.
_FIRST = """
import random
keep = {{'of': '{0}'}}; alias = keep; first = random.Random('{0}1').randbytes(300_000)
open('note.txt', 'w').write('{0}'); open('data.bin', 'wb').write(random.Random('{0}f').randbytes(200_000))
"""
_CELLS = (
    _FIRST,
    "second = random.Random('{0}2').randbytes(400_000)",
    "third = random.Random('{0}3').randbytes(500_000)",
)
_READ = """
import os, zlib
def _shown(name):
    value = globals().get(name)
    return zlib.crc32(value) if isinstance(value, bytes) else value
def _file(name):
    return zlib.crc32(open(name, 'rb').read()) if os.path.exists(name) else None
{**{name: _shown(name) for name in ('keep', 'first', 'second', 'third')},
 'same': 'keep' in globals() and keep is alias, **{name: _file(name) for name in ('note.txt', 'data.bin')}}
"""
Found = dict[str, object]


def _random(seed: str, size: int) -> bytes:
    return random.Random(seed).randbytes(size)  # noqa: S311 - the same bytes again


def _whole(session: str) -> Found:
    """What `_READ` finds in a session that lacks nothing."""
    return {
        "keep": {"of": session},
        "first": zlib.crc32(_random(f"{session}1", 300_000)),
        "second": zlib.crc32(_random(f"{session}2", 400_000)),
        "third": zlib.crc32(_random(f"{session}3", 500_000)),
        "same": True,
        "note.txt": zlib.crc32(session.encode()),
        "data.bin": zlib.crc32(_random(f"{session}f", 200_000)),
    }


NOTHING: Found = {**dict.fromkeys(_whole("s")), "same": False}


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data directory with two sessions of three snapshots each, the last one made by the end."""
    directory = tmp_path_factory.mktemp("made")

    async def make() -> None:
        settings = _settings(directory)
        async with Orchestrator.open(settings) as orchestrator:
            for session in ("s", "other"):
                for number, cell in enumerate(_CELLS):
                    if number:
                        await orchestrator.save(session)
                    result = await orchestrator.execute(cell.format(session), session_id=session)
                    assert result.error is None, result.error

    asyncio.run(make())
    return directory / "data"


def _settings(directory: Path) -> Settings:
    return Settings.load(
        data_dir=directory / "data",
        runtime_dir=directory / "run",
        channel="unix",
        interrupt_grace=0.5,
        snapshot_after=1000,
    )


@pytest.fixture
def directory(tmp_path: Path, made: Path) -> Path:
    """A copy of it, to be damaged."""
    shutil.copytree(made, tmp_path / "data")
    return tmp_path


def _file_of(directory: Path, session: str) -> Path:
    with closing(sqlite3.connect(directory / "data" / RECORDS_NAME)) as records:
        (key,) = records.execute("SELECT key FROM sessions WHERE session_id = ?", (session,)).fetchone()
    return directory / "data" / DIRECTORY_NAME / f"{key}.pieces"


def _alter_one_bit(file: Path, content: bytes) -> None:
    # From its middle: SQLite moves the beginning of a long row, and leaves the old bytes lying where nobody reads them.
    flip(file, file.read_bytes().index(content[100_000:100_100]))


@asynccontextmanager
async def _opened(directory: Path, engine: docker.APIClient) -> AsyncIterator[Orchestrator]:
    settings = _settings(directory)
    held, running = leaks.descriptors(), set(leaks.tasks())
    async with Orchestrator.open(settings) as orchestrator:
        yield orchestrator
    left = await what_is_left(settings, engine, held, running)
    assert not left, left


async def _read(orchestrator: Orchestrator, session: str = "s") -> tuple[Found, tuple[str, ...]]:
    result = await orchestrator.execute(_READ, session_id=session)
    return _found(result), result.notes


def _found(result: ExecutionResult) -> Found:
    assert result.error is None, result.error
    assert result.value is not None
    found: Found = eval(result.value, {})  # noqa: S307 - our own cell's dictionary
    return found


async def _slept(orchestrator: Orchestrator, session: str = "s") -> None:
    live = await orchestrator.sessions.find(session)
    assert await live.hibernate()


@dataclass(frozen=True, slots=True)
class Altered:
    """What a bit is altered in, the name of that, names that may share its piece, and how they are made again."""

    content: bytes
    names: tuple[str, ...]
    again: str


@pytest.mark.parametrize(
    "altered",
    [
        pytest.param(
            Altered(_random("s2", 400_000), ("second",), "second = random.Random('s2').randbytes(400_000)"), id="value"
        ),
        # Files that are small enough lie side by side.
        pytest.param(
            Altered(
                _random("sf", 200_000),
                ("data.bin", "note.txt"),
                "open('note.txt', 'w').write('s')\n"
                "open('data.bin', 'wb').write(random.Random('sf').randbytes(200_000))",
            ),
            id="files",
        ),
    ],
)
async def test_a_piece_altered_by_one_bit_costs_what_it_belongs_to_and_the_next_snapshot_repairs(
    directory: Path, engine: docker.APIClient, altered: Altered
) -> None:
    _alter_one_bit(_file_of(directory, "s"), altered.content)
    async with _opened(directory, engine) as orchestrator:
        problems = (await orchestrator.check()).problems
        assert problems
        assert all("digest does not fit" in problem for problem in problems), problems

        found, notes = await _read(orchestrator)
        (note,) = notes
        # Small files lie side by side where they were read in one go.
        lost = [name for name in altered.names if f" {name} (" in note]
        assert altered.names[0] in lost, note
        assert found == {**_whole("s"), **dict.fromkeys(lost)}
        assert "digest" in note

        assert (await _read(orchestrator))[1] == (), "it is told once"
        assert (await orchestrator.execute(altered.again, session_id="s")).error is None
        await _slept(orchestrator)
        assert await _read(orchestrator) == (_whole("s"), ())
        for _ in range(5):  # until no snapshot refers to the damaged one
            await orchestrator.save("s")
        assert (await orchestrator.check()).problems == ()
    assert (await _reopened(directory, engine)) == (_whole("s"), ())


async def _reopened(directory: Path, engine: docker.APIClient, session: str = "s") -> tuple[Found, tuple[str, ...]]:
    async with _opened(directory, engine) as orchestrator:
        return await _read(orchestrator, session)


async def test_an_altered_manifest_wakes_the_session_from_the_one_before_and_says_so(
    directory: Path, engine: docker.APIClient
) -> None:
    alter_manifest(_file_of(directory, "s"), _newest(directory))
    async with _opened(directory, engine) as orchestrator:
        (problem, *_) = (await orchestrator.check()).problems
        assert "manifest" in problem
        found, notes = await _read(orchestrator)
        assert found == {**_whole("s"), "third": None}
        (note,) = notes
        assert "is damaged" in note
        assert "after execution 2" in note
        await _slept(orchestrator)
        assert await _read(orchestrator) == ({**_whole("s"), "third": None}, ())


def _newest(directory: Path, session: str = "s") -> int:
    with closing(sqlite3.connect(_file_of(directory, session))) as raw:
        (newest,) = raw.execute("SELECT max(sequence) FROM manifests").fetchone()
    return int(newest)


async def test_where_every_manifest_is_altered_nothing_comes_back_and_the_session_goes_on(
    directory: Path, engine: docker.APIClient
) -> None:
    for sequence in range(1, _newest(directory) + 1):
        alter_manifest(_file_of(directory, "s"), sequence)
    async with _opened(directory, engine) as orchestrator:
        assert (await orchestrator.check()).problems
        found, notes = await _read(orchestrator)
        assert found == NOTHING
        assert "cannot be read" in notes[0]
        await orchestrator.execute("fresh = 1", session_id="s")
        await _slept(orchestrator)
        woken = await orchestrator.execute("fresh", session_id="s")
        assert (woken.value, woken.notes) == ("1", ())


def _cut(size: int) -> Callable[[Path, Path], None]:
    def cut(file: Path, _other: Path) -> None:
        with file.open("r+b") as opened:
            opened.truncate(size if size >= 0 else file.stat().st_size + size)

    return cut


def _half(file: Path, other: Path) -> None:
    _cut(file.stat().st_size // 2 // PAGE_BYTES * PAGE_BYTES)(file, other)


def _garbage(file: Path, _other: Path) -> None:
    file.write_bytes(_random("garbage", file.stat().st_size))


def _garbage_inside(file: Path, _other: Path) -> None:
    content = file.read_bytes()
    file.write_bytes(content[:PAGE_BYTES] + _random("garbage", len(content) - PAGE_BYTES))


def _missing(file: Path, _other: Path) -> None:
    file.unlink()


def _swapped(file: Path, other: Path) -> None:
    shutil.copyfile(other, file)


def _a_directory(file: Path, _other: Path) -> None:
    file.unlink()
    file.mkdir()


def _of_something_else(file: Path, _other: Path) -> None:
    file.unlink()
    with closing(sqlite3.connect(file)) as raw, raw:
        raw.execute("CREATE TABLE manifests (sequence INTEGER)")


# And whether the session can be saved again by itself.
DAMAGES: dict[str, tuple[Callable[[Path, Path], None], bool]] = {
    "empty": (_cut(0), True),
    "cut in its header": (_cut(50), False),
    "cut in its first page": (_cut(PAGE_BYTES // 2), False),
    "cut to one page": (_cut(PAGE_BYTES), False),
    "cut in half": (_half, False),
    "cut at its end": (_cut(-PAGE_BYTES), False),
    "garbage": (_garbage, False),
    "garbage inside": (_garbage_inside, False),
    "missing": (_missing, True),
    "another session's": (_swapped, True),
    "a directory": (_a_directory, False),
    "of something else": (_of_something_else, False),
}


@pytest.mark.parametrize("damage", DAMAGES)
async def test_a_damaged_file_costs_what_it_held_is_told_and_leaves_the_others_alone(
    directory: Path, engine: docker.APIClient, damage: str
) -> None:
    spoil, repairs = DAMAGES[damage]
    file = _file_of(directory, "s")
    spoil(file, _file_of(directory, "other"))
    async with _opened(directory, engine) as orchestrator:
        problems = (await orchestrator.check()).problems
        assert problems
        assert all(file.stem in problem for problem in problems), problems
        assert (await orchestrator.list_variables("s")).notes

        woken = await orchestrator.execute(_READ, session_id="s")
        found, notes = _found(woken), woken.notes
        assert woken.saved_through is None
        whole = _whole("s")
        assert all(value in (whole[name], NOTHING[name]) for name, value in found.items()), found
        assert notes, "what is gone is told"
        assert not [note for note in notes if "Traceback" in note]

        await orchestrator.execute("fresh = 1", session_id="s")
        if repairs:
            await _slept(orchestrator)
            woken = await orchestrator.execute("fresh", session_id="s")
            assert (woken.value, woken.notes) == ("1", ())
        else:
            with pytest.raises(StoreUnusableError):
                await orchestrator.save("s")
            assert "until that file is restored" in notes[0]
            assert (await orchestrator.execute("fresh", session_id="s")).value == "1"
        assert await _read(orchestrator, "other") == (_whole("other"), ())
        await orchestrator.delete("s")
        assert (await orchestrator.execute("'fresh' in globals()", session_id="s")).value == "False"
        problems = (await orchestrator.check()).problems
        assert problems == ((f"a file of a deleted session: {file.stem}",) if damage == "a directory" else ())
    assert await _reopened(directory, engine, "other") == (_whole("other"), ())
