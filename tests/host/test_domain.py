"""Does the toolstack build, change and destroy a domain as libxl does, to the page?"""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from podcluster.config import HostConfig
from podcluster.errors import ConfigError
from podcluster.host import domain as toolstack
from podcluster.host.domain import BuildFailed, Domain, Layout, extents, need_memory_pages
from podcluster.host.machine import Machine
from podcluster.host.written import DATA
from podcluster.host.xl import Numbers
from podcluster.records.machines import MachineRequest
from podcluster.units import PAGES_PER_GIB, PAGES_PER_MIB
from tests.host.lives import guest_config, request

GUEST = guest_config("linux")
MIB = PAGES_PER_MIB


def build(machine: Machine, memory_mib: int, maxmem_mib: int, domid: int = 1, **host: Any) -> Domain | BuildFailed:
    return toolstack.build(machine, domid, request(7, "linux", memory_mib, maxmem_mib), HostConfig(**host), GUEST)


def built(machine: Machine, memory_mib: int, maxmem_mib: int, domid: int = 1, **host: Any) -> Domain:
    domain = build(machine, memory_mib, maxmem_mib, domid, **host)
    assert isinstance(domain, Domain)
    return domain


def failed(machine: Machine, memory_mib: int, maxmem_mib: int, **host: Any) -> BuildFailed:
    failure = build(machine, memory_mib, maxmem_mib, **host)
    assert isinstance(failure, BuildFailed)
    return failure


def layout_of(machine: MachineRequest) -> Layout:
    return Layout.of(Numbers.of(machine, HostConfig(), GUEST), 24)


# -- example B-1: memory=1024 maxmem=2048, Cirrus, 2 vCPU, HAP -------------------------------------------------------


def test_example_b1_numbers_before_the_build() -> None:
    """Every quantity of the table of docs/model.md B-1, computed from the configuration."""
    numbers = Numbers.of(request(7, "linux", 1024, 2048), HostConfig(), GUEST)
    assert numbers.pod
    assert numbers.claim_pages == 260_064
    assert numbers.ram_pages == 522_208
    assert numbers.max_pages == 262_400
    assert numbers.xenstore_target_kib == 1_039_360
    assert numbers.static_max_kib == 2_097_152
    assert numbers.paging_pages == 10 * MIB
    assert numbers.need_pages == 1036 * MIB


def test_example_b1_on_a_machine() -> None:
    """The same guest built: entries, debt, quota, the entry map of B2.6, what it owns once running (B2.10)."""
    machine = Machine(2 * PAGES_PER_GIB)
    free = machine.free_pages
    domain = built(machine, 1024, 2048)
    counters = machine.counters(1)
    assert counters.entry_count == 522_208
    assert counters.entry_count - counters.cache_count == 262_144 == 1024 * MIB
    assert counters.cache_count == 260_064
    assert counters.tot_pages == 262_136
    assert counters.max_pages == 262_400
    assert counters.claim_pages == 0
    assert machine.entry_map(1) == (2048 + 24, 0, 0, 480, 511 + 508, 0)
    assert free - machine.free_pages == 262_136 + 10 * MIB
    assert domain.pages_to_balloon_out == 264_448
    assert domain.pages_to_balloon_out_less_video == 262_400
    machine.audit()


def test_example_b1_mem_set_to_what_it_has() -> None:
    """`mem-set 1024m` asks for 260,352 pages, less than it owns, so P4 does nothing; xenstore goes up by 1 MiB."""
    machine = Machine(2 * PAGES_PER_GIB)
    domain = built(machine, 1024, 2048)
    before = machine.counters(1)
    assert toolstack.mem_set(machine, domain, 1024 * MIB) == ""
    assert machine.counters(1) == before
    assert domain.xenstore_target_kib == 1_040_384
    assert domain.target_pages == 1024 * MIB


def test_shadow_paging_pool_of_the_example() -> None:
    """B1.5: 18 MiB with shadow paging, 10 with HAP, for 2 vCPUs and maxmem 2048."""
    shadow = Numbers.of(request(7, "linux", 1024, 2048), HostConfig(paging="shadow"), GUEST)
    assert shadow.paging_pages == 18 * MIB


