"""The sixteen ways in which things go wrong, each from a configuration, each with its row and the operator's words.

E14 (squeezed gives up on guests that do not balloon) is with the controller, in the tests of squeezed.
"""

from __future__ import annotations

import re
from typing import Any

import pytest

from podcluster.config import ControllerConfig, HostConfig
from podcluster.host.own import LowMemory
from podcluster.placement.policy import make_policy
from podcluster.records.commands import AttachDevice, Close, Command, SetMaxMem, SetTarget, StopDomain
from podcluster.records.hosts import Ask, HostView, Rejected
from podcluster.records.reports import HostReport
from podcluster.records.rows import DomainRow, EventRow
from podcluster.units import NS_PER_S, PAGES_PER_MIB, s_to_ns
from tests.host.lives import curve, guest_config, host_model, live, one_life, request, rows, seconds, start

MIB = PAGES_PER_MIB
NO_CACHE = {"rate_mib_per_s": 0}


def events(report: HostReport, kind: str) -> list[EventRow]:
    return [event for event in report.events if event.kind == kind]


def told(report: HostReport, kind: str) -> list[str]:
    return [event.text for event in events(report, kind)]


def row_of(report: HostReport, domain_id: int = 0) -> DomainRow:
    return next(row for row in report.domains if row.domain_id == domain_id)


def one(kind: str, memory_mib: int, maxmem_mib: int, until_s: float = 60, *, ram_mib: int = 512, **changed: Any) -> Any:
    """The report of a host with one guest."""
    host = changed.pop("host", None)
    demand = changed.pop("demand", 0)
    guest = guest_config(kind, page_cache=NO_CACHE, **changed)
    model = host_model(guest, ram_mib=ram_mib, host=host)
    return live(model, until_s, start(request(0, kind, memory_mib, maxmem_mib, demand), 1))


def test_e1_a_guest_that_touches_more_than_it_has() -> None:
    """E1: no driver, everything dirtied."""
    report = one("linux_no_driver", 64, 128, dirty_all=True)
    row = row_of(report)
    assert (row.fate, row.cause) == ("pod_oom", "debt")
    line = f"p2m_pod_demand_populate: Dom1 out of PoD memory! (tot={64 * MIB - 8} ents={64 * MIB} dom1)"
    assert told(report, "pod_oom") == [row.oom_line] == [line]


def test_e2_dom0_maps_a_page_that_is_not_there() -> None:
    """E2: a guest whose data fills what it owns to the last page lives; the first visit of dom0's then is its end."""
    story: dict[str, Any] = {"kernel_mib": [20, 20], "services_mib": [15, 15], "until_s": 200}

    def life(pages: int, visits_per_s: float = 0) -> HostReport:
        demand = curve((0, 10), (60, 10), (80, pages / MIB), (200, pages / MIB))
        host = HostConfig(dom0_touch_per_s=visits_per_s)
        report: HostReport = one("linux_no_driver", 52, 128, demand=demand, host=host, **story)
        return report

    least = 40 * MIB
    full = least + row_of(life(least)).margin_pages
    quiet = row_of(life(full))
    assert (quiet.fate, quiet.margin_pages) == ("running", 0)
    report = life(full, visits_per_s=5)
    row = row_of(report)
    assert (row.fate, row.cause) == ("pod_oom_by_other", "debt")
    assert row.oom_line.endswith(" dom0)")
    (text,) = told(report, "pod_oom_by_other")
    assert text == f"{row.oom_line}; Domain 1 reported crashed by domain 0"


def test_e2_visits_alone_are_reclaimed() -> None:
    """dom0's visits leave zeroes, which sweeps find: a guest whose own pages fit survives any number of them."""
    report = one("linux_no_driver", 52, 128, 200, host=HostConfig(dom0_touch_per_s=200))
    row = row_of(report)
    assert row.fate == "running"
    assert row.reclaimed_4k + 512 * row.reclaimed_2m > 10_000
    assert row_of(one("linux_no_driver", 52, 128, 200)).reclaimed_4k == 0


