"""The hosts as a scheduler knows them, kept so that the common policies answer in logarithmic time.

What        `HostIndex` is made of views, follows commitments one by one or a batch at a time, takes newer views in, and
            gives views back: a policy's `place` on these is what its `place_indexed` must equal. The searches are
            `search.py` and `weigh.py`.
Units       Pages, vCPUs, ns; variances in MiB squared.
Symbols     U usable_pages
Invariants  [PLACE-0] hosts are given in ascending host_id order
            [PLACE-1] committed + need <= U
"""

from __future__ import annotations

from bisect import bisect_left, insort
from collections.abc import Sequence
from dataclasses import replace
from typing import Any, Final, NamedTuple

import numpy as np

from podcluster.errors import InvariantError
from podcluster.placement import fields, search, weigh
from podcluster.placement.batch import Batch
from podcluster.placement.rules import NO_LIMIT, Rules
from podcluster.records.hosts import Ask, HostView, Rejected
from podcluster.records.values import Int64Array

LOADS: Final = (
    "committed_pages",
    "promised_pages",
    "overhead_pages",
    "target_pages",
    "demanded_pages",
    "vcpus",
    "mean_pages",
    "var_mib2",
)
"""What requests add to."""
COLUMNS: Final = (*LOADS, "leaves_ns", "usable_pages", "cpus")
REPORTED: Final = ("committed_pages", "promised_pages", "overhead_pages", "target_pages", "demanded_pages")
"""What a newer view replaces; the rest is the scheduler's own book."""
TOO_FULL: Final = -1
"""Uncommitted memory of a host that is closed: no request is for less than 0 pages."""


class Terms(NamedTuple):
    """What a policy that weighs hosts takes beside rules: ns of a bucket of life."""

    bucket_ns: int = 1


TERMS: Final = Terms()
ALL: Final = slice(None)


