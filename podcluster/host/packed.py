"""The arrays of a machine as few bytes, and back.

What        `packed_arrays` and `unpacked_arrays`: of `HostState` and the `DomainState` of every domain, what means
            something.
Units       As in state.py.
Form        What is handed out of the pools of a host (bit rows, frame lists, chunks of segments) is found through the
            domains that have it, and handed out anew: which row or chunk it was says nothing. A row that is all zero or
            all one is a shared one again, equal rows are kept once, and segments of a list follow each other. The rest
            is runs of numbers.
Left out    Whatever nothing reads before it is written: rows of machine blocks that are free altogether or not at all
            (heap.py), frames that a list names for pages that are not RAM, the base of a block without RAM or with a
            list, a sweep's scratch.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from podcluster.host.heap import ALL, HEAP_ALL
from podcluster.host.integers import (
    Int64Array,
    Numbers,
    fill_sparse,
    packed_numbers,
    packed_sparse,
    unpacked_numbers,
)
from podcluster.host.layout import Arrays
from podcluster.host.state import (
    ANY,
    BASE,
    BLOCK_FIELDS,
    BLOCK_PAGES,
    CHUNK_NEXT,
    CHUNK_SEGMENTS,
    DETAIL,
    DOWN,
    HEAD,
    KIND,
    L_HEAD,
    L_HEAD_AT,
    L_LENGTH,
    L_TAIL,
    L_TAIL_AT,
    LISTS,
    ODD,
    ONES,
    PATTERNED,
    POD,
    POD_ROW,
    RAM,
    RAM_ROW,
    UP,
    ZEROS,
    DomainState,
    HostState,
    new_domain_state,
    sparse_zeros,
)

ROW_FIELDS: Final = (RAM_ROW, POD_ROW, HEAD, ANY, ODD, PATTERNED)
SPARSE: Final = ("attr", "page_words", "words")

Row = npt.NDArray[np.uint64]
Handles = dict[int, Int64Array]
"""By field of `ROW_FIELDS`, of every block: ZEROS, ONES, or a row from 2 on."""
Packed = dict[str, Any]


def packed_arrays(h: HostState, domains: Mapping[int, DomainState]) -> Packed:
    """All that means something, as bytes and numbers."""
    blk = _joined([g.blk for g in domains.values()], (0, BLOCK_FIELDS))
    rows, handles = _distinct_rows(h, blk)
    lists = [_segments(h, g, which) for g in domains.values() for which in range(LISTS)]
    segments = _joined(lists, (0, 2))
    partly = _partly_free(h.heap_masks)
    listed = np.flatnonzero(blk[:, DETAIL] > UP)
    ram = _bits(h.row[blk[listed, RAM_ROW]])
    return {
        "host": h.rec.tobytes(),
        "lengths": _lengths(h),
        "heap_bits": packed_numbers(h.heap_bits.view(np.int64)),
        "heap_masks": packed_numbers(h.heap_masks),
        "heap_rows": h.heap_rows[partly].tobytes(),
        **{name: packed_sparse(getattr(h, name).reshape(-1)) for name in SPARSE},
        "domains": {dom: _packed_domain(g) for dom, g in domains.items()},
        "kinds": packed_numbers(blk[:, KIND]),
        "bases": packed_numbers(blk[_with_base(handles[RAM_ROW], blk[:, DETAIL]), BASE]),
        "rows": rows.tobytes(),
        "handles": [packed_numbers(column) for column in _unlike(handles, blk[:, KIND])],
        "down": packed_numbers(np.flatnonzero(blk[:, DETAIL] == DOWN)),
        "listed": packed_numbers(listed),
        "frames": packed_numbers(h.detail[blk[listed, DETAIL]][ram]),
        "segments": [packed_numbers(column) for column in segments.T],
        "segments_of": packed_numbers(np.array([len(part) for part in lists], np.int64)),
    }


def unpacked_arrays(packed: Packed) -> tuple[HostState, dict[int, DomainState]]:
    """The arrays again."""
    h = _host_state(packed)
    domains = {dom: _unpacked_domain(*kept) for dom, kept in packed["domains"].items()}
    blk = _unpacked_blocks(h, packed)
    segments = np.stack([unpacked_numbers(column) for column in packed["segments"]], axis=1).astype(np.int32)
    counts = iter(unpacked_numbers(packed["segments_of"]).tolist())
    first = at = 0
    for g in domains.values():
        g.blk[:] = blk[first : first + len(g.blk)]
        first += len(g.blk)
        for which in range(LISTS):
            count = next(counts)
            _lay_segments(h, g, which, segments[at : at + count])
            at += count
    return h, domains


def _lengths(arrays: Arrays) -> dict[str, int]:
    return {field.name: len(getattr(arrays, field.name)) for field in arrays.FIELDS}


def _joined(parts: list[npt.NDArray[Any]], empty: tuple[int, int]) -> npt.NDArray[Any]:
    """Arrays one after another, or none."""
    return np.concatenate(parts) if parts else np.zeros(empty, np.int32)


# -- the host itself ---------------------------------------------------------------------------------------------------


def _host_state(packed: Packed) -> HostState:
    """The host without what its domains have of the pools."""
    arrays = {
        field.name: sparse_zeros((packed["lengths"][field.name], *field.entry), field.dtype)
        for field in HostState.FIELDS
    }
    arrays["rec"][:] = np.frombuffer(packed["host"], arrays["rec"].dtype)
    arrays["heap_bits"].view(np.int64)[:] = unpacked_numbers(packed["heap_bits"])
    arrays["heap_masks"][:] = unpacked_numbers(packed["heap_masks"])
    partly = _partly_free(arrays["heap_masks"])
    arrays["heap_rows"][partly] = np.frombuffer(packed["heap_rows"], np.uint64).reshape(-1, 8)
    for name in SPARSE:
        fill_sparse(arrays[name].reshape(-1), packed[name])
    arrays["row"][ONES] = ALL
    return HostState(**arrays)


def _partly_free(masks: npt.NDArray[np.int32]) -> Int64Array:
    """Machine blocks of which some frames are free and some not."""
    return np.flatnonzero((masks != 0) & (masks != HEAP_ALL))


# -- blocks of domains -------------------------------------------------------------------------------------------------


def _distinct_rows(h: HostState, blk: npt.NDArray[np.int32]) -> tuple[Row, Handles]:
    """Rows that are neither all zero nor all one, each once, in the order in which they are met; and for every field of
    `ROW_FIELDS` which of them each block has: ZEROS, ONES, or from 2 on.
    """
    used = np.zeros(int(h.rec["row_top"][0]), bool)
    used[blk[:, ROW_FIELDS]] = True
    met = np.flatnonzero(used)
    rows = h.row[met]
    numbers = np.full(len(used), -1, np.int64)
    numbers[met[~rows.any(axis=1)]] = ZEROS
    numbers[met[(rows == ALL).all(axis=1)]] = ONES
    own = met[numbers[met] < 0]
    _, first, same = np.unique(h.row[own].view("V64").reshape(-1), return_index=True, return_inverse=True)
    order = np.argsort(first)
    rank = np.empty(len(order), np.int64)
    rank[order] = np.arange(len(order))
    numbers[own] = 2 + rank[same]
    handles = numbers[blk[:, ROW_FIELDS].T]
    return h.row[own[first[order]]], dict(zip(ROW_FIELDS, handles, strict=True))


def _unlike(handles: Handles, kinds: npt.NDArray[Any]) -> list[Int64Array]:
    """What of each field its block's kind, or the field before it, does not say already."""
    return [
        handles[RAM_ROW] - (kinds == RAM), handles[POD_ROW] - (kinds == POD), handles[HEAD] - handles[RAM_ROW],
        handles[ANY] - handles[HEAD], handles[ODD], handles[PATTERNED],
    ]  # fmt: skip


