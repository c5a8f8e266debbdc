"""What becomes of stuck, slow, intermittent, silent and lying guests under each controller: the table of docs/model.md,
section 4, cell by cell. Where a guest does not move, or hardly, on a small simulated Xen; where it lies, on whole
hosts, for the lie has to come through. Each story is told of a sound guest too, for which it ends differently.
"""

from collections.abc import Iterator
from itertools import islice, pairwise
from typing import Any

import pytest

from podcluster.config import ControllerConfig
from podcluster.host.controllers import make_controller
from podcluster.host.controllers.view import MemSet, OwnTarget, Target
from podcluster.host.domain import ABOVE_VGA, VGA_HOLE
from podcluster.records.reports import HostReport
from podcluster.records.rows import DomainRow
from podcluster.units import NS_PER_S, PAGES_PER_MIB
from tests.host.lives import host_model, live, request, start
from tests.host.test_control import controller
from tests.scenarios.small_xen import STEP_NS, SmallXen, Vm
from tests.scenarios.test_controllers import linux, row_of, told

MIB = PAGES_PER_MIB
A_MIB = 1024  # KiB

DRIVERS: dict[str, dict[str, Any]] = {
    "sound": {"rate_kib": 200 * A_MIB},
    "stuck": {"works": lambda t: False},
    "slow": {"rate_kib": A_MIB},
    "intermittent": {"rate_kib": 10 * A_MIB, "works": lambda t: t % 4 < 0.4},
}
LATE = pytest.mark.parametrize("driver", ["slow", "intermittent"])

# -- guests whose balloons do not move, or hardly ----------------------------------------------------------------------


