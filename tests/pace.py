"""How much time tests leave for what a processor has to do; more where it is emulated (`tests/matrix/patience.py`).

For bounds on work, and for what user code is given before it is stopped. Not for sleeps, which take as long everywhere.
"""

TIMES = 1.0


def paced(seconds: float) -> float:
    """So many seconds of this machine's, on one as fast as ours."""
    return seconds * TIMES
