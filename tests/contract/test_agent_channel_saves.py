"""Saves over both transports: a window of pieces, and an agent that may stop, vanish or say anything in between."""

import asyncio
from collections.abc import Sequence
from contextlib import aclosing
from dataclasses import replace

import pytest

from orchestrator.adapters.channel import saves
from orchestrator.adapters.channel.agent_channel import AgentChannel
from orchestrator.domain import wire
from orchestrator.domain.errors import BusyError, SandboxLostError
from orchestrator.domain.ports import Saving
from orchestrator.domain.snapshots import (
    Encoding,
    Piece,
    SaveFailedError,
    SnapshotRefusedError,
)
from tests.contract.conftest import SAVE, Open, connected, order
from tests.contract.scripted_agent import PATIENCE, Reach, ScriptedAgent, digest_of, manifest, piece


async def frozen(agent: ScriptedAgent, channel: AgentChannel) -> tuple[wire.Frame, Saving]:
    """A save whose moment is past: the request, and what its caller holds."""
    saving = asyncio.create_task(channel.save(SAVE))
    request = await agent.next()
    agent.freeze(request)
    return request, await saving


async def all_of(saving: Saving) -> Sequence[Piece]:
    async with asyncio.timeout(PATIENCE), aclosing(saving.pieces()) as pieces:
        return [piece async for piece in pieces]


async def still_serves(agent: ScriptedAgent, channel: AgentChannel) -> bool:
    """Whether a request that is made now is answered, and the sandbox lives."""
    clearing = asyncio.create_task(channel.clear())
    while (request := await agent.next()).type != "clear":
        assert request.type == "taken"
    agent.send({"type": "reply", "id": request.header["id"], "ok": True})
    await clearing
    return channel.lost is None


async def test_save_is_ordered_frozen_sent_and_reported(reach: Reach, channel_over: Open) -> None:
    agent, channel = await connected(reach, channel_over)
    saving = asyncio.create_task(channel.save(SAVE))
    request = await agent.next()
    intended = {"snapshot": 7, "incarnation": 3, "execution": 20, "environment": "env", "head": 6, "seed": 2**64 - 1}
    bounds = {"variable_limit": 10, "session_limit": 100, "hold": 0.5, "bound": 30.0}
    wanted = {"type": "save", "compress": True, "final": False, **intended, **bounds}
    assert request.header == {**wanted, "id": request.header["id"]}
    agent.send_piece(request, b"a file")  # there may be more of them than the agent can keep until the moment is past
    assert not saving.done()
    agent.freeze(request, files=True)
    made = await saving
    agent.send_piece(request, b"a name", size=300, encoding="zstd")
    agent.saved(request)
    assert await all_of(made) == [
        Piece(digest_of(b"a file"), 6, Encoding.RAW, b"a file"),
        Piece(digest_of(b"a name"), 300, Encoding.ZSTD, b"a name"),
    ]
    report = await made.report()
    assert (report.files_read, report.cpu_seconds, report.remarks) == (True, 0.5, ())
    assert [(name.name, name.status) for name in report.manifest.names] == [("x", "saved")]
    assert (report.manifest.namespace.body, report.manifest.workspace.body) == (b"names", b"files")
    assert await made.report() is report
    made.abandon()
    assert await still_serves(agent, channel)


async def test_files_beyond_what_the_sandbox_can_keep_are_taken_before_the_moment(
    reach: Reach, channel_over: Open
) -> None:
    agent, channel = await connected(reach, channel_over)
    saving = asyncio.create_task(channel.save(SAVE))
    request = await agent.next()
    for number in range(saves.WINDOW):
        agent.send_piece(request, bytes([number]))
    made = await saving
    async with aclosing(made.pieces()) as pieces:
        for number in range(saves.WINDOW):
            assert (await anext(pieces)).data == bytes([number])
            assert await agent.taken() == 1
        agent.freeze(request, files=True)
        agent.send_piece(request, b"last")
        agent.saved(request)
        assert [piece.data async for piece in pieces] == [b"last"]
    assert (await made.report()).files_read


