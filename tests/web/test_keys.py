"""Who is listened to: keys of every kind, told apart by nobody, and addresses that send wrong ones."""

import asyncio
import re
from pathlib import Path

import pytest

from orchestrator.faces.web.pages import SiteBounds
from tests.mcp.harness import eventually
from tests.web.harness import (
    ADMIN_KEY,
    KEY,
    MODERN,
    NO_SCOPE_KEY,
    OTHER_KEY,
    PATIENCE,
    READ_KEY,
    Answer,
    Place,
    calling,
    serving,
)


async def call(place: Place, key: str | None = KEY, code: str = "1") -> Answer:
    return await place.request(body=calling(code, "s"), headers=MODERN, key=key)


async def test_a_right_key_is_served(place: Place) -> None:
    assert (await call(place)).json["result"]["structuredContent"]["status"] == "ok"


@pytest.mark.parametrize("key", [None, "", "wrong", "so_aa_wrong", KEY + "x", "ü", "x" * 50_000])
async def test_an_absent_or_wrong_key_is_answered_401_and_no_more(place: Place, key: str | None) -> None:
    answer = await call(place, key)
    assert answer.status == 401
    assert answer.headers["www-authenticate"].startswith("Bearer ")
    assert answer.json == {"error": "invalid_token", "error_description": "Authentication required"}


async def test_a_key_without_a_scope_is_answered_403(place: Place) -> None:
    answer = await call(place, NO_SCOPE_KEY)
    assert answer.status == 403
    assert "insufficient_scope" in answer.headers["www-authenticate"]


async def test_each_tenant_has_sessions_of_its_own(place: Place) -> None:
    await call(place, KEY)
    await call(place, OTHER_KEY)
    assert place.sessions["team"].known == {"s": 1}
    assert place.sessions["others"].known == {"s": 1}


@pytest.mark.parametrize(("key", "status"), [(None, 401), ("wrong", 401), (KEY, 403), (ADMIN_KEY, 200)])
async def test_figures_want_the_admin_scope(place: Place, key: str | None, status: int) -> None:
    answer = await place.request("GET", "/metrics", key=key)
    assert answer.status == status
    assert (b"orchestrator_up" in answer.body) == (status == 200)


async def test_health_wants_no_key_and_tells_no_secret(place: Place) -> None:
    assert (await place.request("GET", "/healthz", key=None)).body == b"alive\n"
    ready = await place.request("GET", "/readyz", key=None)
    assert (ready.status, ready.body) == (200, b"serving: ok\nengine: ok\nstore: ok\nimage: ok\n")


async def test_a_part_that_is_missing_is_named_as_not_ready(place: Place) -> None:
    place.parts["engine"] = False
    ready = await place.request("GET", "/readyz", key=None)
    assert (ready.status, ready.body.splitlines()[1]) == (503, b"engine: failed")


async def test_an_address_that_sends_wrong_keys_is_heard_no_more_but_for_keys_that_were_right(tmp_path: Path) -> None:
    async with serving(tmp_path, bounds=SiteBounds(failed_attempts=3)) as place:
        assert (await call(place)).status == 200
        assert [(await call(place, f"wrong {n}")).status for n in range(5)] == [401, 401, 401, 429, 429]
        blocked = await call(place, "wrong")
        assert 1 <= int(blocked.headers["retry-after"]) <= 60
        asked = place.keys.asked
        assert (await call(place, READ_KEY)).status == 429, "was not seen before"
        assert place.keys.asked == asked, "nobody is asked about keys from there"
        assert (await call(place)).status == 200, "was right lately"
        assert (await place.request("GET", "/healthz", key=None)).status == 429


async def test_ten_thousand_wrong_keys_do_no_harm(place: Place) -> None:
    async def many(worker: int) -> set[int]:
        wire = await place.connect()
        said = b""
        for number in range(1_000):
            key = f"wrong {worker} {number}"
            await wire.raw(b"POST /mcp HTTP/1.1\r\nHost: 127.0.0.1\r\nAuthorization: Bearer %s\r\n\r\n" % key.encode())
        while said.count(b"HTTP/1.1 ") < 1_000:
            said += await wire.reader.read(1 << 20)
        await wire.close()
        return {int(status) for status in re.findall(rb"HTTP/1.1 (\d+)", said)}

    assert (await call(place)).status == 200
    seen = await asyncio.gather(*(many(worker) for worker in range(10)))
    assert set().union(*seen) <= {401, 429}
    assert (await call(place)).status == 200
    assert place.keys.asked < 100


async def test_a_revoked_key_loses_its_open_stream_and_its_running_call(place: Place) -> None:
    wire = await place.connect()
    await wire.send(body=calling("sleep 60", "s", progressToken=1), headers=MODERN)
    status, _ = await wire.head()
    assert status == 200
    del place.keys.callers[KEY]
    async with asyncio.timeout(PATIENCE):
        assert [chunk async for chunk in wire.chunks()]
    await eventually(lambda: "cancelled s" in place.events, "the call is interrupted")
    await wire.send(body=calling("1", "s"), headers=MODERN)
    assert (await wire.answer()).status == 401, "on the very same connection"
    await wire.close()


async def test_where_nobody_knows_whose_a_key_is_new_calls_are_refused_and_others_go_on(
    place: Place,
) -> None:
    wire = await place.connect()
    await wire.send(body=calling("sleep 1.5", "s"), headers=MODERN)
    await eventually(lambda: "started s" in place.events, "the call runs")
    place.keys.broken = True
    refused = await call(place)
    assert (refused.status, refused.json) == (503, {"error": "unavailable"})
    assert (await wire.answer()).json["result"]["structuredContent"]["status"] == "ok"
    place.keys.broken = False
    assert (await call(place)).status == 200
    await wire.close()