# -- the guest-physical map


def test_layout_around_the_mmio_hole() -> None:
    """B2.1: maxmem 4096 with 8 MiB of video RAM has 3840 MiB low and 248 MiB from 4 GiB up."""
    layout = layout_of(request(7, "linux", 1024, 4096))
    assert layout.ram == ((0, 0xA0), (0xC0, 0xF0000 - 0xC0), (0x100000, 248 * MIB))


def test_entry_map_above_4_gib() -> None:
    """B2.6 for 6 GiB: whole GiBs away from the hole as one entry each, the partial ones in superpages."""
    machine = Machine(2 * PAGES_PER_GIB)
    built(machine, 512, 6144)
    # GiB 0: 480 singles, 511 superpages; 1, 2: whole; 3: up to the hole, 384; 4, 5: whole; then 248 MiB.
    assert machine.entry_map(1) == (2048 + 24, 0, 0, 480, 511 + 384 + 124, 4)
    assert machine.counters(1).entry_count == (6144 - 8) * MIB - 32


def test_a_large_frame_buffer_lies_above_all_ram() -> None:
    """A 512 MiB frame buffer does not fit in the hole; it must not overlap RAM above 4 GiB."""
    numbers = Numbers.of(request(7, "linux", 2048, 8192), HostConfig(), guest_config(video_mib=512))
    layout = Layout.of(numbers, 24)
    first, count = layout.ram[-1]
    assert layout.video[0] >= first + count
    assert layout.video[1] == 512 * MIB


@given(maxmem_mib=st.integers(12, 20_000), video_mib=st.integers(0, 8))
def test_extents_cover_ram_once(maxmem_mib: int, video_mib: int) -> None:
    """The builder's walk covers each RAM page once, in ascending order, each extent aligned to its size."""
    guest = guest_config(video_mib=video_mib)
    layout = Layout.of(Numbers.of(request(7, "linux", maxmem_mib, maxmem_mib), HostConfig(), guest), 24)
    at = 0
    found: list[tuple[int, int]] = []
    for some in extents(layout):
        assert some.first >= at
        assert some.first % (1 << some.order) == 0
        at = some.first + (some.count << some.order)
        if found and found[-1][1] == some.first:
            found[-1] = (found[-1][0], at)
        else:
            found.append((some.first, at))
    assert [(first, end - first) for first, end in found] == [run for run in layout.ram if run[1]]


# -- populate on demand or not


@given(
    memory_mib=st.integers(10, 64),
    gap_mib=st.integers(1, 6000),
    extra=st.integers(0, 40),
    less_hole=st.booleans(),
)
def test_debt_is_the_difference(memory_mib: int, gap_mib: int, extra: int, less_hole: bool) -> None:
    """Z1 and B2.10 for any sizes, and the older builder's 32 pages less."""
    machine = Machine(128 * MIB)
    built(machine, memory_mib, memory_mib + gap_mib, extra_ram_pages=extra, pod_target_less_hole=less_hole)
    counters = machine.counters(1)
    kept = 32 if less_hole else 0
    assert machine.debt_pages(1) == gap_mib * MIB - 32 + kept
    assert counters.entry_count == (memory_mib + gap_mib - 8) * MIB - 32
    assert counters.tot_pages == memory_mib * MIB - kept + extra
    machine.audit()


def test_target_equal_to_maxmem_is_no_pod_guest() -> None:
    """B1.2: real RAM everywhere, nothing promised, and no 1 MiB fudge in xenstore (B1.9)."""
    machine = Machine(PAGES_PER_GIB)
    domain = built(machine, 512, 512)
    counters = machine.counters(1)
    assert (counters.entry_count, counters.cache_count) == (0, 0)
    assert counters.tot_pages == 512 * MIB - 32 + 24
    # 504 MiB: 160 + 320 single pages, then whole superpages; beside them the device model's.
    assert machine.entry_map(1) == (480 + 2048 + 24, 251, 0, 0, 0, 0)
    assert domain.pages_to_balloon_out == 8 * MIB
    assert domain.pages_to_balloon_out_less_video == 0


