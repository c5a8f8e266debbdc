"""The host's free frames: a binary buddy allocator, as a sorted list of free blocks per order.

Units       Frames of 4 KiB, numbered from 0. A block of order k is 2**k frames and starts at a multiple of 2**k.
Invariants  Free blocks are disjoint; no two free buddies of an order below 18 lie side by side (they merge).
Source      docs/golden-traces.md.
"""

from bisect import bisect_left, insort

MAX_ORDER = 18


class BuddyHeap:
    """Free blocks by order; allocation takes the lowest block of the smallest order that will do."""

    def __init__(self, frames: int) -> None:
        self._free: list[list[int]] = [[] for _ in range(MAX_ORDER + 1)]
        self.free_pages = frames
        start = 0
        while start < frames:
            order = MAX_ORDER
            while start % (1 << order) or start + (1 << order) > frames:
                order -= 1
            self._free[order].append(start)
            start += 1 << order

    @property
    def free_2m(self) -> int:
        """Free aligned 2 MiB blocks, those inside larger free blocks included."""
        return sum(len(self._free[order]) << (order - 9) for order in range(9, MAX_ORDER + 1))

    def has(self, order: int) -> bool:
        """Could a block of this order be allocated now?"""
        return any(self._free[order:])

    def allocate(self, order: int) -> int | None:
        """First frame of a block of this order, or None when there is none."""
        for larger in range(order, MAX_ORDER + 1):
            if self._free[larger]:
                start = self._free[larger].pop(0)
                break
        else:
            return None
        while larger > order:  # keep the lower half, free the upper half
            larger -= 1
            insort(self._free[larger], start + (1 << larger))
        self.free_pages -= 1 << order
        return start

    def free(self, frame: int) -> None:
        """Give back one frame; it merges with its free buddy for as long as there is one."""
        self.free_pages += 1
        order = 0
        while order < MAX_ORDER:
            buddy = frame ^ (1 << order)
            blocks = self._free[order]
            at = bisect_left(blocks, buddy)
            if at == len(blocks) or blocks[at] != buddy:
                break
            del blocks[at]
            frame = min(frame, buddy)
            order += 1
        insort(self._free[order], frame)

    def free_frames(self) -> list[int]:
        """Every free frame, for the audit."""
        return [f for order, blocks in enumerate(self._free) for b in blocks for f in range(b, b + (1 << order))]
