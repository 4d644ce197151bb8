"""Restores over both transports: pieces go out through a window, and the agent says what came back, or vanishes."""

import asyncio
from collections.abc import AsyncGenerator, Callable
from dataclasses import replace

import pytest

from orchestrator.adapters.channel import restores
from orchestrator.adapters.channel.agent_channel import AgentChannel
from orchestrator.domain import wire
from orchestrator.domain.errors import BusyError, SandboxLostError
from orchestrator.domain.snapshots import (
    DamagedPiece,
    Encoding,
    Piece,
    RestoreOrder,
    RestoreReport,
    SaveFailedError,
    SnapshotDamagedError,
)
from tests.contract.conftest import Open, connected, order
from tests.contract.scripted_agent import Reach, ScriptedAgent, digest_of

ORDER = RestoreOrder(7, "namespace", b"body", seed=2**64 - 1, bound=5.0, quarantined={3: "it hung\n\u202e"}, careful=1)
REPORT = RestoreReport(restored=1, lost=(("y", "gone"),), state_lost=(("cwd", "gone, too"),))


class Source:
    """A snapshot's pieces, and whether whoever read them has let them go."""

    def __init__(self, *pieces: Piece | DamagedPiece | Exception, then_waits: bool = False) -> None:
        self._pieces = pieces
        self._then_waits = then_waits
        self.read = 0
        self.closed = False

    async def pieces(self) -> AsyncGenerator[Piece | DamagedPiece, None]:
        try:
            for piece in self._pieces:
                if isinstance(piece, Exception):
                    raise piece
                self.read += 1
                yield piece
            if self._then_waits:
                await asyncio.Event().wait()
        finally:
            self.closed = True


def numbered(count: int) -> list[Piece]:
    return [Piece(digest_of(bytes([n])), 1, Encoding.RAW, bytes([n])) for n in range(count)]


async def begun(
    agent: ScriptedAgent, channel: AgentChannel, source: Source
) -> tuple[wire.Frame, asyncio.Task[RestoreReport]]:
    """A restore that the agent has been asked for."""
    restoring = asyncio.create_task(channel.restore(ORDER, source.pieces()))
    return await agent.next(), restoring


def take(agent: ScriptedAgent, request: wire.Frame, count: int = 1) -> None:
    agent.send({"type": "taken", "restore": request.header["id"], "count": count})


async def test_restore_is_ordered_fed_and_reported(reach: Reach, channel_over: Open) -> None:
    agent, channel = await connected(reach, channel_over)
    packed = Piece("ab" * 16, 300, Encoding.ZSTD, b"packed")
    source = Source(packed, DamagedPiece("cd" * 16, "its digest differs\n"))
    request, restoring = await begun(agent, channel, source)
    number = request.header["id"]
    ordered = {"snapshot": 7, "section": "namespace", "seed": 2**64 - 1, "bound": 5.0}
    quarantined = [[3, "it hung\\n\\u202e"]]
    assert request.header == {"type": "restore", "id": number, **ordered, "quarantined": quarantined, "careful": 1}
    assert request.parts == (b"body",)
    sent = await agent.next()
    named = {"digest": "ab" * 16, "size": 300, "encoding": "zstd"}
    assert (sent.header, sent.parts) == ({"type": "piece", "restore": number, **named}, (b"packed",))
    reason = "its digest differs\\n"
    damaged = {"type": "damaged", "restore": number, "digest": "cd" * 16, "reason": reason}
    assert (await agent.next()).header == damaged
    take(agent, request, 2)
    agent.restored(request)
    assert await restoring == REPORT
    assert source.closed


async def test_no_more_than_a_window_of_pieces_is_on_its_way(reach: Reach, channel_over: Open) -> None:
    agent, channel = await connected(reach, channel_over)
    source = Source(*numbered(30))
    request, restoring = await begun(agent, channel, source)
    for number in range(30):
        if number >= restores.WINDOW:
            await asyncio.sleep(0.001)
            assert source.read <= number + 1  # one is read ahead
            take(agent, request)
        assert (await agent.next()).parts == (bytes([number]),)
    agent.restored(request)
    assert await restoring == REPORT


