"""The arrays of a machine as few bytes, and back.

What        `packed_host` and `packed_domain` say to pickle what of `HostState` and `DomainState` there is to keep: only
            what is in use of arrays that are laid out for the worst case, and as runs what is regular. Addresses are
            made anew.
Units       As in state.py.
Runs        Numbers as (difference, how many times): frames one after another, or one kind over many blocks, are one
            run.
Sparse      An array of one entry per frame is read where it was ever written to, which the system knows by pages of 4
            KiB; where the system does not say, all of it is.
Departs     Rows of machine blocks that are free altogether or not at all hold nothing of meaning (heap.py) and are left
            out.
"""

from __future__ import annotations

import mmap
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from podcluster.host.heap import HEAP_ALL
from podcluster.host.layout import Arrays
from podcluster.host.state import DomainState, HostState, new_domain_state, sparse_zeros
from podcluster.records import Int64Array

PAGEMAP: Final = Path("/proc/self/pagemap")
PAGE_BYTES: Final = mmap.PAGESIZE
IN_USE: Final = np.uint64(62)  # bits 62 and 63 of an entry: swapped, present

POOLS: Final = {"row": "row_top", "detail": "detail_top", "chunk": "chunk_top"}
"""Arrays that are handed out from the front, and the field that says how far."""
SPARSE: Final = ("attr", "page_words", "words")
REGULAR: Final = ("heap_bits", "heap_masks")

Numbers = tuple[bytes, bytes]
"""Whole numbers as runs: differences, and how many times each."""
Reduced = tuple[Callable[..., Any], tuple[Any, ...]]


def packed_host(h: HostState) -> Reduced:
    """How to make the arrays of a host again."""
    r = h.rec[0]
    kept: dict[str, Any] = {
        name: numbers(getattr(h, name).view(np.int64 if name == "heap_bits" else np.int32)) for name in REGULAR
    }
    kept |= {name: getattr(h, name)[: int(r[top])].tobytes() for name, top in POOLS.items()}
    kept |= {name: _sparse(getattr(h, name).reshape(-1)) for name in SPARSE}
    kept["heap_rows"] = h.heap_rows[_partly_free(h.heap_masks)].tobytes()
    return _host_state, (h.rec.tobytes(), _lengths(h), kept)


def _host_state(rec: bytes, lengths: dict[str, int], kept: dict[str, Any]) -> HostState:
    arrays = {field.name: sparse_zeros((lengths[field.name], *field.entry), field.dtype) for field in HostState.FIELDS}
    arrays["rec"][:] = np.frombuffer(rec, arrays["rec"].dtype)
    for name in REGULAR:
        arrays[name].view(np.int64 if name == "heap_bits" else np.int32)[:] = from_numbers(kept[name])
    for name in POOLS:
        _fill(arrays[name], kept[name])
    for name in SPARSE:
        at, values = kept[name]
        arrays[name].reshape(-1)[from_numbers(at)] = from_numbers(values)
    partly = _partly_free(arrays["heap_masks"])
    arrays["heap_rows"][partly] = np.frombuffer(kept["heap_rows"], np.uint64).reshape(-1, 8)
    return HostState(**arrays)


def packed_domain(g: DomainState) -> Reduced:
    """How to make the arrays of a domain again."""
    blk = [numbers(column) for column in g.blk.T]
    small = [array.tobytes() for array in (g.rec, g.lists, g.grants)]
    return _domain_state, (_lengths(g), blk, numbers(g.gib), numbers(g.ring), *small)


def _domain_state(
    lengths: dict[str, int], blk: list[Numbers], gib: Numbers, ring: Numbers, rec: bytes, lists: bytes, grants: bytes
) -> DomainState:
    state = new_domain_state(lengths["blk"], lengths["ring"])
    for k, column in enumerate(blk):
        values = from_numbers(column)
        state.blk[: len(values), k] = values
    state.ring[:] = from_numbers(ring)
    state.rec[:] = np.frombuffer(rec, state.rec.dtype)
    state.lists.reshape(-1)[:] = np.frombuffer(lists, np.int64)
    gibs, granted = from_numbers(gib).astype(np.int32), np.frombuffer(grants, np.int64).copy()
    return state.replace(gib=gibs, grants=granted)


def _lengths(arrays: Arrays) -> dict[str, int]:
    return {field.name: len(getattr(arrays, field.name)) for field in arrays.FIELDS}


def _partly_free(masks: npt.NDArray[np.int32]) -> Int64Array:
    """Machine blocks of which some frames are free and some not."""
    return np.flatnonzero((masks != 0) & (masks != HEAP_ALL))


def _fill(array: npt.NDArray[Any], content: bytes) -> None:
    """Put bytes at the beginning of an array."""
    values = np.frombuffer(content, array.dtype)
    array.reshape(-1)[: len(values)] = values


# -- numbers -----------------------------------------------------------------------------------------------------------


def numbers(values: npt.NDArray[Any]) -> Numbers:
    """Whole numbers as runs of equal differences, the first from 0."""
    steps = np.diff(values.astype(np.int64), prepend=np.int64(0))
    differs = np.ones(len(steps), bool)
    differs[1:] = steps[1:] != steps[:-1]
    begins = np.flatnonzero(differs)
    return _short(steps[begins]), _short(np.diff(begins, append=len(steps)))


def from_numbers(runs: Numbers) -> Int64Array:
    """The numbers again."""
    steps, counts = (_long(part) for part in runs)
    return np.cumsum(np.repeat(steps, counts), dtype=np.int64)


def _short(values: npt.NDArray[Any]) -> bytes:
    """Numbers in as few bytes each as the largest of them takes; the first byte says how many."""
    for kind in (np.int8, np.int16, np.int32):
        narrow = values.astype(kind)
        if np.array_equal(narrow, values):
            return bytes([narrow.itemsize]) + narrow.tobytes()
    return bytes([8]) + values.astype(np.int64).tobytes()


def _long(content: bytes) -> npt.NDArray[Any]:
    return np.frombuffer(content, f"<i{content[0]}", offset=1).astype(np.int64)


# -- sparse arrays -----------------------------------------------------------------------------------------------------


def _sparse(array: npt.NDArray[np.int64]) -> tuple[Numbers, Numbers]:
    """Where an array is not zero, and what is there."""
    found = [np.empty(0, np.int64)]
    for first, end in _written(array):
        found.append(first + np.flatnonzero(array[first:end]))
    at = np.concatenate(found)
    return numbers(at), numbers(array[at])


def _written(array: npt.NDArray[np.int64]) -> list[tuple[int, int]]:
    """Stretches of entries outside of which nothing was ever written."""
    per_page = PAGE_BYTES // array.itemsize
    first_page, offset = divmod(array.__array_interface__["data"][0], PAGE_BYTES)
    if array.nbytes < 1 << 16 or offset or not PAGEMAP.is_file():
        return [(0, len(array))]
    with PAGEMAP.open("rb", buffering=0) as entries:
        entries.seek(8 * first_page)
        pages = np.frombuffer(entries.read(8 * -(-array.nbytes // PAGE_BYTES)), np.uint64)
    there = np.concatenate(([False], pages >> IN_USE != 0, [False]))
    edges = np.flatnonzero(there[1:] != there[:-1])
    return [(first * per_page, min(end * per_page, len(array))) for first, end in edges.reshape(-1, 2).tolist()]
