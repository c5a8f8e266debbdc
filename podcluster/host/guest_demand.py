"""Demand: what services and applications of a guest hold follows what it wants to use.

What        `DemandStream`, one stream of its guest; `held.py` keeps the books, `demand_window.py` the curve.
Units       Pages of 4 KiB; ns of simulated time.
Symbols     W(t)   what the guest as a whole wants to use, its kernel included
            H(t)   max of W over the last hold_ns, no further back than the guest was up: what it holds (G3)
            piece  from one instant of the curve to the next: W is on one line
            mark   what is held; or, while something on swap could come back, what of it is in memory
Invariants  [GD-2] within a piece of the curve, page i beyond the mark is had when W comes to it, and not before the
                   guest, writing at its own speed from the start of the piece, gets there; both in integers, so that a
                   piece may be cut anywhere (GS-1).
            [GD-4] a piece is quiet if in it no page is written for the first time, no page cache dropped, nothing moved
                   to or from swap, nobody waits for what is released, and the guest keeps up: held is then W or H, by
                   formula, at its ends. Quiet pieces are left out, and made good when somebody looks; to anybody who
                   looks it is the same.
Departs     H falls at instants of the curve and not in between.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Final

import numpy as np

from podcluster.host import follow, merged
from podcluster.host.demand_window import DemandWindow
from podcluster.host.guest_memory import GuestMemory
from podcluster.host.held import HeldBooks
from podcluster.host.layout import for_kernels
from podcluster.host.shares import NO_LINE, Share, share
from podcluster.host.streams import BATCH_PAGES, NEVER
from podcluster.records.demand import Demand
from podcluster.units import NS_PER_S

AGAIN: Final = (follow.BOOKS_FULL, follow.LISTS_FULL)
"""How a call of the kernel may end with more to do."""


class DemandStream:
    """Held memory follows the demand [GD-2]."""

    def __init__(
        self,
        rank: int,
        memory: GuestMemory,
        held: HeldBooks,
        demand: Demand,
        *,
        hold_ns: int,
        pages_per_s: int,
        on_death: Callable[[int], None],
        on_release: Callable[[int], None],
        matters_from: Callable[[], int] = lambda: 0,
        ahead: bool = True,
    ) -> None:
        """`hold_ns` -1: since boot. `pages_per_s`: how fast the guest writes. `matters_from()`: how many available
        pages somebody waits for, NEVER if nobody does. `ahead`: quiet pieces may be left out [GD-4].
        """
        self.rank = rank
        self.next_ns = NEVER
        self.grid_ns = NEVER  # its host is looked at at the multiples of that
        self._memory = memory
        self._lock = memory.lock
        self._held = held
        self._demand = demand
        self._t, self._w = for_kernels(demand.t_ns), for_kernels(demand.pages)
        self._hold_ns = hold_ns
        self._pages_per_s = pages_per_s
        self._on_death = on_death
        self._on_release = on_release
        self._matters_from = matters_from
        self._ahead = ahead and memory.paces
        self._window: DemandWindow | None = None  # once the guest is up
        self._curve: follow.Curve | None = None  # the same for kernels, as of the last call
        self._quiet = False  # pieces are being left out
        self._looked = False  # whether they may be, with everything as it is now
        # The piece being followed, on the line between samples k and k + 1.
        self._piece = 0
        self._k = 0
        self._from_ns = 0
        self._until_ns = 0
        self._base = 0  # W that the mark at its start amounts to
        self._growth = 0  # pages to grow by in it
        self._grown = 0
        self._late_ns = 0  # how long Xen has held it up in this piece

    def start(self, at_ns: int) -> None:
        """The guest is up: from here it wants what the curve says."""
        self._follow_from(at_ns)
        self._held.want_from(at_ns)
        self._plan(at_ns)

    def resume(self, up_ns: int, at_ns: int) -> None:
        """Go on at `at_ns` on another host, up since `up_ns`: what it held since then counts as before."""
        self._follow_from(up_ns)
        self._plan(at_ns)

    def _follow_from(self, up_ns: int) -> None:
        self._window = DemandWindow(self._demand, up_ns, self._hold_ns, self._pages_per_s)
        self._curve = None

    def touches_heap(self) -> bool:
        """Only where it would rather take from the balloon than see an application killed (C1.10)."""
        pages = min(BATCH_PAGES, self._growth - self._grown)
        return pages > 0 and self._held.takes_for(pages)

    def enters_xen(self) -> bool:
        """While it grows; the end of a piece is nothing to Xen."""
        return self._lock.faults and self._grown < self._growth

    def run(self, last_ns: int, *, single: bool) -> None:
        """Grow batch by batch; at the end of a piece go on to the next."""
        if self._memory.paces and not single:
            self._follow(last_ns)
            return
        while self.next_ns <= last_ns:
            if self._quiet:
                self.settle(self.next_ns - 1)
            done, shrank = self._grown >= self._growth, False
            if done or self._mark() != self._base + self._grown:  # at its end, or somebody else moved pages
                shrank = self._plan(self.next_ns)
            elif not single and self.touches_heap():
                return
            else:
                self._grow()
            if single or shrank or self._memory.crashed or self._lock.faults:
                return

    def _grow(self) -> None:
        """The next batch."""
        first = self._grown
        upto = min(first + BATCH_PAGES, self._growth)
        began_ns = self._lock.enter(self.next_ns)
        done = self._held.grow(upto - first, began_ns)
        late_ns = self._lock.leave()
        if self._memory.crashed:
            self._on_death(max(began_ns, self._due((first + done) // BATCH_PAGES * BATCH_PAGES)))
            return
        self._late_ns += late_ns
        self._grown = upto
        self._next_batch(began_ns)

    def room_changed(self, at_ns: int) -> None:
        """There is more room for the guest, or less."""
        self._held.room_changed(at_ns)
        if self._held.swaps or self._held.killed:
            self._begin_anew(at_ns)

    def kernel_grew(self, at_ns: int) -> None:
        """More of W is the kernel's from here on."""
        self._held.room_changed(at_ns)
        self._begin_anew(at_ns)

    def _begin_anew(self, at_ns: int) -> None:
        """A new piece begins here."""
        if self._window is not None:
            self._growth = self._grown
            self.next_ns = at_ns

    # -- among other streams -------------------------------------------------------------------------------------------

    def join(self, *, first: bool) -> Share | None:
        """Its fields, while it grows in memory that Xen has nothing left to find for."""
        if self._quiet or self._grown >= self._growth or self._held.swaps or not self._memory.inert:
            return None
        ta, wa, tb, wb = self._line()
        line = (ta, self._base + 1 - wa, tb - ta, wb - wa) if wb > wa else NO_LINE
        return share(
            merged.GROWS, anchor_ns=self._from_ns + self._late_ns, num=NS_PER_S, den=self._pages_per_s,
            batch=BATCH_PAGES, upto=self._growth, done=self._grown, next_ns=self.next_ns, until_ns=self._until_ns,
            line=line, base=self._base - self._memory.kernel_pages,
        )  # fmt: skip

    def leave(self, fields: Sequence[int], how: int, given: int) -> None:
        """How far it came."""
        self._grown, self.next_ns = fields[merged.DONE], fields[merged.NEXT]
        if fields[merged.OVER]:
            self._growth = self._grown

    # -- many acts at once, and pieces left out ------------------------------------------------------------------------

    def relax(self) -> bool:
        """Plan the next act for when it matters to anybody [GD-4]; whether that is later than it was."""
        if not self._ahead or self._quiet or self._looked or self._window is None or self.next_ns == NEVER:
            return False
        if self._grown < self._growth or self.next_ns != self._until_ns:  # it has something to do
            return False
        self._follow(-1)
        return self._quiet

    def settle(self, at_ns: int) -> None:
        """Make good what was left out, up to and including `at_ns`, before somebody else acts."""
        if self._quiet:
            self._follow(at_ns, settle=True)
        self._looked = False

    def _follow(self, last_ns: int, *, settle: bool = False) -> None:
        """All acts up to `last_ns`, until somebody else's plans are changed; `settle`: only what was left out."""
        acts, more, how, cache = 0, 0, follow.LISTS_FULL, self._memory.cache
        while how in AGAIN:
            more, how, at_ns, acts = self._call(last_ns, acts, more, settle=settle)
        self._looked = how == follow.DONE and self._memory.cache == cache and not settle
        if how == follow.DIED:
            self._on_death(at_ns)
        elif how == follow.RELEASED:
            self._memory.zero_freed()
            self._on_release(at_ns)

    def _call(self, last_ns: int, acts: int, more: int, *, settle: bool) -> list[int]:
        """One call of the kernel, with the books of this guest and room for `more` runs; more that it needs, how it
        ended, when, after how many acts.
        """
        memory, held, lock, window = self._memory, self._held, self._lock, self._window
        assert window is not None
        s = [
            *memory.books, *held.books, self._piece, self._from_ns, self._until_ns, self._k, self._base, self._growth,
            self._grown, self._late_ns, self.next_ns, self._quiet, *lock.books, memory.inert, more, 0, 0, acts, 0,
        ]  # fmt: skip
        d = [
            memory.room, memory.kernel_pages, memory.kernel_allocated, *held.limits, self._hold_ns, self._pages_per_s,
            self._matters_from(), self._ahead, lock.timed, memory.may_skip, last_ns, settle, memory.zero_on_free,
            self.grid_ns, lock.served_ns, window.start_ns, window.first,
        ]  # fmt: skip
        lock.act_on(0, interrupts=True)
        s, told = memory.follow(s, d, self._line_up(), held.pages_per_s)
        held.take(s, told)
        lock.free_ns, lock.held_ns = s[follow.FREE : follow.LOCK_HELD + 1]
        (
            self._piece, self._from_ns, self._until_ns, self._k, self._base, self._growth, self._grown, self._late_ns,
            self.next_ns, quiet,
        ) = s[follow.PIECE : follow.QUIET + 1]  # fmt: skip
        self._quiet = bool(quiet)
        return s[follow.MORE : follow.ACTS + 1]

    def _line_up(self) -> follow.Curve:
        """The curve, for a kernel."""
        if self._curve is None:
            window = self._window
            assert window is not None
            self._curve = follow.Curve(t=window.t, w=window.w, high=window.h, lags=window.lags, td=self._t, wd=self._w)
        return self._curve

    def __getstate__(self) -> dict[str, Any]:
        return {**vars(self), "_curve": None}

    # -- pieces ------------------------------------------------------------------------------------------------------

    def _mark(self) -> int:
        return self._held.mark + self._memory.kernel_pages

    def _plan(self, now_ns: int) -> bool:
        """Begin the piece that `now_ns` is in; whether held memory shrank."""
        assert self._window is not None
        held, kernel_pages = self._held, self._memory.kernel_pages
        piece = self._window.piece(now_ns)
        shrank = False
        if self._hold_ns >= 0 and self._window.instant_ns(piece) == now_ns:
            shrank = held.shrink_to(self._window.most(piece) - kernel_pages, now_ns)
        if held.killed and self._demand.at(now_ns) - kernel_pages <= held.most:
            held.killed = False
        self._begin(piece, now_ns)
        self._next_batch(now_ns)
        if shrank:
            self._on_release(now_ns)
        return shrank

    def _begin(self, piece: int, now_ns: int) -> None:
        window = self._window
        assert window is not None
        self._piece = piece
        self._from_ns = now_ns
        self._until_ns = int(window.t[piece + 1]) if piece + 1 < len(window) else NEVER
        self._k = int(np.searchsorted(self._t, now_ns, side="right")) - 1
        self._base, self._grown, self._late_ns = self._mark(), 0, 0
        self._growth = 0 if self._held.killed else self._count_growth()

    def _line(self) -> tuple[int, int, int, int]:
        """(ta, wa, tb, wb): W between samples k and k + 1, flat beyond the last."""
        k = self._k
        ta, wa = int(self._t[k]), int(self._w[k])
        if k + 1 == len(self._t):
            return ta, wa, ta + 1, wa
        return ta, wa, int(self._t[k + 1]), int(self._w[k + 1])

    def _count_growth(self) -> int:
        """Pages that the piece adds to what is held."""
        ta, wa, tb, wb = self._line()
        if wb >= wa:
            return max(0, wa + (wb - wa) * (min(self._until_ns, tb) - ta) // (tb - ta) - self._base)
        # W falls: page i is had only if W is still above it when the guest gets there.
        low, high = 0, max(0, self._demand.at(self._from_ns) - self._base)
        while low < high:
            middle = (low + high) // 2
            if self._demand.at(self._reached(middle)) > self._base + middle:
                low = middle + 1
            else:
                high = middle
        return low

    def _reached(self, page: int) -> int:
        """When the guest, writing as fast as it can, is at page number `page` of the growth."""
        return self._from_ns + self._late_ns + page * NS_PER_S // self._pages_per_s

    def _due(self, page: int) -> int:
        """When page number `page` of the growth is written [GD-2]."""
        ta, wa, tb, wb = self._line()
        rise = self._base + 1 + page - wa
        wanted_ns = ta - (-rise * (tb - ta) // (wb - wa)) if wb > wa and rise > 0 else ta
        return max(self._reached(page), wanted_ns)

    def _next_batch(self, now_ns: int) -> None:
        due_ns = self._due(self._grown) if self._grown < self._growth else NEVER
        if due_ns > self._until_ns:  # this piece is over first: the next one sees what is missing
            self._growth = self._grown
            due_ns = self._until_ns
        self.next_ns = max(now_ns, due_ns)
