"""How numpy's arrays are taken apart: memory once, with whoever owns it, and every view as a view.

numpy's own pickling copies each view, so that arrays which share memory come back apart, and nothing owns its data.
Here an owner is its memory and its shape, a view is (what owns the memory, shape, strides, offset). Big memory is
not in the pickle: it is read from where it lies when the group is stored.
"""

import array
import sys
from collections import Counter
from typing import TYPE_CHECKING, Any

import numpy as np  # type: ignore[import-not-found,unused-ignore]

from agent import pristine
from agent.snapshot import rebuild_arrays
from agent.snapshot.oddities import RefusedError

if TYPE_CHECKING:
    from agent.snapshot.dump import Dump

__builtins__ = pristine.BUILTINS  # type: ignore[assignment]

Crop = tuple[int, int, int]

BESIDE = 32 * 1024  # bytes from which memory is stored beside the pickle
_WORTH_CROPPING = 64 * 1024  # bytes
_BUFFERS = (bytes, bytearray, array.array)


def reduce_array(dump: "Dump", of: Any) -> Any:  # noqa: PLR0911 - the kinds of arrays, one after the other
    """An owner, a view, or what the type itself makes of it where it has pickling of its own."""
    kind = type(of)
    if not _is_usual(kind) or (of.dtype.hasobject and of.dtype != object):
        return NotImplemented
    if id(of) in dump.private:
        return _owner(dump, of)
    root, foreign = _root_of(of)
    while isinstance(foreign, memoryview):
        foreign = foreign.obj
    if foreign is not None:
        if not isinstance(foreign, _BUFFERS):
            return _on_foreign_memory(dump, of, foreign)
        return _view(of, foreign, np.frombuffer(foreign, np.uint8))
    if root is of:
        return _cropped_owner(dump, of)
    if root.dtype.hasobject != of.dtype.hasobject or np.ndarray.view(root, np.ndarray).nbytes == 0:
        return _owner(dump, of)
    crop = dump.catalog.crops.get(id(root))
    dump.views.append((root, of))
    if crop is not None and crop[2] == 1 and of.flags.c_contiguous:
        return _owner(dump, of)
    return _view(of, root, root, shift=crop[0] if crop else 0)


def reduce_dtype(_dump: "Dump", of: Any) -> Any:
    """The one object that numpy has for a usual type; pickle makes copies of it."""
    return (np.dtype, (of.str,)) if np.dtype(of.str) is of else NotImplemented


def _is_usual(kind: Any) -> bool:
    # Not by `np.ma`, which imports it, 20 ms in each save: a masked array is not without its module.
    masked = getattr(sys.modules.get("numpy.ma"), "MaskedArray", np.ndarray)
    return (
        any(kind.__reduce__ is usual.__reduce__ for usual in (np.ndarray, masked))
        and any(kind.__setstate__ is usual.__setstate__ for usual in (np.ndarray, masked))
        and "__reduce_ex__" not in {name for base in kind.__mro__[:-2] for name in vars(base)}
    )


def _root_of(of: Any) -> tuple[Any, Any]:
    """The array that owns the memory, or None and the object that is no array and does."""
    one = of
    while one.base is not None:
        base = one.base
        if isinstance(base, np.memmap):
            raise RefusedError("an array on a mapped file cannot be saved")
        if type(base).__name__ == "DummyArray":  # of as_strided
            base = base.base
        if not isinstance(base, np.ndarray):
            return None, base
        one = base
    return one, None


def _address(of: Any) -> int:
    return int(of.__array_interface__["data"][0])


def _extent(of: Any, root: Any) -> tuple[int, int]:
    low, high = np.lib.array_utils.byte_bounds(of)
    start = _address(root)
    return int(low) - start, int(high) - start


