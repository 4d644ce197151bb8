"""A fresh worker that is asked for while another is just being made."""

import asyncio

from tests.docker.saved_sandbox import Fresh


async def test_clears_that_follow_one_another_lose_no_child_of_the_zygote(fresh: Fresh) -> None:
    """The second ends what the first has begun: such a child, stopped as it was born, held the zygote up for ever."""
    async with fresh() as box:
        for _ in range(100):
            async with asyncio.timeout(8):  # what takes longer has waited for the zygote to be made anew
                await asyncio.gather(box.agent.clear(), box.agent.clear())
            assert await box.value("6 * 7") == "42"
