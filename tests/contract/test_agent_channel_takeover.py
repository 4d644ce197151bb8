"""A host that finds an agent of another host's: it goes on where that one stood, and asks for what it did not hear."""

import asyncio

import pytest

from orchestrator.adapters.channel.agent_channel import AgentChannel
from orchestrator.adapters.channel.transport import ContainerEndedError
from orchestrator.domain.errors import SandboxGoneError, SandboxLostError
from tests.contract.conftest import Open, connected, order
from tests.contract.scripted_agent import Reach, ScriptedAgent, result


async def found(reach: Reach, channel_over: Open, **identity: object) -> tuple[ScriptedAgent, AgentChannel]:
    """An agent that serves incarnation 3, and the channel of a host that looks for it."""
    told = {"incarnation": 3, "last_execution": 7, "last_request": 41, **identity}
    return await asyncio.gather(reach.agent(**told).say_hello(), channel_over(incarnation=3))


async def test_requests_go_on_above_those_of_the_other_host(reach: Reach, channel_over: Open) -> None:
    agent, channel = await found(reach, channel_over)
    assert (channel.hello.last_execution, channel.hello.last_request) == (7, 41)
    claim, _ = await asyncio.gather(agent.answer(), channel.claim("k", 3))
    assert claim.header["id"] == 42


async def test_a_later_hello_changes_no_id(reach: Reach, channel_over: Open) -> None:
    agent, channel = await connected(reach, channel_over)
    await asyncio.gather(agent.answer(), channel.claim("k", 3))
    agent.hang_up()
    await agent.say_hello(incarnation=3, last_request=500)
    clear, _ = await asyncio.gather(agent.answer(), channel.clear())
    assert clear.header["id"] == 2


async def test_an_agent_of_another_incarnation_is_not_the_one_that_is_looked_for(
    reach: Reach, channel_over: Open
) -> None:
    opening = asyncio.ensure_future(channel_over(incarnation=3))
    await reach.agent(incarnation=2).say_hello()
    with pytest.raises(SandboxGoneError, match="serves incarnation 2") as gone:
        await opening
    assert gone.value.cause == "its agent says that it serves incarnation 2"


async def test_a_result_is_asked_for_by_its_execution_and_read_like_the_reply_to_the_order(
    reach: Reach, channel_over: Open
) -> None:
    agent, channel = await found(reach, channel_over, running=7)
    asking = asyncio.create_task(channel.result(7, seconds=5))
    request = await agent.next()
    assert request.header == {"type": "result", "id": 42, "execution": 7}
    # More than any order of this host would have allowed: who gave it is not here to say.
    agent.report(request, output=b"o" * 200_000)
    report = await asking
    assert report is not None
    assert (report.outcome, len(report.output_head), report.value, report.bound) == ("ok", 200_000, "42", ("x",))


async def test_a_result_that_the_agent_does_not_have_is_none_and_costs_nothing(
    reach: Reach, channel_over: Open
) -> None:
    agent, channel = await found(reach, channel_over)
    asking, _ = await asyncio.gather(channel.result(6, seconds=5), agent.refuse("forgotten"))
    assert asking is None
    clear, _ = await asyncio.gather(agent.answer(), channel.clear())
    assert clear.type == "clear"


async def test_a_result_of_another_execution_breaks_the_rules(reach: Reach, channel_over: Open) -> None:
    agent, channel = await found(reach, channel_over)
    asking = asyncio.create_task(channel.result(7, seconds=5))
    request = await agent.next()
    agent.send(*result(request.header["id"], 6))
    with pytest.raises(SandboxLostError, match="another execution"):
        await asking


async def test_an_interrupt_reaches_the_cell_whose_result_is_waited_for_also_after_a_reconnect(
    reach: Reach, channel_over: Open
) -> None:
    agent, channel = await found(reach, channel_over, running=7)
    asking = asyncio.create_task(channel.result(7, seconds=5))
    await agent.next()
    channel.interrupt(7)
    assert (await agent.next()).header == {"type": "interrupt", "execution": 7}
    agent.hang_up()
    await agent.say_hello()
    request = await agent.next()
    assert request.type == "result"
    assert (await agent.next()).header == {"type": "interrupt", "execution": 7}
    agent.send(*result(41, 7))  # the reply to who ordered it, which is not here any more
    agent.report(request, outcome="interrupted")
    report = await asking
    assert report is not None
    assert report.outcome == "interrupted"


@pytest.mark.parametrize("for_memory", [False, True])
async def test_how_its_container_ended_is_told_with_the_loss(
    reach: Reach, channel_over: Open, *, for_memory: bool
) -> None:
    ended = False

    async def runs() -> bool:
        if ended:
            raise ContainerEndedError("its container was killed", for_memory=for_memory)
        return True

    agent, channel = await connected(reach, channel_over, is_running=runs)
    running = asyncio.create_task(channel.execute(order()))
    await agent.next()
    ended = True
    agent.hang_up()
    with pytest.raises(SandboxLostError, match="its container was killed"):
        await running
    assert (channel.lost, channel.lost_to_memory) == ("its container was killed", for_memory)
