"""Does a host live through time exactly: in order, the same however it is cut, the same on the slow machine?"""

import math
from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from podcluster.config import CostConfig
from podcluster.errors import InvariantError
from podcluster.host.model import HostModel
from podcluster.records.commands import Close, Command, SetMaxMem, SetTarget, StartDomain, StopDomain
from podcluster.records.reports import HostReport
from podcluster.records.samples import MachineSampleBlock
from podcluster.units import NS_PER_S, PAGES_PER_MIB, s_to_ns
from tests.host.lives import (
    KINDS,
    curve,
    guest_config,
    host_config,
    host_model,
    live,
    one_life,
    request,
    rows,
    seconds,
    slow_machine,
    start,
)

MIB = PAGES_PER_MIB
END_S = 40

# -- whole lives of small hosts, drawn

points = st.lists(st.tuples(st.integers(1, END_S), st.integers(0, 60)), min_size=0, max_size=6)


FIRST = "Xen's first version"
HOSTS: dict[str, dict[str, Any]] = {
    "nothing takes time": {},
    "every sweep is cut off": {"softirq_per_s": math.inf},
    "Xen takes its time": {"costs": {}},
    "a slow Xen, and work that arrives": {
        "costs": {name: 30 * ns for name, ns in vars(CostConfig()).items()},
        "softirq_per_s": 300.0,
    },
    FIRST: {"era": "rfc2009"},
    f"{FIRST}, which takes its time": {"era": "rfc2009", "costs": {}},
}
hosts = st.sampled_from(list(HOSTS))


@st.composite
def guest_classes(draw: st.DrawFn, *, hotplug: Sequence[bool] = (False, True)) -> list[Any]:
    """The three classes with what matters to the merging of streams drawn anew; `hotplug`: whether Linux may outgrow
    what it booted with.
    """
    hardened = draw(st.booleans())
    return [
        guest_config(
            kind,
            balloon={
                "start_s": [draw(st.sampled_from([0.0, 0.5, 6.0])), 6.0],
                "rate_pages_per_s": [draw(st.sampled_from([300, 10_000])), 20_000],
                "scrub": draw(st.booleans()),
                "boot_barrier": kind == "linux" and draw(st.booleans()),
                "hotplug": kind == "linux" and draw(st.sampled_from(hotplug)),
                "section_mib": draw(st.sampled_from([4, 16])),
            },
            page_cache={"rate_mib_per_s": draw(st.sampled_from([0, 3, 50]))},
            scrubber="zero" if hardened else draw(st.sampled_from(["none", "zero", "pattern"])),
            scrub_order=draw(st.sampled_from(["ascending", "descending"])),
            scrub_streams=draw(st.sampled_from([0, 1, 3])),
            zero_on_free=hardened,
            late_descriptors_share=draw(st.sampled_from([0, 0.5])),
            install=draw(st.sampled_from([{}, {"unpack_mib": [5, 5], "install_s": [3, 9], "end": "shuts_down"}])),
            irq_per_s=draw(st.sampled_from([0, 1000.0])),
            alloc_order=draw(st.sampled_from(["descending", "random"])),
            alloc_block_pages=draw(st.sampled_from([64, 512])),
            dirty_all=draw(st.integers(0, 9)) == 0,
            swap={"mib": draw(st.sampled_from([0, 8]))},
        )
        for kind in KINDS
    ]