def test_e3_no_room_for_the_cache() -> None:
    """E3: without claims the cache cannot be allocated in full."""
    report = one("linux", 60, 128, ram_mib=64, host=HostConfig(claim_mode=False))
    assert (row_of(report).fate, row_of(report).cause) == ("build_failed", "no_memory")
    (text,) = told(report, "build_failed")
    assert text.startswith("p2m_pod_set_cache_target: Unable to allocate page for PoD cache (target=13280 cache=")
    assert text.endswith("Could not set PoD target for HVM guest.")


def test_e4_a_claim_is_refused() -> None:
    """E4: the same with claims fails at once."""
    report = one("linux", 60, 128, ram_mib=64)
    assert (row_of(report).fate, row_of(report).cause) == ("build_failed", "claim_failed")
    assert told(report, "build_failed") == ["Could not allocate memory for HVM guest as we cannot claim memory!"]


def test_e5_a_plain_build_runs_out() -> None:
    """E5: no populate on demand, no claim."""
    report = one("linux", 60, 60, ram_mib=64, host=HostConfig(claim_mode=False))
    assert (row_of(report).fate, row_of(report).cause) == ("build_failed", "no_memory")
    assert told(report, "build_failed") == [
        "xc_dom_boot_mem_init: can't allocate low memory for domain: Out of memory; cannot (re-)build domain: -3"
    ]


def dom0_host(
    rate_mib_per_s: float, *starts: tuple[float, int], dom0_mib: int | None = 448, until_s: float = 90
) -> Any:
    """Starts (at_s, MiB) on 584 MiB of RAM, 8 of them Xen's, with a dom0 that shrinks at this rate."""
    host = HostConfig(autoballoon="true", dom0_mib=dom0_mib, dom0_free_mib_per_s=rate_mib_per_s)
    ram_mib, xen_mib = 584, 8
    model = host_model(guest_config("linux", page_cache=NO_CACHE), ram_mib=ram_mib, taken_mib=xen_mib + 128, host=host)
    orders = [start(request(i, "linux", mib, mib), at_s) for i, (at_s, mib) in enumerate(starts)]
    return live(model, until_s, *orders)


def test_e6_dom0_is_not_shrunk_in_time() -> None:
    """E6: 128 MiB free, 200 wanted; a dom0 that gives nothing back costs 10 s, and the start fails."""
    report = dom0_host(0, (1, 196))
    row = row_of(report)
    assert (row.fate, row.cause, row.end_ns) == ("build_failed", "dom0_short", 11 * NS_PER_S)
    assert told(report, "build_failed") == ["failed to free memory for the domain"]


def test_e6_dom0_is_shrunk_in_time() -> None:
    """The rule switched on: 76 MiB at 20 MiB/s are there at the second poll, and the guest starts 4 s late."""
    report = dom0_host(20, (1, 196))
    row = row_of(report)
    assert (row.fate, row.boot_start_ns) == ("running", 5 * NS_PER_S)
    assert report.view.free_pages < 12 * MIB


def test_e6_starts_take_turns() -> None:
    """B3.6: the second start waits for the first although it would fit at once; what fits needs no dom0."""
    report = dom0_host(20, (1, 196), (1.5, 64), (40, 32))
    first, second, third = (row_of(report, i) for i in range(3))
    assert first.boot_start_ns == 5 * NS_PER_S
    assert second.boot_start_ns is not None and second.boot_start_ns >= first.boot_start_ns + 2 * NS_PER_S
    assert third.fate == "running"


def test_e6_progress_is_waited_for() -> None:
    """B3.4: a page a second is progress at each poll: the start waits on, can be taken back, and never was a domain."""
    slow = HostConfig(autoballoon="true", dom0_mib=448, dom0_free_mib_per_s=1 / MIB)
    model = host_model(guest_config("linux"), ram_mib=584, taken_mib=136, host=slow)
    waiting = model.advance(s_to_ns(100), [start(request(i, "linux", 196, 196), 1 + i) for i in range(3)])
    assert waiting.domains == ()
    assert waiting.view.committed_pages == 3 * 202 * MIB
    report = model.advance(
        s_to_ns(200), [StopDomain(s_to_ns(150), 0), StopDomain(s_to_ns(150), 2), Close(s_to_ns(200))]
    )
    assert [(row.domain_id, row.fate, row.boot_start_ns, row.tot_pages) for row in report.domains] == [
        (0, "shut_down", None, 0),
        (2, "shut_down", None, 0),
        (1, "running", None, 0),
    ]
    assert report.view.committed_pages == 202 * MIB


