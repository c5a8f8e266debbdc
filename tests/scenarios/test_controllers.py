"""Whole hosts under each controller: what they do for guests that change, start, do not co-operate or outlive it."""

from typing import Any

import pytest

from podcluster.config import CONTROLLERS, ControllerConfig, HostConfig
from podcluster.records.commands import Close, EndWarmup, SetTarget, StopDomain
from podcluster.records.reports import HostReport
from podcluster.records.rows import DomainRow
from podcluster.units import PAGES_PER_MIB, s_to_ns
from tests.host.lives import curve, guest_config, host_model, live, request, seconds, start
from tests.host.test_control import controller

MIB = PAGES_PER_MIB
MOVING = [name for name in CONTROLLERS if name != "static"]
QUIET = {"rate_mib_per_s": 0}
FAST = {"rate_pages_per_s": [50_000, 50_000], "start_s": [0.1, 0.1]}


def linux(**changed: Any) -> Any:
    """A Linux guest that balloons fast and keeps no page cache."""
    balloon = {**FAST, **changed.pop("balloon", {})}
    return guest_config("linux", page_cache=QUIET, balloon=balloon, **changed)


def told(
    name: str, *commands: Any, until_s: float = 200, config: ControllerConfig | None = None, **host: Any
) -> HostReport:
    """The end of a host of 512 MiB, 496 of them usable, under a controller."""
    guest = host.pop("guest", None) or linux()
    model = host_model(guest, controller=config or controller(name), host=HostConfig(), **host)
    return live(model, until_s, *commands)


def row_of(report: HostReport, domain_id: int) -> DomainRow:
    """The row of a machine."""
    return next(row for row in report.domains if row.domain_id == domain_id)


@pytest.mark.parametrize("name", [name for name in MOVING if name != "qmemman"])
def test_the_first_guest_gets_all_it_may_have(name: str) -> None:
    """On an empty host there is no gap: no entries, no debt, nothing to die of. (Qubes starts guests at memory.)"""
    report = told(name, start(request(0, "linux", 64, 192, 30), 1), until_s=5)
    row = row_of(report, 0)
    assert row.start_pages == row.maxmem_pages
    assert (row.entry_count, row.fate) == (0, "running")


def test_qmemman_starts_at_memory_and_grows_the_guest() -> None:
    """The gap is all there at the boot; once the guest reports, it gets its maximum of the empty host."""
    report = told("qmemman", start(request(0, "linux", 64, 192, 30), 1), until_s=60)
    row = row_of(report, 0)
    assert row.start_pages == row.memory_pages == 64 * MIB
    assert row.tot_pages > 180 * MIB
    assert row.entry_count == row.cache_count


@pytest.mark.parametrize("name", MOVING)
def test_a_late_guest_gets_in(name: str) -> None:
    """Three guests hold all of a host that are content with a quarter of it: whoever controls them, a fourth is let in
    before its toolstack gives up after 60 s.
    """
    guests = [start(request(i, "linux", 40, 160, 24), 1 + 20 * i) for i in range(3)]
    row = row_of(told(name, *guests, start(request(3, "linux", 100, 120, 40), 300), until_s=500), 3)
    assert row.fate == "running"
    assert 300 <= seconds(row.boot_start_ns) < 360


@pytest.mark.parametrize(("period_s", "fate"), [(2, "running"), (15, "build_failed")])
def test_a_law_may_be_too_slow_for_a_start(period_s: float, fate: str) -> None:
    """mom, 5 % a step: in 60 s of its own 15 s it frees at most 1 - 0.95^5 = 23 % of the 480 MiB that three guests may
    have, and with what was free before, a fifth, that is less than the 300 MiB of a fourth; in steps of 2 s it is more.
    """
    config = controller("mom")
    config.mom.period_s = period_s
    guests = [start(request(i, "linux", 40, 160, 24), 1 + 20 * i) for i in range(3)]
    late = start(request(3, "linux", 300, 300, 40), 300)
    row = row_of(told("mom", *guests, late, until_s=500, config=config), 3)
    assert row.fate == fate
    if fate == "build_failed":
        assert (row.cause, seconds(row.end_ns)) == ("host_memory", 360)


