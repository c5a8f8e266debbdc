"""win-xenbus: lists of 8185 pages in ascending order, a retry each second for ever (C2).

What        `WindowsBalloon`; `low_memory_pages`, when Windows sets its low-memory event.
Units       Pages of 4 KiB; ns of simulated time.
Rules       A round goes on batch by batch, each of min(need, 8185) pages. It is aborted before a batch if the
            low-memory event is set, and after one that got fewer pages than asked, that came at less than 10,000
            pages/s (older driver) or 1000 (newer), or of which Xen took none; then it waits 1 s and begins again
            (C2.5). A deflation is aborted by a short populate, and begins again after 1 s.
            Below the working set: while the event is set and the driver waits, Windows pages out what is held until so
            much is available again that the event is clear, as far as the page file's speed and room allow; the next
            round takes from that. So a target below the working set is reached as fast as the page file can write,
            until it is full.
Departs     With nothing at all to take and nothing to page out, the retries before some memory is freed would change
            nothing and are left out; that the driver stopped short is counted once then. Hot-removal itself (C2.4)
            changes only which pages go: whole free 2 MiB first.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final

from podcluster.host import merged
from podcluster.host.balloon import Balloon, BalloonMemory, BalloonOwner, Manner
from podcluster.host.fault import SOUND, Fault
from podcluster.units import NS_PER_S, PAGES_PER_GIB, PAGES_PER_MIB

RETRY_NS: Final = 1 * NS_PER_S
SLOW_PAGES_PER_S: Final = 1000
SLOW_PAGES_PER_S_OLD: Final = 10_000


def low_memory_pages(ram_pages: int) -> int:
    """Available memory below which Windows sets the event: 32 MiB per 4 GiB, 64 MiB at most."""
    return min(ram_pages * 32 * PAGES_PER_MIB // (4 * PAGES_PER_GIB), 64 * PAGES_PER_MIB)


class WindowsBalloon(Balloon):
    """C2."""

    ascending = True
    retry_ns = RETRY_NS

    def __init__(
        self,
        memory: BalloonMemory,
        owner: BalloonOwner,
        goal: Callable[[], int],
        manner: Manner,
        fault: Fault = SOUND,
    ) -> None:
        super().__init__(memory, owner, goal, manner, fault)
        self._low = max(1, manner.reserve_pages)
        self._waited = False  # a second, since the event was found set

    @property
    def _slow(self) -> bool:
        return self._pages_per_s < (SLOW_PAGES_PER_S_OLD if self._manner.old else SLOW_PAGES_PER_S)

    @property
    def _reach(self) -> int:
        return max(self._memory.available, self._low)

    @property
    def _certainty(self) -> tuple[int, int, bool] | None:
        return None if self._slow else (0, self._low, False)

    @property
    def _finds_something(self) -> bool:
        return self._memory.available >= self._low or self._owner.may_page_out

    def _next_batch(self, at_ns: int) -> tuple[int, bool]:
        memory = self._memory
        if self._waited and memory.available < self._low:
            self._owner.page_out(self._low - memory.available, at_ns, RETRY_NS)
        self._waited = False
        if memory.available < self._low:
            return 0, False
        asked = min(self.need, self._batch_pages)
        pages = min(asked, memory.available)
        return pages, pages == asked and not (self._slow and pages < self.need)

    def leave(self, fields: Sequence[int], how: int, given: int) -> None:
        """How far it came; `given` pages of a batch that was cut short."""
        self._waited &= fields[merged.BEGAN] < 0
        super().leave(fields, how, given)

    def _is_enough(self, got: int, asked: int) -> bool:
        return got == asked

    def _survives_a_short_count(self) -> bool:
        """What Xen did not take goes back to Windows."""
        return True

    def _failed(self, at_ns: int, *, progress: bool) -> None:
        """The round is aborted."""
        self._waited = True
        if self.need > 0 and not self._finds_something:
            self._stall(at_ns + RETRY_NS)
            self._stop_short(at_ns)
        else:
            self._again(at_ns + RETRY_NS)