def test_e6_dom0_has_a_floor() -> None:
    """B3.5: 128 MiB stay dom0's: what would take more is refused at once."""
    report = dom0_host(100, (1, 440))
    assert row_of(report).fate == "running"
    report = dom0_host(100, (1, 446))
    assert (row_of(report).cause, row_of(report).end_ns) == ("dom0_short", NS_PER_S)


def test_e6_dom0_without_a_size() -> None:
    """`host.dom0_mib=null`: dom0 has all but a sixteenth, and every start has to wait for it."""
    report = dom0_host(50, (1, 196), dom0_mib=None)
    row = row_of(report)
    assert row.fate == "running"
    assert row.boot_start_ns is not None and row.boot_start_ns > 3 * NS_PER_S


@pytest.mark.parametrize(
    ("era", "rate_mib_per_s", "at_s", "text"),
    [
        ("today", 30, 20, "120 to 200 MiB"),
        ("rfc2009", 30, 24, "120 to 200 MiB"),  # 72 MiB short: the second poll
        ("rfc2009", 0, 30, "failed to free memory for the domain"),
    ],
)
def test_e6_the_first_toolstack_shrank_dom0_for_a_raise(
    era: str, rate_mib_per_s: float, at_s: float, text: str
) -> None:
    """xl makes room for starts only; the toolstack of 2009 called balloon.free() before it told Xen of a raise."""
    host = HostConfig(
        era=era, p2m="pt", superpages_1g=False, autoballoon="true", dom0_mib=440, dom0_free_mib_per_s=rate_mib_per_s
    )
    model = host_model(guest_config("linux_no_driver", page_cache=NO_CACHE), ram_mib=584, taken_mib=136, host=host)
    machine = request(0, "linux_no_driver", 120, 120)
    orders: list[Command] = [SetMaxMem(s_to_ns(10), 0, 256 * MIB), SetTarget(s_to_ns(20), 0, 200 * MIB)]
    (event,) = events(live(model, 60, start(machine, 1), *orders), "set_target")
    assert (seconds(event.t_ns), event.text) == (at_s, text)


def test_e7_mem_set_up_on_a_full_host() -> None:
    """E7: the call fails, the guest is told nothing, the limit stays raised and a partly grown cache stays."""
    guest = guest_config("linux_no_driver", page_cache=NO_CACHE)
    model = host_model(guest, ram_mib=160)
    report = live(model, 60, start(request(0, "linux_no_driver", 96, 256), 1), SetTarget(s_to_ns(20), 0, 224 * MIB))
    assert told(report, "set_target") == ["xc_domain_set_pod_target memkb=229376 failed"]
    row = row_of(report)
    assert row.tot_pages > 96 * MIB
    assert report.view.free_pages == 0


def test_e8_a_limit_below_the_target() -> None:
    """E8: `mem-max` in the middle of a raise: the guest deflates into the limit, and never reaches its target."""
    slow = {"start_s": [0.5, 0.5], "rate_pages_per_s": [2000, 2000]}
    guest = guest_config("windows", balloon=slow, page_cache=NO_CACHE, scrubber="none")
    machine = request(0, "windows", 128, 256)

    def life(*orders: Any) -> HostReport:
        return live(host_model(guest), 200, start(machine, 1), SetTarget(s_to_ns(60), 0, 224 * MIB), *orders)

    free = life()
    assert told(free, "over_allocation") == []
    assert row_of(free).tot_pages == 224 * MIB - 32 + 24
    report = life(SetMaxMem(s_to_ns(61), 0, 216 * MIB))
    limit = 217 * MIB
    assert told(report, "set_max") == ["216 MiB"]
    assert told(report, "over_allocation") == [f"Over-allocation for d1: {limit + 1} > {limit}"]
    assert row_of(report).tot_pages == limit
    assert row_of(report).fate == "running"


