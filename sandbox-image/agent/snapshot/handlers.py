"""Which handler takes an object of a type apart; decided once for each type that a snapshot meets."""

import collections
import enum
import sys
from types import BuiltinFunctionType, CellType, CodeType, FunctionType, MethodType, ModuleType
from typing import TYPE_CHECKING, Any

from agent import pristine
from agent.snapshot import classes, functions, instances, oddities, rebuild
from agent.snapshot.catalog import Catalog, Handler, module_of, mro_of, name_of

if TYPE_CHECKING:
    from agent.snapshot.dump import Dump

__builtins__ = pristine.BUILTINS  # type: ignore[assignment]


def _not_plain(handler: Handler) -> Handler:
    def reduce(dump: "Dump", of: Any) -> Any:
        dump.plain = False
        return handler(dump, of)

    return reduce


_EXACT: dict[type, Handler] = {
    FunctionType: functions.reduce_function,
    CellType: functions.reduce_cell,
    CodeType: functions.reduce_code,
    MethodType: functions.reduce_method,
    BuiltinFunctionType: functions.reduce_builtin_method,
    functions.CACHED: functions.reduce_cached,
    classes.Call: classes.reduce_call,
    collections.Counter: instances.reduce_counter,
    **oddities.EXACT,
    **dict.fromkeys(oddities.lock_types(), oddities.reduce_lock),
}
_FAMILIES: tuple[tuple[type, Handler], ...] = (
    (type, classes.reduce_class),
    (ModuleType, functions.reduce_module),
    (enum.Enum, classes.reduce_enum_member),
    (property, oddities.reduce_property),
    (BaseException, oddities.reduce_exception),
    (oddities.C_DATA, _not_plain(oddities.reduce_c_data)),
)
# Types of the standard library whose instances surely load again.
_PLAIN_MODULES = frozenset({"builtins", "collections", "datetime", "decimal", "fractions", "uuid", "numpy"})


def handler_for(kind: type, catalog: Catalog) -> Handler:
    """The handler of a type."""
    handler = _find(kind, catalog)
    return _or_live(handler) if kind in catalog.live_types else handler


def _find(kind: type, catalog: Catalog) -> Handler:
    exact = _EXACT.get(kind)
    if exact is not None:
        return exact
    reason = oddities.refusal_of(kind)
    if reason is not None:
        return _refusing(reason)
    for family, handler in _FAMILIES:
        if family in mro_of(kind):
            return handler
    return _of_libraries(kind) or _of_instances(kind, catalog)


def _of_libraries(kind: type) -> Handler | None:
    names = {(str(module_of(base)), name_of(base)) for base in mro_of(kind)}
    if "numpy" in sys.modules and ("numpy", "ndarray") in names:
        from agent.snapshot import arrays

        return arrays.reduce_array
    if ("numpy", "dtype") in names:
        from agent.snapshot import arrays

        return arrays.reduce_dtype
    if ("pandas._libs.internals", "Block") in names:
        from agent.snapshot import arrays

        return arrays.reduce_block
    if ("pandas.core.internals.managers", "SingleBlockManager") in names:
        from agent.snapshot import arrays

        return arrays.reduce_series_manager
    return None


def _of_instances(kind: type, catalog: Catalog) -> Handler:
    handler = instances.handler_of(kind, catalog)
    if handler is not None:
        return _not_plain(handler)
    if str(module_of(kind)) in _PLAIN_MODULES:
        return _as_pickle_does
    return _not_plain(_as_pickle_does)


def _as_pickle_does(_dump: "Dump", _of: Any) -> Any:
    return NotImplemented


def _refusing(reason: str) -> Handler:
    def reduce(_dump: "Dump", _of: Any) -> Any:
        raise oddities.RefusedError(reason)

    return reduce


def _or_live(handler: Handler) -> Handler:
    def reduce(dump: "Dump", of: Any) -> Any:
        found = dump.catalog.live.get(id(of))
        return handler(dump, of) if found is None else (rebuild.attribute, found[1])

    return reduce
