"""A guest that only counts, and writes down what its balloon driver tells it."""

from typing import Any

from podcluster.host.balloon import Balloon, Manner
from podcluster.host.barrier import TIMEOUT_NS, poll_ns
from podcluster.host.fault import SOUND, Fault
from podcluster.host.linux_balloon import LinuxBalloon
from podcluster.host.lock import Lock
from podcluster.host.takers import Taker
from podcluster.host.windows_balloon import WindowsBalloon
from podcluster.units import NS_PER_S, s_to_ns


class Pages:
    """Memory that only counts: so much free, so much of a debt; `full` makes Xen give none, `short` take fewer."""

    def __init__(self, available: int, debt: int) -> None:
        self.available = self.free = available
        self.debt = debt
        self.ballooned_pages = self.hotplugged_pages = 0
        self.crashed = False
        self.full = False
        self.short = False
        self.refusal = "no"
        self.batches: list[int] = []
        self.lock = Lock(None, 1)

    def inflate(
        self,
        pages: int,
        at_ns: int,
        *,
        batch_pages: int,
        scrub: bool,
        ascending: bool,
        contiguous: bool = False,
    ) -> tuple[int, bool]:
        if self.short:
            return 0, False
        self.batches += [min(batch_pages, pages - done) for done in range(0, pages, batch_pages)]
        self.available -= pages
        self.free -= pages
        self.debt = max(0, self.debt - pages)
        self.ballooned_pages += pages
        return pages, True

    def deflate(self, pages: int) -> int:
        got = 0 if self.full else min(pages, self.ballooned_pages)
        self.ballooned_pages -= got
        self.available += got
        self.free += got
        return got

    def hotplug(self, pages: int, section_pages: int) -> bool:
        if pages // 64 > self.available:
            return False
        self.available -= pages // 64
        self.ballooned_pages += pages
        self.hotplugged_pages += pages
        return True

    def next_ballooned(self, pages: int) -> list[int]:
        raise NotImplementedError


class Owner:
    """A guest that writes down what its driver tells it; it holds `held` pages, and `swap` takes so many."""

    def __init__(self, waits: bool = False, *, pages: Pages | None = None, held: int = 0, swap: int = 0) -> None:
        self.waits_for_balloon = waits
        self.told: list[tuple[float, str]] = []
        self._pages, self._held, self._swap = pages, held, swap

    @property
    def swaps(self) -> bool:
        return False

    @property
    def calm_ns(self) -> int:
        return 0

    @property
    def may_page_out(self) -> bool:
        return min(self._held, self._swap) > 0

    def page_out(self, pages: int, at_ns: int, within_ns: int) -> int:
        """A device of 1000 pages a second."""
        assert self._pages is not None
        gone = min(pages, self._held, self._swap, 1000 * within_ns // NS_PER_S)
        self._held -= gone
        self._swap -= gone
        self._pages.available += gone
        self._pages.free += gone
        self.told.append((at_ns / NS_PER_S, f"paged out {gone}"))
        return gone

    def barrier_panic_ns(self, cancelled_ns: int, progress_ns: int) -> int:
        """The kernel has waited from the start on."""
        return poll_ns(0, max(cancelled_ns, poll_ns(0, progress_ns) + TIMEOUT_NS))

    def balloon_low_enough(self, at_ns: int) -> None:
        self.waits_for_balloon = False

    def balloon_done(self, at_ns: int) -> None:
        self.waits_for_balloon = False
        self.told.append((at_ns / NS_PER_S, "done"))

    def balloon_gave_up(self, at_ns: int, need_pages: int) -> None:
        self.told.append((at_ns / NS_PER_S, f"gave up {need_pages}"))

    def balloon_refused(self, at_ns: int, line: str) -> None:
        self.told.append((at_ns / NS_PER_S, f"refused: {line}"))

    def balloon_grew(self, at_ns: int, pages: int) -> None:
        self.told.append((at_ns / NS_PER_S, f"grew {pages}"))

    def balloon_took_room(self, at_ns: int) -> None:
        pass

    def balloon_took_back(self, one: Taker, batch_pages: int) -> None:
        raise NotImplementedError

    def balloon_gave_room(self, at_ns: int) -> None:
        self.told.append((at_ns / NS_PER_S, "room"))

    def balloon_bug(self, at_ns: int) -> None:
        self.told.append((at_ns / NS_PER_S, "bug"))

    def boot_barrier_failed(self, at_ns: int) -> None:
        self.told.append((at_ns / NS_PER_S, "barrier"))

    def die(self, at_ns: int) -> None:
        self.told.append((at_ns / NS_PER_S, "died"))


class Goal:
    """A target in xenstore that may change."""

    def __init__(self, pages: int) -> None:
        self.pages = pages

    def __call__(self) -> int:
        return self.pages


def linux(
    pages: Pages, owner: Owner, goal: Goal, rate: int = 5120, fault: Fault = SOUND, start_s: float = 0, **changed: Any
) -> LinuxBalloon:
    fields = {"pages_per_s": rate, "batch_pages": 512, "scrub": False, "reserve_pages": 0, **changed}
    driver = LinuxBalloon(pages, owner, goal, Manner(**fields), fault)
    driver.start(s_to_ns(start_s))
    return driver


def windows(
    pages: Pages, owner: Owner, goal: Goal, rate: int = 81_850, fault: Fault = SOUND, **changed: Any
) -> WindowsBalloon:
    fields = {"pages_per_s": rate, "batch_pages": 8185, "scrub": False, "reserve_pages": 0, **changed}
    driver = WindowsBalloon(pages, owner, goal, Manner(**fields), fault)
    driver.start(0)
    return driver


def run(driver: Balloon, until_s: float) -> None:
    """As the host's clock does: ahead where the heap is not touched, one by one where it may be."""
    until_ns = s_to_ns(until_s)
    while driver.next_ns <= until_ns:
        if driver.touches_heap():
            driver.run(driver.next_ns, single=True)
        else:
            driver.run(until_ns, single=False)


def step(driver: Balloon, until_s: float) -> list[float]:
    """Batch by batch; the instants at which it acted [s]."""
    instants = []
    while driver.next_ns <= s_to_ns(until_s):
        instants.append(driver.next_ns / NS_PER_S)
        driver.run(driver.next_ns, single=True)
    return instants
