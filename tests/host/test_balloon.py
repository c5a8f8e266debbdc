"""Do the balloon drivers give back what, when and as they should, and stop as they should?"""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from podcluster.config import HostConfig
from podcluster.host import domain as toolstack
from podcluster.host.balloon import Balloon, LinuxBalloon, WindowsBalloon
from podcluster.host.domain import Domain
from podcluster.host.guest_memory import GuestMemory
from podcluster.host.lock import Lock
from podcluster.host.machine import Machine
from podcluster.records import SetTarget
from podcluster.units import NS_PER_S, PAGES_PER_GIB, PAGES_PER_MIB, s_to_ns
from tests.host.lives import guest_config, host_model, live, one_life, request, seconds, start

MIB = PAGES_PER_MIB


class Pages:
    """Memory that only counts: so much free, so much of a debt; `full` makes Xen refuse to give pages back."""

    def __init__(self, available: int, debt: int) -> None:
        self.available = available
        self.debt = debt
        self.ballooned_pages = 0
        self.crashed = False
        self.full = False
        self.batches: list[int] = []
        self.lock = Lock(None, 1)

    def inflate(self, pages: int, *, batch_pages: int, scrub: bool, ascending: bool) -> tuple[int, bool]:
        self.batches += [min(batch_pages, pages - done) for done in range(0, pages, batch_pages)]
        self.available -= pages
        self.debt = max(0, self.debt - pages)
        self.ballooned_pages += pages
        return pages, True

    def deflate(self, pages: int) -> int:
        got = 0 if self.full else min(pages, self.ballooned_pages)
        self.ballooned_pages -= got
        self.available += got
        return got


class Owner:
    """A guest that writes down what its driver tells it."""

    def __init__(self, waits: bool = False) -> None:
        self.waits_for_balloon = waits
        self.told: list[tuple[float, str]] = []

    def balloon_done(self, at_ns: int) -> None:
        self.waits_for_balloon = False
        self.told.append((at_ns / NS_PER_S, "done"))

    def balloon_gave_up(self, at_ns: int, need_pages: int) -> None:
        self.told.append((at_ns / NS_PER_S, f"gave up {need_pages}"))

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


def linux(pages: Pages, owner: Owner, goal: Goal, rate: int = 5120) -> LinuxBalloon:
    driver = LinuxBalloon(pages, owner, goal, pages_per_s=rate, batch_pages=512, scrub=False)
    driver.start(0)
    return driver


def windows(pages: Pages, owner: Owner, goal: Goal, rate: int = 81_850) -> WindowsBalloon:
    driver = WindowsBalloon(pages, owner, goal, pages_per_s=rate, batch_pages=8185, scrub=False)
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


# -- batches -----------------------------------------------------------------------------------------------------


def test_linux_gives_back_512_at_a_time_at_its_rate() -> None:
    """C1.4: 1300 pages at 5120 a second are batches of 512, 512, 276 at 0, 0.1, 0.2 s, done with the last page."""
    pages, owner = Pages(10_000, 10_000), Owner()
    run(linux(pages, owner, Goal(1300)), 60)
    assert pages.batches == [512, 512, 276]
    assert owner.told == [(0.253906250, "done")]


def test_windows_gives_back_8185_at_a_time() -> None:
    """C2.3: one memory-descriptor list a batch."""
    pages, owner = Pages(100_000, 100_000), Owner()
    run(windows(pages, owner, Goal(20_000)), 60)
    assert pages.batches == [8185, 8185, 3630]
    assert [told for _, told in owner.told] == ["done"]


def test_a_goal_of_nothing_is_reached_at_once() -> None:
    """A guest that was promised nothing passes the barrier when its driver starts."""
    owner = Owner(waits=True)
    run(windows(Pages(100, 0), owner, Goal(0)), 60)
    assert owner.told == [(0, "done")]


@given(
    debt=st.integers(0, 6000),
    goal=st.integers(0, 6000),
    free=st.one_of(st.integers(0, 7000), st.integers(0, 13).map(lambda batches: 512 * batches)),
    cuts=st.lists(st.integers(0, 3000), max_size=6),
    kind=st.sampled_from(["linux", "windows"]),
)
def test_many_batches_at_once_are_the_same_batches(debt: int, goal: int, free: int, cuts: list[int], kind: str) -> None:
    """BA-1: run ahead with stops anywhere, or batch by batch: the same batches, at the same times, to the same end."""
    ends = []
    for single in (False, True):
        pages, owner = Pages(free, debt), Owner(waits=True)
        make = linux if kind == "linux" else windows
        driver: Balloon = make(pages, owner, Goal(goal), 5120)
        for cut_ms in [] if single else sorted(cuts):
            run(driver, cut_ms / 1000)
        while driver.next_ns <= s_to_ns(400):
            if single or driver.touches_heap():
                driver.run(driver.next_ns, single=True)
            else:
                driver.run(s_to_ns(400), single=False)
        ends.append((pages.batches, owner.told, driver.next_ns, driver.gave_up, pages.ballooned_pages))
    assert ends[0] == ends[1]