class Recorder:
    """A machine that only knows how many extents of each order there are, and writes down what is populated."""

    def __init__(self, free: dict[int, int]) -> None:
        self.free = dict(free)
        self.done: list[tuple[int, int]] = []

    def populate_seq(self, dom: int, start: int, count: int, order: int, step: int) -> int:
        got = min(count, self.free[order])
        self.free[order] -= got
        self.done += [(start + (k << order), order) for k in range(got)]
        return got


def as_libxl_does(ram: tuple[tuple[int, int], ...], machine: Recorder) -> bool:
    """The loop of `meminit_hvm`, literally: at most 1 GiB a round, then at most 8 MiB, then single pages."""
    if machine.populate_seq(0, 0, 160, 0, 1) != 160:
        return False
    for first, pages in ram[1:]:
        at, end = first, first + pages
        while at < end:
            count = min(end - at, 1 << 18)
            if at & 0x3FFFF and count > -at & 0x3FFFF:
                count = -at & 0x3FFFF
            if (count | at) & 0x3FFFF == 0:
                done = machine.populate_seq(0, at, count >> 18, 18, 1)
                at, count = at + (done << 18), count - (done << 18)
            if count:
                count = min(count, 2048)
                if at & 511 and count > -at & 511:
                    count = -at & 511
                elif count & 511 and count > 512:
                    count &= ~511
                if (count | at) & 511 == 0:
                    done = machine.populate_seq(0, at, count >> 9, 9, 1)
                    at, count = at + (done << 9), count - (done << 9)
            if count:
                if machine.populate_seq(0, at, count, 0, 1) != count:
                    return False
                at += count
    return True


@given(
    maxmem_mib=st.integers(12, 5000),
    gibs=st.integers(0, 4),
    superpages=st.integers(0, 2600),
    singles=st.integers(0, 1_500_000),
)
def test_ram_in_smaller_extents_where_larger_are_short(
    maxmem_mib: int, gibs: int, superpages: int, singles: int
) -> None:
    """B2.8: whatever a host has of each size, the same extents in the same order as the builder's own loop."""
    layout = layout_of(request(7, "linux", maxmem_mib, maxmem_mib))
    ours, theirs = (Recorder({18: gibs, 9: superpages, 0: singles}) for _ in range(2))
    assert toolstack._populate_ram(ours, 0, layout) == as_libxl_does(layout.ram, theirs)  # type: ignore[arg-type]
    assert ours.done == theirs.done


# -- failures and ends -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("host", "memory_mib", "maxmem_mib", "cause", "text"),
    [
        ({}, 128, 256, "claim_failed", "Could not allocate memory for HVM guest as we cannot claim memory!"),
        ({}, 256, 256, "claim_failed", "Could not allocate memory for HVM guest as we cannot claim memory!"),
        (
            {"claim_mode": False},
            128,
            256,
            "no_memory",
            "p2m_pod_set_cache_target: Unable to allocate page for PoD cache (target=30688 cache=22016); "
            "Could not set PoD target for HVM guest.",
        ),
        (
            {"claim_mode": False},
            256,
            256,
            "no_memory",
            "xc_dom_boot_mem_init: can't allocate low memory for domain: Out of memory; cannot (re-)build domain: -3",
        ),
        ({}, 90, 40_000, "paging_pool", "no memory for the paging pool: 40512 pages wanted, 22784 free"),
        ({}, 92, 92, "no_memory", "no memory for the device model's video RAM and ROMs: 2072 pages wanted"),
    ],
)
def test_a_failed_build_leaves_nothing(
    host: dict[str, Any], memory_mib: int, maxmem_mib: int, cause: str, text: str
) -> None:
    """E3, E4, E5 and their like as results, with what the operator reads; the host is as before."""
    machine = Machine(89 * MIB)
    free = machine.free_pages
    failure = failed(machine, memory_mib, maxmem_mib, **host)
    assert (failure.cause, failure.text) == (cause, text)
    assert machine.free_pages == free
    assert machine.outstanding_claims == 0
    machine.audit()


