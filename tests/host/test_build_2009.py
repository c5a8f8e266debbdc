"""R11: the builder of 2009, against what was recorded of it and against the sizes that follow from its sum."""

import gzip
import json
from pathlib import Path

import pytest

from podcluster.config import HostConfig
from podcluster.host import build_2009, domain
from podcluster.host.guest_memory import GuestMemory
from podcluster.host.traced import TracedMachine
from podcluster.host.written import DATA
from podcluster.units import PAGES_PER_GIB, PAGES_PER_MIB
from tests.host.lives import guest_config, one_life, request

TRACES = Path(__file__).resolve().parent.parent / "golden" / "xen-2009"
BLOCK = 512
VGA_HOLE_PAGES = 32
HOST_2009 = HostConfig(era="rfc2009")


def layout(maxmem_pages: int) -> list[tuple[int, int]]:
    return [(0, 0xA0), (0xC0, maxmem_pages - 0xC0)]


def build(maxmem_pages: int, target_pages: int, *, host_pages: int | None = None) -> tuple[TracedMachine, bool]:
    machine = TracedMachine(host_pages or maxmem_pages + BLOCK, era="rfc2009")
    machine.create(1, maxmem_pages=maxmem_pages, max_pages=target_pages + 256, p2m="pt")
    return machine, build_2009.populate(machine, 1, layout(maxmem_pages), target_pages)


@pytest.mark.parametrize("name", ["boot_builder_only", "boot_2m_balloon", "scrub_zero_down_tiny"])
def test_the_builder_leaves_what_was_recorded_of_it(name: str) -> None:
    """The state after the first target of three recorded builds; the target itself is the builder's to find."""
    lines = [json.loads(line) for line in gzip.decompress((TRACES / f"{name}.jsonl.gz").read_bytes()).splitlines()]
    guest = lines[0]["guests"][0]
    recorded: dict[str, object] = {}
    for line in lines[1:]:
        recorded.update(line["state"])
        if line["op"] == "set_pod_target":
            break
    machine, built = build(guest["maxmem_pages"], guest["max_pages"] - 256, host_pages=lines[0]["host_pages"])
    assert built
    found = machine.state_record(1)
    assert {key: found[key] for key in recorded} == recorded


def test_the_build_ends_1056_pages_short_and_a_later_target_makes_32_of_it() -> None:
    """R11, R3: no tail, a target of whole superpages."""
    machine, _ = build(16 * BLOCK, 8 * BLOCK)
    assert machine.tot_pages(1) == 8 * BLOCK - 1056
    assert machine.set_pod_target(1, 8 * BLOCK) == 0
    assert machine.tot_pages(1) == 8 * BLOCK - VGA_HOLE_PAGES


def test_the_tail_is_real_ram() -> None:
    """R11: what is left of maxmem above the last 2 MiB, off the sum like the RAM between the holes."""
    machine, _ = build(6 * BLOCK + 100, 3 * BLOCK)
    counters = machine.counters(1)
    assert counters.populated_pages == 480 + 100
    assert counters.entry_count == 5 * BLOCK
    # 1024 promised below the target, less 320 and 100; less 580 populated, rounded down to superpages
    assert counters.cache_count == (1024 - 420 - 580) // BLOCK * BLOCK == 0


def test_ram_above_4_gib_counts_on_from_below_the_hole() -> None:
    """The sum is over pages of RAM, not over gfns: a target above 3.75 GiB reaches into the upper part."""
    below, above = 0xF0000, 0x100000
    machine = TracedMachine(5 * PAGES_PER_GIB, era="rfc2009")
    machine.create(1, maxmem_pages=above + 2 * BLOCK, max_pages=2 * PAGES_PER_GIB * 2, p2m="pt")
    ram = [(0, 0xA0), (0xC0, below - 0xC0), (above, 2 * BLOCK)]
    assert build_2009.populate(machine, 1, ram, below + BLOCK)
    assert machine.query(1, above + BLOCK) == [2, 9]
    assert machine.tot_pages(1) == below + BLOCK - 1056


def test_a_host_without_enough_fails_for_real_ram_and_is_silent_for_the_cache() -> None:
    """R3, R11: low RAM that cannot be had ends the build; a short cache is told nobody."""
    assert build(8 * BLOCK, 4 * BLOCK, host_pages=400)[1] is False
    machine, built = build(8 * BLOCK, 4 * BLOCK, host_pages=2 * BLOCK)
    assert built
    assert (machine.counters(1).cache_count, machine.take_notes()) == (BLOCK, {})


def test_a_domain_of_2009_is_built_so_and_owns_less_than_its_target() -> None:
    """The toolstack's numbers go to that builder; with memory = maxmem nothing is promised."""
    machine = TracedMachine(2 * PAGES_PER_GIB, era="rfc2009")
    guest = guest_config("linux")
    built = domain.build(machine, 1, request(1, "linux", 256, 512), HOST_2009, guest)
    assert isinstance(built, domain.Domain)
    extra = HOST_2009.extra_ram_pages
    assert machine.tot_pages(1) == 256 * PAGES_PER_MIB - 1056 + extra
    assert machine.entry_count(1) == (512 - 8) * PAGES_PER_MIB - BLOCK
    machine.audit()
    assert isinstance(domain.build(machine, 2, request(2, "linux", 256, 256), HOST_2009, guest), domain.Domain)
    assert machine.entry_count(2) == 0


@pytest.mark.parametrize("era", ["xen2015", "xen2012", "rfc2009"])
def test_a_guest_boots_under_every_era(era: str) -> None:
    """Its balloon reaches its target and the host's pages add up."""
    row = one_life("linux", 256, 512, host=HostConfig(era=era))
    assert row.fate == "running"
    assert row.boot_done_ns is not None


def test_a_guest_whose_table_was_to_blame_says_so() -> None:
    """R1, R7: a block given back and had again page by page, all zero: a sweep that meets it crashes the guest."""
    machine = TracedMachine(PAGES_PER_GIB, era="rfc2009")
    built = domain.build(machine, 1, request(1, "linux", 64, 128), HOST_2009, guest_config("linux"))
    assert isinstance(built, domain.Domain)
    memory = GuestMemory(
        machine, 1, built.layout, image_pages=0, descriptor_pages=0, block_pages=512, rng=None, may_skip=False
    )
    supers = machine.counters(1).cache_count // BLOCK
    again = 20 * BLOCK
    machine.set_max_pages(1, PAGES_PER_GIB)
    broken = machine.free_pages - BLOCK * machine.free_2m  # frames to use up, so that those that follow are aligned
    assert machine.balloon_range(1, again, 4 * BLOCK) == 4 * BLOCK
    assert machine.populate_range(1, again + BLOCK, broken) == broken
    assert machine.populate_range(1, again, BLOCK) == BLOCK
    assert memory.write([(30 * BLOCK, supers * BLOCK)], content=DATA, descending=False) == supers * BLOCK
    assert memory.write([(29 * BLOCK, 1)], content=DATA, descending=False) == 0
    assert (memory.crashed, memory.oom, memory.death_cause()) == (True, {}, "table_conflict")
    domain.destroy(machine, built)
    assert machine.free_pages == PAGES_PER_GIB
    machine.audit()
