"""Stories of guests that wait for Xen: each is told once more with the rule switched off, and then ends otherwise."""

from typing import Any

import pytest

from podcluster.cli import compose
from podcluster.host.lock import Lock
from podcluster.host.machine import Machine
from podcluster.records.reports import HostReport
from podcluster.records.rows import DomainRow
from podcluster.units import NS_PER_S, PAGES_PER_MIB
from tests.host.lives import FREE, guest_config, host_config, host_model, live, one_life, request, start

MIB = PAGES_PER_MIB
QUIET = {"rate_mib_per_s": 0}


@pytest.fixture
def unlocked(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody waits for anybody: each vCPU has Xen to itself, and acts by itself."""
    monkeypatch.setattr(Lock, "ready_ns", lambda self, due_ns: due_ns)
    monkeypatch.setattr(Machine, "paces", False)


def costs(**ns: int) -> Any:
    return host_config(costs={**FREE, **ns})


def scrub_s(streams: int) -> float:
    """How much longer than by itself a boot takes that zeroes 256 MiB in no time, at 10 ms a superpage in Xen [s]."""
    row = one_life(
        "linux_no_driver",
        128,
        256,
        scrubber="zero",
        zero_on_free=True,
        scrub_streams=streams,
        scrub_rate_mib_per_s=[1e6, 1e6],
        page_cache=QUIET,
        host=costs(populate_2m_ns=10**7),
    )
    assert row.boot_delay_ns is not None
    return row.boot_delay_ns / NS_PER_S


def test_eight_zeroing_vcpus_do_not_fault_eight_times_as_fast() -> None:
    """G6: Xen serves one at a time, so it takes what all their populates take."""
    assert scrub_s(1) > 1
    assert scrub_s(8) == pytest.approx(scrub_s(1), rel=0.1)


@pytest.mark.usefixtures("unlocked")
def test_without_the_lock_they_would() -> None:
    """The same, each with Xen to itself: the last of eight is done in about an eighth of the time."""
    assert scrub_s(8) < 0.2 * scrub_s(1)


def ballooned(populate_2m_ns: int) -> tuple[DomainRow, HostReport]:
    """A guest whose one vCPU zeroes its memory while its balloon works, whose hypercalls take next to nothing."""
    guest = guest_config(
        "linux",
        scrubber="zero",
        scrub_start_s=[0.5, 0.5],
        scrub_rate_mib_per_s=[200, 200],
        balloon={"start_s": [0.5, 0.5], "rate_pages_per_s": [40_000, 40_000], "scrub": False},
        page_cache=QUIET,
    )
    report = live(
        host_model(guest, host=costs(hypercall_ns=1, populate_2m_ns=populate_2m_ns)),
        120,
        start(request(0, "linux", 64, 256)),
    )
    return report.domains[0], report


def test_what_one_vcpu_does_in_xen_delays_the_balloon_of_another() -> None:
    """G6: populating what the scrubber zeroes holds the lock that decrease reservation waits for."""
    quick, report = ballooned(0)
    done = next(event.t_ns for event in report.events if event.kind == "balloon_done")
    slow, report = ballooned(5 * 10**7)
    late = next(event.t_ns for event in report.events if event.kind == "balloon_done")
    assert slow.ballooned_pages == quick.ballooned_pages
    assert late > done + NS_PER_S
    assert slow.hypervisor_ns > 1000 * quick.hypervisor_ns > 0


@pytest.mark.usefixtures("unlocked")
def test_without_the_lock_the_balloon_would_not_wait() -> None:
    _, report = ballooned(0)
    done = next(event.t_ns for event in report.events if event.kind == "balloon_done")
    _, report = ballooned(5 * 10**7)
    late = next(event.t_ns for event in report.events if event.kind == "balloon_done")
    assert late < done + NS_PER_S


def test_a_slower_xen_lets_the_scrubber_win_the_race() -> None:
    """A pattern scrubber and a balloon start together. Where a hypercall takes long, the balloon is late and the guest
    dies; where it takes nothing, the guest lives. Who wins is a matter of time, so time in Xen decides it.
    """

    def fate(**ns: int) -> tuple[str, str]:
        row = one_life(
            "linux",
            64,
            128,
            scrubber="pattern",
            scrub_start_s=[1, 1],
            scrub_rate_mib_per_s=[15, 15],
            balloon={
                "start_s": [1, 1],
                "rate_pages_per_s": [20_000, 20_000],
                "scrub": False,
                "boot_barrier": False,
            },
            page_cache=QUIET,
            host=costs(**ns),
        )
        return row.fate, row.cause

    assert fate() == ("running", "")
    assert fate(hypercall_ns=10**9) == ("pod_oom", "debt")


# -- the classes shipped -----------------------------------------------------------------------------------------------

CLASSES = [
    "linux",
    "linux_old",
    "linux_hardened",
    "linux_no_driver",
    "windows",
    "windows_old",
    "windows_no_driver",
    "installer",
    "scrubber",
]


def shipped(name: str, memory_mib: int, maxmem_mib: int, *overrides: str, costly: bool = True) -> DomainRow:
    """One life of a class of conf/guest, alone on its host."""
    config = compose([f"guest={name}", *overrides])
    host = host_config(costs={}) if costly else host_config()
    model = host_model(config.guest, ram_mib=maxmem_mib + 256, host=host)
    report = live(model, 400, start(request(0, config.guest.os_class, memory_mib, maxmem_mib)))
    assert len(report.domains) == 1
    return report.domains[0]


NO_DRIVER = ("guest.balloon.driver=none", "guest.balloon.boot_barrier=false")
DATA_ONLY = ("guest.scrubber=none", "guest.zero_on_free=false", "guest.dirty_all=true")


@pytest.mark.parametrize("name", CLASSES)
def test_every_class_dies_of_data_at_its_first_page_too_many(name: str) -> None:
    """G11, G10: without a driver, writing nothing but data, no hazard on: page tot_pages + 1, whatever its class."""
    row = shipped(name, 1024, 1536, *NO_DRIVER, *DATA_ONLY, "guest.install.end=stays", "guest.swap.mib=0", costly=False)
    assert (row.fate, row.cause, row.margin_pages) == ("pod_oom", "debt", -1)
    assert row.nonzero_pages_peak == row.tot_pages + 1 == 1024 * MIB - 32 + 24 + 1
    assert (row.entry_count, row.cache_count) == (512 * MIB, 0)


@pytest.mark.parametrize("name", CLASSES)
def test_every_class_keeps_its_margin(name: str) -> None:
    """G11: who lives had as much left at the worst moment as its row says, and who dies of its debt had nothing."""
    row = shipped(name, 1024, 1536)
    if row.fate == "pod_oom":
        assert (row.cause == "debt") == (row.margin_pages == -1)
    else:
        assert row.fate == ("shut_down" if name == "installer" else "running")
        assert 0 <= row.margin_pages <= row.memory_pages
    assert row.hypervisor_ns > 0


def test_zeroes_do_not_kill_who_zeroes_in_parallel() -> None:
    """C2.7: Windows goes over 6 GiB on 2 vCPUs with 2 GiB to its name, and is reclaimed as it goes; its driver is late.

    The same pages with a pattern in them are its death.
    """
    late = ("guest.balloon.start_s=[60,60]", "guest.services_s=[20,20]", "guest.page_cache.rate_mib_per_s=0")
    zeroes = shipped("windows", 2048, 6144, *late)
    assert zeroes.fate == "running"
    assert zeroes.reclaimed_2m > 2 * 1024
    pattern = shipped("windows", 2048, 6144, *late, "guest.scrubber=pattern")
    assert (pattern.fate, pattern.cause) == ("pod_oom", "debt")


def test_two_boots_of_one_class_differ() -> None:
    """G9: rates are distributions: each attempt, and each domain, has draws of its own."""
    config = compose(["guest=linux"])
    starts = [
        start(request(0, "linux", 256, 512), 1),
        start(request(1, "linux", 256, 512), 1),
        start(request(2, "linux", 256, 512, attempt=2), 1),
    ]
    report = live(host_model(config.guest, ram_mib=2048), 200, *starts)
    done = [row.boot_done_ns for row in report.domains]
    assert None not in done
    assert len(set(done)) == 3
