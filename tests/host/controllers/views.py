"""Domains and hosts to show a controller, sizes in MiB."""

from collections.abc import Sequence
from typing import Any

from podcluster.host.controllers.view import DomainView, StartView, View
from podcluster.host.guest_stats import GuestStats
from podcluster.units import NS_PER_S, PAGES_PER_MIB

MIB = PAGES_PER_MIB


def stats(total: int, used: int, cache: int = 0, swapped: int = 0, wanted: int | None = None) -> GuestStats:
    """What a guest says of itself."""
    return GuestStats(
        total * MIB,
        (total - used - cache) * MIB,
        cache * MIB,
        used * MIB,
        swapped * MIB,
        4096 * MIB,
        (used if wanted is None else wanted) * MIB,
    )


def domain(
    domid: int, low: int, high: int, size: int, *, used: int | None = None, owned: int | None = None, **changed: Any
) -> DomainView:
    """A domain with target `size`, which it owns unless told otherwise; `used` in its guest, None: it says nothing."""
    owned = size if owned is None else owned
    one = DomainView(
        domid=domid,
        domain_id=domid,
        dynamic_min_pages=low * MIB,
        dynamic_max_pages=high * MIB,
        static_max_pages=high * MIB,
        target_kib=size * 1024,
        tot_pages=owned * MIB,
        limit_pages=high * MIB,
        can_balloon=True,
        has_agent=True,
        memory_offset_pages=0,
        reservation_pages=size * MIB,
        shadow_pages=0,
        linux=True,
        stats=None if used is None else stats(owned, used),
    )
    return one._replace(**changed)


def host(
    free: int, domains: Sequence[DomainView], *, usable: int = 0, now_s: float = 0, starts: Sequence[StartView] = ()
) -> View:
    """A host of `usable` MiB, by default what it has free and its domains own."""
    own = sum(one.tot_pages for one in domains)
    return View(int(now_s * NS_PER_S), usable * MIB or free * MIB + own, free * MIB, 0, 0, domains, starts)


def start(low: int, high: int, overhead: int = 0, domain_id: int = 99) -> StartView:
    """A guest that waits."""
    return StartView(domain_id, f"vm{domain_id}", low * MIB, high * MIB, overhead * MIB, 0)