@st.composite
def commands(
    draw: st.DrawFn, *, kinds: Sequence[str] = KINDS, above_mib: Sequence[int] = (0, 0, 9, 40)
) -> list[Command]:
    """Machines that come, change their target and go, on a host that not all of them fit on. Some are to have more than
    they were promised, by one of `above_mib`.
    """
    found: list[Command] = []
    for domain_id in range(draw(st.integers(1, 4))):
        memory_mib = draw(st.sampled_from([24, 32, 48, 64]))
        maxmem_mib = memory_mib + draw(st.sampled_from([0, 8, 40, 64]))
        first = draw(st.integers(0, 60))
        samples = {0: first, **dict(sorted(draw(points)))}
        at_s = draw(st.integers(0, 10))
        machine = request(
            domain_id,
            draw(st.sampled_from(kinds)),
            memory_mib,
            maxmem_mib,
            curve(*sorted(samples.items())),
            hold_ns=draw(st.sampled_from([-1, 0, s_to_ns(3.7)])),
            departure_ns=s_to_ns(at_s + draw(st.integers(1, 25))) if draw(st.booleans()) else None,
        )
        found.append(start(machine, at_s + 0.1))
        for _ in range(draw(st.integers(0, 2))):
            target_mib = draw(st.integers(20, maxmem_mib))
            found.append(SetTarget(s_to_ns(at_s + draw(st.integers(1, 25)) + 0.3), domain_id, target_mib * MIB))
        if (above := draw(st.sampled_from(above_mib))) > 0:
            raised_ns, pages = s_to_ns(at_s + draw(st.integers(1, 15))), (maxmem_mib + above) * MIB
            found += [SetMaxMem(raised_ns, domain_id, pages), SetTarget(raised_ns + NS_PER_S, domain_id, pages)]
        if machine.departure_ns is not None:
            found.append(StopDomain(machine.departure_ns, domain_id))
    return sorted(found, key=lambda one: one.at_ns)


def whole_life(classes: list[Any], given: Sequence[Command], steps_s: Sequence[float] = (), **keywords: Any) -> Any:
    """All rows of a host that is told these commands, advanced in these steps."""
    host = host_config(check=keywords.pop("check", "epoch"), **HOSTS[keywords.pop("host", "nothing takes time")])
    model = host_model(*classes, ram_mib=160, taken_mib=8, telemetry_s=7, machine_samples=True, host=host, **keywords)
    told = [*given, Close(s_to_ns(END_S))]
    reports: list[HostReport] = []
    before_ns = 0
    for until_ns in sorted({s_to_ns(step) for step in steps_s} | {s_to_ns(END_S)}):
        reports.append(model.advance(until_ns, [one for one in told if before_ns < one.at_ns <= until_ns]))
        before_ns = until_ns
    return (*rows(reports), reports[-1].host, MachineSampleBlock.join([one.machine_samples for one in reports]))


@settings(max_examples=60)
@given(classes=guest_classes(), given=commands(), host=hosts)
def test_running_guests_ahead_changes_nothing(classes: list[Any], given: list[Command], host: str) -> None:
    """HM-1: `coalesce` gives the rows that carrying out every act singly in order of time gives; audited each step."""
    singly = whole_life(classes, given, check="step", coalesce=False, host=host)
    assert whole_life(classes, given, coalesce=True, host=host) == singly


def test_a_boot_that_fails_comes_in_its_turn() -> None:
    """HM-1: a balloon gives beside a guest whose kernel has no room, and which gives its memory back when it panics."""
    classes = [
        guest_config("linux_no_driver", kernel_mib=[5, 5]),
        guest_config("windows", firmware_s=[0.2, 0.2], balloon={"start_s": [0.1, 0.1], "batch_pages": 64}),
    ]
    small, other = request(0, "linux_no_driver", 12, 12), request(1, "windows", 64, 64)
    given: list[Command] = [start(small), start(other), SetTarget(s_to_ns(0.4), 1, 32 * MIB)]
    singly = whole_life(classes, given, coalesce=False)
    assert [row.cause for row in singly[0]] == ["no_memory_to_boot", ""]
    assert whole_life(classes, given, coalesce=True) == singly