def sizes_told(xen: SmallXen, domid: int) -> list[tuple[float, int]]:
    """When a domain was sent where [MiB, rounded down]."""
    found = []
    for at_s, action in xen.log:
        if isinstance(action, Target) and action.domid == domid:
            found.append((at_s, action.target_kib // A_MIB))
        elif isinstance(action, MemSet) and action.domid == domid:
            found.append((at_s, action.target_pages // MIB))
        elif isinstance(action, OwnTarget) and action.domid == domid:
            found.append((at_s, action.total_pages // MIB))
    return found


def two(
    name: str,
    driver: str,
    free: int,
    second: tuple[int, int],
    *,
    first: tuple[int, int] = (2048, 256),
    seconds: float = 0,
    strict: bool = True,
) -> SmallXen:
    """Two guests of these sizes that tell of this use, in a range of 512 to 3072 MiB, the first with this driver, the
    second sound, after so many seconds. `strict`: it is an error if there is not what the second was promised.
    """
    drivers = (DRIVERS[driver], DRIVERS["sound"])
    vms = [
        Vm(k, 512 * A_MIB, size * A_MIB, 3072 * A_MIB, size * A_MIB, used=use * A_MIB, **drives)
        for k, ((size, use), drives) in enumerate(zip((first, second), drivers, strict=True), 1)
    ]
    xen = SmallXen(make_controller(ControllerConfig(name=name)), free * A_MIB, vms, strict=strict)
    if seconds:
        xen.run(seconds)
    return xen


def wait(xen: SmallXen, mib: int, seconds: float) -> float:
    """Let a start ask for so much; how long it waited for its answer, so many seconds at most."""
    xen.ask(mib * A_MIB, mib * A_MIB)
    since_ns = xen.now_ns
    xen.run(seconds, until=lambda: xen.answered)
    return (xen.now_ns - since_ns) / NS_PER_S


def at_each_look(xen: SmallXen, period_s: float, looks: int) -> Iterator[tuple[list[int], int, list[int]]]:
    """What the guests have, what is free and what the guests' targets are, right before each look; the targets of one
    are what the look before has made of what was there.
    """
    step_s = STEP_NS / NS_PER_S
    for _ in range(looks):
        xen.run(period_s - step_s)  # and one step more, up to the look itself
        vms = xen.vms.values()
        yield [vm.actual for vm in vms], xen.free, [vm.target for vm in vms]


def test_squeezed_asks_the_others_for_the_part_of_a_stuck_one() -> None:
    """D5.6: a start of 400 MiB, of which each is to give half, and two pages more for the margin; after more than 5 s
    without progress the second is to give all of it.
    """
    told = {}
    for driver in ("sound", "stuck"):
        xen = two("squeezed", driver, 72, (2048, 256))
        wait(xen, 400, 20)
        assert xen.granted == {99: 400 * A_MIB}
        told[driver] = [(at_s, one.target_kib) for at_s, one in xen.log if isinstance(one, Target) and one.domid == 2]
    half, all_of_it = (2048 - 200) * A_MIB - 8, (2048 - 400) * A_MIB - 8
    assert [kib for _, kib in told["sound"]] == [half]
    assert [kib for _, kib in told["stuck"]] == [half, all_of_it]
    assert 5 < told["stuck"][1][0] <= 7


def test_squeezed_forgets_who_was_stuck() -> None:
    """D5.16: one is to grow and is stuck. At each check of balance the other is told to make room for it, and 5 s later
    to take that back; with sound guests it is told once.
    """
    sound, stuck = (
        two("squeezed", driver, 72, (2048, 256), first=(1024, 256), seconds=120) for driver in ("sound", "stuck")
    )
    assert len(sizes_told(sound, 2)) == 1
    swings = [size for _, size in sizes_told(stuck, 2)]
    assert len(swings) > 8
    assert max(swings[0::2]) < min(swings[1::2]) - 400


@LATE
def test_squeezed_lets_a_start_wait_for_who_moves_at_all(driver: str) -> None:
    """D5.6: progress within every 5 s, however little, is progress: the run goes on, and the second is not asked for
    more than its half.
    """
    assert wait(two("squeezed", "sound", 72, (2048, 256)), 400, 60) < 5
    xen = two("squeezed", driver, 72, (2048, 256))
    assert wait(xen, 400, 60) > 60
    assert len(sizes_told(xen, 2)) == 1


def test_squeezed_gives_up_who_sleeps_for_longer() -> None:
    """D5.6: asleep for more than 5 s is stuck, until it moves."""
    xen = two("squeezed", "intermittent", 72, (2048, 256))
    xen.vms[1].works = lambda t: t % 20 < 1
    assert 6 < wait(xen, 400, 60) < 12
    assert len(sizes_told(xen, 2)) == 2


def test_qmemman_leaves_a_stuck_donor_out() -> None:
    """It is told like a sound one; after 0.5 s the acceptor gets what is free beyond Xen's 50 MiB, and from then on the
    donor is not reckoned with, until it needs memory itself.
    """
    sound, stuck = (two("qmemman", driver, 150, (1024, 1000), seconds=10) for driver in ("sound", "stuck"))
    assert (sound.state.left_out, stuck.state.left_out) == (frozenset(), {1})
    assert sizes_told(stuck, 1) == sizes_told(sound, 1)
    assert sizes_told(sound, 2)[-1][1] > sizes_told(stuck, 2)[-1][1] == 1024 + int(150 / 1.00781) - 50

    def reports(domid: int, mib: int) -> int:
        """It uses so much; how often the first is told anything for it."""
        before = len(sizes_told(stuck, 1))
        stuck.vms[domid].used = mib * A_MIB
        stuck.due_ns = stuck.now_ns
        stuck.run(10)
        return len(sizes_told(stuck, 1)) - before

    assert reports(2, 1100) == 0
    assert stuck.state.left_out == {1}
    assert reports(1, 1800) == 1
    assert stuck.state.left_out == frozenset()


@LATE
def test_qmemman_refuses_a_start_that_is_served_too_slowly(driver: str) -> None:
    """Less than 100 MB/s over 3 s, or nothing at all from one look to the next: given up; a sound donor serves it."""
    served = two("qmemman", "sound", 60, (512, 380))
    wait(served, 600, 20)
    assert served.granted == {99: 600 * A_MIB}
    late = two("qmemman", driver, 60, (512, 380))
    waited_s = wait(late, 600, 20)
    assert late.refused[99].cause == "host_memory"
    assert waited_s == 3 if driver == "slow" else waited_s <= 3


def test_mom_asks_a_stuck_guest_for_more_and_more() -> None:
    """5 % less than it was told last each 15 s, down to its minimum but for 0.25 %. What is really free stays below a
    fifth, and nobody grows; with a sound guest it does not stay so, and the second grows.
    """
    sound, stuck = (two("mom", driver, 150, (1024, 1000), seconds=450, strict=False) for driver in ("sound", "stuck"))
    pages, steps = 2048 * MIB, []
    while pages - 512 * MIB > 0.0025 * pages:
        pages = max(512 * MIB, int(pages * 0.95))
        steps.append(pages // MIB)
    assert [size for _, size in sizes_told(stuck, 1)] == steps
    assert max(size for _, size in sizes_told(stuck, 2)) < 1024 < max(size for _, size in sizes_told(sound, 2))


@LATE
def test_mom_does_not_wait_for_who_is_late(driver: str) -> None:
    """The next 5 % are asked for while the first are not there yet, just as of a sound guest; but with a sound one the
    host has its fifth free, and lets it grow again, long before.
    """
    sound, late = (sizes_told(two("mom", which, 150, (1024, 1000), seconds=240), 1) for which in ("sound", driver))
    assert [at_s for at_s, _ in late] == [15.0 * k for k in range(1, 17)]
    assert late[:8] == sound[:8]
    assert any(b > a for (_, a), (_, b) in pairwise(sound))
    assert all(b < a for (_, a), (_, b) in pairwise(late))


def test_proxmox_lets_the_request_to_a_stuck_guest_stand() -> None:
    """Its next size is 100 MiB below what it owns, which is the same each time; the other gives its own share and not a
    page for the stuck one, so that the host never has its fifth free.
    """
    sound, stuck = (two("proxmox", driver, 150, (1500, 100), seconds=200) for driver in ("sound", "stuck"))
    # Of 3698 MiB 80 % are to be used and 3548 are: 589.6 too many. Above their minimums they have 1536 + 988, so each
    # is to have 512 + (2524 - 589.6) / 2 = 1479.2.
    assert sizes_told(stuck, 1) == [(10, 1948)]
    assert sizes_told(stuck, 2) == [(10, 1479)]
    assert stuck.free // A_MIB == 150 + 1500 - 1480
    assert abs(sound.free - 3698 * A_MIB / 5) < 10 * A_MIB


@LATE
def test_proxmox_asks_who_is_late_from_where_it_is(driver: str) -> None:
    """Each 10 s for 100 MiB below what it owns then, not below what it was asked for last."""
    xen = two("proxmox", driver, 150, (1500, 100))
    had = 2048 * A_MIB
    for (has, _), _, (target, _) in islice(at_each_look(xen, 10, 9), 1, None):
        assert target == had - 100 * A_MIB
        assert has < had
        had = has


def test_esx_asks_for_more_in_vain_and_then_the_others() -> None:
    """Below 64 % of minFree the idle one is to give, once, and the busy one gets it. Where nothing comes, the stuck one
    is asked for more each 15 s, free memory being what decides, and in the end the busy one has to give.
    """
    sound, stuck = (two("esx", driver, 50, (1024, 400), seconds=200) for driver in ("sound", "stuck"))
    assert [size > 1024 for _, size in sizes_told(sound, 2)] == [True]
    told = sizes_told(stuck, 1)
    assert told[:1] == sizes_told(sound, 1)
    assert [at_s for at_s, _ in told] == [15.0 * k for k in range(1, len(told) + 1)]
    assert len(told) > 3
    assert all(b < a for (_, a), (_, b) in pairwise(told))
    # 64 % of minFree, which is 6 % of 3122 MiB, are free in the end, all of it the second's.
    assert stuck.free >= 0.64 * 0.06 * 3122 * A_MIB > 50 * A_MIB
    assert stuck.vms[2].actual == 1074 * A_MIB - stuck.free


@LATE
def test_esx_gives_what_is_free(driver: str) -> None:
    """What all are given at a look is what is free above minFree by then: what the late one was asked for is not there
    before it comes. The other has to give first, which it has not where the first is sound.
    """
    min_free, grown = int(0.06 * 3122 * MIB) * 4, 0
    xen = two("esx", driver, 50, (1024, 400))
    free, before = 50 * A_MIB, [2048 * A_MIB, 1024 * A_MIB]
    for _, next_free, targets in at_each_look(xen, 15, 14):
        growth = sum(max(0, new - old) for new, old in zip(targets, before, strict=True))
        assert growth <= max(0, free - min_free)
        free, before, grown = next_free, targets, grown + growth
    assert grown > 0
    assert min(size for _, size in sizes_told(xen, 2)) < 1024


def selfballooned(has_kib: int) -> int:
    """H6: where a guest that has this, of 3072 MiB of RAM, and uses 256 goes next [KiB]."""
    cur, goal = has_kib // 4, 256 * MIB + 3072 * MIB // 10
    return (cur - (cur - goal) // 8) * 4


def test_a_stuck_selfballooning_guest_tells_its_driver_again() -> None:
    """H6: an eighth of the excess, of what it really has, so the same size every 5 s; a guest that grows asks nobody,
    and has what the host has.
    """
    sound, stuck = (
        two("selfballoon", driver, 50, (1024, 1000), seconds=60, strict=False) for driver in ("sound", "stuck")
    )
    assert sizes_told(stuck, 1) == [(5.0 * k, selfballooned(2048 * A_MIB) // A_MIB) for k in range(1, 13)]
    assert len({size for _, size in sizes_told(sound, 1)}) == 12
    assert stuck.vms[2].actual == (1024 + 50) * A_MIB < stuck.vms[2].target
    assert sound.vms[2].actual == sound.vms[2].target // 4 * 4


@LATE
def test_a_late_selfballooning_guest_goes_on_from_where_it_is(driver: str) -> None:
    """H6: an eighth of what is left of the excess then, not of what its target left."""
    xen = two("selfballoon", driver, 150, (1024, 600))
    had = 2048 * A_MIB
    for (has, _), _, (target, _) in islice(at_each_look(xen, 5, 12), 1, None):
        assert target == selfballooned(had)
        had = has
    assert had < 2048 * A_MIB


def test_hyperv_gives_others_nothing_of_what_a_stuck_guest_holds() -> None:
    """It is told to go to its minimum, once, for the request stands; the second, which is due 1000 MiB and a fifth,
    gets what is free above the reserve, which is nothing.
    """
    sound, stuck = (two("hyperv", driver, 200, (1024, 1000), seconds=240) for driver in ("sound", "stuck"))
    assert sizes_told(stuck, 1) == sizes_told(sound, 1) == [(10, 512)]
    assert sizes_told(sound, 2) == [(20, 1200)]
    assert sizes_told(stuck, 2) == []


@LATE
def test_hyperv_hands_on_what_comes(driver: str) -> None:
    """Each 10 s the second gets what is free above the reserve of 256 MiB, to the page."""
    xen = two("hyperv", driver, 200, (1024, 1000))
    free, before, grown = 200 * A_MIB, 1024 * A_MIB, 0
    for _, next_free, (_, target) in at_each_look(xen, 10, 20):
        assert target - before == max(0, free - 256 * A_MIB)
        free, grown, before = next_free, grown + (target > before), target
    assert grown > 3


# -- guests that say nothing -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "free", "second"),
    [
        ("squeezed", 300, (1024, 256)),
        ("qmemman", 150, (1024, 1000)),
        ("mom", 150, (1024, 1000)),
        ("proxmox", 150, (1500, 100)),
        ("esx", 50, (1024, 400)),
        ("selfballoon", 150, (1024, 600)),
        ("hyperv", 200, (1024, 1000)),
    ],
)
def test_who_says_nothing(name: str, free: int, second: tuple[int, int]) -> None:
    """squeezed manages it all the same, once its driver is up, and the others leave it at its target, where they move
    one that speaks.
    """
    speaks, silent, driverless = (two(name, "sound", free, second, first=(2048, use)) for use in (256, 0, 256))
    driverless.vms[1].can_balloon = False
    for xen in (speaks, silent, driverless):
        xen.run(60)
    assert sizes_told(speaks, 1)
    assert bool(sizes_told(silent, 1)) == (name == "squeezed")
    assert not sizes_told(driverless, 1)


# -- guests that lie ---------------------------------------------------------------------------------------------------


def alone(name: str, *, lies: bool) -> HostReport:
    """A guest that uses 120 of up to 400 MiB, and says it were twice as much if it lies."""
    fault: dict[str, Any] = {"kind": "lying", "factor": 2.0} if lies else {}
    return told(name, start(request(0, "linux", 40, 400, 120), 1), guest=linux(fault=fault))


@pytest.mark.parametrize("name", ["squeezed", "selfballoon"])
def test_whom_no_lie_reaches(name: str) -> None:
    """squeezed never asks, and a self-ballooning kernel does not ask itself: all rows are those of an honest guest."""
    assert alone(name, lies=True) == alone(name, lies=False)


def test_a_selfballooning_kernel_knows_what_it_uses() -> None:
    """H6: the target of a guest that says 240 MiB where it is 120 is made of the 120 and a tenth of its RAM."""
    row = row_of(alone("selfballoon", lies=True), 0)
    video_pages = 8 * MIB + ABOVE_VGA - VGA_HOLE
    has_pages = row.maxmem_pages - video_pages - row.ballooned_pages
    goal_pages = 120 * MIB + row.maxmem_pages // 10  # above its floor, 40 MiB and a quarter
    # Steps of an eighth of what is left come to an end where that is less than a page.
    assert 0 <= has_pages - goal_pages < 8


def liar_and_honest(
    name: str, factor: float, *more: Any, use: tuple[int, int], maxmem: int = 240
) -> tuple[tuple[int, int], tuple[DomainRow, DomainRow]]:
    """Targets [pages] and rows of two guests of 40 to `maxmem` MiB, the first of which says that it uses `factor` times
    what it does, after 200 s on a host of 496 MiB.
    """
    config = controller(name)
    config.proxmox.most_change_mib = 20  # more than the 8 MiB of video RAM that a balloon takes too much
    swap = {"mib": 512, "mib_per_s": 100}  # so much that no application is killed
    guests = [linux(os_class="liar", fault={"kind": "lying", "factor": factor}, swap=swap), linux(swap=swap)]
    model = host_model(*guests, controller=config)
    asked = [
        start(request(k, kind, 40, maxmem, used), 1 + 9 * k)
        for k, (kind, used) in enumerate(zip(("liar", "linux"), use, strict=True))
    ]
    report = live(model, 200, *asked, *more)
    targets = {one.domid - 1: one.target_pages for one in model.look().domains}
    return (targets[0], targets[1]), (row_of(report, 0), row_of(report, 1))


def test_qmemman_prefers_by_the_lie() -> None:
    """The other uses 300 MiB, so the liar is a donor, and is left with 1.3 times what it says. An honest one and the
    other would both have what they prefer, and a share of the rest.
    """
    (liar, _), _ = liar_and_honest("qmemman", 2.0, use=(60, 300), maxmem=400)
    (honest, _), _ = liar_and_honest("qmemman", 1.0, use=(60, 300), maxmem=400)
    assert liar == int(1.3 * 2 * 60 * MIB)
    assert int(1.3 * 60 * MIB) <= honest < liar


def test_hyperv_gives_the_lie_and_a_buffer() -> None:
    """A fifth more than what it says; the honest one gets a fifth more than what it uses."""
    targets, _ = liar_and_honest("hyperv", 2.0, use=(60, 60), maxmem=400)
    assert targets == (int(1.2 * 2 * 60 * MIB), int(1.2 * 60 * MIB))


def test_mom_takes_where_much_is_said_to_be_free() -> None:
    """Two of a use have the same to a step of 5 %. Who says all of it were in use keeps its maximum, at the other's
    cost; who says half is sent far below what it uses.
    """
    (one, other), _ = liar_and_honest("mom", 1.0, use=(150, 150))
    assert abs(one - other) <= one // 20
    (boaster, other), _ = liar_and_honest("mom", 2.0, use=(150, 150))
    assert other < one < boaster == 240 * MIB
    (modest, other), _ = liar_and_honest("mom", 0.5, use=(200, 200))
    assert modest < 150 * MIB < 190 * MIB < other


def test_proxmox_takes_where_much_is_said_to_be_free() -> None:
    """Two of a use meet in the middle. Who says that nothing is free is under pressure, and not asked before all others
    have given theirs.
    """
    (one, other), rows = liar_and_honest("proxmox", 1.0, use=(100, 100))
    assert one == other < rows[0].start_pages == 240 * MIB
    (boaster, other), rows = liar_and_honest("proxmox", 10.0, use=(100, 100))
    assert (boaster, other) == (240 * MIB, rows[1].start_pages)


def test_esx_taxes_by_the_lie() -> None:
    """Podcluster has no samples of pages, so the lie is what is active. A third guest waits for 100 MiB: two of a use
    give the same; who says it uses twice as much is taxed for less idle memory, and gives less.
    """
    late = start(request(2, "linux", 100, 100, 50), 60)
    (one, other), _ = liar_and_honest("esx", 1.0, late, use=(60, 60))
    assert one == other < 240 * MIB
    (liar, other), _ = liar_and_honest("esx", 2.0, late, use=(60, 60))
    assert other < one < liar
    # P = A + (S/rho - A) / k with one S/rho for both, and k is 4: of 60 MiB more that are active 3/4 are kept.
    assert liar - other == pytest.approx(0.75 * 60 * MIB, abs=2)
