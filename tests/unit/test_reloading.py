"""A configuration that has changed counts while sessions are in use, or says that it waits for a restart."""

import logging
from dataclasses import fields
from pathlib import Path

import pytest

from orchestrator.domain.access import LOCAL_CALLER
from orchestrator.domain.errors import InvalidRequestError, QuotaError
from orchestrator.policies import limits_of
from orchestrator.reloading import RELOADABLE, Reloading
from orchestrator.services.equipment import Limits
from orchestrator.setting_sources import SettingsError
from orchestrator.settings import Settings
from tests.unit.pretended_engine import House, house

BEFORE = Settings(max_running=8)
# For each setting that can be reloaded, a value that is not the default and may stand beside the others.
AFTER: dict[str, object] = {
    "default_time_limit": 7.0,
    "interrupt_grace": 1.0,
    "output_limit": 2048,
    "max_code": 4096,
    "snapshot_after": 3.0,
    "snapshot_max_age": 61.0,
    "hibernate_after": 601.0,
    "inactive_after": 700_000.0,
    "expire_after": 3_000_000.0,
    "delete_after": 90_000.0,
    "max_sandboxes": 5,
    "sandbox_wait": 1.0,
    "max_running": 3,
    "audit_code": "text",
    "audit_days": 3.0,
    "quota_sessions": 3,
    "quota_live_sandboxes": 2,
    "quota_running": 1,
    "quota_executions_a_minute": 4,
    "quota_cpu_seconds_a_day": 5.0,
    "quota_stored_bytes": 6,
    "quota_files": 7,
    "quota_time_limit": 8.0,
}


def reloading(opened: House, limits: Limits) -> Reloading:
    return Reloading(BEFORE, limits, opened.sandboxes, opened.tenancy, 8)


def test_every_setting_that_is_said_to_be_reloaded_is_one() -> None:
    assert AFTER.keys() == RELOADABLE
    assert Settings.model_fields.keys() >= RELOADABLE


async def test_each_counts_for_the_next_call(tmp_path: Path) -> None:
    limits = limits_of(BEFORE)
    async with house(tmp_path, limits=limits, sandboxes=8, settings=BEFORE) as opened:
        tenant = await opened.tenancy.tenants.create("a", by=LOCAL_CALLER)
        sessions = opened.on_behalf(tenant.id)
        await sessions.execute("x = 1" + " " * 5_000, session_id="s")
        wanted = Settings.load(**AFTER)
        assert reloading(opened, limits).reload(lambda: wanted) is wanted
        with pytest.raises(InvalidRequestError, match="at most 4,096 are allowed"):
            await sessions.execute("x = 1" + " " * 5_000, session_id="s")
        await sessions.execute("x = 1", session_id="s")
        assert opened.agent.cells[-1].time_limit == 7.0
        assert (opened.agent.cells[-1].output_head, opened.agent.cells[-1].output_tail) == (1536, 512)
        await sessions.execute("x = 1", session_id="t")
        await sessions.execute("x = 1", session_id="t")
        with pytest.raises(QuotaError, match="4 of 4 executions a minute"):
            await sessions.execute("x = 1", session_id="t")
        kept = limits_of(wanted)
        for field in fields(Limits):
            assert getattr(limits, field.name) == getattr(kept, field.name), field.name
        assert opened.sandboxes._slots.limit == 5
        assert opened.tenancy.admission._running.limit == 3


async def test_what_is_wrong_changes_nothing_and_is_told(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    limits = limits_of(BEFORE)

    def wrong() -> Settings:
        raise SettingsError("ORCHESTRATOR_CHANNEL: no such bird")

    async with house(tmp_path, limits=limits, settings=BEFORE) as opened:
        with caplog.at_level(logging.INFO):
            assert reloading(opened, limits).reload(wrong) is BEFORE
    assert "not taken over: Wrong settings: ORCHESTRATOR_CHANNEL: no such bird" in caplog.text
    assert limits == limits_of(BEFORE)


async def test_what_waits_for_a_restart_is_named_and_does_not_count_until_then(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    limits = limits_of(BEFORE)
    wanted = Settings.load(max_running=8, sandbox_pids=64, http_port=1, max_code=4096)
    async with house(tmp_path, limits=limits, settings=BEFORE) as opened:
        with caplog.at_level(logging.INFO):
            assert reloading(opened, limits).reload(lambda: wanted) is wanted
    assert "changed: max_code" in caplog.text
    assert "what waits for a restart: http_port, sandbox_pids" in caplog.text
    assert limits.profile == BEFORE.profile
    assert limits.max_code == 4096


async def test_what_is_new_must_fit_to_what_stays(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """A file that is right by itself, of which the part that can be reloaded is wrong beside the rest that counts."""
    before = Settings(hibernate_after=600, inactive_after=0, expire_after=0)
    limits = limits_of(before)
    async with house(tmp_path, limits=limits, settings=BEFORE) as opened:
        again = Reloading(before, limits, opened.sandboxes, opened.tenancy, 8)
        wanted = before.model_copy(update={"inactive_after": 5.0})
        with caplog.at_level(logging.INFO):
            assert again.reload(lambda: wanted) is before
    assert "ORCHESTRATOR_INACTIVE_AFTER (5 s) must be more than" in caplog.text
    assert limits == limits_of(before)