def test_only_what_the_debt_covers_is_done_out_of_turn() -> None:
    """BA-2: a batch that its debt does not cover is announced as one that may touch the host's heap."""
    pages, owner = Pages(10_000, 1000), Owner()
    driver = linux(pages, owner, Goal(3000))
    driver.run(0, single=False)
    driver.run(s_to_ns(60), single=False)
    assert pages.batches == [512]
    assert driver.touches_heap()


# -- failures ------------------------------------------------------------------------------------------------------


def test_linux_waits_2_4_8_seconds_and_is_cancelled() -> None:
    """C1.7: four failed tries, then nothing for an hour, then the same again."""
    pages, owner = Pages(0, 10_000), Owner()
    driver = linux(pages, owner, Goal(700))
    instants = []
    while driver.next_ns <= s_to_ns(3700):
        instants.append(driver.next_ns / NS_PER_S)
        driver.run(driver.next_ns, single=True)
    tries = [0, 2, 6, 14]
    assert instants == [0, *tries, 3614, *(3614 + t for t in tries)]
    assert owner.told == [(14, "gave up 700"), (3628, "gave up 700")]
    assert driver.gave_up == 2


def test_a_success_forgets_failures() -> None:
    """C1.7: delay and count start anew."""
    pages, owner = Pages(0, 10_000), Owner()
    driver = linux(pages, owner, Goal(2000))
    run(driver, 5)
    pages.available = 512
    run(driver, 7)
    assert (pages.batches, driver.next_ns) == ([512], s_to_ns(8.1))  # failed again at 6.1 s, delay 2 s
    run(driver, 20.1)
    assert driver.gave_up == 1  # at 6.1, 8.1, 12.1 and 20.1 s


def test_the_boot_barrier_panics_180_seconds_after_the_last_progress() -> None:
    """C1.8: cancelled, still waited for, and no progress since the batch at 0.1 s."""
    pages, owner = Pages(1024, 10_000), Owner(waits=True)
    driver = linux(pages, owner, Goal(3000))
    run(driver, 1000)
    assert pages.batches == [512, 512]
    assert owner.told == [(14.2, "gave up 1976"), (180.1, "barrier")]


def test_windows_retries_each_second_and_wakes_when_memory_is_freed() -> None:
    """C2.5: an aborted round is tried again after 1 s, for ever; with nothing to take it sleeps until some is freed."""
    pages, owner = Pages(10_000, 100_000), Owner()
    driver = windows(pages, owner, Goal(30_000))
    run(driver, 3600)
    assert pages.batches == [8185, 1815]
    assert [told for _, told in owner.told] == ["gave up 20000"]
    pages.available = 50_000
    driver.memory_freed(s_to_ns(3600.5))
    # Rounds at 0 and 0.1 s, so retries at 1.1, 2.1, ...
    assert driver.next_ns == s_to_ns(3601.1)
    run(driver, 4000)
    assert pages.ballooned_pages == 30_000


def test_a_raised_target_lets_the_driver_ask_for_pages() -> None:
    """C1.7 the other way: batches of 512; a host that gives nothing is a failure with back-off."""
    pages, owner, goal = Pages(10_000, 0), Owner(), Goal(2000)
    driver = linux(pages, owner, goal)
    run(driver, 10)
    goal.pages = 900
    driver.target_changed(s_to_ns(10))
    assert driver.touches_heap()
    run(driver, 20)
    assert pages.ballooned_pages == 900
    assert [told for _, told in owner.told] == ["done", "room", "room", "room", "done"]
    goal.pages, pages.full = 100, True
    driver.target_changed(s_to_ns(20))
    run(driver, 100)
    assert owner.told[-1] == (34, "gave up -800")


def test_a_target_before_the_driver_runs_is_read_when_it_does() -> None:
    """No watch fires in a guest whose driver is not loaded."""
    pages, owner, goal = Pages(10_000, 10_000), Owner(), Goal(2000)
    driver = LinuxBalloon(pages, owner, goal, pages_per_s=5120, batch_pages=512, scrub=False)
    driver.start(s_to_ns(5))
    goal.pages = 1000
    driver.target_changed(s_to_ns(1))
    run(driver, 60)
    assert pages.ballooned_pages == 1000


# -- on a machine ------------------------------------------------------------------------------------------------------


