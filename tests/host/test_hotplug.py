"""C1.9: does a guest whose kernel has memory hotplug outgrow what it booted with, by whole sections, and no other?"""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from podcluster.config import HostConfig
from podcluster.host import domain as toolstack
from podcluster.host.domain import ABOVE_4G, MMIO_HOLE, Domain, lowest_gap, without
from podcluster.host.guest_memory import GuestMemory
from podcluster.host.machine import Machine
from podcluster.records.commands import Close, Command, SetMaxMem, SetTarget
from podcluster.records.migration import MigrateIn
from podcluster.records.reports import HostReport
from podcluster.units import PAGES_PER_GIB, PAGES_PER_MIB, s_to_ns
from tests.host.drivers import Goal, Owner, Pages, linux, run, step
from tests.host.lives import curve, guest_config, host_config, host_model, live, request, slow_machine, start
from tests.host.test_migration import out, sent
from tests.host.test_model import END_S, commands, guest_classes, hosts, whole_life
from tests.host.test_snapshot import lives_alike

MIB = PAGES_PER_MIB
SECTION = 128 * MIB
STEP = host_config(check="step")


def grows(to_mib: int, at_s: float = 20) -> list[Command]:
    """An operator raises static-max, then the target."""
    return [SetMaxMem(s_to_ns(at_s), 0, to_mib * MIB), SetTarget(s_to_ns(at_s + 0.5), 0, to_mib * MIB)]


def able(*, section_mib: int = 128, balloon: Any = None, **changed: Any) -> Any:
    """A Linux that adds memory."""
    return guest_config("linux", balloon={"hotplug": True, "section_mib": section_mib, **(balloon or {})}, **changed)


def texts(report: HostReport, *kinds: str) -> list[str]:
    return [event.text for event in report.events if event.kind in kinds]


# -- the worked example, and who does not grow


def test_a_guest_of_64_mib_grows_to_140() -> None:
    """By hand. It has 56 MiB - 32 pages of RAM and gave 8 MiB back for its video RAM. `mem-set` 140 is 132 MiB in
    xenstore: 68 MiB above static-max at the boot. It takes the 8 MiB back, adds one section of 32,768 pages from gfn
    0x8000 on, of whose 512 descriptors it has room for, and takes 17,408 pages of it; 15,360 stay in the balloon.
    """
    report = live(host_model(able(), host=STEP), 60, start(request(0, "linux", 64, 64)), *grows(140))
    (row,) = report.domains
    assert texts(report, "hotplug") == ["32768 pages from gfn 0x8000 on, in the balloon"]
    assert texts(report, "balloon_done") == ["2048 pages in the balloon", "15360 pages in the balloon"]
    assert (row.fate, row.ballooned_pages) == ("running", 15_360)
    # M - 32 + x, and what it grew by: T' - V - 32 + x.
    assert row.tot_pages == 64 * MIB - 32 + 24 + 17_408 == (140 - 8) * MIB - 8
    assert texts(report, "balloon_refused", "balloon_gave_up", "over_allocation") == []


def test_without_hotplug_it_takes_back_what_it_gave_and_is_refused_the_rest() -> None:
    """C1.9: the same guest and orders; nothing is ever asked of Xen beyond its first size."""
    report = live(host_model(guest_config("linux"), host=STEP), 60, start(request(0, "linux", 64, 64)), *grows(140))
    (row,) = report.domains
    assert texts(report, "balloon_refused") == [
        "17408 pages above all that it booted with: a kernel without memory hotplug leaves it at that"
    ]
    assert texts(report, "balloon_done") == ["2048 pages in the balloon", "0 pages in the balloon"]
    assert (row.fate, row.balloon_gave_up, row.ballooned_pages) == ("running", 0, 0)
    assert row.tot_pages == 64 * MIB - 32 + 24


