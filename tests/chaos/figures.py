"""What a run prints: its figures, and the histories of sessions in which something was wrong."""

from collections import Counter
from collections.abc import Iterator, Sequence
from statistics import median, quantiles

from tests.chaos.driver import BREACH, Driver, Tally
from tests.chaos.faults import FAULTS, Need
from tests.chaos.injector import Injected

_BEFORE, _AFTER = 60, 10  # lines of a history, of the first thing that was wrong
_MILLISECONDS = 1000


def figures(
    drivers: Sequence[Driver], tally: Tally, faults: Sequence[Injected], can: set[Need], left: Sequence[str]
) -> Iterator[str]:
    """A line each."""
    hit = Counter(fault.fault for fault in faults if fault.target is not None)
    yield f"faults injected: {sum(hit.values())}"
    for fault in FAULTS:
        told = f"{hit[fault.name]}" if fault.needs in can else f"not run: it needs {fault.needs}"
        yield f"  {fault.name:<20} {told}"
    executions = sum(step.execution is not None for driver in drivers for step in driver.model.steps.values())
    yield f"calls: {sum(tally.outcomes.values())}, of which executions in {len(drivers)} sessions: {executions}"
    for outcome, count in tally.outcomes.most_common():
        yield f"  {outcome:<40} {count}"
    yield f"lost and told: {sum(driver.model.lost for driver in drivers)}"
    yield f"lost and told in an answer whose connection was cut: {sum(driver.model.unheard for driver in drivers)}"
    yield f"answers of plain steps: {_latencies(tally.latencies)}; the longest of any step {tally.longest:.1f} s"
    yield f"leaked: {len(left)}"


def _latencies(seconds: Sequence[float]) -> str:
    if len(seconds) < 2:
        return "too few"
    tenths = quantiles(seconds, n=100)
    return f"median {median(seconds) * _MILLISECONDS:.0f} ms, 90 % {tenths[89]:.1f} s, 99 % {tenths[98]:.1f} s"


def history(driver: Driver, faults: Sequence[Injected], began: float) -> Iterator[str]:
    """What led to the first breach in a session, and the faults between the lines, in their order."""
    wrong = next(place for place, (_, line) in enumerate(driver.history) if line.startswith(BREACH))
    lines = driver.history[max(0, wrong - _BEFORE) : wrong + _AFTER]
    first, last = lines[0][0], lines[-1][0]
    told = [
        (one.began, f"FAULT: {one.fault}: {one.target or 'nothing to hit'}")
        for one in faults
        if one.ended > first and one.began < last
    ]
    yield f"history of {driver.name}, in seconds since the begin:"
    yield from (f"  {at - began:7.2f}  {line}" for at, line in sorted([*lines, *told]))
