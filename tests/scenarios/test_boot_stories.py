"""Stories of booting guests, each told twice: as it is, and with the rule that saves (or kills) it switched off."""

from typing import Any

import pytest

from podcluster.cli import compose
from podcluster.config import HostConfig
from podcluster.records.rows import DomainRow
from podcluster.units import PAGES_PER_MIB
from tests.host.lives import guest_config, host_config, host_model, live, one_life, request, seconds, start

MIB = PAGES_PER_MIB
NO_CACHE = {"rate_mib_per_s": 0}


def rfc_guest(kind: str, **changed: Any) -> DomainRow:
    """memory=256 maxmem=512, the guest of the proposal that introduced populate on demand."""
    return one_life(kind, 256, 512, kernel_mib=[40, 60], services_mib=[60, 90], until_s=120, **changed)


def test_the_guest_of_the_proposal() -> None:
    """With its balloon driver it lives; without, page cache kills it; without that too, it lives."""
    with_driver = rfc_guest("linux")
    assert with_driver.fate == "running"
    assert with_driver.margin_pages > 0
    assert rfc_guest("linux_no_driver").fate == "pod_oom"
    assert rfc_guest("linux_no_driver", page_cache=NO_CACHE).fate == "running"


def test_services_that_do_not_wait_for_the_balloon() -> None:
    """QubesOS 7023: user space that starts before a slow balloon has finished dirties more than the guest owns."""
    slow = {"start_s": [0.5, 0.5], "rate_pages_per_s": [1000, 1000]}
    story: dict[str, Any] = {"services_mib": [60, 60], "services_s": [2, 2], "until_s": 400, "page_cache": NO_CACHE}
    early = one_life("linux", 64, 192, balloon={**slow, "boot_barrier": False}, **story)
    assert (early.fate, early.cause) == ("pod_oom", "debt")
    waiting = one_life("linux", 64, 192, balloon={**slow, "boot_barrier": True}, **story)
    assert waiting.fate == "running"
    assert waiting.boot_delay_ns is not None
    assert 30 < seconds(waiting.boot_delay_ns) < 40  # 137 MiB at 1000 pages/s


def test_page_descriptors_alone_can_be_too_much() -> None:
    """C1.11: memory below maxmem/64 and the kernel cannot boot, whatever the driver would have done later."""
    row = one_life("linux", 64, 6000, balloon={"start_s": [5, 5]}, kernel_s=[2, 2])
    assert (row.fate, row.cause, row.boot_done_ns) == ("pod_oom", "debt", None)
    assert row.entry_count == (6000 - 64) * MIB
    # What the kernel keeps for itself follows maxmem too, and its balloon cannot have that: 47 MiB of 160 are too much.
    short = one_life("linux", 160, 6000, balloon={"start_s": [5, 5]}, kernel_s=[2, 2], until_s=900)
    assert (short.fate, short.cause) == ("guest_panic", "boot_barrier")
    assert one_life("linux", 224, 6000, balloon={"start_s": [5, 5]}, kernel_s=[2, 2], until_s=900).fate == "running"


def test_a_barrier_that_never_opens() -> None:
    """C1.8, E11: a kernel that fills what the balloon wants: cancelled after four tries, panic 180 s after progress."""
    story: dict[str, Any] = {"kernel_mib": [26, 26], "services_s": [30, 30], "page_cache": NO_CACHE}
    guest = guest_config("linux", balloon={"start_s": [2.5, 2.5]}, **story)
    report = live(host_model(guest), 400, start(request(0, "linux", 40, 48)))
    row = report.domains[0]
    assert (row.fate, row.cause, row.boot_done_ns) == ("guest_panic", "boot_barrier", None)
    assert row.balloon_gave_up == 1
    gave_up = next(event for event in report.events if event.kind == "balloon_gave_up")
    assert gave_up.text.startswith("Initial ballooning failed, ")
    assert 165 < seconds(row.end_ns - gave_up.t_ns) < 180
    unbarred = guest_config("linux", balloon={"start_s": [2.5, 2.5], "boot_barrier": False}, **story)
    assert live(host_model(unbarred), 400, start(request(0, "linux", 40, 48))).domains[0].fate == "running"


@pytest.mark.parametrize("order", ["descending", "random"])
def test_windows_zeroes_all_its_memory_and_lives(order: str) -> None:
    """C2.7: a zeroing wave over four times what it owns is reclaimed as it goes; the same wave of data kills."""
    late = {"start_s": [30, 30]}
    story: dict[str, Any] = {"alloc_order": order, "balloon": late, "page_cache": NO_CACHE, "until_s": 90}
    zeroes = one_life("windows", 64, 256, **story)
    assert zeroes.fate == "running"
    assert zeroes.populated_2m + zeroes.populated_4k // 512 > 64 // 2
    assert zeroes.reclaimed_2m > 0
    data = one_life("windows", 64, 256, dirty_all=True, **story)
    assert (data.fate, data.cause) == ("pod_oom", "debt")


