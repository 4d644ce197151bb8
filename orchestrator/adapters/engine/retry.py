"""When a call that failed is made again: one policy for each kind of call."""

from collections.abc import Callable
from typing import TypeVar

from tenacity import Retrying, retry_if_exception_type, stop_after_attempt, stop_after_delay, wait_random_exponential

T = TypeVar("T")


def repeat(function: Callable[[], T], *, on: tuple[type[Exception], ...], attempts: int, within_seconds: float) -> T:
    """Call until it does not raise one of `on`, with growing, random pauses; the last failure is raised as it is."""
    policy = Retrying(
        stop=stop_after_attempt(attempts) | stop_after_delay(within_seconds),
        wait=wait_random_exponential(multiplier=0.05, max=1.0),
        retry=retry_if_exception_type(on),
        reraise=True,
    )
    return policy(function)