async def test_no_more_than_a_window_of_pieces_is_kept_for_a_slow_taker(reach: Reach, channel_over: Open) -> None:
    agent, channel = await connected(reach, channel_over)
    request, saving = await frozen(agent, channel)
    for number in range(saves.WINDOW):
        agent.send_piece(request, bytes([number]))
    # Everything else goes on meanwhile, and nothing is taken yet.
    assert await still_serves(agent, channel)
    async with aclosing(saving.pieces()) as pieces:
        for number in range(20):
            assert (await anext(pieces)).data == bytes([number])
            assert await agent.taken() == 1
            agent.send_piece(request, bytes([saves.WINDOW + number]))
    assert (await agent.next()).type == "abandon"


@pytest.mark.usefixtures("steady_loop")
async def test_large_pieces_arrive_whole_while_cells_run(reach: Reach, channel_over: Open) -> None:
    agent, channel = await connected(reach, channel_over)
    request, saving = await frozen(agent, channel)
    sent = [bytes([number]) * (1024 * 1024 - number) for number in range(20)]
    running = asyncio.create_task(channel.execute(order()))
    cell = await agent.next()

    async def send() -> None:
        for number, data in enumerate(sent):
            agent.send_piece(request, data)
            if number == 5:
                agent.report(cell)
            if number >= saves.WINDOW - 1:
                await agent.taken()
        agent.saved(request)

    sending = asyncio.create_task(send())
    assert [piece.data for piece in await all_of(saving)] == sent
    await sending
    assert (await running).outcome == "ok"


class TestPings:
    @pytest.fixture
    def heartbeat(self) -> float:
        return 0.1

    async def test_connection_beats_on_while_nobody_takes_pieces(self, reach: Reach, channel_over: Open) -> None:
        agent, channel = await connected(reach, channel_over)
        request, saving = await frozen(agent, channel)
        for number in range(saves.WINDOW):
            agent.send_piece(request, bytes([number]))
        waiting = asyncio.create_task(agent.next())  # answers pings
        await asyncio.sleep(0.6)
        agent.saved(request)
        assert len(await all_of(saving)) == saves.WINDOW
        assert (await waiting).type == "taken"


async def test_taker_that_leaves_early_abandons_the_save(reach: Reach, channel_over: Open) -> None:
    agent, channel = await connected(reach, channel_over)
    request, saving = await frozen(agent, channel)
    agent.send_piece(request, b"1")
    async with aclosing(saving.pieces()) as pieces:
        await anext(pieces)
    assert await agent.taken() == 1
    assert (await agent.next()).header == {"type": "abandon", "save": request.header["id"]}
    with pytest.raises(SaveFailedError, match="abandoned"):
        await saving.report()
    agent.send_piece(request, b"2")  # was on its way
    agent.turn_down(request, "interrupted")
    assert await still_serves(agent, channel)


async def test_abandoned_save_gives_nothing_more_and_may_end_as_it_likes(reach: Reach, channel_over: Open) -> None:
    agent, channel = await connected(reach, channel_over)
    request, saving = await frozen(agent, channel)
    agent.send_piece(request, b"1")
    saving.abandon()
    saving.abandon()
    with pytest.raises(SaveFailedError):
        await all_of(saving)
    assert (await agent.next()).type == "abandon"
    agent.saved(request)  # it was done before it heard of that
    assert await still_serves(agent, channel)
    with pytest.raises(SaveFailedError):
        await saving.report()


async def test_save_abandoned_when_all_of_it_is_here_is_failed_too(reach: Reach, channel_over: Open) -> None:
    agent, channel = await connected(reach, channel_over)
    request, saving = await frozen(agent, channel)
    agent.send_piece(request, b"1")
    agent.saved(request)
    assert await still_serves(agent, channel)
    saving.abandon()
    with pytest.raises(SaveFailedError):
        await all_of(saving)
    assert await still_serves(agent, channel)  # and the agent is told nothing of it


