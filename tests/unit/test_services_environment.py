"""Sessions keep their environment while the engine has it, and say where they woke when it has not."""

from pathlib import Path

from orchestrator.domain.ports import SandboxImage
from tests.unit.pretended_engine import house

OLD = SandboxImage("old", "o" * 64, "a" * 64, "3.11")
NEW = SandboxImage("new", "n" * 64, "a" * 64, "3.12")


async def test_a_session_wakes_in_its_own_environment_whatever_the_default_is_by_then(tmp_path: Path) -> None:
    async with house(tmp_path) as opened:
        opened.engine.images = {None: OLD, OLD.environment: OLD}
        await opened.run("x = 1")
        await opened.hibernate()
        opened.engine.images = {None: NEW, NEW.environment: NEW, OLD.environment: OLD}

        result = await opened.run("x")

        assert (result.value, result.notes) == ("1", ())
        assert [row.image for row in await opened.records.sandboxes()] == ["old"]
        await opened.run("y = 2", "another")
        assert {row.image for row in await opened.records.sandboxes()} == {"old", "new"}


async def test_a_session_whose_environment_is_gone_wakes_in_the_present_one_and_says_so_once(tmp_path: Path) -> None:
    async with house(tmp_path) as opened:
        opened.engine.images = {None: OLD, OLD.environment: OLD}
        await opened.run("x = 1")
        await opened.hibernate()
        opened.engine.images = {None: NEW, OLD.environment: NEW}

        result = await opened.run("x")
        assert result.value == "1"
        (note,) = result.notes
        assert "session was saved in another environment" in note
        assert "Python 3.12 instead of 3.11" in note

        await opened.hibernate()
        assert (await opened.run("x")).notes == ()  # it was saved in this one
        (newest, *_) = (await opened.histories.history("s")).snapshots
        assert newest.environment == NEW.environment