def test_nothing_stays_held_that_was_never_had() -> None:
    """HM-1: an installer unpacks into memory that an application has taken all of; later there is more, and wanted."""
    guest = guest_config(
        "linux",
        dirty_all=True,
        swap={"mib": 0},
        page_cache={"rate_mib_per_s": 0},
        install={"unpack_mib": [5, 5], "install_s": [2, 2]},
        balloon={"scrub": False},
    )
    machine = request(0, "linux", 32, 40, curve((0, 0), (10, 0), (30, 0), (35, 25)), hold_ns=s_to_ns(3.7))
    given: list[Command] = [start(machine), SetTarget(s_to_ns(25), 0, 40 * MIB)]
    singly = whole_life([guest], given, coalesce=False)
    assert singly[0][0].oom_kills and not singly[0][0].swap_in_pages
    assert whole_life([guest], given, coalesce=True) == singly


@settings(max_examples=60)
@given(
    classes=guest_classes(),
    given=commands(),
    steps_s=st.lists(st.floats(0.01, END_S - 0.01, allow_nan=False), max_size=12),
    host=hosts,
    stride_s=st.sampled_from([0, 1, 10, END_S]),
)
def test_where_a_span_is_cut_changes_nothing(
    classes: list[Any], given: list[Command], steps_s: list[float], host: str, stride_s: float
) -> None:
    """HM-1: one call of `advance` or many, the same rows; whether or not guests may go past the end of a call, and how
    far.
    """
    at_once = whole_life(classes, given, host=host)
    assert whole_life(classes, given, steps_s, host=host) == at_once
    asked_ns = min((one.at_ns for one in given if isinstance(one, SetMaxMem | SetTarget)), default=s_to_ns(END_S))
    far: dict[str, Any] = {"unasked_ns": asked_ns, "stride_ns": s_to_ns(stride_s)}
    assert whole_life(classes, given, steps_s, host=host, **far) == at_once


@settings(max_examples=8)
@given(classes=guest_classes(), given=commands(), host=hosts)
def test_the_slow_machine_agrees(classes: list[Any], given: list[Command], host: str) -> None:
    """The same life on the page-by-page reference: every row alike, so no kernel shapes a result."""
    assert whole_life(classes, given, machine=slow_machine, host=host) == whole_life(classes, given, host=host)


def test_the_first_version_leaves_a_surplus_in_the_cache() -> None:
    """R10: a target of 16 MiB for a guest of 24 of 32 that has touched little: all promises are given back, and none of
    the pages behind them, so that C > E; audited each step, the same singly and on the slow machine.
    """
    guest = guest_config("linux", balloon={"scrub": False})
    told: list[Command] = [start(request(0, "linux", 24, 32)), SetTarget(s_to_ns(20), 0, 16 * MIB)]
    life = whole_life([guest], told, host=FIRST)
    (row,) = life[0]
    assert (row.fate, row.cache_count - row.entry_count) == ("running", 1214)
    assert whole_life([guest], told, host=FIRST, check="step", coalesce=False) == life
    assert whole_life([guest], told, host=FIRST, machine=slow_machine) == life


