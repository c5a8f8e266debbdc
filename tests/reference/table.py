"""The guest-to-machine table (p2m) of one domain as three levels of slots: 1 GiB, 2 MiB, 4 KiB.

Units       gfn and mfn are frame numbers of 4 KiB frames; an order-k entry covers 2**k of them.
Shape       A slot is a leaf `(kind, mfn)` or a list of the 512 slots below it. `_root[g]` is the slot of GiB `g`.
Rules       T1-T4 of docs/model.md, docs/golden-traces.md. Kinds other than RAM carry no frame (mfn -1), so
            that a second kind of promise can be added without touching this file.
"""

from collections.abc import Iterator
from typing import Any

EMPTY, RAM, POD, POD_SCRUBBED = 0, 1, 2, 3
ORDER_1G, ORDER_2M, ORDER_4K = 18, 9, 0
SLOTS = 512
NO_FRAME = -1

Leaf = tuple[int, int]
EMPTY_LEAF: Leaf = (EMPTY, NO_FRAME)


class Table:
    """One domain's p2m. Setting and looking up never have a side effect on anything else."""

    def __init__(self, *, ept: bool, use_1g: bool, use_2m: bool) -> None:
        self._ept = ept
        self._use_1g = use_1g
        self._use_2m = use_2m
        self._root: dict[int, Any] = {}
        self.highest_gfn = 0  # highest gfn ever mapped, for the order of empty slots
        self.ever_set = False
        self.changed_blocks: set[int] = set()  # 2 MiB block numbers touched since somebody last cleared this

    def lookup(self, gfn: int) -> tuple[int, int, int]:
        """(kind, frame behind this very gfn or -1, order of the entry) without changing anything."""  # T3 query
        slot = self._root.get(gfn >> 18)
        if slot is None:
            return EMPTY, NO_FRAME, self._empty_order(gfn, ORDER_1G)
        if type(slot) is tuple:
            order = ORDER_1G
        else:
            slot = slot[(gfn >> 9) & 511]
            if type(slot) is tuple:
                order = ORDER_2M
            else:
                slot = slot[gfn & 511]
                order = ORDER_4K
        kind, mfn = slot
        if kind == RAM:
            return RAM, mfn + (gfn & ((1 << order) - 1)), order
        if kind == EMPTY:
            return EMPTY, NO_FRAME, self._empty_order(gfn, order)
        return kind, NO_FRAME, order

    def _empty_order(self, gfn: int, walk_ended: int) -> int:
        """Order of an empty slot: a diagnostic."""  # T4
        if gfn > self.highest_gfn:
            for order in (27, ORDER_1G, ORDER_2M):
                if gfn >> order << order > self.highest_gfn:
                    return order
            return 0
        return walk_ended if self.ever_set else 27

    def set_range(self, gfn: int, order: int, kind: int, mfn: int = NO_FRAME) -> bool:
        """Set 2**order gfns, cut from low to high into the largest entries the domain may use. Always True."""  # T2
        todo = 1 << order
        if kind != EMPTY:
            self.highest_gfn = max(self.highest_gfn, gfn + todo - 1)
        self.ever_set = True
        while todo:
            alignment = gfn | todo | (mfn if kind == RAM else 0)
            if self._use_1g and alignment % (1 << ORDER_1G) == 0:
                entry = ORDER_1G
            elif self._use_2m and alignment % (1 << ORDER_2M) == 0:
                entry = ORDER_2M
            else:
                entry = ORDER_4K
            self._set_entry(gfn, entry, (kind, mfn) if kind == RAM else (kind, NO_FRAME))
            gfn += 1 << entry
            mfn += 1 << entry
            todo -= 1 << entry
        return True

    def _set_entry(self, gfn: int, order: int, leaf: Leaf) -> None:
        top = gfn >> 18
        if order == ORDER_1G:
            self._root[top] = leaf
            self.changed_blocks.update(range(top << 9, (top + 1) << 9))
            return
        upper = self._root.get(top, EMPTY_LEAF)
        if type(upper) is tuple:
            was_mapped = upper[0] != EMPTY
            upper = self._root[top] = _split(upper, ORDER_2M)
            if was_mapped:
                if order == ORDER_4K and self._ept:  # T2: EPT shatters the whole GiB
                    upper[:] = [_split(leaf_2m, ORDER_4K) for leaf_2m in upper]
                self.changed_blocks.update(range(top << 9, (top + 1) << 9))
        self.changed_blocks.add(gfn >> 9)
        at = (gfn >> 9) & 511
        if order == ORDER_2M:
            upper[at] = leaf
            return
        if type(upper[at]) is tuple:
            upper[at] = _split(upper[at], ORDER_4K)
        upper[at][gfn & 511] = leaf

    def walk(self, gfn: int, order: int) -> Iterator[tuple[int, int, int, int]]:
        """(gfn, kind, mfn, order) of the pieces of an aligned range; an entry larger than the range is cut to it."""
        end = gfn + (1 << order)
        while gfn < end:
            slot = self._root.get(gfn >> 18, EMPTY_LEAF)
            if type(slot) is list and type(slot[(gfn >> 9) & 511]) is list and gfn & 511 == 0 and order >= ORDER_2M:
                for i, (kind, mfn) in enumerate(tuple(slot[(gfn >> 9) & 511])):  # the same as below, 512 at a time
                    yield gfn + i, kind, mfn, ORDER_4K
                gfn += SLOTS
                continue
            entry_order = ORDER_1G
            if type(slot) is list:
                slot = slot[(gfn >> 9) & 511]
                entry_order = ORDER_2M
                if type(slot) is list:
                    slot = slot[gfn & 511]
                    entry_order = ORDER_4K
            kind, mfn = slot
            if kind == RAM:
                mfn += gfn & ((1 << entry_order) - 1)
            piece = min(order, entry_order)
            yield gfn, kind, mfn, piece
            gfn += 1 << piece

    def entries(self) -> Iterator[tuple[int, int, int, int]]:
        """(first gfn, kind, mfn, order) of every non-empty entry, ascending."""
        for top in sorted(self._root):
            slot = self._root[top]
            if type(slot) is tuple:
                if slot[0] != EMPTY:
                    yield top << 18, *slot, ORDER_1G
                continue
            for i, below in enumerate(slot):
                if below != EMPTY_LEAF:
                    yield from self.block_entries((top << 9) + i)

    def block_entries(self, block: int) -> Iterator[tuple[int, int, int, int]]:
        """The non-empty entries that *begin* in one 2 MiB block; a 1 GiB entry begins in its first block."""
        slot = self._root.get(block >> 9)
        if slot is None:
            return
        if type(slot) is tuple:
            if slot[0] != EMPTY and block & 511 == 0:
                yield block << 9, *slot, ORDER_1G
            return
        slot = slot[block & 511]
        if type(slot) is tuple:
            if slot[0] != EMPTY:
                yield block << 9, *slot, ORDER_2M
            return
        for i, (kind, mfn) in enumerate(slot):
            if kind != EMPTY:
                yield (block << 9) + i, kind, mfn, ORDER_4K

    def pages(self) -> int:
        """Pages the table takes: the root, one for each 512 GiB, and one for each slot that is a list of slots."""
        lists = [slot for slot in self._root.values() if type(slot) is not tuple]
        below = sum(type(slot) is not tuple for slots in lists for slot in slots)
        return 1 + (self.highest_gfn >> 27) + 1 + len(lists) + below

    def has_small_entries(self, gfn: int) -> bool:
        """Whether a table of 4 KiB slots hangs at the 2 MiB range of gfn, empty or not."""
        upper = self._root.get(gfn >> 18)
        return type(upper) is list and type(upper[(gfn >> 9) & 511]) is list

    def clear(self) -> None:
        """Tear the table down (destruction)."""
        for top in self._root:
            self.changed_blocks.update(range(top << 9, (top + 1) << 9))
        self._root.clear()


