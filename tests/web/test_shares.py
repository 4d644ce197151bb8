"""No client alone takes all: connections are bounded for each address, open requests for each tenant."""

import asyncio
import resource
from collections.abc import Iterator
from pathlib import Path

import pytest

from orchestrator.faces.web.pages import SiteBounds
from orchestrator.faces.web.shares import is_among, network_of
from tests.mcp.harness import eventually
from tests.web.harness import HANDSHAKE, KEY, MODERN, OTHER_KEY, Place, Wire, calling, serving

MANY = 4_000


@pytest.fixture
def descriptors() -> Iterator[int]:
    """How many connections this process may have both ends of; its limit is raised for that."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = 2 * MANY + 500
    most = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, most), hard))
    yield (max(soft, most) - 500) // 2
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


async def from_address(place: Place, address: str) -> Wire:
    """A connection from another address of loopback."""
    return Wire(*await asyncio.open_connection("127.0.0.1", place.port, local_addr=(address, 0)))


async def put_away(wires: list[Wire]) -> None:
    for wire in wires:
        await wire.close()


async def test_thousands_of_idle_connections_at_once_keep_no_keyed_client_out(tmp_path: Path, descriptors: int) -> None:
    count = min(MANY, descriptors)
    assert count >= 2_000, "thousands were meant: raise the hard limit of open files"
    # Nothing ends by itself within the test, however long it takes to connect.
    async with serving(tmp_path, connections=count, each=count // 2, idle=600, patience=600) as place:
        crowd: list[Wire] = []
        for n in range(0, count // 2 - 10, 50):
            crowd += await asyncio.gather(*(from_address(place, "127.0.0.2") for _ in range(50)))
            crowd += await asyncio.gather(*(from_address(place, f"127.0.1.{1 + n % 40}") for _ in range(40)))
        await eventually(lambda: len(place.connections) >= count * 3 // 4, "they are all there")
        for number in range(5):
            answer = await place.request(body=calling(f"cell {number}", "s"), headers=MODERN)
            assert answer.json["result"]["structuredContent"]["output"] == f"cell {number}"
        assert len(place.connections) <= count
        for wire in crowd:
            wire.vanish()
        await eventually(lambda: not len(place.connections), "all are forgotten")


async def test_an_address_that_has_its_share_loses_its_own_longest_idle_connection(tmp_path: Path) -> None:
    async with serving(tmp_path, connections=40, each=10) as place:
        others = [await from_address(place, "127.0.0.3") for _ in range(5)]
        greedy = [await from_address(place, "127.0.0.2") for _ in range(30)]
        await greedy[0].ended()
        await eventually(lambda: len(place.connections) == 15, "ten of its thirty are left")
        for wire in (*others, greedy[-1]):
            await wire.send("GET", "/healthz", key=None)
            assert (await wire.answer()).status == 200
        await put_away([*others, *greedy])


async def test_an_address_whose_share_is_busy_is_answered_503_and_others_are_served(tmp_path: Path) -> None:
    async with serving(tmp_path, connections=40, each=3) as place:
        busy = [await from_address(place, "127.0.0.2") for _ in range(3)]
        for wire in busy:
            await wire.send(body=calling("sleep 60"), headers=MODERN)
        await eventually(lambda: place.events.count("started None") == 3, "all are busy")
        refused = await from_address(place, "127.0.0.2")
        assert (await refused.answer()).status == 503
        assert (await place.request(body=calling("x"), headers=MODERN)).status == 200
        await put_away([*busy, refused])


async def test_a_tenant_with_too_many_open_requests_is_answered_429_and_others_are_served(tmp_path: Path) -> None:
    async with serving(tmp_path, bounds=SiteBounds(open_requests=3)) as place:
        busy = [await place.connect() for _ in range(3)]
        for wire in busy[:2]:
            await wire.send(body=calling("sleep 60"), headers=MODERN)
        await busy[2].send(headers={**MODERN, "Content-Length": "1000"})  # and nothing of it follows
        await eventually(lambda: len(place.site.lines) == 3, "three are open")
        refused = await place.request(body=calling("x"), headers=MODERN, key=KEY)
        assert (refused.status, refused.json) == (429, {"error": "too_many_open_requests"})
        assert refused.headers["retry-after"] == "1"
        assert (await place.request(body=calling("x"), headers=MODERN, key=OTHER_KEY)).status == 200
        await put_away(busy)
        await eventually(lambda: not len(place.site.lines), "they have ended")
        assert (await place.request(body=calling("x"), headers=MODERN, key=KEY)).status == 200


async def test_a_share_of_what_was_refused_or_cut_is_given_back(tmp_path: Path) -> None:
    async with serving(tmp_path, bounds=SiteBounds(open_requests=2)) as place:
        for number in range(10):
            wire = await place.connect()
            await wire.send(body=calling("sleep 60", f"s{number}"), headers=MODERN)
            await eventually(lambda n=number: f"started s{n}" in place.events, "it runs")  # type: ignore[misc]
            wire.vanish()
            await eventually(lambda: not len(place.site.lines), "it is given up")
            bad = await place.request(body=b"{", headers={"MCP-Protocol-Version": HANDSHAKE})
            assert bad.status == 400


def test_an_address_counts_for_itself_or_for_the_network_that_one_customer_has() -> None:
    assert network_of("192.0.2.1") == "192.0.2.1"
    assert network_of("::ffff:192.0.2.1") == "192.0.2.1"
    assert network_of("2001:db8::1") == network_of("2001:db8::ffff") == "2001:db8::/64"
    assert network_of("") == network_of("socket") == "unknown"


def test_only_proxies_that_are_named_speak_for_many() -> None:
    among = is_among("10.0.0.0/8,2001:db8::/32")
    assert among("10.1.2.3")
    assert among("2001:db8::5")
    assert not among("192.0.2.1")
    assert not among("")
    assert not is_among(None)("127.0.0.1")