@settings(max_examples=60)
@given(classes=guest_classes(), given=commands(), kind=hosts)
def test_every_life_adds_up(classes: list[Any], given: list[Command], kind: str) -> None:
    """One row per start; a guest dies of its debt exactly if its own count passed what it owned; sums add up."""
    domains, events, samples, host, machines = whole_life(classes, given, host=kind)
    assert sorted(row.domain_id for row in domains) == sorted(
        one.request.domain_id for one in given if isinstance(one, StartDomain)
    )
    for row in domains:
        # A page table in the way crashes a guest without that line (R1).
        assert (row.fate == "pod_oom" and row.cause != "table_conflict") == (row.oom_line != "")
        if row.fate == "pod_oom" and row.cause == "debt":
            assert row.margin_pages == -1
            assert row.cache_count == 0
        else:
            assert row.margin_pages >= 0
        if row.fate != "build_failed":
            assert row.boot_start_ns is not None
            assert row.swap_ns <= row.end_ns - row.boot_start_ns
        owned = "Out of populate" if kind.startswith(FIRST) else f"tot={row.tot_pages} ents={row.entry_count} "
        assert row.oom_line == "" or owned in row.oom_line
    assert [event.t_ns for event in events] == sorted(event.t_ns for event in events)
    assert host.domains_started == len(domains)
    for sample in samples:
        assert sample.owned_pages == sample.populated_pages + sample.cache_pages
        assert sample.owned_pages + sample.free_pages <= 152 * MIB
        there = machines.columns[:, machines.column("t_ns") == sample.t_ns]
        assert there.shape[1] == sample.domains_running
        summed = dict(zip(MachineSampleBlock.NAMES, there.sum(axis=1).tolist(), strict=True))
        for name in ("target_pages", "owned_pages", "demanded_pages"):
            assert summed[name] == getattr(sample, name), name
        dead = [row for row in domains if row.fate in ("pod_oom", "guest_panic")]
        assert sample.deaths == sum(1 for row in dead if row.end_ns < sample.t_ns)


# -- facts


def test_the_same_seed_gives_the_same_life_and_another_does_not() -> None:
    """Draws come from the seed and the domain alone."""
    lives = [one_life("linux", 32, 64, seed=seed) for seed in (1, 1, 2)]
    assert lives[0] == lives[1]
    assert lives[0].boot_done_ns != lives[2].boot_done_ns


def test_neighbours_leave_a_guest_alone() -> None:
    """A guest's own row is the same with and without other guests on a host that has room for all."""
    classes = [guest_config(kind) for kind in KINDS]
    alone = live(host_model(*classes), 60, start(request(0, "linux", 32, 64, 20), 1))
    crowd = [start(request(i, kind, 32, 64, 10), 0.5 + i / 10) for i, kind in enumerate(KINDS, start=1)]
    together = live(host_model(*classes), 60, start(request(0, "linux", 32, 64, 20), 1), *crowd)
    ours = next(row for row in together.domains if row.domain_id == 0)
    assert ours == alone.domains[0]


@pytest.mark.parametrize("maxmem_mib", [48, 64, 200, 5000])
def test_dirtying_everything_kills_whoever_was_promised_more(maxmem_mib: int) -> None:
    """Without a driver, whose debt is positive dies with cache 0 and entries M - T to the page."""
    row = one_life("linux_no_driver", 32, maxmem_mib, dirty_all=True, until_s=300)
    assert (row.fate, row.cause) == ("pod_oom", "debt")
    assert row.cache_count == 0
    assert row.entry_count == (maxmem_mib - 32) * MIB
    assert row.tot_pages == 32 * MIB - 32 + 24
    assert row.nonzero_pages_peak == row.tot_pages + 1
    assert row.oom_line == (
        f"p2m_pod_demand_populate: Dom1 out of PoD memory! (tot={row.tot_pages} ents={row.entry_count} dom1)"
    )


@pytest.mark.parametrize("kind", KINDS)
def test_dirtying_everything_harms_nobody_who_has_it(kind: str) -> None:
    """At R = 1 there are no promises, and the same guest lives."""
    row = one_life(kind, 64, 64, dirty_all=True)
    assert (row.fate, row.cause) == ("running", "")
    assert (row.entry_count, row.cache_count, row.populated_4k, row.populated_2m) == (0, 0, 0, 0)
    assert row.nonzero_pages_peak == 64 * MIB - 32 + 24 - row.ballooned_pages


@pytest.mark.parametrize("kind", ["linux", "windows"])
def test_dirtying_everything_after_the_balloon_is_safe(kind: str) -> None:
    """C3.3: a guest that has given back M - T pages can no longer die of populate on demand."""
    row = one_life(kind, 32, 96, dirty_all=True, balloon={"boot_barrier": True})
    assert row.fate == "running"
    assert row.ballooned_pages >= 64 * MIB
    assert row.entry_count == row.cache_count == 0
    assert row.margin_pages >= 0


