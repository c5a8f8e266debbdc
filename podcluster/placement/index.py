"""What the policies share: the rule that a host fits, and an index of hosts by uncommitted memory.

What        The uncommitted memory of a host is U - committed. The index answers "the first host with at least n pages"
            from a tree of maxima and "the least sufficient one" from a sorted list, and follows commitments one by one.
Units       Pages.
Symbols     U usable_pages
Invariants  [PLACE-1] committed + need <= U   [PLACE-2] maxmem <= U
"""

from __future__ import annotations

from bisect import bisect_left, insort
from collections.abc import Sequence
from dataclasses import replace

from podcluster.errors import InvariantError
from podcluster.records import Ask, HostView, Rejected
from podcluster.units import pages_to_mib


def fits(ask: Ask, view: HostView) -> bool:
    """Whether this host may take the request: [PLACE-1] and [PLACE-2]."""
    return view.committed_pages + ask.need_pages <= view.usable_pages and ask.maxmem_pages <= view.usable_pages


def rejection(ask: Ask, most_usable_pages: int, most_free_pages: int) -> Rejected:
    """Say why no host fits, given the largest U and the largest uncommitted memory there is."""
    if ask.maxmem_pages > most_usable_pages:
        return Rejected(
            f"maxmem of {pages_to_mib(ask.maxmem_pages)} MiB is more than any host can give "
            f"({pages_to_mib(most_usable_pages)} MiB)",
            "too_large",
        )
    return Rejected(
        f"needs {pages_to_mib(ask.need_pages)} MiB; the host with most has {pages_to_mib(most_free_pages)} MiB "
        "uncommitted"
    )


def rejected_by(ask: Ask, views: Sequence[HostView]) -> Rejected:
    """Say why none of `views` fits."""
    return rejection(
        ask,
        max((view.usable_pages for view in views), default=0),
        max((view.usable_pages - view.committed_pages for view in views), default=0),
    )


class HostIndex:
    """Hosts by uncommitted memory, in host_id order; `commit` and `release` keep it up to date.

    `tree` is a heap-ordered tree of maxima over hosts (leaf i at `size + i`), `by_free` the pairs (uncommitted,
    position) in ascending order, so that the least sufficient host, lowest id first among equals, is one bisection
    away.
    """

    def __init__(self, views: Sequence[HostView]) -> None:
        self._views = list(views)
        self._host_ids = [view.host_id for view in views]
        if any(a >= b for a, b in zip(self._host_ids, self._host_ids[1:], strict=False)):
            raise InvariantError(f"[PLACE-0] views must be in ascending host_id order, got {self._host_ids[:10]}...")
        self._position = {host_id: i for i, host_id in enumerate(self._host_ids)}
        self._usable = [view.usable_pages for view in views]
        self._size = 1 << max(0, (len(views) - 1).bit_length())
        # Leaves past the last host are never sufficient: no request is for less than 0 pages.
        self._tree = [-1] * (2 * self._size)
        for i, view in enumerate(views):
            self._tree[self._size + i] = view.usable_pages - view.committed_pages
        for node in range(self._size - 1, 0, -1):
            self._tree[node] = max(self._tree[2 * node], self._tree[2 * node + 1])
        self._by_free = sorted((self._tree[self._size + i], i) for i in range(len(views)))
        self._usable_max = max(self._usable, default=0)

    def free_pages(self, host_id: int) -> int:
        """U - committed of this host."""
        return self._tree[self._size + self._position[host_id]]

    def first_fit(self, ask: Ask) -> int | Rejected:
        """The lowest host_id that fits."""
        position = self._first_from(0, ask.need_pages)
        # With hosts of one size the first hit has U enough, if any has; otherwise go on behind the hosts too small.
        while position >= 0 and self._usable[position] < ask.maxmem_pages:
            position = self._first_from(position + 1, ask.need_pages)
        if position < 0:
            return self._rejection(ask)
        return self._host_ids[position]

    def best_fit(self, ask: Ask) -> int | Rejected:
        """The host that fits and would have least left, lowest host_id among equals."""
        for rank in range(bisect_left(self._by_free, (ask.need_pages, -1)), len(self._by_free)):
            position = self._by_free[rank][1]
            if self._usable[position] >= ask.maxmem_pages:
                return self._host_ids[position]
        return self._rejection(ask)

    def views(self) -> list[HostView]:
        """What is known of the hosts by now, in host_id order."""
        return [
            replace(view, committed_pages=view.usable_pages - self._tree[self._size + i])
            for i, view in enumerate(self._views)
        ]

    def place(self, host_id: int, ask: Ask) -> None:
        """Commit what a request needs to this host, and note what it promises."""
        self.commit(host_id, ask.need_pages)
        position = self._position[host_id]
        view = self._views[position]
        self._views[position] = replace(
            view,
            promised_pages=view.promised_pages + ask.maxmem_pages,
            overhead_pages=view.overhead_pages + ask.overhead_pages,
        )

    def leave(self, host_id: int, ask: Ask) -> None:
        """Take back what `place` noted: the domain has left."""
        self.release(host_id, ask.need_pages)
        position = self._position[host_id]
        view = self._views[position]
        self._views[position] = replace(
            view,
            promised_pages=view.promised_pages - ask.maxmem_pages,
            overhead_pages=view.overhead_pages - ask.overhead_pages,
        )

    def commit(self, host_id: int, pages: int) -> None:
        """Take `pages` of this host's uncommitted memory (negative: give back)."""
        position = self._position[host_id]
        node = self._size + position
        before = self._tree[node]
        after = before - pages
        if not 0 <= after <= self._usable[position]:
            raise InvariantError(
                f"[PLACE-1] committed + need <= U violated: free={before}, need={pages}, "
                f"U={self._usable[position]} (host {host_id})"
            )
        del self._by_free[bisect_left(self._by_free, (before, position))]
        insort(self._by_free, (after, position))
        self._tree[node] = after
        node >>= 1
        while node:
            self._tree[node] = max(self._tree[2 * node], self._tree[2 * node + 1])
            node >>= 1

    def release(self, host_id: int, pages: int) -> None:
        """Give back `pages` that were committed on this host."""
        self.commit(host_id, -pages)

    def _first_from(self, start: int, pages: int) -> int:
        """The first position >= start with at least `pages` uncommitted, or -1. One climb and one descent."""
        if start >= self._size:
            return -1
        node = self._size + start
        while self._tree[node] < pages:
            # Climb past every subtree that lies wholly to the left, then step to the next one on the right.
            while node & 1:
                node >>= 1
            if node == 0:
                return -1
            node += 1
        while node < self._size:
            node *= 2
            if self._tree[node] < pages:
                node += 1
        return node - self._size

    def _rejection(self, ask: Ask) -> Rejected:
        return rejection(ask, self._usable_max, max(self._tree[1], 0))