@pytest.mark.parametrize("claim_mode", [True, False])
def test_two_guests_and_room_for_one(claim_mode: bool) -> None:
    """H5: with claims the second is refused at once; without, while its cache is allocated. Nothing of it stays."""
    guest = guest_config("linux", page_cache=NO_CACHE)
    model = host_model(guest, ram_mib=100, taken_mib=8, host=host_config(claim_mode=claim_mode))
    report = live(model, 30, *(start(request(i, "linux", 56, 64), 1 + i) for i in range(2)))
    second = next(row for row in report.domains if row.domain_id == 1)
    assert (second.fate, second.cause) == ("build_failed", "claim_failed" if claim_mode else "no_memory")
    alone = live(
        host_model(guest, ram_mib=100, taken_mib=8, host=host_config(claim_mode=claim_mode)),
        30,
        start(request(0, "linux", 56, 64), 1),
    )
    assert report.view == alone.view
    assert next(row for row in report.domains if row.domain_id == 0) == alone.domains[0]


def test_overcommit_lets_in_what_would_not_fit() -> None:
    """Four guests of 64 MiB on a host of 160 start where each gets half of that, and with a driver they live."""
    guest = guest_config("linux", page_cache=NO_CACHE)
    fates = {}
    for memory_mib in (32, 64):
        model = host_model(guest, ram_mib=176, taken_mib=8)
        report = live(model, 60, *(start(request(i, "linux", memory_mib, 64), 1 + i) for i in range(4)))
        fates[memory_mib] = sorted(row.fate for row in report.domains)
    assert fates[32] == ["running"] * 4
    assert fates[64] == ["build_failed"] * 2 + ["running"] * 2


def test_a_known_scrub_pattern_is_no_data() -> None:
    """A guest that scrubs with a pattern and has no driver dies of the scrub; where the toolstack registered the
    pattern it lives, and scrubbed pages count no more as its own than zero ones do (S1, S2).
    """
    guest = guest_config("linux_no_driver", scrubber="pattern", page_cache=NO_CACHE)
    found = []
    for known in (False, True):
        model = host_model(guest, host=host_config(scrubbed_pod=known))
        found.append(live(model, 120, start(request(0, "linux_no_driver", 96, 192, 30), 1)).domains[0])
    unknown, lives = found
    assert (unknown.fate, unknown.cause) == ("pod_oom", "debt")
    assert lives.fate == "running"
    assert lives.nonzero_pages_peak < lives.memory_pages
    assert unknown.nonzero_pages_peak == unknown.tot_pages + 1


# -- what reclaim is to blame for [G11]


def from_conf(*overrides: str) -> DomainRow:
    """The row of a guest of conf/ that boots with 256 of 1024 MiB and uses half of what it is given."""
    config = compose([*overrides, "workload=one", "workload.memory_mib=256", "workload.maxmem_mib=1024"])
    model = host_model(config.guest, ram_mib=1536, host=config.host)
    return live(model, 180, start(request(0, config.guest.os_class, 256, 1024, 128))).domains[0]


def test_a_sweep_that_has_passed_what_could_save_the_guest() -> None:
    """Wrap: a kernel that zeroes all of maxmem, on the hypervisor of 2012, which looks at a superpage again when 128
    others were populated. That is all that the guest owns, so sweeps have to find the zeroes, and they only go down. It
    dies far short of what it may have. It lives where a sweep goes on at the top, and where the list is shorter.
    """
    old = ["guest=linux_hardened", "host.era=xen2012"]
    row = from_conf(*old)
    assert (row.fate, row.cause, row.boot_done_ns) == ("pod_oom", "wrap", None)
    assert row.margin_pages > 100 * MIB
    assert row.sweeps > 0
    wrapping = from_conf(*old, "host.sweep_wraps=true")
    assert (wrapping.fate, wrapping.cause) == ("running", "")
    assert wrapping.sweeps > row.sweeps
    short = from_conf(*old, "host.ring_slots=32")
    assert (short.fate, short.sweeps) == ("running", 0)


def test_what_only_a_recent_list_could_have_found() -> None:
    """Ring: zeroes beyond the highest gfn that a sweep begins at, with the proposal of 2009, which had no list of what
    was populated last. 51 MiB of data fit in what it lets the guest own, and it dies with hundreds of pages to spare.
    """
    story: dict[str, Any] = {"scrub_order": "ascending", "alloc_order": "random", "alloc_block_pages": 64}
    story |= {"balloon": {"driver": "none"}, "page_cache": NO_CACHE, "demand": 51}
    row = one_life("windows", 64, 256, host=HostConfig(era="rfc2009"), **story)
    assert (row.fate, row.cause) == ("pod_oom", "ring")
    assert row.margin_pages > 0
    today = one_life("windows", 64, 256, host=HostConfig(), **story)
    assert (today.fate, today.cause) == ("running", "")
    assert today.margin_pages - (today.tot_pages - row.tot_pages) >= 0


def test_work_that_always_waits_does_not_matter_where_nothing_is_swept() -> None:
    """Preemption: a sweep can be cut off only where zeroes are left to it. Since 2015, when sweeps began to yield, the
    recent list takes each zero page back before it forgets it, so that nothing is left for a sweep to find: with one
    record or 32 this boot is not swept, and does not die of it. (Pages that a backend held while the list forgot them
    are another matter: `tests/host/test_guest.py`.)
    """
    for era in ("xen2015", "today"):
        for slots in (1, 32):
            host = [f"host.era={era}", f"host.ring_slots={slots}", "host.softirq_per_s=inf", "guest.irq_per_s=inf"]
            row = from_conf("guest=linux_hardened", *host)
            assert (row.fate, row.sweeps) == ("running", 0)
            assert row.reclaimed_2m > 0