def test_nothing_reaches_the_host_until_the_debt_is_paid() -> None:
    """A3.8: memory 1024, maxmem 2048: the first 262,144 pages free nothing; page 262,145 is the first that does."""
    machine = Machine(2 * PAGES_PER_GIB)
    built = toolstack.build(machine, 1, request(0, "linux", 1024, 2048), HostConfig(), guest_config("linux"))
    assert isinstance(built, Domain)
    memory = GuestMemory(
        machine, 1, built.layout, image_pages=1000, descriptor_pages=0, block_pages=512, rng=None, may_skip=True
    )
    free = machine.free_pages
    assert memory.inflate(262_144, batch_pages=512, scrub=False, ascending=False) == (262_144, True)
    assert (machine.free_pages, memory.debt) == (free, 0)
    assert memory.inflate(1, batch_pages=512, scrub=False, ascending=False) == (1, True)
    assert machine.free_pages == free + 1


@pytest.mark.parametrize("scrub", [False, True])
@pytest.mark.parametrize(("kind", "beyond_mib"), [("linux", 9), ("windows", 1)])
def test_a_driver_ends_where_its_toolstack_says(kind: str, beyond_mib: int, scrub: bool) -> None:
    """C1.2, C2.1: maxmem - memory, and beyond it 1 MiB of fudge and (Linux) the video RAM; no debt is left."""
    row = one_life(kind, 64, 200, balloon={"scrub": scrub})
    assert row.fate == "running"
    assert row.ballooned_pages == (200 - 64 + beyond_mib) * MIB
    assert row.entry_count == row.cache_count


def test_scrubbing_populates_what_is_about_to_go() -> None:
    """C1.5: with scrubbing on each page is populated first; off, untouched pages cost nothing."""
    scrubbed, plain = (
        one_life("linux", 64, 200, balloon={"scrub": scrub}, page_cache={"rate_mib_per_s": 0})
        for scrub in (True, False)
    )
    assert scrubbed.populated_2m + scrubbed.populated_4k > plain.populated_2m + plain.populated_4k
    assert scrubbed.nonzero_pages_peak == plain.nonzero_pages_peak


def test_a_guest_that_holds_too_much_keeps_its_balloon_short() -> None:
    """BA-3: services larger than what the target leaves: Linux takes all that is free and gives up."""
    guest = guest_config(
        "linux",
        services_mib=[31, 31],
        services_s=[1, 1],
        balloon={"start_s": [10, 10], "boot_barrier": False},
        page_cache={"rate_mib_per_s": 0},
    )
    report = live(host_model(guest), 60, start(request(0, "linux", 48, 56)))
    row = report.domains[0]
    assert row.balloon_gave_up == 1
    assert (56 - 48) * MIB < row.ballooned_pages < (56 - 48 + 9) * MIB
    assert row.entry_count == row.cache_count == 0
    assert row.nonzero_pages_peak == row.tot_pages
    assert [event.kind for event in report.events if event.kind.startswith("balloon")] == ["balloon_gave_up"]


def test_mem_set_moves_the_balloon_both_ways() -> None:
    """B4.1, B4.3: the driver follows the new target; pages come from and go to the host."""
    model = host_model(guest_config("linux", page_cache={"rate_mib_per_s": 0}))
    model.advance(s_to_ns(30), [start(request(0, "linux", 64, 128))])
    free = model.advance(s_to_ns(31), []).view.free_pages
    up = model.advance(s_to_ns(60), [SetTarget(s_to_ns(32), 0, 96 * MIB)]).view.free_pages
    # At build the balloon went 1 MiB deeper (the fudge) than `mem-set` asks for.
    assert free - up == (32 + 1) * MIB
    down = live(model, 90, SetTarget(s_to_ns(62), 0, 64 * MIB))
    assert down.view.free_pages == free - MIB
    assert down.domains[0].ballooned_pages == (128 - 64 + 8) * MIB


def test_windows_starts_late_and_hides_nothing_until_then() -> None:
    """C2.2: the driver begins `start_s` after the kernel; until then the debt is whole."""
    guest = guest_config("windows", balloon={"start_s": [20, 20]}, page_cache={"rate_mib_per_s": 0})
    model = host_model(guest, telemetry_s=1)
    report = live(model, 60, start(request(0, "windows", 64, 128)))
    done = [event for event in report.events if event.kind == "balloon_done"]
    assert len(done) == 1
    assert 20 < seconds(done[0].t_ns) < 25
    before = [sample for sample in report.samples if 2 <= seconds(sample.t_ns) <= 20]
    assert {sample.entry_pages - sample.cache_pages for sample in before} == {64 * MIB}
    assert report.samples[-1].entry_pages == report.samples[-1].cache_pages