def _like(unlike: list[Int64Array], kinds: Int64Array) -> Handles:
    """The fields again."""
    ram, pod, head, every, odd, patterned = unlike
    ram, pod = ram + (kinds == RAM), pod + (kinds == POD)
    head = head + ram
    return dict(zip(ROW_FIELDS, (ram, pod, head, every + head, odd, patterned), strict=True))


def _with_base(ram: npt.NDArray[Any], details: npt.NDArray[Any]) -> npt.NDArray[np.bool_]:
    """Blocks whose frames follow from a base: with RAM, and without a list."""
    based: npt.NDArray[np.bool_] = (ram != ZEROS) & (details <= UP)
    return based


def _unpacked_blocks(h: HostState, packed: Packed) -> npt.NDArray[np.int32]:
    """The blocks of all domains, one after another, with rows and frame lists of their own."""
    r = h.rec[0]
    kinds = unpacked_numbers(packed["kinds"])
    blk = np.zeros((len(kinds), BLOCK_FIELDS), np.int32)
    blk[:, KIND] = kinds
    rows = np.frombuffer(packed["rows"], np.uint64).reshape(-1, 8)
    handles = _like([unpacked_numbers(column) for column in packed["handles"]], kinds)
    top = 2
    for field, numbers in handles.items():
        own = numbers > ONES
        if field == ANY:
            own &= numbers != handles[HEAD]  # equal, they are one row
        count = int(own.sum())
        h.row[top : top + count] = rows[numbers[own] - 2]
        blk[:, field] = numbers
        blk[own, field] = np.arange(top, top + count)
        if field == ANY:
            blk[:, ANY] = np.where(numbers == handles[HEAD], blk[:, HEAD], blk[:, ANY])
        top += count
    listed = unpacked_numbers(packed["listed"])
    blk[unpacked_numbers(packed["down"]), DETAIL] = DOWN
    blk[listed, DETAIL] = np.arange(1, 1 + len(listed))
    blk[_with_base(handles[RAM_ROW], blk[:, DETAIL]), BASE] = unpacked_numbers(packed["bases"])
    details = h.detail[1 : 1 + len(listed)]
    details[_bits(h.row[blk[listed, RAM_ROW]])] = unpacked_numbers(packed["frames"])
    r["row_free"], r["row_top"], r["rows_used"] = 0, top, top - 2
    r["detail_free"], r["detail_top"], r["details_used"] = 0, 1 + len(listed), len(listed)
    r["chunk_free"], r["chunk_top"], r["chunks_used"] = 0, 1, 0
    return blk


