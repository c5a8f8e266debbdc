"""Who is let in under a controller that has no law of its own for starts.

What        `admit`: a start gets its minimum as soon as that much is free, and more of what is free beyond the
            controller's headroom. A start that does not fit waits; the controller's law sees free memory less what
            waits (`wanted_pages`), because a guest of Xen needs its memory at its build and not, as where a host
            overcommits by itself, page by page.
Units       Pages of 4 KiB.
Departs     The hypervisors that these laws are from let a guest start without memory for it, so their laws have no word
            about it. Starts are looked at one by one in the order of asking; a small one may be let in while a large
            one waits.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from podcluster.host.controllers.view import Grant, StartView, clamp


def admit(free_pages: int, starts: Iterable[StartView], headroom_pages: int) -> tuple[list[Grant], list[StartView]]:
    """Grants for the starts that fit, and those that still wait."""
    grants, waiting = [], []
    for start in starts:
        room_pages = free_pages - start.overhead_pages
        if room_pages < start.min_pages:
            waiting.append(start)
            continue
        target_pages = clamp(room_pages - headroom_pages, start.min_pages, start.max_pages)
        free_pages -= target_pages + start.overhead_pages
        grants.append(Grant(start.domain_id, target_pages))
    return grants, waiting


def wanted_pages(starts: Sequence[StartView]) -> int:
    """Memory that waiting starts need at least."""
    return sum(start.min_pages + start.overhead_pages for start in starts)
