"""What fills a guest that is up with data: an application that dirties everything, and page cache.

What        `FillStream`, batches at a rate while there is room; `DirtyStream`, `CacheStream`.
Units       Pages of 4 KiB; ns of simulated time.
Invariants  [GS-1] batch k happens at anchor + k batch / rate, in integers; time in Xen moves the anchor [LK-2].
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from podcluster.config import PageCacheConfig
from podcluster.host import merged
from podcluster.host.batches import DIED
from podcluster.host.guest_memory import GuestMemory
from podcluster.host.held import HeldBooks
from podcluster.host.shares import Share, share
from podcluster.host.streams import BATCH_PAGES, CACHE, DIRTY, NEVER, count_instants
from podcluster.units import NS_PER_S, mib_to_pages


class FillStream:
    """Batches of data at a rate, while there is room for them."""

    rank: int
    kind: int  # as merged.py knows it

    def __init__(self, memory: GuestMemory, pages_per_s: int, on_death: Callable[[int], None]) -> None:
        self.next_ns = NEVER
        self._memory = memory
        self._lock = memory.lock
        self._pages_per_s = pages_per_s
        self._on_death = on_death
        self._anchor_ns = 0
        self._batches = 0

    @property
    def room(self) -> int:
        """Pages that there is room for now."""
        raise NotImplementedError

    @property
    def singly(self) -> bool:
        """Each batch matters at its own instant."""
        return False

    def _fill(self, pages: int, at_ns: int) -> int:
        """Write them; pages done."""
        raise NotImplementedError

    def touches_heap(self) -> bool:
        """Never: populating takes from the domain's own cache."""
        return False

    def enters_xen(self) -> bool:
        """While an access may still find an entry."""
        return self._lock.faults

    def start(self, at_ns: int) -> None:
        """Begin."""
        self._anchor_ns = self.next_ns = at_ns
        self._batches = 0

    def _instant(self, batch: int) -> int:
        return self._anchor_ns + batch * BATCH_PAGES * NS_PER_S // self._pages_per_s

    def run(self, last_ns: int, *, single: bool) -> None:
        """Fill batch by batch; sleep where there is no room left."""
        lock = self._lock
        began_ns = lock.enter(self.next_ns)
        # Where the lock is not free by then the next batch is not due by then, either.
        batches = 1 if single or self.singly or began_ns > last_ns else self._count_batches(last_ns)
        done = self._fill(min(batches * BATCH_PAGES, self.room), began_ns)
        late_ns = lock.leave()
        if self._memory.crashed:
            self._on_death(max(began_ns, self._instant(self._batches + done // BATCH_PAGES)))
            return
        self._anchor_ns += late_ns
        self._batches += batches
        self.next_ns = max(began_ns, self._instant(self._batches)) if self.room else NEVER

    def join(self, *, first: bool) -> Share | None:
        """Its fields."""
        return None if self.singly or self.next_ns >= NEVER else self._share()

    def _share(self) -> Share:
        return share(
            self.kind, anchor_ns=self._anchor_ns, num=NS_PER_S, den=self._pages_per_s, batch=BATCH_PAGES,
            done=self._batches * BATCH_PAGES, next_ns=self.next_ns,
        )  # fmt: skip

    def leave(self, fields: Sequence[int], how: int, given: int) -> None:
        """How far it came, and by how much Xen has held it up."""
        if how == DIED:
            self._on_death(fields[merged.NEXT])
            return
        self._anchor_ns += fields[merged.LATE]
        self._batches = fields[merged.DONE] // BATCH_PAGES
        self.next_ns = fields[merged.NEXT]

    def _count_batches(self, last_ns: int) -> int:
        """How many batches begin by `last_ns` and come to the same in one access as singly: if none can take time."""
        return 1 if self._lock.faults else count_instants(self._instant, self._batches, last_ns)


class DirtyStream(FillStream):
    """Once booted, an application writes data to all the memory there is, as fast as the guest can."""

    rank = DIRTY
    kind = merged.DIRTIES

    def __init__(self, memory: GuestMemory, held: HeldBooks, pages_per_s: int, on_death: Callable[[int], None]) -> None:
        super().__init__(memory, pages_per_s, on_death)
        self._held = held

    @property
    def room(self) -> int:
        """All that is free or page cache."""
        return self._memory.available

    @property
    def singly(self) -> bool:
        """While something is on swap: each batch may bring some of it back."""
        return self._held.swaps

    def _fill(self, pages: int, at_ns: int) -> int:
        done = self._held.grow(pages, at_ns)
        self._held.floor = self._held.held
        return done


class CacheStream(FillStream):
    """Page cache grows into free memory, until too little is free or it has its share (G4)."""

    rank = CACHE
    kind = merged.CACHES

    def __init__(self, memory: GuestMemory, cfg: PageCacheConfig, on_death: Callable[[int], None]) -> None:
        super().__init__(memory, mib_to_pages(cfg.rate_mib_per_s), on_death)
        self.max_share = float(cfg.max_share_of_free)
        self.floor_share = float(cfg.floor_share)
        self._started = False

    @property
    def room(self) -> int:
        """Up to a share of what is not held, and while enough of the guest is free."""
        memory = self._memory
        most = int(self.max_share * memory.available)
        return max(0, min(most, memory.available - int(self.floor_share * memory.visible_pages)) - memory.cache)

    def _fill(self, pages: int, at_ns: int) -> int:
        return self._memory.fill_cache(pages)

    def start(self, at_ns: int) -> None:
        """Begin."""
        self._started = self._pages_per_s > 0
        self.wake(at_ns)

    @property
    def wakes_at(self) -> int:
        """Least available memory with which it would go on, if it sleeps; else NEVER."""
        memory, wanted = self._memory, self._memory.cache + 1
        if not self._started or self.next_ns != NEVER or not self.max_share:
            return NEVER
        pages = int(wanted / self.max_share)
        while int(self.max_share * pages) < wanted:
            pages += 1
        while int(self.max_share * (pages - 1)) >= wanted:
            pages -= 1
        return max(pages, wanted + int(self.floor_share * memory.visible_pages))

    def beside(self) -> Share | None:
        """Its fields, whether it sleeps or not; None: it never grows."""
        return self._share() if self._started else None

    def wake(self, at_ns: int) -> None:
        """More may be free than before: go on if it is enough."""
        if self._started and self.next_ns == NEVER and self.room:
            super().start(at_ns)