def test_e8_a_limit_below_the_target_is_refused() -> None:
    """B4.4: xl refuses a limit below the target in xenstore, and nothing changes."""
    guest = guest_config("linux", page_cache=NO_CACHE)
    report = live(host_model(guest), 60, start(request(0, "linux", 128, 256), 1), SetMaxMem(s_to_ns(30), 0, 64 * MIB))
    (text,) = told(report, "set_max")
    assert text.startswith("memory_static_max must be greater than or equal to memory_target")


def test_b46_a_device_waits_until_nothing_is_left_of_the_debt() -> None:
    """B4.6: refused while the balloon is at work, and after it while the cache holds a page for an entry that is left;
    allowed once both are gone, and at any time to a guest that was promised no more than it has.
    """
    slow = {"start_s": [1, 1], "rate_pages_per_s": [2000, 2000]}
    guest = guest_config("linux", balloon=slow, page_cache=NO_CACHE)

    def asked(memory_mib: int, at_s: float) -> list[str]:
        machine = start(request(0, "linux", memory_mib, 128, curve((0, 20), (99, 20), (100, 120))), 1)
        return told(live(host_model(guest), 200, machine, AttachDevice(s_to_ns(at_s), 0)), "attach")

    (early,) = asked(96, 6)
    assert early.startswith("device not assigned: ")
    left, cached = map(int, re.findall(r"\d+", early))
    assert left > cached
    (paid,) = asked(96, 60)
    # Its debt is paid, so entries and cache are as many; it has touched little, and the rest waits in the cache.
    entries, cached = re.findall(r"\d+", paid)
    assert entries == cached != "0"
    assert asked(128, 6) == ["device assigned"]
    assert asked(96, 150) == ["device assigned"], "all it kept has been written"


@pytest.mark.parametrize(
    ("kind", "changed", "fate", "text"),
    [
        ("linux", {"balloon": {"scrub": False}}, "guest_panic", "kernel BUG at drivers/xen/balloon.c!"),
        (
            "linux_no_driver",
            {"alloc_order": "random", "alloc_block_pages": 1},
            "ept_violation",
            "d1: EPT violation (type 6): no page left in its paging pool of 39 for a page table",
        ),
    ],
)
def test_e9_no_page_for_a_page_table(kind: str, changed: Any, fate: str, text: str) -> None:
    """E9: a pool of 39 pages: single pages given back, or reclaimed out of superpages with data in them, shatter
    entries; with the toolstack's pool the same guests live.
    """
    story: dict[str, Any] = {"ram_mib": 1024, "until_s": 100, **changed}
    report = one(kind, 128, 800, host=HostConfig(paging_pool_scale=0.03), **story)
    row = row_of(report)
    assert (row.fate, row.cause) == (fate, "paging_pool")
    (said,) = told(report, fate)
    assert text in said
    assert row_of(one(kind, 128, 800, **story)).fate == "running"


def test_e9_no_page_for_the_first_table() -> None:
    """E9 at the build: not even the tables that it begins with."""
    report = one("linux", 128, 800, ram_mib=1024, host=HostConfig(paging_pool_scale=0))
    assert (row_of(report).fate, row_of(report).cause) == ("build_failed", "paging_pool")
    assert "no page left in the paging pool of 0 pages" in told(report, "build_failed")[0]


@pytest.mark.parametrize(
    ("feature", "text"),
    [
        ("passthrough", "IOMMU required for device passthrough but not supported together with PoD"),
        ("vnuma", "Cannot enable PoD and vNUMA at the same time"),
        ("altp2m", "Cannot enable PoD and ALTP2M at the same time"),
    ],
)
def test_e10_refused_by_configuration(feature: str, text: str) -> None:
    """E10: with populate on demand; without, it starts."""
    report = one("linux", 64, 128, **{feature: True})
    assert (row_of(report).fate, row_of(report).cause) == ("build_failed", "refused")
    assert told(report, "build_failed") == [text]
    assert row_of(one("linux", 64, 64, **{feature: True})).fate == "running"