def _bits(rows: Row) -> npt.NDArray[np.bool_]:
    """[row, 512] the bits of rows."""
    bits = np.unpackbits(rows.view(np.uint8).reshape(-1), bitorder="little")
    return bits.reshape(-1, BLOCK_PAGES).astype(bool)


# -- what else a domain has --------------------------------------------------------------------------------------------


def _packed_domain(g: DomainState) -> tuple[Any, ...]:
    return len(g.blk), g.rec.tobytes(), packed_numbers(g.gib), packed_numbers(g.ring), packed_numbers(g.grants)


def _unpacked_domain(room: int, rec: bytes, gib: Numbers, ring: Numbers, grants: Numbers) -> DomainState:
    slots = unpacked_numbers(ring)
    state = new_domain_state(room, len(slots))
    state.ring[:] = slots
    state.rec[:] = np.frombuffer(rec, state.rec.dtype)
    return state.replace(gib=unpacked_numbers(gib).astype(np.int32), grants=unpacked_numbers(grants))


def _segments(h: HostState, g: DomainState, which: int) -> npt.NDArray[np.int32]:
    """[segment, 2] a list of a domain from head to tail."""
    chunk, at, tail, tail_at, _ = g.lists[which, : L_LENGTH + 1].tolist()
    found = [np.zeros((0, 2), np.int32)]
    while chunk:
        end = tail_at + 1 if chunk == tail else CHUNK_SEGMENTS
        found.append(h.chunk[chunk, 2 * at : 2 * end].reshape(-1, 2))
        chunk, at = 0 if chunk == tail else int(h.chunk[chunk, CHUNK_NEXT]), 0
    return np.concatenate(found)


def _lay_segments(h: HostState, g: DomainState, which: int, segments: npt.NDArray[np.int32]) -> None:
    """Lay a list out in new chunks."""
    r = h.rec[0]
    count = len(segments)
    if not count:
        return
    first, chunks = int(r["chunk_top"]), -(-count // CHUNK_SEGMENTS)
    used = h.chunk[first : first + chunks]
    room = np.zeros((chunks * CHUNK_SEGMENTS, 2), np.int32)
    room[:count] = segments
    used[:, :CHUNK_NEXT] = room.reshape(chunks, CHUNK_NEXT)
    used[:-1, CHUNK_NEXT] = np.arange(first + 1, first + chunks)
    r["chunk_top"] += chunks
    r["chunks_used"] += chunks
    last = first + chunks - 1
    g.lists[which, [L_HEAD, L_HEAD_AT, L_TAIL, L_TAIL_AT]] = first, 0, last, (count - 1) % CHUNK_SEGMENTS
    g.lists[which, L_LENGTH] = np.abs(segments[:, 1].astype(np.int64)).sum()