def test_windows_never_asks_for_more_than_it_booted_with() -> None:
    """C2.1: min(target, static-max less video RAM) is its driver's own rule, so that there is nothing to refuse."""
    report = live(host_model(guest_config("windows"), host=STEP), 60, start(request(0, "windows", 64, 64)), *grows(140))
    assert texts(report, "balloon_refused", "hotplug") == []
    assert report.domains[0].tot_pages == 64 * MIB - 32 + 24


def test_a_target_within_static_max_of_the_boot_adds_nothing() -> None:
    """C1.2: what the driver reckons with is static-max as it read it once, video RAM included: 72 MiB, 8 more, are no
    growth yet, and a page more is.
    """
    for to_pages, sections in ((72 * MIB, 0), (72 * MIB + 1, 1)):
        orders: list[Command] = [SetMaxMem(s_to_ns(20), 0, 140 * MIB), SetTarget(s_to_ns(21), 0, to_pages)]
        report = live(host_model(able(), host=STEP), 60, start(request(0, "linux", 64, 64)), *orders)
        assert len(texts(report, "hotplug")) == sections
        assert report.domains[0].ballooned_pages == sections * (SECTION - 1)


# -- the driver


@pytest.mark.parametrize(("above", "sections"), [(1, 1), (2048, 1), (2049, 2), (10_000, 5)])
def test_whole_sections_once_the_balloon_is_empty(above: int, sections: int) -> None:
    """Rounded up, whichever driver it is."""
    for old in (False, True):
        pages, owner, goal = Pages(10_000, 0), Owner(), Goal(600)
        driver = linux(pages, owner, goal, section_pages=2048, old=old)
        run(driver, 10)
        goal.pages = -above
        driver.target_changed(s_to_ns(10))
        # 600 pages are batches at 10 and 10.1 s; memory is added when the next is due.
        assert step(driver, 100)[:4] == [10, 10.1, 10.2, 10.2]
        grew = [told for _, told in owner.told if told.startswith("grew")]
        assert grew == [f"grew {2048 * sections}"]
        assert pages.ballooned_pages == 2048 * sections - above
        assert (driver.need, owner.told[-1][1]) == (0, "done")


def test_it_grows_again_by_what_is_not_in_the_balloon() -> None:
    """The rest of a section serves first; down again, all of it is in the balloon."""
    pages, owner, goal = Pages(10_000, 0), Owner(), Goal(0)
    driver = linux(pages, owner, goal, section_pages=2048)
    for at_s, target, ballooned in ((10, -1000, 1048), (20, -2000, 48), (30, -3000, 1096), (40, 500, 4596)):
        goal.pages = target
        driver.target_changed(s_to_ns(at_s))
        run(driver, at_s + 9)
        assert pages.ballooned_pages == ballooned == pages.hotplugged_pages + target
    assert [told for _, told in owner.told if "grew" in told] == ["grew 2048", "grew 2048"]


def test_no_room_for_descriptors() -> None:
    """A section of 2048 pages wants 32, and there are 31: a failed try at 10, 12, 16 and 24 s (C1.7), then it is
    cancelled for an hour; an older driver goes on for ever, each 32 s in the end.
    """
    for old, again in ((False, s_to_ns(3624)), (True, s_to_ns(104))):
        pages, owner, goal = Pages(31, 0), Owner(), Goal(0)
        driver = linux(pages, owner, goal, section_pages=2048, old=old)
        run(driver, 10)
        goal.pages = -100
        driver.target_changed(s_to_ns(10))
        run(driver, 100)
        text = "refused: no room for the page descriptors of 2048 pages more"
        assert owner.told[1:] == [(10, text), (24, "gave up -100")]
        assert (driver.gave_up, driver.next_ns) == (1, again)
        pages.available = pages.free = 32
        driver.target_changed(s_to_ns(200))
        run(driver, 300)
        assert pages.ballooned_pages == 2048 - 100