def test_e11_the_linux_balloon_gives_up() -> None:
    """E11: a kernel that fills what the balloon wants; 180 s later the boot barrier ends in a panic."""
    report = one("linux", 40, 48, 400, kernel_mib=[26, 26], services_s=[30, 30], balloon={"start_s": [2.5, 2.5]})
    row = row_of(report)
    assert (row.fate, row.cause) == ("guest_panic", "boot_barrier")
    assert told(report, "balloon_gave_up")[0].startswith("Initial ballooning failed, ")
    assert told(report, "guest_panic") == ["Kernel panic - not syncing: Initial ballooning failed!"]
    assert 165 < seconds(row.end_ns - events(report, "balloon_gave_up")[0].t_ns) < 180


def test_e12_what_the_host_does_not_see() -> None:
    """E12: a working set above what the balloon leaves: swap, then killed applications; counts, and no crash."""
    row = one_life("linux", 64, 128, 120, demand=curve((0, 10), (60, 10), (61, 120)))
    assert row.fate == "running"
    assert row.swap_ns > 0
    assert row.oom_kills > 0


def test_e13_no_host_has_enough() -> None:
    """E13 in the pool: a rejection with both of XAPI's errors."""
    answer = make_policy("xapi").place(
        Ask(512 * MIB, 512 * MIB, 21 * MIB), [HostView(0, 600 * MIB, 200 * MIB, 0, 0, 0, 0)]
    )
    assert isinstance(answer, Rejected)
    assert answer.reason.startswith("NO_HOSTS_AVAILABLE: ")
    assert "HOST_NOT_ENOUGH_FREE_MEMORY: 512 MiB needed, 400 available" in answer.reason


def test_e13_the_host_refuses() -> None:
    """E13 on the host: memory and overhead beside all others' minima and 72 MiB; whatever balloons hold."""
    guest = guest_config("linux", page_cache=NO_CACHE, min_memory_mib=32)
    model = host_model(guest, ram_mib=528, taken_mib=16, host=HostConfig(toolstack="xapi"))
    report = live(
        model,
        60,
        start(request(0, "linux", 200, 300), 1),
        start(request(1, "linux", 220, 300), 2),
        start(request(2, "linux", 200, 300), 3),
    )
    # 512 MiB of U less 72 less 200 + 8 leave 232; 220 and 8 of overhead fit, 200 and 8 more do not.
    assert [(row.domain_id, row.fate, row.cause) for row in sorted(report.domains, key=lambda r: r.domain_id)] == [
        (0, "running", ""),
        (1, "running", ""),
        (2, "build_failed", "host_memory"),
    ]
    assert told(report, "build_failed") == ["HOST_NOT_ENOUGH_FREE_MEMORY: 208 MiB needed, 4 available"]


def test_e15_settings_that_xapi_refuses() -> None:
    """E15: dynamic memory where it is restricted, and a minimum below the class's own."""
    pinned = HostConfig(toolstack="xapi", restrict_dmc=True)
    report = one("linux", 300, 400, min_memory_mib=256, host=pinned)
    assert (row_of(report).fate, row_of(report).cause) == ("build_failed", "memory_constraint")
    assert told(report, "build_failed") == [
        "MEMORY_CONSTRAINT_VIOLATION_MAXPIN: dynamic_min = dynamic_max = static_max, got static_min=256 "
        "dynamic_min=300 dynamic_max=400 static_max=400 (dynamic memory control is restricted)"
    ]
    assert row_of(one("linux", 300, 300, min_memory_mib=256, host=pinned)).fate == "running"
    squeezed = ControllerConfig(name="squeezed")
    model = host_model(guest_config("linux", min_memory_mib=256), ram_mib=512, host=pinned, controller=squeezed)
    report = live(model, 60, start(request(0, "linux", 300, 400), 1))
    assert row_of(report).cause == "memory_constraint", "whatever a controller would have given it to start with"
    report = one("linux", 200, 400, min_memory_mib=256, host=HostConfig(toolstack="xapi"))
    assert told(report, "build_failed")[0].startswith("MEMORY_CONSTRAINT_VIOLATION_ORDER: ")
    assert row_of(one("linux", 200, 400, min_memory_mib=256)).fate == "running", "xl knows no such rule"