@pytest.mark.parametrize("then_waits", [False, True])
async def test_reply_ends_the_feeding_wherever_it_is(reach: Reach, channel_over: Open, *, then_waits: bool) -> None:
    agent, channel = await connected(reach, channel_over)
    source = Source(*numbered(3 if then_waits else 30), then_waits=then_waits)
    request, restoring = await begun(agent, channel, source)
    agent.restored(request, restored=0, crashed=[3, "it ended the process\n"])
    assert await restoring == RestoreReport(crashed=(3, "it ended the process\\n"))
    assert source.closed
    assert source.read < 30
    assert channel.lost is None


@pytest.mark.usefixtures("steady_loop")
async def test_largest_body_and_a_window_of_the_largest_pieces_wait_for_an_agent_that_is_slow_to_read(
    reach: Reach, channel_over: Open
) -> None:
    agent, channel = await connected(reach, channel_over)
    pieces = [Piece(digest_of(bytes([n])), 2**20, Encoding.RAW, bytes([n]) * 2**20) for n in range(20)]
    largest = replace(ORDER, body=bytes(wire.MAX_BODY))
    restoring = asyncio.create_task(channel.restore(largest, Source(*pieces).pieces()))
    await asyncio.sleep(0.2)
    request = await agent.next()
    for piece in pieces:
        assert (await agent.next()).parts == (piece.data,)
        take(agent, request)
    agent.restored(request)
    assert await restoring == REPORT


async def test_order_that_fits_into_no_frame_is_damage_and_nothing_is_sent(reach: Reach, channel_over: Open) -> None:
    agent, channel = await connected(reach, channel_over)
    with pytest.raises(SnapshotDamagedError):
        await channel.restore(replace(ORDER, body=bytes(wire.MAX_BODY + 1)), Source().pieces())
    await asyncio.gather(agent.answer(), channel.clear())
    assert channel.lost is None


@pytest.mark.parametrize("code", ["failed", "interrupted"])
async def test_restore_that_the_agent_gives_up_is_failed_in_its_words(
    reach: Reach, channel_over: Open, code: str
) -> None:
    agent, channel = await connected(reach, channel_over)
    source = Source(*numbered(30))
    request, restoring = await begun(agent, channel, source)
    agent.turn_down(request, code, "the worker ended\u202e")
    with pytest.raises(SaveFailedError, match=r"the worker ended\\u202e"):
        await restoring
    assert source.closed
    assert channel.lost is None


async def test_unreadable_body_is_damage_an_occupied_sandbox_busy_and_another_refusal_a_loss(
    reach: Reach, channel_over: Open
) -> None:
    agent, channel = await connected(reach, channel_over)
    for code, error in (
        ("malformed", SnapshotDamagedError),
        ("occupied", BusyError),
        ("unclaimed", SandboxLostError),
    ):
        with pytest.raises(error):
            await asyncio.gather(agent.refuse(code), channel.restore(ORDER, Source().pieces()))
        assert (channel.lost is None) is (error is not SandboxLostError)


async def test_lost_connection_fails_the_restore_when_the_agent_has_a_fresh_worker(
    reach: Reach, channel_over: Open
) -> None:
    agent, channel = await connected(reach, channel_over)
    source = Source(*numbered(30))
    _, restoring = await begun(agent, channel, source)
    await agent.next()
    agent.hang_up()
    await agent.say_hello()
    again = await agent.next()
    assert again.type == "restore"
    assert not restoring.done()
    agent.turn_down(again, "interrupted", "the connection was lost")
    with pytest.raises(SaveFailedError, match="connection"):
        await restoring
    assert source.closed
    request, restoring = await begun(agent, channel, Source())
    agent.restored(request)
    assert await restoring == REPORT