def test_a_guest_without_room_says_so() -> None:
    """All of its memory is held: 2 MiB for a section are not to be had, and nothing goes out to swap for them."""
    guest = able(swap={"mib": 64, "mib_per_s": 10_000})
    report = live(host_model(guest, host=STEP), 60, start(request(0, "linux", 64, 64, 90)), *grows(140))
    (row,) = report.domains
    assert texts(report, "balloon_refused") == ["no room for the page descriptors of 32768 pages more"]
    assert texts(report, "balloon_gave_up") == ["17408 pages short of its target, and none in the balloon"]
    assert (row.fate, row.tot_pages, row.balloon_gave_up) == ("running", 64 * MIB - 32 + 24, 1)


# -- where what it adds lies


@pytest.mark.parametrize(
    ("taken", "pages", "at"),
    [
        ([(0, 0xA0), (0xC0, 14_144)], SECTION, SECTION),
        ([(0, SECTION)], SECTION, SECTION),
        ([(0, MMIO_HOLE - SECTION), (MMIO_HOLE, ABOVE_4G - MMIO_HOLE)], SECTION, MMIO_HOLE - SECTION),
        ([(0, MMIO_HOLE - SECTION), (MMIO_HOLE, ABOVE_4G - MMIO_HOLE)], 2 * SECTION, ABOVE_4G),
        ([(0, MMIO_HOLE), (MMIO_HOLE, ABOVE_4G - MMIO_HOLE), (ABOVE_4G, 5)], SECTION, ABOVE_4G + SECTION),
    ],
)
def test_the_lowest_gap(taken: list[tuple[int, int]], pages: int, at: int) -> None:
    """Below the MMIO hole where there is room, else above 4 GiB, aligned."""
    assert lowest_gap(taken, pages, SECTION) == at


def test_ram_less_runs_that_cross_its_borders() -> None:
    """Two sections side by side, and a run of the balloon that is in both."""
    assert without([(0, 10), (10, 10), (30, 5)], [(5, 10), (16, 1), (30, 5)]) == [(0, 5), (15, 1), (17, 3)]


# -- what stands in its way outside


def test_a_full_host_gives_what_it_has() -> None:
    """A2.7: of 17,408 pages the host has some; tried again as any deflation, and what is left stays in the balloon."""
    other = request(1, "linux", 100, 100)
    model = host_model(able(), ram_mib=220, host=STEP)
    report = live(model, 60, start(request(0, "linux", 64, 64)), start(other), *grows(140))
    row = report.domains[0]
    (refused,) = texts(report, "balloon_refused")
    assert refused.startswith("Could not allocate order=0 extent: id=1 memflags=0")
    assert texts(report, "balloon_gave_up") == [f"{row.ballooned_pages - 15_360} pages too many in the balloon"]
    assert row.tot_pages == 64 * MIB - 8 + SECTION - row.ballooned_pages
    assert (report.view.free_pages, row.balloon_gave_up) == (0, 1)


def grown_memory(numbers: bool = False, **host: Any) -> tuple[Machine, GuestMemory]:
    """A guest of 64 MiB to which 4 GiB were added, none of which it has yet."""
    machine = Machine(8 * PAGES_PER_GIB)
    built = toolstack.build(machine, 1, request(0, "linux", 64, 64), HostConfig(**host), guest_config("linux"))
    assert isinstance(built, Domain)
    memory = GuestMemory(
        machine, 1, built.layout, image_pages=100, descriptor_pages=256, block_pages=512, rng=None, may_skip=True,
        descriptor_share=1024, numbers=built.numbers if numbers else None,
    )  # fmt: skip
    visible, free = memory.visible_pages, memory.free
    machine.set_max_pages(1, 8 * PAGES_PER_GIB)
    assert memory.hotplug(4 * PAGES_PER_GIB, SECTION)
    # Larger than what is left below the MMIO hole; all of it in the balloon, but for descriptors nothing has changed.
    assert memory.hotplugged == ((ABOVE_4G, 4 * PAGES_PER_GIB),)
    assert (memory.visible_pages, memory.ballooned_pages) == (visible, 4 * PAGES_PER_GIB)
    assert memory.free == free - 1024
    machine.audit()
    return machine, memory