async def test_caller_cancelled_before_the_moment_abandons_the_save(reach: Reach, channel_over: Open) -> None:
    agent, channel = await connected(reach, channel_over)
    saving = asyncio.create_task(channel.save(SAVE))
    request = await agent.next()
    saving.cancel()
    await asyncio.gather(saving, return_exceptions=True)
    assert (await agent.next()).type == "abandon"
    agent.freeze(request)
    agent.send_piece(request, b"1")
    agent.turn_down(request, "interrupted")
    assert await still_serves(agent, channel)


async def test_taker_cancelled_while_it_waits_abandons_the_save(reach: Reach, channel_over: Open) -> None:
    agent, channel = await connected(reach, channel_over)
    _, saving = await frozen(agent, channel)
    taking = asyncio.create_task(all_of(saving))
    await asyncio.sleep(0.01)
    taking.cancel()
    await asyncio.gather(taking, return_exceptions=True)
    assert (await agent.next()).type == "abandon"


async def test_lost_connection_fails_the_save_at_once_and_the_next_one_succeeds(
    reach: Reach, channel_over: Open
) -> None:
    agent, channel = await connected(reach, channel_over)
    request, saving = await frozen(agent, channel)
    agent.send_piece(request, b"1")
    agent.hang_up()
    with pytest.raises(SaveFailedError, match="connection") as failure:
        await all_of(saving)
    assert failure.value.retryable
    await agent.say_hello()
    again = await agent.next()
    assert again.header == request.header
    assert (await agent.next()).type == "abandon"
    agent.turn_down(again, "interrupted")
    request, saving = await frozen(agent, channel)
    agent.saved(request)
    assert await all_of(saving) == []
    assert (await saving.report()).manifest.sequence == 7


async def test_save_that_the_agent_never_heard_of_begins_on_the_next_connection(
    reach: Reach, channel_over: Open
) -> None:
    agent, channel = await connected(reach, channel_over)
    saving = asyncio.create_task(channel.save(SAVE))
    await agent.next()
    agent.hang_up()
    await agent.say_hello()
    request = await agent.next()
    agent.freeze(request)
    agent.send_piece(request, b"1")
    agent.saved(request)
    assert [piece.data for piece in await all_of(await saving)] == [b"1"]


async def test_save_whose_pieces_went_with_the_connection_is_failed_though_it_was_done(
    reach: Reach, channel_over: Open
) -> None:
    agent, channel = await connected(reach, channel_over)
    saving = asyncio.create_task(channel.save(SAVE))
    await agent.next()
    agent.hang_up()
    await agent.say_hello()
    agent.saved(await agent.next())  # what it has kept; frozen and pieces it does not repeat
    with pytest.raises(SaveFailedError, match="connection"):
        await saving
    assert await still_serves(agent, channel)


async def test_save_abandoned_without_a_connection_is_abandoned_on_the_next_one(
    reach: Reach, channel_over: Open
) -> None:
    agent, channel = await connected(reach, channel_over)
    saving = asyncio.create_task(channel.save(SAVE))
    await agent.next()
    agent.hang_up()
    await asyncio.sleep(0.05)
    saving.cancel()
    await asyncio.gather(saving, return_exceptions=True)
    await agent.say_hello()
    request = await agent.next()
    assert [request.type, (await agent.next()).type] == ["save", "abandon"]
    agent.turn_down(request, "interrupted")
    assert await still_serves(agent, channel)


@pytest.mark.parametrize("code", ["failed", "interrupted"])
async def test_save_that_the_agent_gives_up_is_failed_in_its_words(reach: Reach, channel_over: Open, code: str) -> None:
    agent, channel = await connected(reach, channel_over)
    saving = asyncio.create_task(channel.save(SAVE))
    agent.turn_down(await agent.next(), code, "it ran\n\u202eout of time." + "!" * 10_000)
    with pytest.raises(SaveFailedError, match=r"it ran\\n\\u202eout of time") as failure:
        await saving
    assert len(failure.value.message) < 5_000
    request, made = await frozen(agent, channel)
    agent.send_piece(request, b"1")
    agent.turn_down(request, code)
    with pytest.raises(SaveFailedError):
        await all_of(made)
    with pytest.raises(SaveFailedError):
        await made.report()
    assert channel.lost is None


