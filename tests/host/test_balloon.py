"""Do the balloon drivers give back what, when and as they should, and stop as they should?"""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from podcluster.config import FaultConfig, HostConfig
from podcluster.host import domain as toolstack
from podcluster.host.balloon import Balloon
from podcluster.host.barrier import poll_ns
from podcluster.host.domain import Domain
from podcluster.host.fault import SOUND, Fault
from podcluster.host.guest_memory import GuestMemory
from podcluster.host.linux_balloon import reserve_pages
from podcluster.host.machine import Machine
from podcluster.host.windows_balloon import low_memory_pages
from podcluster.records.commands import SetTarget
from podcluster.units import NS_PER_S, PAGES_PER_GIB, PAGES_PER_MIB, s_to_ns
from tests.host.drivers import Goal, Owner, Pages, linux, run, step, windows
from tests.host.lives import guest_config, host_model, live, one_life, request, seconds, start

MIB = PAGES_PER_MIB


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


FAULTS = [SOUND, Fault("intermittent", False, s_to_ns(3), s_to_ns(0.25)), Fault("slow", slow_pages_per_s=900)]


@given(
    debt=st.integers(0, 6000),
    goal=st.integers(0, 6000),
    free=st.one_of(st.integers(0, 7000), st.integers(0, 13).map(lambda batches: 512 * batches)),
    reserve=st.sampled_from([0, 100, 512, 700]),
    old=st.booleans(),
    fault=st.sampled_from(FAULTS),
    cuts=st.lists(st.integers(0, 3000), max_size=6),
    kind=st.sampled_from(["linux", "windows"]),
)
def test_many_batches_at_once_are_the_same_batches(
    debt: int, goal: int, free: int, reserve: int, old: bool, fault: Fault, cuts: list[int], kind: str
) -> None:
    """BA-1: run ahead with stops anywhere, or batch by batch: the same batches, at the same times, to the same end."""
    ends = []
    for single in (False, True):
        pages = Pages(free, debt)
        owner = Owner(waits=True, pages=pages, held=3000, swap=2000)
        make = linux if kind == "linux" else windows
        driver: Balloon = make(pages, owner, Goal(goal), 5120, fault, reserve_pages=reserve, old=old, batch_pages=512)
        for cut_ms in [] if single else sorted(cuts):
            run(driver, cut_ms / 1000)
        if single:
            step(driver, 400)
        else:
            run(driver, 400)
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


# -- Linux: reserve, back-off, barrier ------------------------------------------------------------------------------


def test_linux_waits_2_4_8_seconds_and_is_cancelled() -> None:
    """C1.7: four failed tries, then nothing for an hour, then the same again."""
    pages, owner = Pages(0, 10_000), Owner()
    driver = linux(pages, owner, Goal(700))
    tries = [0, 2, 6, 14]
    assert step(driver, 3700) == [0, *tries, 3614, *(3614 + t for t in tries)]
    assert owner.told == [(14, "gave up 700"), (3628, "gave up 700")]
    assert driver.gave_up == 2


def test_the_older_linux_driver_tries_for_ever() -> None:
    """C1.7: 2, 4, 8, 16, 32, 32, ... s, and it goes on at such an instant when memory is freed at last."""
    pages, owner = Pages(0, 10_000), Owner()
    driver = linux(pages, owner, Goal(700), old=True)
    assert step(driver, 100) == [0, 0, 2, 6, 14, 30]
    assert owner.told == [(14, "gave up 700")]
    assert driver.waits_for_memory
    pages.available = 5000
    driver.memory_freed(s_to_ns(100))
    assert step(driver, 200) == [126, 126.1, 126.13671875]  # 30 + 3 x 32 s; then the rest, then done
    assert owner.told[-1][1] == "done"


