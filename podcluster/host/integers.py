"""Whole numbers as few bytes.

What        `packed_numbers` and `unpacked_numbers`, an array as runs; `packed_sparse` and `fill_sparse`, one that is
            hardly written to; `packed_sequence` and `unpacked_sequence`, a list or tuple of Python's own.
Runs        Numbers as (difference, how many times): frames one after another, or one kind over many blocks, are one
            run.
Sparse      An array of one entry per frame is read where it was ever written to, which the system knows by pages of 4
            KiB; where the system does not say, all of it is.
"""

from __future__ import annotations

import mmap
from itertools import chain
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt

PAGEMAP: Final = Path("/proc/self/pagemap")
PAGE_BYTES: Final = mmap.PAGESIZE
IN_USE: Final = np.uint64(62)  # bits 62 and 63 of an entry: swapped, present
SMALL_BYTES: Final = 1 << 16  # an array that is read whole

LEAST: Final = -(1 << 63)
MOST: Final = (1 << 63) - 1

ONCE: Final = b"\0"

Int64Array = npt.NDArray[np.int64]
Numbers = tuple[bytes, bytes]
"""Whole numbers: differences, and how many times each (`ONCE`: all once); or the numbers themselves, and nothing."""


def packed_numbers(values: npt.NDArray[Any]) -> Numbers:
    """Whole numbers as runs of equal differences, the first from 0, where there are fewer of them than numbers; else
    their differences or themselves, whichever are the smaller.
    """
    steps = np.diff(values.astype(np.int64), prepend=np.int64(0))
    differs = np.ones(len(steps), bool)
    differs[1:] = steps[1:] != steps[:-1]
    begins = np.flatnonzero(differs)
    if 2 * len(begins) <= len(values):
        return packed_bytes(steps[begins]), packed_bytes(np.diff(begins, append=len(steps)))
    if _size(steps[1:]) < _size(values):
        return packed_bytes(steps), ONCE
    return packed_bytes(values), b""


def unpacked_numbers(numbers: Numbers) -> Int64Array:
    """The numbers again."""
    values = unpacked_bytes(numbers[0])
    if not numbers[1]:
        return values
    if numbers[1] != ONCE:
        values = np.repeat(values, unpacked_bytes(numbers[1]))
    return np.cumsum(values, dtype=np.int64)


def _size(values: npt.NDArray[Any]) -> int:
    """How large they mostly are: a quarter of them may be larger."""
    return int(np.partition(np.abs(values), 3 * len(values) // 4)[3 * len(values) // 4]) if len(values) else 0


def packed_bytes(values: npt.NDArray[Any]) -> bytes:
    """Numbers in as few bytes each as the largest of them takes, all their lowest bytes first, then all the next, for
    these are what is alike; before them how many bytes that is.
    """
    kind: type[np.signedinteger[Any]] = np.int64
    for narrow in (np.int8, np.int16, np.int32):
        if np.array_equal(values.astype(narrow), values):
            kind = narrow
            break
    whole = np.ascontiguousarray(values.astype(kind))
    size = whole.itemsize
    return bytes([size]) + whole.view(np.uint8).reshape(-1, size).T.tobytes()


def unpacked_bytes(content: bytes) -> Int64Array:
    """The numbers again."""
    size = content[0]
    planes = np.frombuffer(content, np.uint8, offset=1).reshape(size, -1)
    return np.ascontiguousarray(planes.T).view(f"<i{size}").reshape(-1).astype(np.int64)


def packed_sparse(array: Int64Array) -> tuple[Numbers, Numbers]:
    """Where an array is not zero, and what is there."""
    found = [np.empty(0, np.int64)]
    for first, end in _written(array):
        found.append(first + np.flatnonzero(array[first:end]))
    at = np.concatenate(found)
    return packed_numbers(at), packed_numbers(array[at])


def fill_sparse(array: Int64Array, kept: tuple[Numbers, Numbers]) -> None:
    """Write into an array of zeroes what was there."""
    array[unpacked_numbers(kept[0])] = unpacked_numbers(kept[1])


def _written(array: Int64Array) -> list[tuple[int, int]]:
    """Stretches of entries outside of which nothing was ever written."""
    per_page = PAGE_BYTES // array.itemsize
    first_page, offset = divmod(array.__array_interface__["data"][0], PAGE_BYTES)
    if array.nbytes < SMALL_BYTES or offset or not PAGEMAP.is_file():
        return [(0, len(array))]
    with PAGEMAP.open("rb", buffering=0) as entries:
        entries.seek(8 * first_page)
        pages = np.frombuffer(entries.read(8 * -(-array.nbytes // PAGE_BYTES)), np.uint64)
    there = np.concatenate(([False], pages >> IN_USE != 0, [False]))
    edges = np.flatnonzero(there[1:] != there[:-1])
    return [(first * per_page, min(end * per_page, len(array))) for first, end in edges.reshape(-1, 2).tolist()]


# -- Python's own numbers ----------------------------------------------------------------------------------------------

LONG: Final = 32  # shorter sequences are as small as they are

Sequence = tuple[str, tuple[Numbers, ...]]
"""A list or a tuple: what it is, and its columns: one of numbers, or two of pairs."""


def packed_sequence(values: Any) -> Sequence | None:
    """A long list or tuple of nothing but whole numbers, or of pairs of them; None of anything else."""
    if len(values) < LONG:
        return None
    kind = type(values[0])
    if kind not in (int, tuple) or set(map(type, values)) != {kind}:
        return None
    width, flat = 1, values
    if kind is tuple:
        width, flat = 2, list(chain.from_iterable(values))
        if set(map(len, values)) != {2} or set(map(type, flat)) != {int}:
            return None
    if not LEAST <= min(flat) <= max(flat) <= MOST:
        return None
    columns = np.array(flat, np.int64).reshape(-1, width).T
    return type(values).__name__, tuple(map(packed_numbers, columns))


def unpacked_sequence(packed: Sequence) -> Any:
    """The same numbers again, in a list or a tuple."""
    kind, columns = packed
    unpacked = [unpacked_numbers(column).tolist() for column in columns]
    values = unpacked[0] if len(unpacked) == 1 else list(zip(*unpacked, strict=True))
    return values if kind == "list" else tuple(values)