async def test_occupied_sandbox_is_busy_and_another_refusal_a_loss(reach: Reach, channel_over: Open) -> None:
    agent, channel = await connected(reach, channel_over)
    with pytest.raises(BusyError):
        await asyncio.gather(agent.refuse("occupied"), channel.save(SAVE))
    assert await still_serves(agent, channel)
    with pytest.raises(SandboxLostError, match="unclaimed"):
        await asyncio.gather(agent.refuse("unclaimed"), channel.save(SAVE))


@pytest.mark.parametrize("lie", [{"sequence": 8}, {"incarnation": 2}, {"execution": 19}, {"environment": "other"}])
async def test_manifest_of_another_moment_than_the_intended_is_refused(
    reach: Reach, channel_over: Open, lie: dict[str, object]
) -> None:
    agent, channel = await connected(reach, channel_over)
    request, saving = await frozen(agent, channel)
    agent.saved(request, **lie)
    await all_of(saving)
    with pytest.raises(SnapshotRefusedError):
        await saving.report()


async def test_manifest_that_breaks_its_form_fails_this_save_and_nothing_else(reach: Reach, channel_over: Open) -> None:
    """User code can write it: the sandbox is not to blame."""
    agent, channel = await connected(reach, channel_over)
    request, saving = await frozen(agent, channel)
    agent.saved(request, names=[["x"]])
    await all_of(saving)
    with pytest.raises(SaveFailedError, match="cannot be read"):
        await saving.report()
    assert await still_serves(agent, channel)


async def test_sandbox_that_is_lost_loses_what_is_not_here_yet(reach: Reach, channel_over: Open) -> None:
    agent, channel = await connected(reach, channel_over)
    request, saving = await frozen(agent, channel)
    taking = asyncio.create_task(all_of(saving))
    await asyncio.sleep(0.01)
    channel.give_up("its container was removed")
    with pytest.raises(SandboxLostError, match="was removed"):
        await taking
    with pytest.raises(SandboxLostError):
        await saving.report()
    with pytest.raises(SandboxLostError):
        await channel.save(SAVE)
    assert request.header["id"]


async def test_save_that_is_here_whole_outlives_its_sandbox(reach: Reach, channel_over: Open) -> None:
    agent, channel = await connected(reach, channel_over)
    request, saving = await frozen(agent, channel)
    agent.send_piece(request, b"1")
    agent.saved(request)
    assert await still_serves(agent, channel)
    await channel.close()
    assert len(await all_of(saving)) == 1
    assert (await saving.report()).manifest.sequence == 7


async def test_report_is_asked_for_after_the_last_piece(reach: Reach, channel_over: Open) -> None:
    agent, channel = await connected(reach, channel_over)
    _, saving = await frozen(agent, channel)
    with pytest.raises(AssertionError, match="after its last piece"):
        await saving.report()