def test_a_claim_keeps_others_out() -> None:
    """H4: a second guest is refused at once although pages are still free, and built once the first is gone."""
    machine = Machine(200 * MIB)
    first = built(machine, 128, 512, 1)
    assert build(machine, 128, 512, 2) == BuildFailed("claim_failed", toolstack.CLAIM_REFUSED)
    toolstack.destroy(machine, first)
    built(machine, 128, 512, 3)


@pytest.mark.parametrize(("memory_mib", "maxmem_mib"), [(64, 64), (64, 512), (64, 6000)])
def test_destruction_gives_everything_back(memory_mib: int, maxmem_mib: int) -> None:
    """Free pages return to the start value, with or without populate on demand, touched or not."""
    machine = Machine(128 * MIB)
    free = machine.free_pages
    domain = built(machine, memory_mib, maxmem_mib)
    machine.touch_range(1, 0x200, 5000, content=DATA)
    machine.balloon_range(1, 0x400, 900)
    toolstack.destroy(machine, domain)
    assert machine.free_pages == free
    machine.audit()


# -- later changes -----------------------------------------------------------------------------------------------------


def test_raising_the_target_fills_the_cache() -> None:
    """B4.1 upwards: quota, cache and xenstore follow; the debt shrinks by what the cache grew."""
    machine = Machine(PAGES_PER_GIB)
    domain = built(machine, 128, 256)
    debt = machine.debt_pages(1)
    assert toolstack.mem_set(machine, domain, 192 * MIB) == ""
    counters = machine.counters(1)
    assert counters.max_pages == 192 * MIB + 256
    assert counters.tot_pages == (192 - 8) * MIB + 256
    assert debt - machine.debt_pages(1) == counters.tot_pages - (128 * MIB - 8)
    assert domain.pages_to_balloon_out == (256 - 192 + 8) * MIB


def test_raising_the_target_on_a_full_host_fails_and_keeps_the_new_limit() -> None:
    """E7, B4.2: the limit stays raised, xenstore does not move, a partly grown cache stays."""
    machine = Machine(160 * MIB)
    domain = built(machine, 128, 512)
    text = toolstack.mem_set(machine, domain, 256 * MIB)
    assert text == "xc_domain_set_pod_target memkb=262144 failed"
    assert machine.counters(1).max_pages == 256 * MIB + 256
    assert machine.free_pages == 0
    assert domain.target_pages == 128 * MIB
    assert domain.pages_to_balloon_out == (512 - 128 + 8 + 1) * MIB


def test_a_target_above_static_max_is_refused() -> None:
    """B4.1: the new target must not pass static-max; nothing changes."""
    machine = Machine(PAGES_PER_GIB)
    domain = built(machine, 128, 256)
    before = machine.counters(1)
    assert toolstack.mem_set(machine, domain, 257 * MIB)
    assert machine.counters(1) == before
    assert domain.target_pages == 128 * MIB


@given(memory_mib=st.integers(10, 4096), gap_mib=st.integers(0, 4096), vcpus=st.integers(1, 64))
def test_need_memory(memory_mib: int, gap_mib: int, vcpus: int) -> None:
    """B3.1: target, paging pool and 2 MiB, rounded up to 2 MiB."""
    machine = request(7, "linux", memory_mib, memory_mib + gap_mib, vcpus=vcpus)
    need = need_memory_pages(machine, HostConfig(), GUEST)
    exact_kib = memory_mib * 1024 + 4 * (256 * vcpus + memory_mib + gap_mib) + 2048
    assert need % 512 == 0
    assert 0 <= need * 4 - exact_kib < 2048


def test_video_ram_that_leaves_no_memory_is_the_users_mistake() -> None:
    """One line with the key, the numbers and a remedy."""
    with pytest.raises(ConfigError, match=r"guest.video_mib must leave .* got 16 of 16 MiB .*: lower guest.video_mib"):
        Numbers.of(request(7, "linux", 16, 64), HostConfig(), guest_config(video_mib=16))
