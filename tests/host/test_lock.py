"""Do accesses of one guest wait for each other, and is who waited late by as much?"""

from podcluster.host import merged
from podcluster.host.lock import Lock
from podcluster.host.streams import BATCH_PAGES, SERVICES, Pace, Stage


class Clock:
    """A machine on which each entry takes what it is told to."""

    def __init__(self) -> None:
        self.now_ns = 0
        self.interrupts: list[tuple[bool, int]] = []

    def set_clock(self, dom: int, now_ns: int) -> None:
        self.now_ns = now_ns

    def clock(self, dom: int) -> int:
        return self.now_ns

    def set_interrupts(self, dom: int, enabled: bool, vcpu: int) -> None:
        self.interrupts.append((enabled, vcpu))


def test_one_waits_for_the_other_and_both_are_late() -> None:
    """LK-1, LK-2: due at 10 and 11, 100 ns each in Xen: they begin at 10 and 110, and go on 100 and 199 ns late."""
    clock = Clock()
    lock = Lock(clock, 1)
    assert lock.enter(10) == 10
    clock.now_ns += 100
    assert lock.leave() == 100
    assert lock.enter(11) == 110
    clock.now_ns += 100
    assert lock.leave() == 199
    assert (lock.free_ns, lock.held_ns) == (210, 200)


def test_who_finds_nothing_to_do_keeps_its_pace() -> None:
    """LK-2: it is seen when the lock is free, and holds nobody up."""
    clock = Clock()
    lock = Lock(clock, 1)
    lock.enter(0)
    clock.now_ns += 50
    lock.leave()
    assert lock.enter(20) == 50
    assert lock.leave() == 0
    assert (lock.free_ns, lock.held_ns) == (50, 50)


def test_without_time_in_xen_nothing_moves() -> None:
    """LK-3."""
    lock = Lock(None, 1)
    assert lock.enter(7) == 7
    assert (lock.leave(), lock.timed, lock.faults) == (0, False, False)


def test_interrupts_are_told_where_they_change() -> None:
    """G7: off on the boot CPU at first, later on, on whichever vCPU acts."""
    clock = Clock()
    lock = Lock(clock, 1)
    for vcpu, enabled in ((0, False), (0, False), (0, True), (3, True), (3, True)):
        lock.enter(0, vcpu=vcpu, interrupts=enabled)
    assert clock.interrupts == [(False, 0), (True, 0), (True, 3)]


def test_who_waits_beyond_the_end_makes_one_batch_as_singly() -> None:
    """LK-1, GS-1: ten batches are due by 9, and the lock is free at 20: the next begins then, and the one after it no
    sooner, however many are asked for.
    """
    for single in (True, False):
        lock = Lock(Clock(), 1)
        lock.faults, lock.free_ns = False, 20
        wrote: list[tuple[int, int]] = []

        def write(_: int, pages: int, at_ns: int, wrote: list[tuple[int, int]] = wrote) -> int:
            wrote.append((pages, at_ns))
            return pages

        stage = Stage(
            SERVICES, lock, merged.HOLDS, write=write, died=lambda: False, on_death=print, on_done=lambda _: None
        )
        stage.start(Pace(0, 20, 20 * BATCH_PAGES))
        stage.run(9, single=single)
        assert (wrote, stage.next_ns) == ([(BATCH_PAGES, 20)], 20)
