"""How much of a session is saved, and for how long that may take."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class SavingLimits:
    """How much of a session is saved, and for how long that may take. Sizes in bytes, times in seconds."""

    variable: int = 10_000_000
    session: int = 100_000_000
    bound: float = 900.0
    restore_bound: float = 30.0  # for each group of values
    most_bytes: int = 1_000_000_000  # that a sandbox may send for one snapshot, whatever it says of it
