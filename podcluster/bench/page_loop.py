"""A machine on which every range operation is the loop over its pages: what the fast path is held against.

What        `PageLoop`, the real machine without its range kernels; `make_page_loop_host`, a host on it that runs no
            guest ahead and leaves nothing of a demand out.
Units       Pages of 4 KiB.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from podcluster.cluster.pool import HostPlan
from podcluster.config import HostConfig
from podcluster.host.machine import Machine
from podcluster.host.mechanism import Mechanism
from podcluster.host.model import HostModel
from podcluster.records import HostSpec


def _gfns(first_gfn: int, count: int, descending: bool) -> NDArray[np.int64]:
    gfns = np.arange(first_gfn, first_gfn + count, dtype=np.int64)
    return gfns[::-1].copy() if descending else gfns


class PageLoop(Machine):
    """The real machine, a page at a time."""

    def touch_range(self, dom: int, first_gfn: int, count: int, *, content: int, descending: bool = False) -> int:
        """Page by page in one loop."""
        return self.touch_list(dom, _gfns(first_gfn, count, descending), content=content)

    def balloon_range(self, dom: int, first_gfn: int, count: int, *, descending: bool = False) -> int:
        """Page by page in one loop."""
        return self.balloon_list(dom, _gfns(first_gfn, count, descending))

    def populate_range(self, dom: int, first_gfn: int, count: int, *, descending: bool = False) -> int:
        """A call a page."""
        for done, gfn in enumerate(_gfns(first_gfn, count, descending).tolist()):
            if super().populate_range(dom, gfn, 1) < 1:
                return done
        return count


def _make_machine(host: HostConfig, ram_pages: int) -> Mechanism:
    return PageLoop(
        ram_pages,
        scrub_on_free=host.scrub_on_free,
        era=host.era,
        ring_slots=host.ring_slots,
        sweep_wraps=host.sweep_wraps,
        costs=vars(host.costs),
    )


def make_page_loop_host(spec: HostSpec, plan: HostPlan) -> HostModel:
    """A host as `cluster.pool.make_host` makes it, on a page loop, every act on its own."""
    return HostModel(
        spec,
        plan.host,
        plan.guests,
        plan.seed,
        plan.telemetry_ns,
        controller=plan.controller,
        machine=_make_machine,
        coalesce=False,
    )
