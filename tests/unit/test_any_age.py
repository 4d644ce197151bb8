"""Whatever the life of sessions, their owners and their clocks: who is used in time is never aged, and nobody who is
not lives for ever.
"""

import asyncio
import tempfile
from pathlib import Path

from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from orchestrator.domain.ageing import AgeingPolicy
from orchestrator.domain.model import SessionState
from orchestrator.domain.ticks import MOST_UNWATCHED
from tests.manual_clock import ManualClock
from tests.unit.pretended_engine import House, house

HOUR, DAY = 3_600.0, 86_400.0
POLICY = AgeingPolicy()
NAMES = ("a", "b", "c")
# Seconds of life, and how much the wall clock is set meanwhile.
PASSES = st.tuples(
    st.sampled_from([60.0, 700.0, 9 * HOUR, 6 * DAY, 12 * DAY, 40 * DAY]),
    st.sampled_from([*[0.0] * 9, 1_800.0, -1_800.0, 2 * HOUR, -2 * HOUR, 45 * DAY, -45 * DAY, 9_000 * DAY]),
)
STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("use"), st.sampled_from(NAMES)),
        st.tuples(st.just("use"), st.just(NAMES[0])),
        st.tuples(st.just("look"), PASSES),
        st.tuples(st.just("pass"), PASSES),
        st.tuples(st.just("off"), PASSES),
    ),
    max_size=20,
)


class Lives:
    """What is true of each session, whatever the clocks say."""

    def __init__(self, clock: ManualClock) -> None:
        self._clock = clock
        self._used: dict[str, float] = {}
        self._doubt: dict[str, float] = {}  # seconds that starts under a wrong clock may have added

    def use(self, name: str) -> None:
        self._used[name], self._doubt[name] = self._clock.monotonic(), 0.0

    def started_again(self) -> None:
        """Of the time since the last owner nobody can tell how much it was."""
        self._doubt = {name: doubt + MOST_UNWATCHED for name, doubt in self._doubt.items()}

    def check(self, states: dict[str, SessionState]) -> None:
        assert POLICY.inactive_after is not None
        assert POLICY.expire_after is not None
        assert POLICY.delete_after is not None
        for name, used in self._used.items():
            unused = self._clock.monotonic() - used + self._doubt[name] + 1.0
            state = states.get(name)
            if state is None:
                assert unused >= POLICY.expire_after + POLICY.delete_after, name
            elif state is SessionState.EXPIRED:
                assert unused >= POLICY.expire_after, name
            elif state is SessionState.INACTIVE:
                assert unused >= POLICY.inactive_after, name


async def used(opened: House, name: str) -> None:
    """A call, as the records see it: woken, run, asleep again."""
    session = await opened.records.ensure_session("local", name, "e")
    woken = await opened.records.begin_creating(session.key, session.incarnation)
    assert woken is not None
    await opened.records.session_hibernated(woken.key, woken.incarnation)


async def states_of(opened: House) -> dict[str, SessionState]:
    return {row.session_id: row.state for row in await opened.records.all_sessions()}


async def live(path: Path, steps: list[tuple[str, object]]) -> None:
    clock = ManualClock()
    lives = Lives(clock)
    remaining = list(steps)
    while True:
        async with house(path, clock=clock) as opened:
            await opened.sweeper.begin()
            off = await until_off(opened, lives, remaining)
            if off is None:
                await all_end(opened)
                return
        clock.advance(off[0])
        clock.jump(off[1])
        lives.started_again()


async def until_off(opened: House, lives: Lives, steps: list[tuple[str, object]]) -> tuple[float, float] | None:
    while steps:
        what, how = steps.pop(0)
        if what == "use":
            await used(opened, str(how))
            lives.use(str(how))
        else:
            assert isinstance(how, tuple)
            if what == "off":
                return how
            opened.clock.jump(how[1])
            opened.clock.advance(how[0])
            if what == "look":
                await opened.sweep(0)
        lives.check(await states_of(opened))
    return None


async def all_end(opened: House) -> None:
    """A month and a day of a clock that runs well, in which nobody uses anything."""
    for seconds in (60, 60, 30 * DAY, 60):  # the first one may be refused, the second one stamps what was used last
        await opened.sweep(seconds)
    for _ in range(int(DAY // 600) + 1):
        await opened.sweep(600)
    assert await states_of(opened) == {}


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(STEPS)
@example([("pass", (12 * DAY, 0.0)), ("use", "a"), ("look", (60.0, 0.0))])
@example(
    [("look", (60.0, 0.0)), ("off", (DAY, 0.0)), ("use", "a"), *[("look", (how, 0.0)) for how in (60, 700, 6.1 * DAY)]]
)
def test_who_is_used_in_time_is_never_aged_and_nobody_else_lives_for_ever(steps: list[tuple[str, object]]) -> None:
    with tempfile.TemporaryDirectory() as directory:
        asyncio.run(live(Path(directory), steps))
