"""A machine on which every range operation is the loop over its pages: what the fast path is held against.

What        `PageLoop`, the real machine without its range kernels; `make_page_loop_host`, a host on it that runs no
            guest ahead and leaves nothing of a demand out.
Units       Pages of 4 KiB.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from podcluster.cluster.pool import HostPlan
from podcluster.config import HostConfig
from podcluster.host.batches import ALL_GIVEN, CUT_SHORT, DIED, HEAP_NEXT
from podcluster.host.machine import Ballooned, Machine
from podcluster.host.mechanism import Mechanism
from podcluster.host.model import HostModel, make_machine
from podcluster.host.written import ZERO
from podcluster.records.hosts import HostSpec


def _gfns(first_gfn: int, count: int, descending: bool) -> NDArray[np.int64]:
    gfns = np.arange(first_gfn, first_gfn + count, dtype=np.int64)
    return gfns[::-1].copy() if descending else gfns


class PageLoop(Machine):
    """The real machine, a page at a time."""

    paces = False

    def __init__(self, host_pages: int, **options: Any) -> None:
        super().__init__(host_pages, **options)
        self._hypercall_ns = int(options["costs"]["hypercall_ns"])

    def touch_range(self, dom: int, first_gfn: int, count: int, *, content: int, descending: bool = False) -> int:
        """Page by page in one loop."""
        return self.touch_list(dom, _gfns(first_gfn, count, descending), content=content)

    def balloon_range(self, dom: int, first_gfn: int, count: int, *, descending: bool = False) -> int:
        """Page by page in one loop."""
        return self.balloon_list(dom, _gfns(first_gfn, count, descending))

    def balloon_runs(
        self,
        dom: int,
        runs: Sequence[tuple[int, int]],
        *,
        batch_pages: int,
        ascending: bool = False,
        scrub: bool = False,
        until_heap: bool = False,
    ) -> Ballooned:
        """Batch by batch, each page by page."""
        gfns = np.concatenate([_gfns(first, count, True) for first, count in runs] or [np.empty(0, np.int64)])
        whole = 0
        for at in range(0, len(gfns), batch_pages):
            batch = gfns[at : at + batch_pages]
            if until_heap and self.debt_pages(dom) < len(batch):
                return Ballooned(HEAP_NEXT, whole, 0, 0)
            if ascending:
                batch = np.sort(batch)
            zeroed = self.touch_list(dom, batch, content=ZERO) if scrub else 0
            if scrub and zeroed < len(batch):
                return Ballooned(DIED, whole, zeroed, 0)
            given = self.balloon_list(dom, batch)
            if given < len(batch):
                return Ballooned(CUT_SHORT, whole, zeroed, given)
            whole += len(batch)
        return Ballooned(ALL_GIVEN, whole, 0, 0)

    def populate_range(self, dom: int, first_gfn: int, count: int, *, descending: bool = False) -> int:
        """A call a page, of which Xen is entered once."""
        done = calls = 0
        for gfn in _gfns(first_gfn, count, descending).tolist():
            calls += 1
            if super().populate_range(dom, gfn, 1) < 1:
                break
            done += 1
        self.set_clock(dom, self.clock(dom) - max(0, calls - 1) * self._hypercall_ns)
        return done


def _make_machine(host: HostConfig, ram_pages: int) -> Mechanism:
    return make_machine(host, ram_pages, PageLoop)


def make_page_loop_host(spec: HostSpec, plan: HostPlan) -> HostModel:
    """A host as `cluster.pool.make_host` makes it, on a page loop, every act on its own."""
    return HostModel(
        spec,
        plan.host,
        plan.guests,
        plan.seed,
        plan.telemetry_ns,
        machine_samples=plan.machine_samples,
        controller=plan.controller,
        machine=_make_machine,
        coalesce=False,
    )