def _split(leaf: Leaf, into: int) -> list[Any]:
    """The 512 leaves of order `into` that say the same as one leaf of the order above."""
    kind, mfn = leaf
    if kind != RAM:
        return [leaf] * SLOTS
    return [(RAM, mfn + (i << into)) for i in range(SLOTS)]


class Table2009(Table):
    """The page table of the first version: 2 MiB and 4 KiB, and a table of 4 KiB slots never goes away again."""  # R1

    def __init__(self) -> None:
        super().__init__(ept=False, use_1g=False, use_2m=True)
        self.conflicts = 0  # 2 MiB sets that met such a table, and failed

    def set_range(self, gfn: int, order: int, kind: int, mfn: int = NO_FRAME) -> bool:
        """Set 2**order gfns; whether the last piece of it could be set."""
        end = gfn + (1 << order)
        done = True
        while gfn < end:
            fits = gfn % SLOTS == 0 and (end - gfn) % SLOTS == 0 and (kind != RAM or mfn % SLOTS == 0)
            piece = ORDER_2M if fits and kind != EMPTY else ORDER_4K  # removal is in 4 KiB pieces
            done = piece == ORDER_4K or not self.has_small_entries(gfn)
            if done:
                super().set_range(gfn, piece, kind, mfn)
            else:
                self.conflicts += 1
            gfn += 1 << piece
            mfn += 1 << piece
        return done
