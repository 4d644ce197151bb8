"""State that libraries keep for the whole process: contexts, options, levels. Only libraries that are loaded count."""

import sys
from collections.abc import Callable
from functools import partial
from typing import Any

from agent import pristine

__builtins__ = pristine.BUILTINS  # type: ignore[assignment]


def takers() -> dict[str, Callable[[], dict[str, Any]]]:
    """By module, what gives the parts that differ from what an import gives, by key."""
    return {module: partial(taker, sys.modules[module]) for module, taker in _TAKE.items() if module in sys.modules}


def _decimal(decimal: Any) -> dict[str, Any]:
    context = decimal.getcontext()
    usual = decimal.DefaultContext
    fields = ("prec", "rounding", "Emin", "Emax", "capitals", "clamp", "traps", "flags")
    changed = [name for name in fields if getattr(context, name) != getattr(usual, name)]
    return {"decimal context": context.copy()} if changed else {}


def _logging(logging: Any) -> dict[str, Any]:
    levels = {
        name: logger.level
        for name, logger in logging.root.manager.loggerDict.items()
        if isinstance(logger, logging.Logger) and logger.level != logging.NOTSET
    }
    if logging.root.level != logging.WARNING:
        levels[""] = logging.root.level
    return {"logging levels": (levels, logging.root.manager.disable)} if levels or logging.root.manager.disable else {}


def _numpy_random(random: Any) -> dict[str, Any]:
    return {"numpy random": random.get_state(legacy=False)}


def _numpy(numpy: Any) -> dict[str, Any]:
    parts: dict[str, Any] = {}
    options = numpy.get_printoptions()
    if {name: options.get(name) for name in _NUMPY_USUAL} != _NUMPY_USUAL:
        parts["numpy print options"] = options
    if numpy.geterr() != {"divide": "warn", "over": "warn", "under": "ignore", "invalid": "warn"}:
        parts["numpy errors"] = numpy.geterr()
    return parts


_NUMPY_USUAL = {"edgeitems": 3, "threshold": 1000, "precision": 8, "linewidth": 75, "suppress": False,
                "nanstr": "nan", "infstr": "inf", "sign": "-", "formatter": None, "floatmode": "maxprec"}  # fmt: skip


def _pandas(pandas: Any) -> dict[str, Any]:
    from pandas._config import config  # type: ignore[import-untyped,unused-ignore]

    changed = {}
    for key, option in config._registered_options.items():  # noqa: SLF001 - no other way
        if key in config._deprecated_options:  # noqa: SLF001 - asking for one warns
            continue
        value = pandas.get_option(key)
        if value is not option.defval and value != option.defval:
            changed[key] = value
    return {"pandas options": changed} if changed else {}


def _matplotlib(matplotlib: Any) -> dict[str, Any]:
    # Read as the dict that it is: asking for the backend would choose one.
    usual = dict.copy(matplotlib.rcParamsDefault)
    changed = {
        name: value
        for name, value in dict.items(matplotlib.rcParams)
        if name not in ("backend", "backend_fallback") and not _same(value, usual.get(name))
    }
    return {"matplotlib settings": changed} if changed else {}


def _same(one: Any, other: Any) -> bool:
    try:
        return bool(one == other)
    except Exception:
        return False


_TAKE: dict[str, Callable[[Any], dict[str, Any]]] = {
    "decimal": _decimal,
    "logging": _logging,
    "numpy.random": _numpy_random,
    "numpy": _numpy,
    "pandas": _pandas,
    "matplotlib": _matplotlib,
}


def _set_decimal(value: Any, _rest: str) -> None:
    import decimal

    decimal.setcontext(value)


def _set_logging(value: Any, _rest: str) -> None:
    import logging

    levels, disabled = value
    for name, level in levels.items():
        logging.getLogger(name).setLevel(level)
    logging.disable(disabled)


def _set_numpy_random(value: Any, _rest: str) -> None:
    import numpy as np  # type: ignore[import-not-found,unused-ignore]

    np.random.set_state(value)  # noqa: NPY002 - the session's global generator is what is restored


def _set_numpy_print(value: Any, _rest: str) -> None:
    import numpy as np  # type: ignore[import-not-found,unused-ignore]

    np.set_printoptions(**value)


def _set_numpy_errors(value: Any, _rest: str) -> None:
    import numpy as np  # type: ignore[import-not-found,unused-ignore]

    np.seterr(**value)


def _set_pandas(value: Any, _rest: str) -> None:
    import pandas as pd  # type: ignore[import-untyped,unused-ignore]

    for name, option in value.items():
        pd.set_option(name, option)


def _set_matplotlib(value: Any, _rest: str) -> None:
    import matplotlib as mpl  # type: ignore[import-not-found,unused-ignore]

    for name, setting in value.items():
        mpl.rcParams[name] = setting


APPLY: dict[str, Callable[[Any, str], None]] = {
    "decimal context": _set_decimal,
    "logging levels": _set_logging,
    "numpy random": _set_numpy_random,
    "numpy print options": _set_numpy_print,
    "numpy errors": _set_numpy_errors,
    "pandas options": _set_pandas,
    "matplotlib settings": _set_matplotlib,
}