@pytest.mark.parametrize(("name", "share"), [("hyperv", 0.1), ("selfballoon", 0.1), ("qmemman", 1), ("proxmox", 1)])
def test_memory_follows_demand(name: str, share: float) -> None:
    """Two guests whose demands change places lose less time to swap where memory follows them; next to none where it
    follows at once. qmemman leaves small moves alone, proxmox moves 100 MiB a time.
    """
    machines = [
        start(request(0, "linux", 60, 400, curve((0, 40), (100, 40), (150, 260)), hold_ns=0), 1),
        start(request(1, "linux", 60, 400, curve((0, 260), (100, 260), (150, 40)), hold_ns=0), 10),
    ]
    guest = linux(swap={"mib": 512, "mib_per_s": 100})  # room enough that no application is killed instead
    moved = told(name, *machines, until_s=400, guest=guest)
    assert moved.host is not None
    assert moved.host.moved_pages > 40 * MIB
    fixed = told("static", *machines, until_s=400, guest=guest)
    assert not any(row.oom_kills for report in (moved, fixed) for row in report.domains)
    swap = {report: sum(row.swap_ns for row in report.domains) for report in (moved, fixed)}
    assert swap[moved] < share * swap[fixed]


def test_squeezed_does_not_look_at_demand() -> None:
    """The same two guests: squeezed gives both the same share, once, and moves nothing when they change places."""
    machines = [
        start(request(0, "linux", 60, 400, curve((0, 40), (100, 40), (150, 260)), hold_ns=0), 1),
        start(request(1, "linux", 60, 400, curve((0, 260), (100, 260), (150, 40)), hold_ns=0), 10),
    ]
    half = told("squeezed", *machines, until_s=90).host
    whole = told("squeezed", *machines, until_s=400).host
    assert half is not None
    assert whole is not None
    assert whole.moved_pages == half.moved_pages > 0
    assert whole.controller_actions == half.controller_actions


def test_what_was_moved_before_the_warmup_is_over_stays_with_its_domains() -> None:
    """qmemman moves before and after its end: the domains' rows have all of it, the host's what came after it."""
    machines = [
        start(request(0, "linux", 60, 400, curve((0, 40), (100, 40), (150, 260)), hold_ns=0), 1),
        start(request(1, "linux", 60, 400, curve((0, 260), (100, 260), (150, 40)), hold_ns=0), 10),
    ]
    early, whole, warmed = (
        told("qmemman", *machines, *commands, until_s=until_s)
        for until_s, commands in ((90, ()), (400, ()), (400, (EndWarmup(s_to_ns(90)),)))
    )
    assert early.host is not None and whole.host is not None and warmed.host is not None
    assert warmed.domains == whole.domains
    assert all(row.moved_pages > 0 for row in whole.domains)
    assert whole.host.moved_pages == sum(row.moved_pages for row in whole.domains)
    assert warmed.host.moved_pages == whole.host.moved_pages - early.host.moved_pages > 0


def test_a_target_that_an_operator_sets_is_no_move_of_a_controller() -> None:
    """`xl mem-set` under static: the guest gives 32 MiB, and nobody has moved anything."""
    report = told("static", start(request(0, "linux", 96, 96, 20), 1), SetTarget(s_to_ns(60), 0, 64 * MIB))
    row = row_of(report, 0)
    assert row.tot_pages < 70 * MIB
    assert row.moved_pages == 0


def test_a_dead_controller() -> None:
    """After its death nothing moves; a start gets its minimum at once, or nothing if that is not there (D4.2)."""
    guests = [start(request(i, "linux", 40, 160, 24), 1 + 20 * i) for i in range(3)]
    late = [start(request(3, "linux", 30, 120, 20), 100), start(request(4, "linux", 100, 120, 20), 101)]
    report = told("squeezed", *guests, *late, until_s=150, config=controller("squeezed", dead_after_s=90))
    row = row_of(report, 4)
    assert row.fate == "build_failed"
    assert row.boot_start_ns == s_to_ns(101)
    alive = told("squeezed", *guests, *late, until_s=150)
    assert row_of(alive, 3).fate == row_of(alive, 4).fate == "running"


