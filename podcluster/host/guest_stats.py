"""What a guest's operating system says of its memory: all that a memory controller may know of the inside of a guest,
and true unless the guest lies to it.

What        `GuestStats`, one report.
Units       Pages of 4 KiB.
Invariants  [GT-1] total = used + cache + free, and none of them is below 0.
"""

from __future__ import annotations

from typing import NamedTuple


class GuestStats(NamedTuple):
    """One report of a guest that is up [pages]; whose words they are, `/proc/meminfo`'s or a PV driver's, is the
    reader's business.
    """

    total_pages: int  # what it has: RAM less the balloon (MemTotal)
    free_pages: int  # in nobody's use (MemFree)
    cache_pages: int  # page cache, droppable (Cached)
    used_pages: int  # its kernel, and what services and applications have in memory
    swapped_pages: int  # what they have on swap (SwapTotal - SwapFree)
    swap_pages: int  # room that swap has in all (SwapTotal)
    wanted_pages: int  # W: what the guest as a whole, its kernel included, wants to use now