@pytest.mark.parametrize("demand_mib", [5, 20, 22, 24, 40])
def test_a_guest_without_driver_dies_exactly_when_its_own_count_passes_what_it_owns(demand_mib: int) -> None:
    """G11 around the limit: demand a little below and a little above what it owns, no page cache."""
    row = one_life("linux_no_driver", 32, 64, demand=demand_mib, page_cache={"rate_mib_per_s": 0})
    # Beside W, which counts its kernel: the device model's pages, all of them data from the start.
    needed = demand_mib * MIB + 2048 + 24
    assert (row.fate == "pod_oom") == (needed > row.tot_pages) == (row.nonzero_pages_peak > row.tot_pages)
    if row.fate == "running":
        assert row.nonzero_pages_peak == max(needed, row.nonzero_pages_peak)
        assert row.margin_pages == row.tot_pages - row.nonzero_pages_peak


def test_death_is_at_the_batch_that_the_line_of_demand_crosses_the_limit_in() -> None:
    """The time of a death follows from the page that could not be had: W rises 1 MiB/s, in batches of 512 pages."""
    row = one_life(
        "linux_no_driver", 32, 64, until_s=100, demand=curve((0, 0), (100, 100)), page_cache={"rate_mib_per_s": 0}
    )
    assert row.fate == "pod_oom"
    # W = owned - device model's pages + 1 is the page that failed; its batch began up to 2 MiB of W earlier.
    limit_s = (row.tot_pages - 2048 - 24 + 1) / MIB
    assert limit_s - 2 < seconds(row.end_ns) <= limit_s


def test_a_sweep_that_finds_nothing_looks_at_every_gfn_below_the_highest() -> None:
    """P11 in the row of a death: one sweep, from the top of RAM (maxmem less 8 MiB of video RAM) down to gfn 1."""
    row = one_life("linux_no_driver", 32, 64, demand=48, page_cache={"rate_mib_per_s": 0})
    assert (row.fate, row.sweeps, row.sweep_looks) == ("pod_oom", 1, (64 - 8) * MIB - 1)
    assert one_life("linux_no_driver", 32, 32, demand=24).sweep_looks == 0


def test_a_host_gives_every_page_back() -> None:
    """After the last domain has gone the host has all the free pages it started with."""
    classes = [guest_config(kind) for kind in KINDS]
    model = host_model(*classes)
    before = model.advance(1, []).view.free_pages
    told: list[Command] = [start(request(i, kind, 32, 128, 30), 1 + i) for i, kind in enumerate(KINDS)]
    model.advance(s_to_ns(20), told)
    report = model.advance(s_to_ns(30), [StopDomain(s_to_ns(25), i) for i in range(len(KINDS))])
    assert report.view.free_pages == before == (512 - 16) * MIB
    assert (report.view.committed_pages, report.view.promised_pages, report.view.domains) == (0, 0, 0)


def test_views_follow_the_commands() -> None:
    """Committed and promised pages are those of the domains there; a stop of one that is gone already is nothing."""
    guest = guest_config("linux_no_driver", dirty_all=True)
    model = host_model(guest)
    machine = request(3, "linux_no_driver", 32, 64)
    view = model.advance(s_to_ns(1), [start(machine, 0.5)]).view
    assert (view.promised_pages, view.domains, view.at_ns) == (64 * MIB, 1, s_to_ns(1))
    assert view.committed_pages == 38 * MIB  # 32, a paging pool of 2.25 and 2, in steps of 2
    report = model.advance(s_to_ns(60), [])
    assert [row.fate for row in report.domains] == ["pod_oom"]
    after = model.advance(s_to_ns(70), [StopDomain(s_to_ns(65), 3), SetTarget(s_to_ns(66), 3, 1000)])
    assert (after.domains, after.events) == ((), ())


