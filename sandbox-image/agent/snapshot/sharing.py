"""Which variables have to be stored together, and in which order groups load."""

import enum
import types
from collections.abc import Callable, Hashable, Iterable, Sequence
from typing import Any, TypeVar

from agent import pristine
from agent.snapshot.catalog import Catalog, module_of, mro_of, name_of

__builtins__ = pristine.BUILTINS  # type: ignore[assignment]

Key = TypeVar("Key", bound=Hashable)

# Two variables may share these and be apart all the same: they can't be changed, or are found again by name. Tuples
# and frozensets are here because their mutable content connects by itself.
_NOT_COUNTED = (
    int, float, complex, str, bytes, bool, type(None), type(...), type(NotImplemented), tuple, frozenset, range,
    type, types.FunctionType, types.BuiltinFunctionType, types.CodeType, types.ModuleType, types.GenericAlias,
    types.UnionType, types.MethodDescriptorType, types.WrapperDescriptorType,
)  # fmt: skip
# Interned by their own modules, by class name: sharing one says nothing.
_NOT_COUNTED_NAMES = frozenset(
    {
        ("numpy", "dtype"),
        ("datetime", "timezone"),
        ("zoneinfo", "ZoneInfo"),
        ("re", "Pattern"),
        ("typing", "_GenericAlias"),
        ("typing", "_BaseGenericAlias"),
        ("typing", "_SpecialForm"),
        ("decimal", "Decimal"),
    }
)


class Counting:
    """Picks the objects whose sharing matters out of what a pickler has visited."""

    def __init__(self, catalog: Catalog, uncounted: Iterable[int]) -> None:
        self._types: dict[type, bool] = {}
        self._uncounted = {*uncounted, *catalog.live}

    def counted(self, visited: Sequence[Any]) -> set[int]:
        """Their ids; the caller keeps the objects alive."""
        types_ = self._types
        for kind in set(map(type, visited)) - types_.keys():
            types_[kind] = _counts(kind)
        return {id(one) for one in visited if types_[type(one)]} - self._uncounted


def _counts(kind: type) -> bool:
    if kind in _NOT_COUNTED:
        return False
    bases = mro_of(kind)
    if type in bases or enum.Enum in bases or types.ModuleType in bases:
        return False
    return not any((str(module_of(base)), name_of(base)) in _NOT_COUNTED_NAMES for base in bases)


class Union:
    """Sets of things that belong together (union-find)."""

    def __init__(self, count: int) -> None:
        self._parents = list(range(count))

    def find(self, of: int) -> int:
        """The set's representative: its lowest member."""
        parents = self._parents
        while parents[of] != of:
            parents[of] = parents[parents[of]]
            of = parents[of]
        return of

    def join(self, one: int, other: int) -> None:
        """They belong together."""
        low, high = sorted((self.find(one), self.find(other)))
        self._parents[high] = low

    def join_sharing(self, reached: Sequence[set[int]]) -> None:
        """Those that reach a common object. The largest set is only looked up, so it costs no memory."""
        owners: dict[int, int] = {}
        order = sorted(range(len(reached)), key=lambda index: len(reached[index]))
        for index in order[:-1]:
            for identity in reached[index]:
                owner = owners.setdefault(identity, index)
                if owner != index:
                    self.join(owner, index)
        for index in order[-1:]:
            for owner in {owners[identity] for identity in reached[index] & owners.keys()}:
                self.join(owner, index)


def in_loading_order(things: Iterable[Key], needs: Callable[[Key], Iterable[Key]]) -> list[list[Key]]:
    """Strongly connected sets, each after those that it needs (Tarjan's algorithm, without recursion)."""
    index: dict[Key, int] = {}
    low: dict[Key, int] = {}
    open_: list[Key] = []
    inside: set[Key] = set()
    order: list[list[Key]] = []
    for start in things:
        if start in index:
            continue
        index[start] = low[start] = len(index)
        open_.append(start)
        inside.add(start)
        path = [(start, iter(needs(start)))]
        while path:
            thing, following = path[-1]
            step = next(following, None)
            if step is not None:
                if step not in index:
                    index[step] = low[step] = len(index)
                    open_.append(step)
                    inside.add(step)
                    path.append((step, iter(needs(step))))
                elif step in inside:
                    low[thing] = min(low[thing], index[step])
                continue
            path.pop()
            if path:
                low[path[-1][0]] = min(low[path[-1][0]], low[thing])
            if low[thing] == index[thing]:
                position = open_.index(thing) if thing != open_[-1] else len(open_) - 1
                connected = open_[position:]
                del open_[position:]
                inside.difference_update(connected)
                order.append(connected)
    return order
