"""The hashes of docs/golden-traces.md, and a view of one table that keeps them up to date.

The two order-free hashes change by the entries that changed; the ordered one is walked again from the lowest block that
changed. Nothing here knows a rule of the PoD manager.
"""

from collections.abc import Iterable

from tests.reference.table import ORDER_1G, ORDER_2M, ORDER_4K, POD, POD_SCRUBBED, RAM, Table

MASK = (1 << 64) - 1
FNV_OFFSET = 0xCBF29CE484222325
FNV_PRIME = 0x100000001B3
EMPTY_RING_SLOT = MASK
KIND_CODES = {RAM: 1, POD: 2, POD_SCRUBBED: 3}
ENTRY_FIELDS = {
    (RAM, ORDER_4K): "ram4k",
    (RAM, ORDER_2M): "ram2m",
    (RAM, ORDER_1G): "ram1g",
    (POD, ORDER_4K): "pod4k",
    (POD, ORDER_2M): "pod2m",
    (POD, ORDER_1G): "pod1g",
}


def fnv(words: Iterable[int], start: int = FNV_OFFSET) -> int:
    """FNV-1a over whole 64-bit words."""
    h = start
    for word in words:
        h = ((h ^ word) * FNV_PRIME) & MASK
    return h


def mix(z: int) -> int:
    """One 64-bit finaliser step (splitmix64)."""
    z = (z + 0x9E3779B97F4A7C15) & MASK
    z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & MASK
    z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & MASK
    return z ^ (z >> 31)


def text(h: int) -> str:
    """A hash as the traces write it."""
    return f"{h:016x}"


class TableHashes:
    """p2m_fnv, p2m_sum, frames and the entry counts of one table."""

    def __init__(self, table: Table) -> None:
        self._table = table
        self._blocks: dict[int, list[tuple[int, int]]] = {}  # block -> (entry word, mfn) of what begins there
        self._fnv_before: dict[int, int] = {}  # block -> p2m_fnv of everything below it
        self._sum = 0
        self._frames = 0
        self._fnv = FNV_OFFSET
        self._counts = dict.fromkeys(ENTRY_FIELDS.values(), 0)

    def record(self) -> dict[str, int | str]:
        """The table's fields of a state record."""
        self._refresh()
        hashes = {"p2m_fnv": text(self._fnv), "p2m_sum": text(self._sum), "frames": text(self._frames)}
        return {**self._counts, **hashes}

    def counts(self) -> dict[str, int]:
        """Entries by kind and size."""
        self._refresh()
        return dict(self._counts)

    def _refresh(self) -> None:
        changed = sorted(self._table.changed_blocks)
        self._table.changed_blocks.clear()
        lowest_changed = None
        for block in changed:
            old = self._blocks.get(block, [])
            new = [
                (gfn << 16 | order << 8 | KIND_CODES[kind], mfn)
                for gfn, kind, mfn, order in self._table.block_entries(block)
            ]
            if new == old:
                continue
            if lowest_changed is None:
                lowest_changed = block
            old_set, new_set = set(old), set(new)
            for entry in old:
                if entry not in new_set:
                    self._add(entry, -1)
            for entry in new:
                if entry not in old_set:
                    self._add(entry, 1)
            if new:
                self._blocks[block] = new
            else:
                del self._blocks[block]
        if lowest_changed is not None:
            self._walk_from(lowest_changed)

    def _add(self, entry: tuple[int, int], sign: int) -> None:
        word, mfn = entry
        kind, order = RAM if word & 0xFF == 1 else POD, word >> 8 & 0xFF
        self._counts[ENTRY_FIELDS[kind, order]] += sign
        self._sum = (self._sum + sign * mix(word)) & MASK
        if kind == RAM:
            self._frames = (self._frames + sign * mix(mix(word) ^ mfn)) & MASK

    def _walk_from(self, first_block: int) -> None:
        h = FNV_OFFSET
        below = [block for block in self._blocks if block < first_block]
        if below:
            last = max(below)
            h = fnv((word for word, _ in self._blocks[last]), self._fnv_before[last])
        for block in sorted(block for block in self._blocks if block >= first_block):
            self._fnv_before[block] = h
            h = fnv((word for word, _ in self._blocks[block]), h)
        self._fnv = h
