"""What saved bytes call to make arrays again. Names and arguments are part of the format: add, never change."""

import warnings
from typing import Any

import numpy as np  # type: ignore[import-not-found,unused-ignore]

from agent import pristine
from agent.snapshot import rebuild

__builtins__ = pristine.BUILTINS  # type: ignore[assignment]

Shape = tuple[int, ...]


def memory_of(array: Any) -> memoryview | None:
    """The array's memory as bytes, in the order in which it lies there; None where it has gaps."""
    if array.nbytes == 0:
        return memoryview(b"")
    plain = np.ndarray.view(array, np.ndarray)
    flat = plain.ravel(order="K")
    if flat.__array_interface__["data"][0] != plain.__array_interface__["data"][0]:
        return None
    return memoryview(flat.view(np.uint8))


def owner(kind: type, dtype: Any, shape: Shape, strides: Shape | None, writeable: bool, data: bytes | int) -> Any:  # noqa: FBT001, PLR0917 - the format has positions only
    """An array that owns its memory; `data` is the memory, or the index of the one that was stored beside."""
    made = np.ndarray.__new__(kind, shape, dtype, strides=strides)
    target = memory_of(made)
    if target is None:
        raise ValueError("an array's strides leave gaps")
    if isinstance(data, int):
        rebuild.current.read_array(data, target)
    elif data:
        target[:] = data
    if not writeable:
        rebuild.current.at_end(lambda: _protect(made))
    return made


def view(base: Any, kind: type, dtype: Any, shape: Shape, strides: Shape, offset: int, writeable: bool) -> Any:  # noqa: FBT001, PLR0917 - the format has positions only
    """An array in memory that something else owns."""
    if isinstance(base, np.ndarray) and (base.dtype, base.shape, base.strides, 0) == (dtype, shape, strides, offset):
        made = np.ndarray.view(base, kind)  # as all of it under another class: nothing stands between the two
    else:
        source = _flat(base).view(np.uint8) if isinstance(base, np.ndarray) else base
        made = np.ndarray.__new__(kind, shape, dtype, source, offset, strides)
    if not writeable:
        rebuild.current.at_end(lambda: _protect(made))
    return made


def object_array(kind: type, shape: Shape, strides: Shape | None) -> Any:
    """One of Python objects, not filled yet."""
    return np.ndarray.__new__(kind, shape, object, strides=strides)


def fill_object_array(made: Any, state: tuple[list[Any], bool]) -> None:
    """Its objects, in the order of its memory."""
    flat = _flat(made)
    for position, item in enumerate(state[0]):
        flat[position] = item
    if not state[1]:
        _protect(made)


def object_view(base: Any, kind: type, shape: Shape, strides: Shape, offset: int, writeable: bool) -> Any:  # noqa: FBT001, PLR0917 - the format has positions only
    """A view of objects; `offset` in items. A buffer of objects can not be handed over, so it is bent into shape."""
    made = _flat(base)[offset:]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        if len(shape) != 1 or made.shape != shape or made.strides != strides:
            made = np.lib.stride_tricks.as_strided(made, shape, strides)
    made = made if kind is np.ndarray else np.ndarray.view(made, kind)
    if not writeable:
        rebuild.current.at_end(lambda: _protect(made))
    return made


def _flat(array: Any) -> Any:
    return np.ndarray.view(array, np.ndarray).ravel(order="K")


def _protect(array: Any) -> None:
    array.flags.writeable = False


def series_manager(block: Any, axis: Any) -> Any:
    """What is inside a series."""
    from pandas.core.internals.managers import SingleBlockManager  # type: ignore[import-untyped,unused-ignore]

    return SingleBlockManager(block, axis)