class HostIndex:
    """Hosts in host_id order by what they have left, under some rules.

    `kind`: of the searches that will be asked for (`search.FIRST`, ...), so that no structure is kept up to date that
    none of them needs; None: none will be.
    """

    def __init__(self, views: Sequence[HostView], rules: Rules | None = None, kind: int | None = None) -> None:
        self.rules = rules or Rules()
        self._kind = kind
        self.views_given = list(views)
        self.host_ids = [view.host_id for view in views]
        if any(a >= b for a, b in zip(self.host_ids, self.host_ids[1:], strict=False)):
            raise InvariantError(f"[PLACE-0] views must be in ascending host_id order, got {self.host_ids[:10]}...")
        self._position = {host_id: i for i, host_id in enumerate(self.host_ids)}
        rows = [[getattr(view, name) for name in COLUMNS] for view in views]
        self._table = np.array(rows, dtype=np.int64).reshape(len(views), fields.WIDTH)
        self.columns = {name: self._table[:, j] for j, name in enumerate(COLUMNS)}
        self._leaving: dict[int, list[int]] = {}  # departures of those on a host, ascending
        self._closed: set[int] = set()  # positions
        capacities = [(self.rules.capacity(view.usable_pages), self.rules.cpu_capacity(view.cpus)) for view in views]
        self._capacities = np.array(capacities, dtype=np.int64).reshape(-1)
        self._open: Int64Array | None = None  # positions of hosts that are not closed, once asked for
        dims = 1 if self.rules.memory_ratio is None and self.rules.vcpu_ratio is None else search.LIMITED_DIMS
        self._state = _structures([self._left(i) for i in range(len(views))], dims, kind)

    # -- what is known -----------------------------------------------------------------------------------------------

    def position(self, host_id: int) -> int:
        """Where a host stands in the columns."""
        return self._position[host_id]

    def knows(self, host_id: int) -> bool:
        """Whether there is such a host."""
        return host_id in self._position

    def free_pages(self, host_id: int) -> int:
        """U - committed of this host."""
        i = self._position[host_id]
        return int(self.columns["usable_pages"][i] - self.columns["committed_pages"][i])

    def view(self, position: int) -> HostView:
        """What is known of one host by now."""
        known = dict(zip(COLUMNS, self._table[position].tolist(), strict=True))
        return replace(self.views_given[position], **known)

    def views(self) -> list[HostView]:
        """What is known of the hosts by now, in host_id order; closed ones are left out."""
        return [self.view(i) for i in range(len(self.host_ids)) if i not in self._closed]

    def open_positions(self) -> Int64Array:
        """Positions of the hosts that are not closed, ascending."""
        if self._open is None:
            self._open = np.array([i for i in range(len(self.host_ids)) if i not in self._closed], dtype=np.int64)
        return self._open

    def fits(self, ask: Ask, position: int) -> bool:
        """Whether this host may take the request [PLACE-1] to [PLACE-4]; a closed one may not."""
        at = position * fields.FIELDS
        usable, free, limit, vcpus, _ = self._state[0][at : at + fields.FIELDS].tolist()
        return bool(
            free >= ask.need_pages
            and usable >= ask.maxmem_pages
            and limit >= self.rules.size(ask)
            and vcpus >= ask.vcpus
        )

    def fitting(self, ask: Ask) -> Int64Array:
        """Positions of all hosts that may take the request, ascending."""
        host = self._state[0].reshape(-1, fields.FIELDS)
        fits = (
            (host[:, fields.FREE] >= ask.need_pages)
            & (host[:, fields.USABLE] >= ask.maxmem_pages)
            & (host[:, fields.LIMIT] >= self.rules.size(ask))
            & (host[:, fields.VCPUS] >= ask.vcpus)
        )
        return np.flatnonzero(fits)

    def most_free(self, positions: Int64Array | slice = ALL) -> int:
        """The largest uncommitted memory of a host, of these."""
        usable, committed = self.columns["usable_pages"][positions], self.columns["committed_pages"][positions]
        return int((usable - committed).max(initial=0))

    def rejection(self, ask: Ask, most_free_pages: int | None = None, positions: Int64Array | slice = ALL) -> Rejected:
        """Say why none of these hosts fits; `most_free_pages` is what the host with most had uncommitted, None: what it
        has.
        """
        most = self.most_free(positions) if most_free_pages is None else most_free_pages
        return self.rules.rejection(ask, int(self.columns["usable_pages"][positions].max(initial=0)), most)

    # -- searches ----------------------------------------------------------------------------------------------------

    def choose(self, ask: Ask, cursor: int = 0, terms: Terms = TERMS) -> int | Rejected:
        """The host_id that the search finds; NEXT begins at host_id `cursor`."""
        if not self.host_ids:
            return self.rejection(ask)
        assert self._kind is not None, "an index that was made for no search"
        size = self.rules.size(ask)
        low = size if self._bounded else search.LOWEST
        found = search.choose(
            *self._state, self._table.reshape(-1), self._capacities, self._kind, self._start(cursor), low,
            ask.need_pages, ask.maxmem_pages, size, ask.vcpus, ask.overhead_pages, ask.mean_pages, ask.var_mib2,
            ask.arrival_ns, ask.leaves_ns, terms.bucket_ns, self.rules.pages_per_sd,
        )  # fmt: skip
        return self.rejection(ask) if found == fields.NOBODY else self.host_ids[found]

    def fill(self, batch: Batch, cursor: int = 0, terms: Terms = TERMS) -> tuple[Int64Array, Int64Array, int]:
        """Place request after request: positions (`fields.NOBODY` where none fitted), the largest uncommitted memory
        when one did not, and the cursor.
        """
        positions, most = np.full(len(batch), fields.NOBODY, dtype=np.int64), np.zeros(len(batch), dtype=np.int64)
        if not self.host_ids or not len(batch):
            return positions, most, cursor
        assert self._kind is not None, "an index that was made for no search"
        last = search.fill(
            *self._state, self._table.reshape(-1), self._capacities, self._kind, self._start(cursor), self._bounded,
            NO_LIMIT // 2, terms.bucket_ns, self.rules.pages_per_sd, batch.need_pages, batch.maxmem_pages,
            self.rules.size(batch), batch.vcpus, batch.overhead_pages, batch.mean_pages, batch.var_mib2,
            batch.arrival_ns, batch.leaves_ns, np.stack(taken_by(batch), axis=1).reshape(-1), positions,
            most,
        )  # fmt: skip
        took = positions >= 0
        for k in np.flatnonzero(took & (batch.leaves_ns > 0)).tolist():
            self._enter(int(positions[k]), int(batch.leaves_ns[k]))
        return positions, most, self.host_ids[last] if took.any() else cursor

    def xapi_values(self, ask: Ask, coordinator: int | None) -> tuple[Int64Array, Int64Array]:
        """Of each open host, in their order: its value as a definite and as a possible one (`weigh.xapi_values`).

        `coordinator`: the host_id of whom the bias is against.
        """
        positions = self.open_positions()
        definite, possible = np.empty(len(positions), dtype=np.int64), np.empty(len(positions), dtype=np.int64)
        biased = fields.NOBODY if coordinator is None else self._position.get(coordinator, fields.NOBODY)
        weigh.xapi_values(
            self._table.reshape(-1), positions, biased, ask.need_pages, ask.maxmem_pages, ask.overhead_pages,
            definite, possible,
        )  # fmt: skip
        return definite, possible

    def audit(self) -> None:
        """Hold the structures against the columns they were made from; our mistake stops the run."""
        left = np.array([self._left(i) for i in range(len(self.host_ids))], dtype=np.int64).reshape(-1)
        if not np.array_equal(left, self._state[0]):
            raise InvariantError("[PLACE-5] what hosts have left follows from the columns violated")
        flaw = search.flaw(*self._state)
        if flaw is not None:
            raise InvariantError(f"[PLACE-5] {flaw} violated: {len(self.host_ids)} hosts")

    # -- what changes ------------------------------------------------------------------------------------------------

    def place(self, host_id: int, ask: Ask) -> None:
        """Commit what a request needs to this host, and enter it in the book."""
        i = self._position[host_id]
        self._check(i, ask.need_pages)
        self._table[i, : fields.LOADS] += taken_by(ask)
        self._enter(i, ask.leaves_ns)
        self._refresh(i)

    def leave(self, host_id: int, ask: Ask) -> None:
        """Undo `place`: the domain has left."""
        i = self._position[host_id]
        self._check(i, -ask.need_pages)
        self._table[i, : fields.LOADS] -= taken_by(ask)
        self._strike(i, ask.leaves_ns)
        self._refresh(i)

    def commit(self, host_id: int, pages: int) -> None:
        """Take `pages` of this host's uncommitted memory (negative: give back)."""
        i = self._position[host_id]
        self._check(i, pages)
        self.columns["committed_pages"][i] += pages
        self._refresh(i)

    def release(self, host_id: int, pages: int) -> None:
        """Give back `pages` that were committed on this host."""
        self.commit(host_id, -pages)

    def enter(self, host_id: int, ask: Ask) -> None:
        """Enter a request in the book of a host whose views say for themselves what is committed."""
        i = self._position[host_id]
        for name in ("vcpus", "mean_pages", "var_mib2"):
            self.columns[name][i] += getattr(ask, name)
        self._enter(i, ask.leaves_ns)
        self._refresh(i)

    def strike(self, host_id: int, ask: Ask) -> None:
        """Undo `enter`: the domain has left, and what is committed the host's views say."""
        i = self._position[host_id]
        for name in ("vcpus", "mean_pages", "var_mib2"):
            self.columns[name][i] -= getattr(ask, name)
        self._strike(i, ask.leaves_ns)
        self._refresh(i)

    def observe(self, view: HostView) -> None:
        """Take in a newer view."""
        i = self._position[view.host_id]
        self.views_given[i] = view
        for name in REPORTED:
            self.columns[name][i] = getattr(view, name)
        self._refresh(i)

    def close(self, host_id: int) -> None:
        """Let no search find this host until it is opened again."""
        i = self._position[host_id]
        self._closed.add(i)
        self._open = None
        self._refresh(i)

    def is_open(self, host_id: int) -> bool:
        """Whether searches may find it."""
        return self._position[host_id] not in self._closed

    def open(self, host_id: int) -> None:
        """Undo `close`."""
        i = self._position[host_id]
        self._closed.discard(i)
        self._open = None
        self._refresh(i)

    # -- within ------------------------------------------------------------------------------------------------------

    @property
    def _bounded(self) -> bool:
        """Whether a host that fits has room for the size."""
        return self.rules.memory_ratio is not None or self.rules.by == "dynamic_min"

    def _start(self, cursor: int) -> int:
        return bisect_left(self.host_ids, cursor)

    def _left(self, position: int) -> tuple[int, int, int, int, int]:
        """U, uncommitted memory, limit of size, vCPUs left and room of one host."""
        view = self.view(position)
        free = TOO_FULL if position in self._closed else view.usable_pages - view.committed_pages
        rules = self.rules
        return view.usable_pages, free, rules.limit(view), rules.vcpus_left(view), rules.room(view)

    def _refresh(self, position: int) -> None:
        search.change(*self._state, position, *self._left(position)[1:])

    def _enter(self, position: int, leaves_ns: int) -> None:
        if leaves_ns > 0:
            leaving = self._leaving.setdefault(position, [])
            insort(leaving, leaves_ns)
            self.columns["leaves_ns"][position] = leaving[-1]

    def _strike(self, position: int, leaves_ns: int) -> None:
        if leaves_ns > 0:
            leaving = self._leaving[position]
            del leaving[bisect_left(leaving, leaves_ns)]
            self.columns["leaves_ns"][position] = leaving[-1] if leaving else 0

    def _check(self, position: int, pages: int) -> None:
        usable = int(self.columns["usable_pages"][position])
        free = usable - int(self.columns["committed_pages"][position])
        if not 0 <= free - pages <= usable:
            raise InvariantError(
                f"[PLACE-1] committed + need <= U violated: free={free}, need={pages}, "
                f"U={usable} (host {self.host_ids[position]})"
            )


def taken_by(ask: Ask | Batch) -> list[Any]:
    """What a request, or each of a batch, adds to the columns LOADS of its host."""
    memory = ask.need_pages - ask.overhead_pages
    return [
        ask.need_pages,
        ask.maxmem_pages,
        ask.overhead_pages,
        memory,
        ask.mean_pages,
        ask.vcpus,
        ask.mean_pages,
        ask.var_mib2,
    ]


def _structures(
    left: Sequence[tuple[int, ...]], dims: int, kind: int | None
) -> tuple[Int64Array, Int64Array, Int64Array, Int64Array, int]:
    """The arrays of `search.py` over these hosts; those that this kind of search does not need are empty."""
    host = np.array(left, dtype=np.int64).reshape(-1)
    tree = block = directory = np.empty(0, dtype=np.int64)
    if kind in (search.FIRST, search.NEXT):
        tree = search.new_tree(host, dims)
    if kind in (search.BEST, search.WORST):
        block, directory = search.new_blocks(host)
    return host, tree, block, directory, dims
