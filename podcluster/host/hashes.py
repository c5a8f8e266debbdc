"""A guest's state in the form in which golden traces record it.

What        The hashes and entry counts of docs/golden-traces.md.
Units       gfn and frames of 4 KiB; all arithmetic modulo 2**64.
Source      docs/golden-traces.md.
"""

import numpy as np
import numpy.typing as npt

from podcluster.host.kernel import kernel, routine
from podcluster.host.lists import list_first, list_next
from podcluster.host.pending import mix
from podcluster.host.rows import frame_of, page_bit, row_count
from podcluster.host.state import (
    G_POD,
    G_RAM,
    G_TABLE,
    KIND,
    PATTERNED,
    POD,
    POD_ROW,
    RAM,
    RAM_ROW,
    RING_EMPTY,
    RING_SUPER,
    SINGLE,
    SUPER,
    TABLE,
    ZEROS,
    DomainState,
    HostState,
)

OFFSET = np.uint64(0xCBF29CE484222325)
PRIME = np.uint64(0x100000001B3)
T_RAM = np.uint64(1)
T_POD = np.uint64(2)
T_SCRUBBED = np.uint64(3)  # a promise of the scrub pattern [S2]; no trace has one

# Fields of the table's hashes.
H_RAM4K = 0  # then 2M and 1G
H_POD4K = 3
H_FNV = 6
H_SUM = 7
H_FRAMES = 8
TABLE_FIELDS = 9


@routine
def _entry(out: npt.NDArray[np.uint64], gfn: int, order: int, kind: np.uint64, mfn: int) -> None:
    """Add one entry of the table to the hashes."""
    word = (np.uint64(gfn) << np.uint64(16)) | (np.uint64(order) << np.uint64(8)) | kind
    mixed = mix(word)
    out[H_FNV] = (out[H_FNV] ^ word) * PRIME
    out[H_SUM] += mixed
    size = 0 if order == 0 else (1 if order == 9 else 2)
    if kind == T_RAM:
        out[H_FRAMES] += mix(mixed ^ np.uint64(mfn))
        out[H_RAM4K + size] += np.uint64(1)
    else:
        out[H_POD4K + size] += np.uint64(1)


@kernel
def hash_table(h: HostState, g: DomainState, out: npt.NDArray[np.uint64]) -> None:
    """Entry counts and hashes of the whole table."""
    out[:] = np.uint64(0)
    out[H_FNV] = OFFSET
    for gi in range(g.gib.shape[0]):
        slot = g.gib[gi]
        if slot == G_POD or slot == G_RAM:
            _entry(out, gi << 18, 18, T_RAM if slot == G_RAM else T_POD, frame_of(h, g, gi << 9, 0))
        if slot != G_TABLE:
            continue
        for b in range(gi << 9, (gi + 1) << 9):
            kind = g.blk[b, KIND]
            if kind == RAM or kind == POD:
                promise = T_SCRUBBED if int(g.blk[b, PATTERNED]) != ZEROS else T_POD
                _entry(out, b << 9, 9, T_RAM if kind == RAM else promise, frame_of(h, g, b, 0))
            elif kind == TABLE:
                ram = int(g.blk[b, RAM_ROW])
                pod = int(g.blk[b, POD_ROW])
                for i in range(512):
                    if page_bit(h, ram, i):
                        _entry(out, (b << 9) + i, 0, T_RAM, frame_of(h, g, b, i))
                    elif page_bit(h, pod, i):
                        promise = T_SCRUBBED if page_bit(h, int(g.blk[b, PATTERNED]), i) else T_POD
                        _entry(out, (b << 9) + i, 0, promise, 0)


@kernel
def count_entries(h: HostState, g: DomainState, out: npt.NDArray[np.int64]) -> None:
    """Entries of the table by kind and size, in the order of the fields of `hash_table`."""
    out[:] = 0
    for gi in range(g.gib.shape[0]):
        slot = g.gib[gi]
        if slot == G_RAM:
            out[H_RAM4K + 2] += 1
        elif slot == G_POD:
            out[H_POD4K + 2] += 1
        if slot != G_TABLE:
            continue
        for b in range(gi << 9, (gi + 1) << 9):
            kind = g.blk[b, KIND]
            if kind == RAM:
                out[H_RAM4K + 1] += 1
            elif kind == POD:
                out[H_POD4K + 1] += 1
            elif kind == TABLE:
                out[H_RAM4K] += row_count(h, int(g.blk[b, RAM_ROW]))
                out[H_POD4K] += row_count(h, int(g.blk[b, POD_ROW]))


@kernel
def hash_cache(h: HostState, g: DomainState) -> np.uint64:
    """Hash of the two cache lists in their order."""
    value = OFFSET
    for which in (SUPER, SINGLE):
        position = list_first(g, which)
        while position:
            first = int(h.chunk[position >> 6, 2 * (position & 63)])
            signed = int(h.chunk[position >> 6, 2 * (position & 63) + 1])
            direction = 1 if signed > 0 else -1
            for k in range(abs(signed)):
                entry = first + direction * k
                word = 1024 * entry + 1 if which == SUPER else 2 * entry
                value = (value ^ np.uint64(word)) * PRIME
            position = list_next(h, g, which, position)
    return value


@kernel
def hash_ring(g: DomainState) -> np.uint64:
    """Hash of the recent list in slot order."""
    value = OFFSET
    for slot in range(g.ring.shape[0]):
        record = g.ring[slot]
        word = np.uint64(0xFFFFFFFFFFFFFFFF)
        if record != RING_EMPTY:
            word = np.uint64(record & ~RING_SUPER)
            if record & RING_SUPER:
                word |= np.uint64(1) << np.uint64(63)
        value = (value ^ word) * PRIME
    return value