def test_e16_low_memory() -> None:
    """E16: a host that fills says so at 16,384 pages and at each halving, and again when it has filled once more."""
    guest = guest_config("linux_no_driver", page_cache=NO_CACHE)
    model = host_model(guest, ram_mib=272)
    report = live(
        model, 60, *(start(request(i, "linux_no_driver", mib, mib), 1 + i) for i, mib in enumerate((180, 40, 16)))
    )
    found = events(report, "low_memory")
    assert [(event.host_id, event.domain_id, event.attempt) for event in found] == [(0, -1, 0)] * len(found)
    assert [event.text.rpartition(" ")[2] for event in found] == ["16384", "8192", "4096"]
    assert "low-memory interrupt: " in found[0].text


def test_e16_thresholds() -> None:
    """Reached, halved, doubled again only at twice what it was raised at."""
    alarm = LowMemory(100_000)
    assert alarm.crossed(16_385) == []
    assert alarm.crossed(16_384) == [16_384]
    assert alarm.crossed(16_384) == alarm.crossed(8_193) == []
    assert alarm.crossed(3_000) == [8_192, 4_096]
    assert alarm.crossed(8_191) == []
    assert alarm.crossed(4_096) == []
    assert alarm.crossed(8_192) == []  # armed for 4,096 again
    assert alarm.crossed(4_096) == [4_096]
    assert alarm.crossed(32_768) == []
    assert alarm.crossed(0)[:2] == [16_384, 8_192]
    assert LowMemory(100).crossed(90) == []


@pytest.mark.parametrize(
    "host",
    [
        {"autoballoon": "true", "dom0_mib": 300, "dom0_free_mib_per_s": 15},
        {"dom0_touch_per_s": 7},
        {"paging_pool_scale": 0.12},
        {"toolstack": "xapi"},
        {"softirq_per_s": 2000, "dom0_touch_per_s": 7, "on_crash": "restart"},
    ],
    ids=lambda host: next(iter(host)),
)
def test_where_time_is_cut_changes_nothing(host: dict[str, Any]) -> None:
    """HM-1 with all that a host does by itself: one call, many, and every act singly and audited: the same rows."""
    classes = [guest_config("linux", min_memory_mib=32), guest_config("linux_no_driver", min_memory_mib=32)]
    taken_mib = 136 if "autoballoon" in host else 16
    orders: list[Command] = [
        start(request(i, classes[i % 2].os_class, 60 + 20 * i, 160, curve((0, 20), (90, 150))), 1 + 2 * i)
        for i in range(4)
    ]
    orders += [SetTarget(s_to_ns(40), 0, 100 * MIB), SetMaxMem(s_to_ns(50), 1, 120 * MIB), StopDomain(s_to_ns(70), 3)]

    def life(step_s: float, check: str) -> Any:
        model = host_model(
            *classes, ram_mib=456, taken_mib=taken_mib, telemetry_s=7, host=HostConfig(**host, check=check)
        )
        reports, at_ns, end_ns = [], 0, s_to_ns(120)
        while at_ns < end_ns:
            until_ns = min(at_ns + s_to_ns(step_s), end_ns)
            due = [order for order in orders if at_ns < order.at_ns <= until_ns]
            reports.append(model.advance(until_ns, [*due, *([Close(end_ns)] if until_ns == end_ns else [])]))
            at_ns = until_ns
        return [sorted(map(repr, part)) for part in rows(reports)], reports[-1].host, reports[-1].view

    whole = life(120, "epoch")
    assert life(3.1, "epoch") == whole
    assert life(120, "step") == whole