def test_a_quota_that_is_too_small() -> None:
    """A5.2, E8: it gets what its quota leaves, and the line is for whoever watches the quota."""
    machine, memory = grown_memory()
    machine.set_max_pages(1, machine.tot_pages(1) + 300)
    assert (memory.deflate(512), memory.deflate(512), memory.refusal) == (300, 0, "")
    machine.set_max_pages(1, 8 * PAGES_PER_GIB)
    assert memory.deflate(512) == 512
    machine.audit()


def test_a_paging_pool_that_was_made_for_less() -> None:
    """A3.9: the pool of a guest of 64 MiB has 576 pages. Each 2 MiB of what is added takes one, each GiB another: the
    deflation stops short where the next has none, and the guest lives on.
    """
    machine, memory = grown_memory(numbers=True)
    assert memory.short_of_tables
    before = machine.table_pages(1)
    got = memory.deflate(4 * PAGES_PER_GIB)
    assert machine.table_pages(1) == 576
    # One for each of 512 blocks and their GiB, and the rest in the next.
    assert got == PAGES_PER_GIB + (576 - before - 513 - 1) * 512
    assert memory.refusal == f"d1: no page left in its paging pool for a page table ({got} of {4 * PAGES_PER_GIB})"
    assert memory.deflate(512) == 0
    assert memory.inflate(5000, 0, batch_pages=512, scrub=True, ascending=False) == (5000, True)
    assert memory.deflate(4488) == 4488  # whose tables are there
    machine.audit()


def test_a_guest_that_outgrows_its_paging_pool_lives() -> None:
    """A3.9 on a host: told, tried again and given up, and the same singly; of 256 MiB it has a quarter of the pool."""
    story = [start(request(0, "linux", 64, 64)), *grows(400)]
    ends: list[Any] = []
    for coalesce in (True, False):
        host = host_config(check="step", paging_pool_scale=0.2)
        report = live(host_model(able(section_mib=64), ram_mib=600, host=host, coalesce=coalesce), 60, *story)
        ends.append((report.domains, report.events))
        assert report.domains[0].fate == "running"
        assert "no page left in its paging pool for a page table" in texts(report, "balloon_refused")[0]
        assert texts(report, "balloon_gave_up")[0].endswith("pages too many in the balloon")
    assert ends[0] == ends[1]


# -- what follows


def test_demand_grows_into_what_was_added() -> None:
    """G3: 100 MiB do not fit in a guest of 64 MiB, and do once it is grown; before, some are on swap."""
    wants = curve((0, 10), (15, 10), (18, 60), (40, 60), (45, 100))
    small, large = (
        live(host_model(guest, host=STEP), 90, start(request(0, "linux", 64, 64, wants)), *grows(140, 10)).domains[0]
        for guest in (guest_config("linux"), able())
    )
    assert small.swapped_pages_peak > 0 and small.oom_kills
    assert (large.swapped_pages_peak, large.oom_kills, large.working_pages_peak) == (0, 0, 100 * MIB)
    assert large.nonzero_pages_peak > 100 * MIB


