"""Tenants, keys and the audit from the command line, with an owner and without one."""

import asyncio
import json
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from typer.testing import CliRunner

from orchestrator.adapters.data_directory import DataDirectory
from orchestrator.domain.orders import Answer
from orchestrator.faces.admin import ADMIN, admin_conversation
from orchestrator.faces.admin_client import NotListeningError, linked
from orchestrator.faces.admin_wire import ToldError
from orchestrator.faces.cli import app
from orchestrator.faces.owner import serve_connections
from orchestrator.settings import Settings
from orchestrator.tenancy import operating


def ordered(*words: str, data: Path, code: int = 0) -> list[str]:
    result = CliRunner().invoke(app, [*words, "--data-dir", str(data)])
    assert result.exit_code == code, result.output
    return (result.stderr if code else result.stdout).splitlines()


def test_a_team_is_set_up_without_an_owner(tmp_path: Path) -> None:
    data = tmp_path / "data"
    ordered("tenant", "create", "red", "--quota", "sessions=5", "--quota", "running=none", "--weight", "2", data=data)
    (told,) = [json.loads(line) for line in ordered("tenant", "list", "--json", data=data)[1:]]
    assert (told["name"], told["weight"], told["quotas"]) == ("red", 2, {"sessions": 5, "running": None})
    (token,) = ordered("key", "create", "red", "laptop", "--scope", "read", data=data)
    prefix = token.split("_")[1]
    (new,) = ordered("key", "rotate", prefix, "--overlap-hours", "1", data=data)
    assert new != token
    listed = [json.loads(line) for line in ordered("key", "list", "red", "--json", data=data)]
    assert [(key["id"], key["tenant"], key["scopes"]) for key in listed] == [
        (prefix, "red", ["read"]),
        (new.split("_")[1], "red", ["read"]),
    ]
    assert all("token" not in key and "digest" not in key for key in listed)
    ordered("key", "revoke", prefix, data=data)
    ordered("tenant", "disable", "red", data=data)
    acts = [json.loads(line)["act"] for line in ordered("audit", "export", "--tenant", "red", data=data)]
    assert acts == ["create tenant", "create key", "rotate key", "revoke key", "change tenant"]
    assert ordered("audit", "export", "--since", "2999-01-01", data=data) == []


@pytest.mark.parametrize(
    ("words", "code"),
    [
        (("tenant", "create", "red", "--quota", "sessions"), 2),
        (("tenant", "create", "red", "--quota", "sesions=5"), 2),
        (("key", "create", "nobody", "laptop"), 3),
        (("key", "create", "local", "laptop", "--scope", "root"), 2),
        (("key", "revoke", "0123456789ab"), 3),
        (("audit", "export", "--since", "yesterday"), 2),
    ],
)
def test_what_cannot_be_meant_is_told_and_changes_nothing(words: tuple[str, ...], code: int, tmp_path: Path) -> None:
    data = tmp_path / "data"
    assert any("error" in line for line in ordered(*words, data=data, code=code))
    assert len(ordered("tenant", "list", "--json", data=data)) == 1


@asynccontextmanager
async def owner(settings: Settings) -> AsyncIterator[None]:
    """Somebody who owns the directory and speaks with operators."""
    settings.runtime_dir.mkdir(mode=0o700, parents=True)
    ready = asyncio.Event()
    async with operating(settings) as operations:
        conversations = {ADMIN: admin_conversation(operations)}
        serving = asyncio.create_task(
            serve_connections(conversations, settings.owner_socket, linger=60, ready=ready.set)
        )
        await ready.wait()
        try:
            yield
        finally:
            serving.cancel()
            await asyncio.wait([serving])


async def asked(settings: Settings, order: str, **given: object) -> list[Answer]:
    async with linked(settings.owner_socket) as link:
        return [answer async for answer in link.answers(order, given)]


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings.load(data_dir=tmp_path / "data", runtime_dir=tmp_path / "run")


async def test_an_owner_does_what_operators_order(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ORCHESTRATOR_RUNTIME_DIR", str(settings.runtime_dir))
    async with owner(settings):
        (made,) = await asked(settings, "tenant.create", name="red", weight=1.0, quotas={})
        assert isinstance(made, dict)
        assert made["name"] == "red"
        for order, given, code in (
            ("tenant.create", {"name": "red"}, "invalid_request"),
            ("nothing", {}, "invalid_request"),
            ("tenant.create", {"x": 1}, "invalid_request"),
            ("tenant.show", {"tenant": "nobody"}, "not_found"),
        ):
            with pytest.raises(ToldError) as told:
                await asked(settings, order, **given)
            assert told.value.code == code


async def test_who_owns_the_directory_without_a_socket_is_named(settings: Settings) -> None:
    directory = DataDirectory.own(settings.data_dir, kind="library", version="1")
    try:
        with pytest.raises(NotListeningError):
            await asked(settings, "tenant.list")
        (error, *_) = await asyncio.to_thread(ordered, "tenant", "list", data=settings.data_dir, code=4)
        assert str(os.getpid()) in error
    finally:
        directory.release()