def _view(of: Any, owner: Any, memory: Any, shift: int = 0) -> Any:
    offset = _address(of) - _address(memory) - shift
    kind, writeable = type(of), bool(of.flags.writeable)
    if of.dtype.hasobject:
        view = (owner, kind, of.shape, of.strides, offset // of.itemsize, writeable)
        return _with_fields(of, rebuild_arrays.object_view, view)
    made = (owner, kind, of.dtype, of.shape, of.strides, offset, writeable)
    return _with_fields(of, rebuild_arrays.view, made)


def _cropped_owner(dump: "Dump", of: Any) -> Any:
    crop = dump.catalog.crops.get(id(of))
    if crop is None:
        return _owner(dump, of)
    memory = rebuild_arrays.memory_of(of)
    if memory is None:
        return _owner(dump, of)
    needed = np.frombuffer(memory[crop[0] : crop[1]], np.uint8)
    data = dump.add_array(memory[crop[0] : crop[1]]) if needed.nbytes >= BESIDE else needed.tobytes()
    made = (np.ndarray, needed.dtype, needed.shape, None, bool(of.flags.writeable), data)
    return rebuild_arrays.owner, made


def _owner(dump: "Dump", of: Any) -> Any:
    """With memory of its own, in the order in which it lies."""
    memory: memoryview | None
    if of.dtype.hasobject:
        return _object_owner(of)
    memory = rebuild_arrays.memory_of(of)
    if memory is None:
        of = np.ndarray.copy(of, order="C") if type(of) is np.ndarray else of.copy()
        memory = rebuild_arrays.memory_of(of)
    if memory is None:
        return NotImplemented
    data = dump.add_array(memory) if memory.nbytes >= BESIDE else memory.tobytes()
    made = (type(of), of.dtype, of.shape, _unusual_strides(of), bool(of.flags.writeable), data)
    return _with_fields(of, rebuild_arrays.owner, made)


def _object_owner(of: Any) -> Any:
    plain = np.ndarray.view(of, np.ndarray)
    made = (type(of), of.shape, _unusual_strides(of) if _is_dense(plain) else None)
    items = plain.ravel(order="K" if made[2] is not None or plain.flags.c_contiguous else "C").tolist()
    return (
        rebuild_arrays.object_array,
        made,
        (items, bool(of.flags.writeable)),
        None,
        None,
        rebuild_arrays.fill_object_array,
    )


def _is_dense(plain: Any) -> bool:
    return _address(plain.ravel(order="K")) == _address(plain)


def _unusual_strides(of: Any) -> tuple[int, ...] | None:
    return None if of.flags.c_contiguous else of.strides


def _with_fields(of: Any, made_by: Any, arguments: tuple[Any, ...]) -> Any:
    fields = getattr(of, "__dict__", None)
    if not fields:
        return made_by, arguments
    from agent.snapshot import rebuild

    return made_by, arguments, dict(fields), None, None, rebuild.set_dict


def _on_foreign_memory(dump: "Dump", of: Any, foreign: Any) -> Any:
    """Memory of a library: a copy, unless others see it change."""
    if type(foreign).__name__ in ("mmap", "SharedMemory", "_TestMemory"):
        raise RefusedError("an array on shared or mapped memory cannot be saved")
    low, high = np.lib.array_utils.byte_bounds(of)
    dump.foreign.append((int(low), int(high), of, foreign))
    return _owner(dump, of)


def crops_of(views: list[tuple[Any, Any]], held: set[int]) -> dict[int, Crop]:
    """Of arrays that only views hold, and mostly not: the range of bytes that these views see.

    `held` are the ids of arrays that something else refers to as well. The third number is how many views there are.
    """
    extents: dict[int, tuple[int, int]] = {}
    roots = {id(root): root for root, _ in views}
    for root, view in views:
        low, high = _extent(view, root)
        before = extents.get(id(root), (low, high))
        extents[id(root)] = min(low, before[0]), max(high, before[1])
    seen = Counter(key for key, _ in {(id(root), id(view)) for root, view in views})
    return {
        key: (low, high, seen[key])
        for key, (low, high) in extents.items()
        if key not in held
        and not roots[key].dtype.hasobject
        and roots[key].nbytes >= _WORTH_CROPPING
        and (high - low) * 2 < roots[key].nbytes
    }


def reduce_block(dump: "Dump", of: Any) -> Any:
    """A block of a pandas frame, with memory of its own.

    pandas copies on write, by counts that are in no pickle: two frames that came back on one memory would both change.
    """
    from pandas._libs import internals  # type: ignore[import-untyped,unused-ignore]

    values = of.values  # noqa: PD011 - of a block, not of a frame
    if isinstance(values, np.ndarray):
        values = values.view()
        dump.private[id(values)] = values
    elif of.refs.has_reference():
        values = values.copy()
        dump.private[id(values)] = values
    return internals._unpickle_block, (values, of.mgr_locs.indexer, of.ndim)  # noqa: SLF001


def reduce_series_manager(_dump: "Dump", of: Any) -> Any:
    """What is inside a series, as its block: its own pickling writes the block's values, past `reduce_block`."""
    return rebuild_arrays.series_manager, (of.blocks[0], of.axes[0])