@pytest.mark.parametrize("scrub", [False, True])
@pytest.mark.parametrize("host", [{}, {"costs": {}}, {"era": "rfc2009"}, {"scrub_on_free": False}], ids=str)
def test_a_guest_of_promises_grows_like_any_other(scrub: bool, host: dict[str, Any]) -> None:
    """The entries that it still has lie below what is added, and stay entries; audited each step, the same singly."""
    classes = [able(section_mib=16, balloon={"scrub": scrub}, alloc_order="random", alloc_block_pages=64)]
    wants = curve((0, 10), (30, 80), (50, 20), (70, 110))
    orders = [start(request(0, "linux", 48, 96, wants)), *grows(140), SetTarget(s_to_ns(50), 0, 40 * MIB)]
    orders += [SetTarget(s_to_ns(60), 0, 130 * MIB)]
    ends: list[Any] = []
    for coalesce in (True, False):
        model = host_model(*classes, host=host_config(check="step", **host), coalesce=coalesce, telemetry_s=3)
        report = live(model, 90, *orders)
        ends.append((report.domains, report.events, report.samples))
    assert ends[0] == ends[1]
    assert texts(report, "hotplug")
    assert report.domains[0].fate == "running"


def test_a_grown_guest_goes_on_elsewhere() -> None:
    """D4.7: it leaves at once with what it has, and what it added is there too. Told to grow to 200 MiB there, it adds
    what it has not added yet; brought down to 50 MiB its balloon has all that it added, and the 22 MiB by which 50 MiB,
    less its video RAM, are below its 64.
    """
    guest = able(section_mib=16, alloc_order="random", alloc_block_pages=64)
    wants = curve((0, 90), (95, 90), (96, 10))
    orders = [start(request(0, "linux", 64, 64, wants, hold_ns=0), 1), *grows(140)]
    orders += [SetTarget(s_to_ns(40), 0, 120 * MIB), SetTarget(s_to_ns(45), 0, 130 * MIB)]
    source = sent(host_model(guest, host=STEP), 60, *orders, out(50, wait_s=0, mib_per_s=10_000))
    (state,), (left,) = source.departed, source.domains
    assert sum(count for _, count in state.hotplugged) == 80 * MIB
    assert left.tot_pages == state.tot_pages > 100 * MIB
    target = host_model(guest, host=STEP)
    more: list[Command] = [*grows(200, 80), SetTarget(s_to_ns(100), 0, 50 * MIB)]
    there = target.advance(s_to_ns(120), [MigrateIn(s_to_ns(60.5), state), *more, Close(s_to_ns(120))])
    (row,) = there.domains
    assert (row.fate, row.attempt) == ("running", 2)
    assert [text.split()[0] for text in texts(there, "hotplug")] == [str(48 * MIB)]
    assert row.ballooned_pages == (22 + 80 + 48) * MIB
    assert row.tot_pages == (50 - 8) * MIB - 8


def test_a_grown_guest_is_packed_and_unpacked() -> None:
    """SN-1: before, while and after it grows."""
    orders = [start(request(0, "linux", 48, 96, 100), 1), *grows(140), SetTarget(s_to_ns(50), 0, 40 * MIB)]
    told = lives_alike(lambda: host_model(able(section_mib=16)), [*orders, Close(s_to_ns(60))], [*range(3, 60, 2), 60])
    assert any("'hotplug'" in report for report in told)


@settings(max_examples=60)
@given(
    classes=guest_classes(hotplug=[True]),
    given=commands(kinds=["linux"], above_mib=[9, 20, 60]),
    steps_s=st.lists(st.floats(0.01, END_S - 0.01, allow_nan=False), max_size=6),
    host=hosts,
)
def test_growing_changes_nothing_of_what_holds(
    classes: list[Any], given: list[Command], steps_s: list[float], host: str
) -> None:
    """HM-1: guests of all sorts that add memory: singly and audited each step, ahead of each other, cut anywhere."""
    singly = whole_life(classes, given, check="step", coalesce=False, host=host)
    assert whole_life(classes, given, steps_s, host=host) == singly


@settings(max_examples=8)
@given(classes=guest_classes(hotplug=[True]), given=commands(kinds=["linux"], above_mib=[20, 60]), host=hosts)
def test_the_slow_machine_agrees(classes: list[Any], given: list[Command], host: str) -> None:
    """Page by page it is the same."""
    assert whole_life(classes, given, machine=slow_machine, host=host) == whole_life(classes, given, host=host)