def test_linux_stops_at_its_reserve() -> None:
    """C1.7: limited by the estimate and below the reserve, a step takes what there is and counts as failed."""
    pages, owner = Pages(3000, 10_000), Owner()
    driver = linux(pages, owner, Goal(5000), reserve_pages=1000)
    # The estimate is 2000 at first: two whole batches, then 976 and 464 with a pause after each, then nothing.
    assert step(driver, 10) == pytest.approx([0, 0, 0.1, 0.2, 0.2 + 0.1 + 2, 2.3 + 464 / 5120 + 4], abs=1e-6)
    assert pages.batches == [512, 512, 512, 464]
    assert pages.available == 1000
    run(driver, 100)
    assert [told for _, told in owner.told] == ["gave up 3000"]


def test_what_a_linux_kernel_keeps_for_itself() -> None:
    """C1.5: min_free_kbytes = sqrt(16 RAM in KiB), high watermarks and what lower zones keep; 4 GiB by hand."""
    pages = 4 * PAGES_PER_GIB
    low = 8192 // 4
    assert reserve_pages(pages) == low + 2 * (pages // 1000) + (pages - 4096) // 256
    assert reserve_pages(64 * PAGES_PER_GIB) == pytest.approx(0.0064 * 64 * PAGES_PER_GIB, rel=0.02)
    assert all(0 < reserve_pages(mib * MIB) < mib * MIB / 10 for mib in (32, 64, 128, 256, 1024, 2048))


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


def test_a_new_target_does_not_forgive() -> None:
    """C1.7: only a success resets count and delay; the watch wakes the driver at once."""
    pages, owner, goal = Pages(0, 10_000), Owner(), Goal(700)
    driver = linux(pages, owner, goal)
    run(driver, 5)  # failed at 0 and 2 s
    goal.pages = 900
    driver.target_changed(s_to_ns(5))
    assert step(driver, 100) == [5, 13]  # the third and the fourth failure
    assert owner.told == [(13, "gave up 900")]


def test_the_boot_barrier_panics_180_seconds_after_the_last_progress() -> None:
    """C1.8: cancelled, still waited for, and no progress since the batch at 0.1 s; seen at polls each 0.1 s."""
    pages, owner = Pages(1024, 10_000), Owner(waits=True)
    driver = linux(pages, owner, Goal(3000))
    run(driver, 1000)
    assert pages.batches == [512, 512]
    assert owner.told == [(14.2, "gave up 1976"), (180.1, "barrier")]


@given(first=st.integers(0, 10**10), at=st.integers(0, 10**10))
def test_the_barrier_looks_each_tenth_of_a_second(first: int, at: int) -> None:
    """C1.8: the first look at or after an instant."""
    seen = poll_ns(first, at)
    assert seen >= max(first, at)
    assert (seen - first) % (NS_PER_S // 10) == 0
    assert seen - max(first, at) < NS_PER_S // 10


def test_a_barrier_opens_when_nothing_is_left_to_give_back() -> None:
    """C1.8: the credit is no longer negative: also with a target that asks for more than there is to get."""
    pages, owner = Pages(10_000, 0), Owner(waits=True)
    pages.ballooned_pages, pages.full = 500, True
    run(linux(pages, owner, Goal(100)), 1000)
    assert not owner.waits_for_balloon
    assert "barrier" not in [told for _, told in owner.told]


@pytest.mark.parametrize(("kind", "ends"), [("linux", ["bug"]), ("windows", [])])
def test_a_short_count_kills_linux_alone(kind: str, ends: list[str]) -> None:
    """C1.6, C2.5: BUG_ON in Linux; Windows keeps the pages and tries again after a second."""
    pages, owner = Pages(10_000, 10_000), Owner()
    pages.short = True
    driver: Balloon = (linux if kind == "linux" else windows)(pages, owner, Goal(700))
    driver.run(0, single=True)
    driver.run(0, single=True)
    assert [told for _, told in owner.told] == ends
    assert kind == "linux" or driver.next_ns >= NS_PER_S


def test_a_kernel_that_takes_pages_back_for_an_application() -> None:
    """C1.10: 512 pages a call of the notifier, and its own target raised, so that it does not give them back again."""
    pages, owner = Pages(10_000, 0), Owner()
    driver = linux(pages, owner, Goal(5000))
    run(driver, 10)
    assert driver.on_oom(700, s_to_ns(10)) == 1024
    assert (pages.ballooned_pages, driver.need) == (5000 - 1024, 0)
    pages.full = True
    assert driver.on_oom(700, s_to_ns(11)) == 0


# -- Windows: low memory, slowness, retries --------------------------------------------------------------------------


def test_windows_retries_each_second_and_wakes_when_memory_is_freed() -> None:
    """C2.5: an aborted round is tried again after 1 s, for ever; with nothing to take it sleeps until some is freed."""
    pages, owner = Pages(10_000, 100_000), Owner()
    driver = windows(pages, owner, Goal(30_000))
    run(driver, 3600)
    assert pages.batches == [8185, 1815]
    assert [told for _, told in owner.told] == ["gave up 20000"]
    assert driver.waits_for_memory
    pages.available = 50_000
    driver.memory_freed(s_to_ns(3600.5))
    # A round at 0 and 0.1 s, over at 0.1 s and 1815 pages, so retries at 1.1 s and that, 2.1 s and that, ...
    assert driver.next_ns == s_to_ns(3601.1) + 1815 * NS_PER_S // 81_850
    run(driver, 4000)
    assert pages.ballooned_pages == 30_000


def test_windows_stops_at_its_low_memory_event() -> None:
    """C2.5: no batch begins while less is available than sets the event; the one before may go below it."""
    pages, owner = Pages(20_000, 100_000), Owner()
    run(windows(pages, owner, Goal(90_000), reserve_pages=5000), 100)
    assert pages.batches == [8185, 8185]
    assert [told for _, told in owner.told] == ["gave up 73630"]


def test_windows_pages_out_below_the_working_set() -> None:
    """C2.5: while the event is set, what is held goes to the page file at its speed, and the next round takes it."""
    pages = Pages(0, 100_000)
    owner = Owner(pages=pages, held=10_000, swap=3500)
    run(windows(pages, owner, Goal(9000), reserve_pages=2000), 100)
    # A second for each 1000 pages; what the page file holds beyond the event's level stays where it is.
    assert [told for _, told in owner.told] == [
        "paged out 1000", "paged out 1000", "paged out 1000", "paged out 500", "gave up 7000",
    ]  # fmt: skip
    assert (pages.batches, pages.available) == ([2000], 1500)


def test_low_memory_is_32_mib_per_4_gib() -> None:
    """C2.5: at most 64 MiB."""
    assert [low_memory_pages(gib * PAGES_PER_GIB) // MIB for gib in (1, 4, 8, 64)] == [8, 32, 64, 64]


@pytest.mark.parametrize(
    ("rate", "old", "rounds"), [(999, False, 3), (1000, False, 1), (9999, True, 3), (10_000, True, 1)]
)
def test_a_slow_windows_driver_pauses_after_each_batch(rate: int, old: bool, rounds: int) -> None:
    """C2.5: below 10,000 pages/s (older) or 1000 (newer) the round is aborted after each batch."""
    pages, owner = Pages(100_000, 100_000), Owner()
    instants = step(windows(pages, owner, Goal(20_000), rate, old=old), 1000)
    assert pages.batches == [8185, 8185, 3630]
    batch_s = 8185 / rate
    pauses = rounds - 1
    assert instants[-1] == pytest.approx(2 * batch_s + 3630 / rate + pauses, abs=1e-5)


def test_windows_deflation_aborts_on_a_short_populate() -> None:
    """C2.5: a full host gives less than asked; tried again each second; Xen's line is told once, not each time."""
    pages, owner, goal = Pages(10_000, 0), Owner(), Goal(5000)
    driver = windows(pages, owner, goal)
    run(driver, 10)
    goal.pages, pages.full = 1000, True
    driver.target_changed(s_to_ns(10))
    assert step(driver, 13.5) == [10, 11, 12, 13]
    pages.full = False
    run(driver, 20)
    assert [told for _, told in owner.told] == ["done", "refused: no", "room", "done"]


# -- faults ----------------------------------------------------------------------------------------------------------


def test_a_stuck_balloon_never_moves() -> None:
    """Not at its start, and not for a new target; its barrier stays shut."""
    pages, owner, goal = Pages(10_000, 10_000), Owner(waits=True), Goal(5000)
    driver = linux(pages, owner, goal, fault=Fault("stuck"))
    run(driver, 1000)
    goal.pages = 6000
    driver.target_changed(s_to_ns(1000))
    run(driver, 2000)
    assert (pages.batches, owner.told, owner.waits_for_balloon) == ([], [], True)
    assert driver.up


def test_a_balloon_that_sticks_later() -> None:
    """`once_ballooned`: the first target is reached, the second is not."""
    pages, owner, goal = Pages(10_000, 10_000), Owner(), Goal(5000)
    driver = linux(pages, owner, goal, fault=Fault("stuck", once_ballooned=True))
    run(driver, 100)
    assert pages.ballooned_pages == 5000
    goal.pages = 6000
    driver.target_changed(s_to_ns(100))
    run(driver, 2000)
    assert pages.ballooned_pages == 5000


def test_an_intermittent_balloon_moves_in_its_part_of_each_period() -> None:
    """Two batches (at 0 and 0.1 s) in the first 0.15 s of each 60 s."""
    pages, owner = Pages(10_000, 10_000), Owner()
    fault = Fault("intermittent", False, s_to_ns(60), s_to_ns(0.15))
    instants = step(linux(pages, owner, Goal(5 * 512), fault=fault), 1000)
    assert instants == [0, 0, 0.1, 60, 60.1, 120, 120.1]


def test_a_slow_balloon_takes_its_time() -> None:
    """64 pages a second, whatever the driver was to do; never faster than it was."""
    pages, owner = Pages(10_000, 10_000), Owner()
    run(linux(pages, owner, Goal(1280), fault=Fault("slow", slow_pages_per_s=64)), 1000)
    assert owner.told == [(20, "done")]
    assert Fault("slow", slow_pages_per_s=64).rate(10) == 10


def test_a_share_of_the_domains_has_the_fault() -> None:
    """Drawn per domain: the same at every boot, and for all of a share of 1."""
    cfg = FaultConfig(kind="stuck", share=0.25)
    drawn = [Fault.draw(cfg, 7, domain_id).stuck for domain_id in range(400)]
    assert drawn == [Fault.draw(cfg, 7, domain_id).stuck for domain_id in range(400)]
    assert abs(sum(drawn) - 100) < 4 * (400 * 0.25 * 0.75) ** 0.5
    assert all(Fault.draw(FaultConfig(kind="stuck"), 7, domain_id).stuck for domain_id in range(20))
    assert not any(Fault.draw(FaultConfig(kind="stuck", share=0), 7, domain_id).stuck for domain_id in range(20))


# -- targets ---------------------------------------------------------------------------------------------------------


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
    assert owner.told[-2:] == [(20, "refused: no"), (34, "gave up -800")]


def test_a_target_before_the_driver_runs_is_read_when_it_does() -> None:
    """No watch fires in a guest whose driver is not loaded."""
    pages, owner, goal = Pages(10_000, 10_000), Owner(), Goal(2000)
    driver = linux(pages, owner, goal, start_s=5)
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
    assert memory.inflate(262_144, 0, batch_pages=512, scrub=False, ascending=False) == (262_144, True)
    assert (machine.free_pages, memory.debt) == (free, 0)
    assert memory.inflate(1, 0, batch_pages=512, scrub=False, ascending=False) == (1, True)
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
        balloon={"start_s": [10, 10], "boot_barrier": False, "reserve_mib": 0},
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


def test_linux_keeps_its_reserve_and_says_so_at_the_barrier() -> None:
    """C1.7, C1.8, E11: short of its goal by what the kernel keeps, a guest that waits for its balloon panics."""
    guest = guest_config("linux", kernel_mib=[30, 30], balloon={"reserve_mib": 4})
    report = live(host_model(guest), 400, start(request(0, "linux", 48, 64)))
    row = report.domains[0]
    assert (row.fate, row.cause) == ("guest_panic", "boot_barrier")
    # RAM less the VGA hole, kernel and descriptors: what is free less the reserve has gone.
    kept = 64 * MIB - 8 * MIB - 32 - row.ballooned_pages - (30 * MIB + 64 * MIB // 64 + 160 + 192)
    assert kept == 4 * MIB
    short = (64 - 48 + 9) * MIB - row.ballooned_pages
    texts = [event.text for event in report.events if event.kind in ("balloon_gave_up", "guest_panic")]
    assert texts == [
        f"Initial ballooning failed, {short} pages need to be freed.",
        "Kernel panic - not syncing: Initial ballooning failed!",
    ]
    at_s = [seconds(event.t_ns) for event in report.events if event.kind in ("balloon_gave_up", "guest_panic")]
    assert at_s[1] - at_s[0] <= 180.1


def test_deflating_on_a_full_host_and_beyond_the_quota() -> None:
    """A2.7, A5.2: pages come from the host's heap and within max_pages, never from the domain's own cache."""
    machine = Machine(300 * MIB)
    built = toolstack.build(machine, 1, request(0, "linux", 100, 200), HostConfig(), guest_config("linux"))
    assert isinstance(built, Domain)
    memory = GuestMemory(
        machine, 1, built.layout, image_pages=1000, descriptor_pages=0, block_pages=512, rng=None, may_skip=True
    )
    memory.inflate(60 * MIB, 0, batch_pages=512, scrub=False, ascending=False)
    counters = machine.counters(1)
    assert counters.cache_count > 512  # which a deflation does not draw on
    # Its quota is 1 MiB above its memory; what the device model added is part of it.
    room = counters.max_pages - counters.tot_pages
    assert memory.deflate(room) == room
    assert memory.deflate(512) == 0
    assert memory.refusal == ""  # the quota's line is the quota's watcher's (E8)
    machine.set_max_pages(1, 200 * MIB)
    held = machine.set_aside(machine.free_pages - 100)
    assert memory.deflate(512) == 100
    assert memory.refusal == "Could not allocate order=0 extent: id=1 memflags=0 (100 of 512)"
    machine.release(held)
    assert memory.deflate(512) == 512
    machine.audit()


def test_whole_superpages_go_first_where_the_driver_prefers_them() -> None:
    """C2.4: untouched 2 MiB, whole, before odd pages, and batch by batch the same as at once."""
    ends: list[tuple[tuple[int, ...], int, int]] = []
    for contiguous, batch_pages in ((False, 8185), (True, 8185), (True, 8185)):
        machine = Machine(300 * MIB)
        built = toolstack.build(machine, 1, request(0, "windows", 100, 200), HostConfig(), guest_config("windows"))
        assert isinstance(built, Domain)
        memory = GuestMemory(
            machine,
            1,
            built.layout,
            image_pages=1000,
            descriptor_pages=0,
            block_pages=512,
            rng=np.random.default_rng(5),
            may_skip=True,
        )
        memory.hold(3000)
        memory.release(2000)
        steps = [3 * batch_pages] if len(ends) < 2 else [batch_pages] * 3
        for pages in steps:
            memory.inflate(pages, 0, batch_pages=batch_pages, scrub=False, ascending=True, contiguous=contiguous)
        machine.audit(1)
        ends.append((machine.entry_map(1), memory.ballooned_pages, memory.written_pages))
    assert ends[1] == ends[2]
    # Freed pages go first otherwise (G2); here only what of each list is not whole superpages is taken from them.
    assert [written for *_, written in ends[:2]] == [1000, 3000 - 3 * (8185 % 512)]


def test_a_balloon_that_finds_the_host_full_tells_in_xens_words() -> None:
    """A2.7, B4.3: a guest may have more, but the host has none: its balloon stops, and Xen's line is an event."""
    model = host_model(guest_config("linux", page_cache={"rate_mib_per_s": 0}), ram_mib=200)
    guest, other = request(0, "linux", 64, 128), request(1, "linux", 100, 100)
    model.advance(s_to_ns(30), [start(guest), start(other)])
    report = model.advance(s_to_ns(60), [SetTarget(s_to_ns(32), 0, 128 * MIB)])
    refused = [event.text for event in report.events if event.kind == "balloon_refused"]
    assert len(refused) == 1
    assert refused[0].startswith("Could not allocate order=0 extent: id=1 memflags=0")