def test_a_controller_that_dies_while_a_start_waits() -> None:
    """The start gets its minimum then, if it is there."""
    stuck = guest_config("linux_no_driver", page_cache=QUIET)
    config = controller("mom", dead_after_s=30)
    report = told(
        "mom",
        start(request(0, "linux_no_driver", 200, 400, 20), 1),
        start(request(1, "linux_no_driver", 200, 200, 20), 20),
        until_s=60,
        config=config,
        guest=stuck,
    )
    assert row_of(report, 0).start_pages > 300 * MIB
    assert row_of(report, 1).fate == "build_failed"
    assert row_of(report, 1).boot_start_ns == s_to_ns(30)


def test_a_start_that_is_called_off_while_it_waits() -> None:
    """It has one row, and whoever comes later is not held up by it."""
    report = told(
        "mom",
        start(request(0, "linux", 100, 480, 20), 1),
        start(request(1, "linux", 300, 300, 20), 20),
        StopDomain(s_to_ns(25), 1),
        until_s=60,
    )
    assert (row_of(report, 1).fate, row_of(report, 1).cause) == ("build_failed", "still_waiting")
    assert report.host is not None
    assert report.host.starts_waited_ns == s_to_ns(5)


def test_a_start_that_waits_when_the_run_ends() -> None:
    """EP-3: it has its row."""
    report = told("mom", start(request(0, "linux", 100, 480), 1), start(request(1, "linux", 300, 300), 20), until_s=30)
    assert (row_of(report, 1).cause, row_of(report, 1).end_ns) == ("still_waiting", s_to_ns(30))


def test_squeezed_tells_a_guest_of_memory_that_it_does_not_own() -> None:
    """D4.5: a guest is built with what a neighbour leaves, and the neighbour goes while its slow driver still pays the
    debt. squeezed raises the target, the driver believes itself there, and no page of the cache comes with it: off
    target without progress, it is stuck, and the target is taken back.
    """
    slow = linux(balloon={"rate_pages_per_s": [300, 300], "boot_barrier": False})
    machines = [start(request(0, "linux", 300, 300, 20), 1), start(request(1, "linux", 60, 400, 20), 10)]
    report = told("squeezed", *machines, StopDomain(s_to_ns(15), 0), until_s=60, guest=slow)
    row = row_of(report, 1)
    assert row.start_pages < 200 * MIB
    assert row.tot_pages < 250 * MIB
    assert row.entry_count - row.cache_count > 100 * MIB


@pytest.mark.parametrize("name", MOVING)
@pytest.mark.parametrize("kind", ["stuck", "intermittent", "slow", "lying"])
def test_guests_that_do_not_cooperate(name: str, kind: str) -> None:
    """The host lives with each, however it is controlled: every machine has its row, and memory adds up (audited). What
    each controller does about it, see `test_faulty_guests.py`.
    """
    guest = linux(fault={"kind": kind, "share": 0.5})
    machines = [start(request(i, "linux", 40, 160, curve((0, 30), (60, 30 + 20 * i))), 1 + 7 * i) for i in range(6)]
    model = host_model(guest, controller=controller(name), host=HostConfig(check="step"))
    report = model.advance(s_to_ns(120), [*machines, Close(s_to_ns(120))])
    assert sorted(row.domain_id for row in report.domains) == list(range(6))


def test_guests_that_cannot_give_are_flagged_and_blamed() -> None:
    """D5.7, D5.10: two guests that use nearly all they have and have no swap; a start that needs what they hold."""
    guest = linux(swap={"mib": 0})
    machines = [start(request(i, "linux", 40, 240, 225), 1 + i) for i in range(2)]
    report = told("squeezed", *machines, start(request(2, "linux", 200, 200, 20), 60), until_s=200, guest=guest)
    row = row_of(report, 2)
    assert (row.fate, row.cause) == ("build_failed", "vms_failed_to_cooperate")
    texts = [event.text for event in report.events if event.kind == "build_failed"]
    assert texts == ["VMS_FAILED_TO_COOPERATE(Dom1, Dom2)"]
    assert report.host is not None
    assert report.host.uncooperative >= 2


