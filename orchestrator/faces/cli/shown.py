"""Values for people: sizes, times, names of strangers. JSON has them exact instead. Pure."""

from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Any, Final

_UNITS: Final = ("B", "KiB", "MiB", "GiB", "TiB", "PiB")
_STEP: Final = 1024
_AGES: Final = ((86_400, "d"), (3_600, "h"), (60, "m"))  # seconds
NONE: Final = "-"
Shown = Callable[[Any], str]


def plain(value: object) -> str:
    """A value in one line; what could steer a terminal is escaped."""
    if value is None:
        return NONE
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:.15g}"
    if isinstance(value, Mapping):
        return " ".join(f"{plain(name)}={'none' if one is None else plain(one)}" for name, one in value.items()) or NONE
    if isinstance(value, list | tuple):
        return ",".join(map(plain, value)) or NONE
    return "".join(sign if sign.isprintable() else _escaped(sign) for sign in str(value))


def _escaped(sign: str) -> str:
    return sign.encode("unicode_escape", "surrogatepass").decode()


def size(value: float | None) -> str:
    """Bytes, such as `1.5 MiB`."""
    if value is None:
        return NONE
    number, unit = float(value), 0
    while abs(number) >= _STEP and unit + 1 < len(_UNITS):
        number, unit = number / _STEP, unit + 1
    return f"{number:.0f} {_UNITS[unit]}" if unit == 0 or number >= 100 else f"{number:.1f} {_UNITS[unit]}"  # noqa: PLR2004


def seconds(value: float | None) -> str:
    """A time span, such as `3m 20s`."""
    if value is None:
        return NONE
    if value < 1:
        return f"{value * 1000:.0f} ms"
    left, parts = round(value), []
    for span, unit in _AGES:
        if left >= span:
            parts.append(f"{left // span}{unit}")
            left %= span
    if left or not parts:
        parts.append(f"{left}s")
    return " ".join(parts[:2])


def ago(now: datetime) -> Shown:
    """How long before `now` a moment in ISO 8601 was, or how long after."""

    def show(value: str | None) -> str:
        if value is None:
            return NONE
        span = (now - datetime.fromisoformat(value)).total_seconds()
        return f"{seconds(span)} ago" if span >= 0 else f"in {seconds(-span)}"

    return show


def moment(value: str | None) -> str:
    """A moment in ISO 8601, to the second and in UTC."""
    return NONE if value is None else f"{datetime.fromisoformat(value).astimezone(UTC):%Y-%m-%d %H:%M:%SZ}"