async def test_restore_that_was_done_when_the_connection_went_is_reported(reach: Reach, channel_over: Open) -> None:
    agent, channel = await connected(reach, channel_over)
    _, restoring = await begun(agent, channel, Source(*numbered(3)))
    await agent.next()
    agent.hang_up()
    await agent.say_hello()
    agent.restored(await agent.next())
    assert await restoring == REPORT


async def test_restore_that_lost_pieces_and_begins_anew_is_failed_and_a_clear_helps(
    reach: Reach, channel_over: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The agent has never heard of it, and waits for pieces that nobody has any more."""
    monkeypatch.setattr(restores, "INTERRUPTED_SECONDS", 0.1)
    agent, channel = await connected(reach, channel_over)
    source = Source(*numbered(30))
    _, restoring = await begun(agent, channel, source)
    agent.hang_up()
    await agent.say_hello()
    request = await agent.next()
    with pytest.raises(SaveFailedError, match="connection"):
        await restoring
    assert source.closed
    clearing = asyncio.create_task(channel.clear())
    clear = await agent.next()
    assert clear.type == "clear"  # and no piece came before it
    agent.turn_down(request, "interrupted")
    agent.send({"type": "reply", "id": clear.header["id"], "ok": True})
    await clearing
    assert channel.lost is None


async def test_restore_of_which_nothing_was_sent_goes_on_with_the_next_connection(
    reach: Reach, channel_over: Open
) -> None:
    agent, channel = await connected(reach, channel_over)
    agent.hang_up()
    await asyncio.sleep(0.05)
    restoring = asyncio.create_task(channel.restore(ORDER, Source(*numbered(3)).pieces()))
    await agent.say_hello()
    request = await agent.next()
    assert [(await agent.next()).parts for _ in range(3)] == [(b"\0",), (b"\1",), (b"\2",)]
    agent.restored(request)
    assert await restoring == REPORT


async def test_pieces_that_cannot_be_read_end_the_restore_with_their_own_error(
    reach: Reach, channel_over: Open
) -> None:
    agent, channel = await connected(reach, channel_over)
    source = Source(*numbered(2), SnapshotDamagedError("gone"))
    request, restoring = await begun(agent, channel, source)
    with pytest.raises(SnapshotDamagedError, match="gone"):
        await restoring
    assert source.closed
    clearing = asyncio.create_task(channel.clear())
    assert [(await agent.next()).type for _ in range(2)] == ["piece", "piece"]
    agent.turn_down(request, "interrupted")
    await asyncio.gather(agent.answer(), clearing)
    assert channel.lost is None


async def test_cancelled_restore_lets_its_pieces_go_and_its_late_reply_is_no_violation(
    reach: Reach, channel_over: Open
) -> None:
    agent, channel = await connected(reach, channel_over)
    source = Source(*numbered(3), then_waits=True)
    request, restoring = await begun(agent, channel, source)
    assert (await agent.next()).type == "piece"
    restoring.cancel()
    await asyncio.gather(restoring, return_exceptions=True)
    assert source.closed
    take(agent, request)
    agent.restored(request)
    clearing = asyncio.create_task(channel.clear())
    while (await agent.next()).type == "piece":
        pass
    agent.send({"type": "reply", "id": request.header["id"] + 1, "ok": True})
    await clearing
    assert channel.lost is None


async def test_cells_are_asked_for_and_answered_while_a_restore_waits(reach: Reach, channel_over: Open) -> None:
    agent, channel = await connected(reach, channel_over)
    request, restoring = await begun(agent, channel, Source())
    running = asyncio.create_task(channel.execute(order()))
    agent.report(await agent.next())
    assert (await running).outcome == "ok"
    agent.restored(request)
    assert await restoring == REPORT


@pytest.mark.parametrize("count", [0, restores.WINDOW])
async def test_agent_that_neither_takes_nor_answers_is_lost(
    reach: Reach, channel_over: Open, monkeypatch: pytest.MonkeyPatch, count: int
) -> None:
    monkeypatch.setattr(restores, "IDLE_SECONDS", 0.3 - ORDER.bound)
    _, channel = await connected(reach, channel_over)
    # Of a full window, or when there is nothing more to send, it is the agent's turn.
    source = Source(*numbered(count), then_waits=count > 0)
    with pytest.raises(SandboxLostError, match="no progress"):
        await channel.restore(ORDER, source.pieces())
    assert source.closed


async def test_time_in_which_pieces_are_read_is_not_the_agents(
    reach: Reach, channel_over: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(restores, "IDLE_SECONDS", 0.2 - ORDER.bound)
    monkeypatch.setattr(restores, "TOTAL_SECONDS", 0.3)
    agent, channel = await connected(reach, channel_over)
    request, restoring = await begun(agent, channel, Source(*numbered(1), then_waits=True))
    await asyncio.sleep(0.8)
    agent.restored(request)
    assert await restoring == REPORT


async def test_list_of_losses_that_breaks_its_form_is_told_as_such(reach: Reach, channel_over: Open) -> None:
    """The worker writes it, after it has loaded what user code saved."""
    agent, channel = await connected(reach, channel_over)
    request, restoring = await begun(agent, channel, Source())
    header = {"type": "reply", "id": request.header["id"], "ok": True, "restored": 4, "crashed": None}
    agent.send(header, [b'{"lost":[["x"]],"state_lost":[]}'])
    report = await restoring
    assert report.restored == 4
    assert [why for _, why in report.lost] == ["the sandbox's list of what was lost cannot be read"]
    assert channel.lost is None


def taken(number: int, count: object) -> bytes:
    return wire.encode({"type": "taken", "restore": number, "count": count})


def reply(number: int, parts: list[bytes], **lies: object) -> bytes:
    header = {"type": "reply", "id": number, "ok": True, "restored": 1, "crashed": None, **lies}
    return wire.encode(header, parts)


VIOLATIONS: dict[str, Callable[[int], bytes]] = {
    "more taken than sent": lambda number: taken(number, 4),
    "nothing taken": lambda number: taken(number, 0),
    "less than nothing taken": lambda number: taken(number, -1),
    "taken by a flag": lambda number: taken(number, True),
    "taken by another restore": lambda number: taken(number + 1, 1),
    "a piece": lambda number: wire.encode(
        {"type": "piece", "save": number, "digest": "ab" * 16, "size": 1, "encoding": "raw"}, [b"x"]
    ),
    "a reply without a part": lambda number: reply(number, []),
    "a reply of no count": lambda number: reply(number, [b"{}"], restored=-1),
    "a crash that names no group": lambda number: reply(number, [], crashed=["x", "y"]),
    "a crash of a flag": lambda number: reply(number, [], crashed=[True, "y"]),
    "a crash without a reason": lambda number: reply(number, [], crashed=[1]),
    "a reply that is neither": lambda number: wire.encode({"type": "reply", "id": number}),
}


@pytest.mark.parametrize("violation", VIOLATIONS.values(), ids=VIOLATIONS.keys())
async def test_who_breaks_the_rules_of_restoring_is_hung_up_on_and_lost(
    reach: Reach, channel_over: Open, violation: Callable[[int], bytes]
) -> None:
    agent, channel = await connected(reach, channel_over)
    source = Source(*numbered(3), then_waits=True)
    request, restoring = await begun(agent, channel, source)
    for _ in range(3):
        await agent.next()
    agent.send_raw(violation(request.header["id"]))
    with pytest.raises(SandboxLostError, match="broke the protocol"):
        await restoring
    assert await agent.hung_up_on()
    assert source.closed


async def test_taken_after_the_reply_breaks_the_rules(reach: Reach, channel_over: Open) -> None:
    agent, channel = await connected(reach, channel_over)
    request, restoring = await begun(agent, channel, Source())
    agent.restored(request)
    take(agent, request)
    assert await agent.hung_up_on()
    assert await restoring == REPORT
    assert "nobody asked for" in str(channel.lost)