# -- dom0 under squeezed -----------------------------------------------------------------------------------------------

DOM0_MIB = 256


def with_dom0(dom0_min_mib: int, *commands: Any, until_s: float = 60, coalesce: bool = True, **host: Any) -> Any:
    """A host of 512 MiB of which dom0 boots with 256, under squeezed: its model and its report."""
    config = controller("squeezed")
    config.squeezed.dom0_min_mib = dom0_min_mib
    model = host_model(
        linux(),
        taken_mib=16 + (dom0_min_mib or DOM0_MIB),
        controller=config,
        host=HostConfig(dom0_mib=DOM0_MIB, xen_mib=16, check="step", **host),
        coalesce=coalesce,
        telemetry_s=7,
    )
    return model, model.advance(s_to_ns(until_s), [*commands, Close(s_to_ns(until_s))])


def test_squeezed_takes_memory_of_dom0_and_gives_it_back() -> None:
    """D5.15: a guest that fits only if dom0 gives is let in; when it has left, dom0 has what it booted with again."""
    large = start(request(0, "linux", 300, 300), 1)
    model, report = with_dom0(128, large)
    row = row_of(report, 0)
    assert (row.fate, row.start_pages) == ("running", 300 * MIB)
    # 496 MiB less 4 of reserve and the guest's 300 and some overhead: what dom0 is left with.
    assert 128 * MIB < model.look().dom0_pages < (496 - 4 - 300) * MIB
    # At 100 MiB/s, in rounds a second apart, the 64 MiB or so take two rounds.
    assert 1 <= seconds(row.boot_start_ns or 0) - 1 <= 3
    gone, _ = with_dom0(128, large, StopDomain(s_to_ns(30), 0))
    assert gone.look().dom0_pages == DOM0_MIB * MIB


def test_dom0_shares_its_range_as_every_domain_does() -> None:
    """D5.4: dom0 and two guests, all with twice their minimum at most, have the same share of their ranges."""
    model, report = with_dom0(128, *(start(request(i, "linux", 96, 192), 1 + 9 * i) for i in range(2)))
    shares = [(model.look().dom0_pages - 128 * MIB) / (128 * MIB)]
    shares += [(one.target_pages - 96 * MIB) / (96 * MIB) for one in model.look().domains]
    assert 0 < min(shares) and max(shares) - min(shares) < 0.001
    assert {row.fate for row in report.domains} == {"running"}


def test_squeezed_leaves_dom0_alone_unless_told() -> None:
    """The same guest on the same host, and a dom0 that nobody moves: there is no memory for it."""
    model, report = with_dom0(0, start(request(0, "linux", 300, 300), 1), until_s=90)
    row = row_of(report, 0)
    assert (row.fate, row.cause) == ("build_failed", "host_memory")
    assert model.look().dom0_pages == DOM0_MIB * MIB


def test_a_dom0_that_is_stuck_is_nobodys_refusal() -> None:
    """D5.10: dom0 alone not moving is a host without memory, and no VM that failed to co-operate."""
    model, report = with_dom0(128, start(request(0, "linux", 300, 300), 1), until_s=90, dom0_free_mib_per_s=0)
    assert (row_of(report, 0).fate, row_of(report, 0).cause) == ("build_failed", "host_memory")
    assert model.look().dom0_pages == DOM0_MIB * MIB


@pytest.mark.parametrize("speed", [0.5, 100])
def test_idle_looks_at_dom0_may_be_skipped(speed: float) -> None:
    """CT-1 with dom0 on the move, slowly or fast: the same rows with a look at each beat."""
    told = [
        start(request(0, "linux", 150, 200), 1),
        start(request(1, "linux", 100, 200), 12),
        StopDomain(s_to_ns(30), 0),
        start(request(2, "linux", 120, 180, 60), 40),
    ]
    singly = with_dom0(128, *told, until_s=90, coalesce=False, dom0_free_mib_per_s=speed)[1]
    assert with_dom0(128, *told, until_s=90, dom0_free_mib_per_s=speed)[1] == singly
