"""An answer has arrived when its client goes on after it, or is still there a moment later; else nobody can tell."""

import asyncio

import pytest

from orchestrator.faces import deliveries
from orchestrator.faces.deliveries import Deliveries


@pytest.fixture
def arrived() -> list[str]:
    return []


def expected(made: Deliveries, arrived: list[str], name: str) -> None:
    made.expect(name).when_received(lambda: arrived.append(name))


async def test_what_a_client_says_next_confirms_what_was_written_and_no_more(arrived: list[str]) -> None:
    made = Deliveries()
    expected(made, arrived, "1")
    expected(made, arrived, "2")
    made.heard()
    assert arrived == []
    made.written(1)
    made.heard()
    made.heard()
    made.end()
    assert arrived == ["1"]


async def test_a_client_that_is_still_there_has_it(arrived: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(deliveries, "ARRIVED_SECONDS", 0.01)
    made = Deliveries()
    expected(made, arrived, "1")
    made.written("1")
    await asyncio.sleep(0.05)
    assert arrived == ["1"]


async def test_what_the_end_overtakes_has_not_arrived(arrived: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(deliveries, "ARRIVED_SECONDS", 0.01)
    made = Deliveries()
    expected(made, arrived, "1")
    expected(made, arrived, "2")
    made.written("1")
    made.end()
    made.heard()
    await asyncio.sleep(0.05)
    assert arrived == []