def test_a_failed_build_is_a_row_and_an_event() -> None:
    """Two guests, room for one: the second's claim is refused (E4), and its row says so."""
    guest = guest_config("linux")
    model = host_model(guest, ram_mib=80)
    report = live(model, 5, start(request(0, "linux", 48, 64), 1), start(request(1, "linux", 48, 64), 2))
    row = next(row for row in report.domains if row.domain_id == 1)
    assert (row.fate, row.cause, row.tot_pages) == ("build_failed", "claim_failed", 0)
    assert row.boot_start_ns == row.end_ns == s_to_ns(2)
    texts = [event.text for event in report.events if event.kind == "build_failed"]
    assert texts == ["Could not allocate memory for HVM guest as we cannot claim memory!"]


def test_means_and_peaks_of_a_host() -> None:
    """What is promised is integrated exactly: a guest there for a quarter of the time."""
    model = host_model(guest_config("linux"))
    report = live(model, 40, start(request(0, "linux", 32, 64), 10), StopDomain(s_to_ns(20), 0))
    assert report.host is not None
    assert report.host.promised_pages_peak == 64 * MIB
    assert report.host.promised_pages_mean == 16 * MIB
    assert report.host.target_pages_mean == 8 * MIB
    assert report.host.domains_started == report.host.domains_peak == 1


def test_samples_lie_on_their_grid_and_at_the_end() -> None:
    """Telemetry each 7 s, and at Close wherever that is."""
    model = host_model(guest_config("linux"), telemetry_s=7)
    report = live(model, 20, start(request(0, "linux", 32, 64), 0.5))
    assert [seconds(sample.t_ns) for sample in report.samples] == [7, 14, 20]
    assert [sample.promised_pages for sample in report.samples] == [64 * MIB] * 3
    on_grid = live(host_model(guest_config("linux"), telemetry_s=7), 21)
    assert [seconds(sample.t_ns) for sample in on_grid.samples] == [7, 14, 21]


def test_an_idle_host_does_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """A host on which nothing is due asks no guest anything."""
    model = host_model(guest_config("linux", page_cache={"rate_mib_per_s": 0}))
    model.advance(s_to_ns(250), [start(request(0, "linux", 32, 64, 20), 1)])
    model.advance(s_to_ns(251), [])  # the audit of what changed

    def fail(*_: Any) -> None:
        raise AssertionError("a guest was run")

    monkeypatch.setattr("podcluster.host.guest.Guest.run", fail)
    monkeypatch.setattr("podcluster.host.guest.Guest.step", fail)
    for at in range(252, 299):
        model.advance(s_to_ns(at), [])


def test_commands_out_of_time_are_our_mistake() -> None:
    """A command before now or after the span is refused, as is a clock that runs backwards."""
    model = host_model(guest_config("linux"))
    model.advance(10 * NS_PER_S, [])
    for until_s, at_s in ((20, 10), (20, 21), (20, 5)):
        with pytest.raises(InvariantError, match="HM-4"):
            model.advance(until_s * NS_PER_S, [StopDomain(at_s * NS_PER_S, 0)])
    with pytest.raises(InvariantError, match="HM-4"):
        model.advance(9 * NS_PER_S, [])


def test_a_broken_machine_stops_the_run_and_says_where() -> None:
    """An audit that fails names the domain, the host, the time and the seed that replays it."""
    model = host_model(guest_config("linux"), seed=77, host=host_config(check="step"))
    broken: HostModel = model

    def audit(dom: int | None = None) -> None:
        raise InvariantError("[P15] violated: 1 == 2")

    broken._machine.audit = audit  # type: ignore[method-assign]
    with pytest.raises(InvariantError, match=r"\[P15\] violated: 1 == 2 \(Dom1, host 0, t=1.0+ s, seed 77\)"):
        model.advance(s_to_ns(2), [start(request(0, "linux", 32, 64), 1)])