async def test_save_without_progress_is_abandoned_and_then_the_sandbox_given_up(
    reach: Reach, channel_over: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(saves, "IDLE_SECONDS", 0.2)
    monkeypatch.setattr(saves, "ABANDON_SECONDS", 0.2)
    agent, channel = await connected(reach, channel_over)
    _, saving = await frozen(agent, channel)
    with pytest.raises(SaveFailedError, match="no progress"):
        await all_of(saving)
    assert (await agent.next()).type == "abandon"
    assert channel.lost is None
    assert await agent.hung_up_on()
    assert "did not end a save" in str(channel.lost)


@pytest.mark.parametrize("claimed", [100_000, 1_000_000], ids=["stored", "raw"])
async def test_a_save_of_more_bytes_than_any_honest_one_fails_and_nothing_else(
    reach: Reach, channel_over: Open, claimed: int
) -> None:
    limit = 10 * claimed
    agent, channel = await connected(reach, channel_over)
    saving = asyncio.create_task(channel.save(replace(SAVE, most_bytes=limit)))
    request = await agent.next()
    agent.freeze(request)

    async def flood() -> int:
        for number in range(1_000):
            agent.send_piece(request, number.to_bytes(4, "big") * 25_000, size=claimed, encoding="zstd")
            if (await agent.next()).type == "abandon":
                agent.turn_down(request, "interrupted")
                return number + 1
        return 1_000

    flooding = asyncio.create_task(flood())
    with pytest.raises(SaveFailedError, match=f"sent more than {limit:,} bytes"):
        await all_of(await saving)
    assert await flooding == 11
    assert await still_serves(agent, channel)


async def test_a_save_of_dust_fails_though_its_bytes_are_few(
    reach: Reach, channel_over: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(saves, "SMALL_PIECES", 5)
    agent, channel = await connected(reach, channel_over)
    saving = asyncio.create_task(channel.save(replace(SAVE, most_bytes=20 * 16_384)))
    request = await agent.next()
    agent.freeze(request)

    async def dust() -> int:
        for number in range(1_000):
            agent.send_piece(request, bytes([number]))
            if (await agent.next()).type == "abandon":
                agent.turn_down(request, "interrupted")
                return number + 1
        return 1_000

    dusting = asyncio.create_task(dust())
    with pytest.raises(SaveFailedError, match="sent more than 25 pieces"):
        await all_of(await saving)
    assert await dusting == 26
    assert await still_serves(agent, channel)


async def test_a_manifest_of_more_pieces_than_an_honest_one_has_fails(
    reach: Reach, channel_over: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(saves, "SMALL_PIECES", 5)
    agent, channel = await connected(reach, channel_over)
    saving = asyncio.create_task(channel.save(replace(SAVE, most_bytes=16_384)))
    request = await agent.next()
    agent.freeze(request)
    agent.saved(request, namespace=[f"{number:032x}" for number in range(4)], workspace=["f" * 32])
    made = await saving
    assert await all_of(made) == []
    assert len((await made.report()).manifest.namespace.pieces) == 4

    saving = asyncio.create_task(channel.save(replace(SAVE, most_bytes=16_384)))
    request = await agent.next()
    agent.freeze(request)
    agent.saved(request, namespace=[f"{number:032x}" for number in range(4)], workspace=["f" * 32, "e" * 32, "d" * 32])
    made = await saving
    assert await all_of(made) == []
    with pytest.raises(SaveFailedError, match="refers to 7 pieces"):
        await made.report()


async def test_save_that_goes_on_past_its_bound_is_abandoned(
    reach: Reach, channel_over: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(saves, "SAVE_MARGIN_SECONDS", 0.3 - SAVE.bound)
    agent, channel = await connected(reach, channel_over)
    request, saving = await frozen(agent, channel)

    async def trickle() -> None:
        for number in range(200):
            agent.send_piece(request, bytes([number]))
            while (await agent.next()).type != "taken":
                agent.turn_down(request, "interrupted")
                return
            await asyncio.sleep(0.02)

    trickling = asyncio.create_task(trickle())
    with pytest.raises(SaveFailedError, match="too long"):
        await all_of(saving)
    await trickling
    assert await still_serves(agent, channel)


async def test_time_in_which_nobody_takes_pieces_is_not_the_agents(
    reach: Reach, channel_over: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(saves, "IDLE_SECONDS", 0.2)
    monkeypatch.setattr(saves, "SAVE_MARGIN_SECONDS", 0.3 - SAVE.bound)
    agent, channel = await connected(reach, channel_over)
    request, saving = await frozen(agent, channel)
    agent.send_piece(request, b"1")
    await asyncio.sleep(0.8)
    agent.saved(request)
    assert len(await all_of(saving)) == 1
    assert (await saving.report()).cpu_seconds == 0.5


def raw(kind: str, number: int, **fields: object) -> bytes:
    return wire.encode({"type": kind, "save": number, **fields})


VIOLATIONS = {
    "frozen twice": lambda save: raw("frozen", save, files=True),
    "frozen without a flag": lambda save: raw("frozen", save, files=1),
    "a piece of a save that nobody asked for": lambda save: wire.encode(*piece(save + 1, b"x")),
    "a piece of a number that is none": lambda _: wire.encode(*piece(True, b"x")),
    "a piece whose digest is short": lambda save: wire.encode(*piece(save, b"x", digest="ab")),
    "a piece whose digest is upper case": lambda save: wire.encode(*piece(save, b"x", digest="AB" * 16)),
    "a piece whose digest is a list": lambda save: wire.encode(*piece(save, b"x", digest=["ab" * 16])),
    "a piece of negative size": lambda save: wire.encode(*piece(save, b"x", size=-1, encoding="zstd")),
    "a piece that says it is large": lambda save: wire.encode(*piece(save, b"x", size=2**20 + 1, encoding="zstd")),
    "a piece that is large": lambda save: wire.encode(*piece(save, bytes(2**20 + 1), size=1, encoding="zstd")),
    "a raw piece of another size": lambda save: wire.encode(*piece(save, b"x", size=2)),
    "a piece of another encoding": lambda save: wire.encode(*piece(save, b"x", encoding="lzma")),
    "a piece whose encoding is a list": lambda save: wire.encode(*piece(save, b"x", encoding=["raw"])),
    "a piece in two parts": lambda save: wire.encode(piece(save, b"xy")[0], [b"x", b"y"]),
    "a piece without a part": lambda save: wire.encode(piece(save, b"")[0]),
    "a piece more than there is room for": lambda save: wire.encode(*piece(save, b"x")) * (saves.WINDOW + 1),
    "room for pieces of a save": lambda save: wire.encode({"type": "taken", "restore": save, "count": 1}),
    "a reply of two parts": lambda save: reply(save, [b"{}", b""]),
    "a reply of other files": lambda save: reply(save, [b"{}", b"", b""], files=False),
    "a reply without processor time": lambda save: reply(save, [b"{}", b"", b""], cpu=None),
    "a reply with other remarks": lambda save: reply(save, [b"{}", b"", b""], remarks=[["x"]]),
    "a refusal without words": lambda save: wire.encode({"type": "reply", "id": save, "ok": False, "error": 1}),
}


def reply(save: int, parts: list[bytes], **lies: object) -> bytes:
    header = {"type": "reply", "id": save, "ok": True, "files": True, "cpu": 0.5, "remarks": [], **lies}
    return wire.encode(header, parts)


@pytest.mark.parametrize("violation", VIOLATIONS.values(), ids=VIOLATIONS.keys())
async def test_who_breaks_the_rules_of_saving_is_hung_up_on_and_lost(
    reach: Reach, channel_over: Open, violation: object
) -> None:
    agent, channel = await connected(reach, channel_over)
    request, saving = await frozen(agent, channel)
    assert callable(violation)
    agent.send_raw(violation(request.header["id"]))
    assert await agent.hung_up_on()
    with pytest.raises(SandboxLostError, match="broke the protocol"):
        await all_of(saving)


async def test_save_that_is_done_and_was_never_frozen_breaks_the_rules(reach: Reach, channel_over: Open) -> None:
    agent, channel = await connected(reach, channel_over)
    saving = asyncio.create_task(channel.save(SAVE))
    agent.saved(await agent.next())
    with pytest.raises(SandboxLostError, match="never frozen"):
        await saving


async def test_piece_after_the_reply_breaks_the_rules(reach: Reach, channel_over: Open) -> None:
    agent, channel = await connected(reach, channel_over)
    request, _ = await frozen(agent, channel)
    agent.saved(request)
    agent.send_piece(request, b"1")
    assert await agent.hung_up_on()
    assert "nobody asked for" in str(channel.lost)


@pytest.mark.usefixtures("steady_loop")
async def test_largest_manifest_is_read_beside_the_loop(reach: Reach, channel_over: Open) -> None:
    agent, channel = await connected(reach, channel_over)
    request, saving = await frozen(agent, channel)
    names = [["x" * 20, "value", "int", 28, "saved", None, None, "ab" * 16]] * 80_000
    assert len(manifest(request, names=names)) < wire.MAX_BODY
    agent.saved(request, names=names)
    await all_of(saving)
    assert len((await saving.report()).manifest.names) == 80_000
