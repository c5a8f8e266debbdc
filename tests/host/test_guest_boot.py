"""Do boots write what their class says: scrubbers of every kind, late descriptors, what is freed, what an installer
unpacks?
"""

from typing import Any

import pytest

from podcluster.host.guest_boot import _interleaved
from podcluster.records.rows import DomainRow
from podcluster.units import NS_PER_S, PAGES_PER_MIB, s_to_ns
from tests.host.lives import curve, guest_config, host_model, live, one_life, request, seconds, start
from tests.host.test_guest import Rig

MIB = PAGES_PER_MIB
QUIET = {"rate_mib_per_s": 0}


# -- scrubbers --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("parts", [1, 2, 3, 8])
@pytest.mark.parametrize("descending", [False, True])
def test_memory_is_dealt_out_to_scrubbers(parts: int, descending: bool) -> None:
    """C2.7: every page once, 2 MiB at a time in turn, each in its order."""
    ram = ((0, 0xA0), (0xC0, 5000), (10_000, 3))
    dealt = [part.slice(0, part.pages) for part in _interleaved(ram, parts, descending=descending)]
    assert len(dealt) == parts
    pages = sorted(gfn for part in dealt for first, count in part for gfn in range(first, first + count))
    assert pages == [gfn for first, count in ram for gfn in range(first, first + count)]
    for part in dealt:
        assert part == sorted(part, reverse=descending)
        if parts > 1:
            assert all(first // 512 == (first + count - 1) // 512 for first, count in part)


@pytest.mark.parametrize("order", ["ascending", "descending"])
@pytest.mark.parametrize("streams", [1, 0, 3])
def test_scrubbers_leave_one_state_of_contents(order: str, streams: int) -> None:
    """However many there are and in whichever direction: the same pages hold data afterwards, all others zero."""
    rig = Rig(scrubber="zero", scrub_order=order, scrub_streams=streams, page_cache=QUIET, vcpus=4, may_skip=False)
    rig.run_to(60)
    plain = Rig(page_cache=QUIET, may_skip=False).run_to(60)
    assert rig.memory.nonzero_runs == plain.memory.nonzero_runs
    assert rig.machine.nonzero_pages(1) == rig.memory.nonzero_pages
    assert rig.machine.counters(1).populated_2m > plain.machine.counters(1).populated_2m


def test_more_scrubbers_are_done_sooner() -> None:
    """Four vCPUs of one rate take a quarter of the time of one, where Xen takes none."""

    def last_populate(streams: int) -> float:
        """When the scrubber had gone over all of 512 MiB: its guest stops populating then."""
        rig = Rig(
            memory_mib=256,
            maxmem_mib=512,
            scrubber="zero",
            scrub_streams=streams,
            scrub_rate_mib_per_s=[20, 20],
            services_s=[0, 0],
            page_cache=QUIET,
            vcpus=4,
        )
        done, at_s = -1, 0.0
        for tenth in range(400):
            now = rig.run_to(tenth / 10).machine.counters(1).populated_2m
            if now != done:
                done, at_s = now, tenth / 10
        return at_s - rig.boot.firmware_ns / NS_PER_S - rig.boot.scrub_start_ns / NS_PER_S

    # The top 24 MiB are no work for it: video RAM, page descriptors, services.
    assert last_populate(1) == pytest.approx(488 / 20, abs=0.5)
    assert last_populate(4) == pytest.approx(488 / 80, abs=0.5)


def pattern_life(**changed: Any) -> DomainRow:
    balloon = {"start_s": [1, 1], "boot_barrier": False}
    fields: dict[str, Any] = {"scrubber": "pattern", "balloon": balloon, "page_cache": QUIET, **changed}
    return one_life("linux", 64, 128, **fields)


def test_a_pattern_is_data_to_who_does_not_know_it() -> None:
    """A scrubber that is done before the balloon begins kills its guest at page tot + 1, and one of zeroes does not."""
    early = {"scrub_start_s": [0, 0], "scrub_rate_mib_per_s": [1000, 1000]}
    row = pattern_life(**early)
    assert (row.fate, row.cause) == ("pod_oom", "debt")
    assert row.nonzero_pages_peak == row.tot_pages + 1
    assert pattern_life(**{**early, "scrubber": "zero"}).fate == "running"


def test_a_pattern_that_comes_late_finds_the_balloon_done() -> None:
    """`Not if the scrubber might win the race`: it loses, and what it scrubs is what the guest has left."""
    row = pattern_life(scrub_start_s=[20, 20], scrub_rate_mib_per_s=[1000, 1000])
    assert row.fate == "running"
    # All that the balloon left, and the pages that the device model brought.
    assert row.nonzero_pages_peak == row.tot_pages
    assert row.margin_pages == 0


@pytest.mark.parametrize("order", ["ascending", "descending"])
@pytest.mark.parametrize("kind", ["linux_no_driver", "windows"])
def test_whoever_dies_of_data_alone_dies_at_its_first_page_too_many(kind: str, order: str) -> None:
    """G11: classes without a driver, or with a late one, that write a pattern or data only: page tot + 1, exactly."""
    row = one_life(
        kind,
        48,
        96,
        scrubber="pattern",
        scrub_order=order,
        scrub_streams=2,
        balloon={"driver": "none", "boot_barrier": False},
    )
    assert (row.fate, row.cause, row.margin_pages) == ("pod_oom", "debt", -1)
    assert (row.entry_count, row.cache_count) == (48 * MIB, 0)
    assert row.nonzero_pages_peak == row.tot_pages + 1


# -- a kernel that zeroes what is freed --------------------------------------------------------------------------------

HARDENED: dict[str, Any] = {"scrubber": "zero", "zero_on_free": True}


def test_a_hardened_kernel_scrubs_before_its_balloon_begins() -> None:
    """C1.11: the balloon's first page comes after the last zero, and the boot is longer by all of the scrubbing."""
    fields: dict[str, Any] = {"scrub_rate_mib_per_s": [30, 30], "balloon": {"start_s": [0.5, 0.5]}}
    rig = Rig("linux", 64, 128, **HARDENED, **fields)
    boot = rig.boot
    scrubbed_ns = (
        boot.firmware_ns + boot.kernel_ns + boot.scrub_start_ns + rig.memory.ram_pages * NS_PER_S // (30 * MIB)
    )
    rows = [
        live(host_model(guest_config("linux", **fields, **kind)), 60, start(request(0, "linux", 64, 128)))
        for kind in ({}, HARDENED)
    ]
    done = [next(one.t_ns for one in report.events if one.kind == "balloon_done") for report in rows]
    assert done[1] > scrubbed_ns > done[0]
    assert [report.domains[0].fate for report in rows] == ["running", "running"]


def test_what_a_hardened_kernel_frees_can_be_reclaimed() -> None:
    """GM-2: demand that comes and goes leaves no data behind, and it writes anew what it takes again."""
    demand = curve((0, 20), (30, 60), (40, 20), (60, 20), (70, 60), (80, 60))
    seen = []
    for kind in ({}, HARDENED):
        rig = Rig("linux_no_driver", 100, 128, demand, hold_ns=0, page_cache=QUIET, may_skip=False, **kind)
        peak = rig.run_to(31).memory.nonzero_pages
        low = rig.run_to(50).memory.nonzero_pages
        again = rig.run_to(75).memory.nonzero_pages
        assert rig.memory.nonzero_pages == rig.machine.nonzero_pages(1)
        seen.append((peak, low, again))
    assert seen[0] == (seen[0][0],) * 3
    assert seen[1] == (seen[0][0], seen[0][0] - 40 * MIB, seen[0][0])


# -- late descriptors, and a kernel too large for its memory -----------------------------------------------------------


def test_late_descriptors_are_the_same_pages_later() -> None:
    """C1.11: as many, by all vCPUs, when the kernel's stage is over; the services wait for them."""
    early, late = (
        Rig(maxmem_mib=512, memory_mib=256, page_cache=QUIET, late_descriptors_share=share, vcpus=4)
        for share in (0, 0.75)
    )
    kernel_done_s = (early.boot.firmware_ns + early.boot.kernel_ns) / NS_PER_S
    for rig in (early, late):
        rig.run_to(kernel_done_s - 1e-6)
    missing = early.memory.nonzero_pages - late.memory.nonzero_pages
    assert missing == 512 * MIB // 64 * 3 // 4
    early.run_to(60)
    late.run_to(60)
    assert early.memory.nonzero_runs == late.memory.nonzero_runs
    assert early.guest.boot_done_ns is not None
    assert late.guest.boot_done_ns is not None
    span_ns = late.guest.boot_done_ns - early.guest.boot_done_ns
    assert span_ns == missing // 4 * NS_PER_S // late.boot.write_pages_per_s
    assert late.guest.boot_delay_ns == 0


@pytest.mark.parametrize("kind", ["linux", "linux_no_driver", "windows"])
def test_a_guest_that_cannot_hold_its_own_descriptors_cannot_boot(kind: str) -> None:
    """C1.11: maxmem/64 and the kernel are more than memory: whatever its driver, it dies before it is up."""
    row = one_life(kind, 48, 4096, kernel_s=[20, 20])
    assert (row.fate, row.cause, row.boot_done_ns) == ("pod_oom", "debt", None)
    assert row.nonzero_pages_peak == row.tot_pages + 1
    assert one_life(kind, 48 + 64 + 8, 4096, kernel_s=[20, 20], until_s=10).boot_done_ns is None


# -- an installer ------------------------------------------------------------------------------------------------------


def test_an_installer_unpacks_and_shuts_down() -> None:
    """It keeps what it unpacks, over the time that takes, and leaves at its end."""
    install = {"unpack_mib": [30, 30], "install_s": [20, 20], "end": "shuts_down"}
    row = one_life("linux_no_driver", 96, 128, install=install, page_cache=QUIET)
    assert (row.fate, row.cause) == ("shut_down", "")
    assert row.boot_done_ns is not None
    assert seconds(row.end_ns - row.boot_done_ns) == 20
    quiet = one_life("linux_no_driver", 96, 128, page_cache=QUIET)
    assert row.nonzero_pages_peak - quiet.nonzero_pages_peak == 30 * MIB


def test_an_installer_with_too_little_memory_dies_while_it_unpacks() -> None:
    """No driver, and more data than it owns: at page tot + 1, some way into the installation."""
    install = {"unpack_mib": [60, 60], "install_s": [20, 20], "end": "shuts_down"}
    row = one_life("linux_no_driver", 48, 128, install=install, page_cache=QUIET)
    assert (row.fate, row.cause) == ("pod_oom", "debt")
    assert row.nonzero_pages_peak == row.tot_pages + 1
    assert row.boot_done_ns is not None
    assert 5 < seconds(row.end_ns - row.boot_done_ns) < 15


def test_a_machine_that_installs_itself_leaves_its_host_free() -> None:
    """What it had goes back to the host at its end, and its row and events say it left by itself."""
    install = {"unpack_mib": [10, 10], "install_s": [5, 5], "end": "shuts_down"}
    model = host_model(guest_config("linux_no_driver", install=install, page_cache=QUIET))
    before = model.advance(1, []).view.free_pages
    report = live(model, 60, start(request(0, "linux_no_driver", 64, 128), 1))
    assert report.view.free_pages == before
    assert [one.kind for one in report.events][-2:] == ["shut_down", "destroy"]
    assert report.host is not None
    assert report.host.domains_died == 0
    assert report.domains[0].end_ns < s_to_ns(60)
