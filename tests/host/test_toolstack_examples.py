"""Do toolstacks and hypervisor give the numbers of the worked examples, and what lies at the edges of their rules?

Example B-1 and most of B2 are in test_domain.py; placement and HA (D6, D7) in tests/placement.
"""

from __future__ import annotations

import pytest

from podcluster.config import HostConfig
from podcluster.host import domain as toolstack
from podcluster.host import xapi, xl
from podcluster.host.domain import Domain, extents
from podcluster.host.traced import TracedMachine
from podcluster.host.written import DATA
from podcluster.host.xapi import Constraints
from podcluster.host.xl import Dom0, FreeMemory, Look, Numbers
from podcluster.units import NS_PER_S, PAGES_PER_GIB, PAGES_PER_MIB
from tests.host.lives import guest_config, request
from tests.host.test_domain import GUEST, built, layout_of

MIB = PAGES_PER_MIB
KIB = 1024


# -- B1, B3.1: numbers -------------------------------------------------------------------------------------------------


def test_paging_pools() -> None:
    """B1.5: 2 vCPUs and maxmem 2048 MiB: 10 MiB with HAP, 18 with shadow paging, 10 for PV."""
    assert [xl.shadow_kib(2, 2048, kind) for kind in ("hap", "shadow", "pv")] == [10_240, 18_432, 10_240]


def test_the_iommu_reserve() -> None:
    """B1.6: maxmem 2 GiB: 1024 + 2 + 1 + 1 = 1028 pages, 4112 KiB."""
    assert xl.iommu_kib(2 * KIB * KIB) == 4112


def test_need_memory_with_all_its_parts() -> None:
    """B3.1: example B-1 needs 1036 MiB; an IOMMU's tables, a stub domain and its video RAM come on top; PV less."""
    assert xl.need_memory_kib(1_048_576, 10_240) == 1036 * KIB
    assert xl.need_memory_kib(1_048_576, 10_240, pv=True) == 1036 * KIB  # 1035 MiB, rounded up to 2
    assert xl.need_memory_kib(1_048_576, 10_240, reserve_kib=4112) == 1042 * KIB  # 1040.02, rounded
    assert xl.need_memory_kib(1_048_576, 10_240, stubdom_kib=xl.STUBDOM_KIB["minios"], video_kib=8192) == 1072 * KIB
    assert xl.need_memory_kib(1_048_576, 10_240, stubdom_kib=xl.STUBDOM_KIB["linux"], video_kib=8192) == 1172 * KIB


def test_what_a_guest_costs_beside_itself_is_taken_from_the_host() -> None:
    """A stub domain, and tables that the IOMMU does not share: taken at the build, given back at the end."""
    guest = guest_config("linux", stubdom="minios", passthrough=True)
    host = HostConfig(iommu_shares_tables=False)
    machine = TracedMachine(PAGES_PER_GIB)
    free = machine.free_pages
    domain = toolstack.build(machine, 1, request(7, "linux", 512, 512), host, guest)
    assert isinstance(domain, Domain)
    beside = 28 * MIB + 256 + 1 + 1 + 1  # 512 MiB are 131,072 entries: 256, 1, 1, 1 pages of tables
    assert domain.numbers.beside_pages == beside
    assert free - machine.free_pages == machine.tot_pages(1) + (2 * 256 + 512) + beside
    machine.audit()
    toolstack.destroy(machine, domain)
    assert machine.free_pages == free


@pytest.mark.parametrize(
    ("feature", "text"),
    [
        ("passthrough", "IOMMU required for device passthrough but not supported together with PoD"),
        ("vnuma", "Cannot enable PoD and vNUMA at the same time"),
        ("altp2m", "Cannot enable PoD and ALTP2M at the same time"),
    ],
)
def test_what_does_not_go_with_populate_on_demand(feature: str, text: str) -> None:
    """B1.4: refused where memory < maxmem, with nothing taken; built where they are equal."""
    guest = guest_config("linux", **{feature: True})
    machine = TracedMachine(PAGES_PER_GIB)
    free = machine.free_pages
    assert toolstack.build(machine, 1, request(7, "linux", 512, 600), HostConfig(), guest) == toolstack.BuildFailed(
        "refused", text
    )
    assert machine.free_pages == free
    assert isinstance(toolstack.build(machine, 1, request(7, "linux", 512, 512), HostConfig(), guest), Domain)


# -- B2: the entry layout ----------------------------------------------------------------------------------------------


def test_the_layout_of_4_gib() -> None:
    """B2.1, B2.5: maxmem 4096 MiB, V = 8: 3840 MiB low, 248 from 4 GiB up; GiBs 1 and 2 whole, the rest superpages."""
    layout = layout_of(request(7, "linux", 1024, 4096))
    plan = [(some.first, some.count, some.order) for some in extents(layout)]
    assert plan == [
        (0, 160, 0),
        (0xC0, 320, 0),
        (0x200, 511, 9),
        (1 << 18, 2, 18),
        (3 << 18, 384, 9),  # up to the hole at 3840 MiB
        (4 << 18, 124, 9),
    ]


def test_example_b1_entry_by_entry() -> None:
    """B2.6: 480 singles + 511 + 508 superpages are the 522,208 entries of the example."""
    machine = TracedMachine(2 * PAGES_PER_GIB)
    built(machine, 1024, 2048)
    *_, pod4k, pod2m, pod1g = machine.entry_map(1)
    assert (pod4k, pod2m, pod1g) == (480, 1019, 0)
    assert pod4k + 512 * pod2m == machine.entry_count(1) == 522_208


# -- B3: shrinking dom0 ------------------------------------------------------------------------------------------------


def shrink(dom0: Dom0, free_kib: int, need_kib: int) -> tuple[bool, list[int], int]:
    """Run the loop against a dom0: whether it succeeded, the targets it set [KiB], the polls it took."""
    loop = FreeMemory(need_kib)
    targets: list[int] = []
    polls, had = 0, dom0.pages
    while True:
        now_ns = polls * 2 * NS_PER_S
        usage = dom0.usage(now_ns)
        step = loop.see(Look(free_kib + 4 * (had - usage), 4 * usage, 4 * dom0.target_pages))
        if step.fits is not None:
            return step.fits, targets, polls
        if step.target_kib is not None:
            targets.append(step.target_kib)
            dom0.aim(step.target_kib // 4, now_ns)
        polls += 1


def test_worked_example_of_a_start_that_shrinks_dom0() -> None:
    """B3: dom0 of 8192 MiB, 600 free, 1036 needed, 100 MiB/s: 7756 MiB after three polls, 6 s of the 30 s credit."""
    dom0 = Dom0(8192 * MIB, 8192 * MIB, 100 * MIB)
    assert shrink(dom0, 600 * KIB, 1036 * KIB) == (True, [7756 * KIB], 3)
    assert dom0.usage(6 * NS_PER_S) == 7756 * MIB


def test_enough_free_needs_no_poll() -> None:
    """B3.3: the loop begins with a look."""
    assert shrink(Dom0(8192 * MIB, 8192 * MIB, 100 * MIB), 1036 * KIB, 1036 * KIB) == (True, [], 0)


def test_a_dom0_that_stands_still_costs_its_allowance() -> None:
    """B3.4: no change costs 2 s of 10: five polls, then the whole attempt is over."""
    assert shrink(Dom0(8192 * MIB, 8192 * MIB, 0), 600 * KIB, 1036 * KIB) == (False, [7756 * KIB], 5)


def test_progress_costs_nothing_of_the_allowance() -> None:
    """B3.4: 436 MiB at 5 MiB/s take 44 polls, each of them progress: success long after the 30 s credit."""
    assert shrink(Dom0(8192 * MIB, 8192 * MIB, 5 * MIB), 600 * KIB, 1036 * KIB) == (True, [7756 * KIB], 44)


def test_dom0_is_not_shrunk_below_its_floor() -> None:
    """B3.5: 128 MiB are its least; a target below is refused before anything is asked of it."""
    assert shrink(Dom0(512 * MIB, 512 * MIB, 100 * MIB), 0, 384 * KIB)[0]
    assert shrink(Dom0(512 * MIB, 512 * MIB, 100 * MIB), 0, 385 * KIB) == (False, [], 0)


def test_memory_that_goes_elsewhere_uses_up_the_credit() -> None:
    """B3.3: dom0 obeys each time, and what it frees is taken at once: the loop ends when 30 s are spent."""
    loop = FreeMemory(1036 * KIB)
    dom0_kib = 8192 * KIB
    asks = 0
    while (step := loop.see(Look(600 * KIB, dom0_kib, dom0_kib))).fits is None:
        assert step.target_kib is not None
        dom0_kib = step.target_kib
        asks += 1
    assert step.fits is False
    assert asks == 15


def test_a_dom0_that_grows_ends_the_attempt() -> None:
    """B3.4: usage that rises is failure at once."""
    loop = FreeMemory(1036 * KIB)
    assert loop.see(Look(600 * KIB, 8192 * KIB, 8192 * KIB)).target_kib == 7756 * KIB
    assert loop.see(Look(600 * KIB, 8193 * KIB, 7756 * KIB)).fits is False


def test_dom0_without_a_size_of_its_own() -> None:
    """B3.5: all memory less a sixteenth, at most 128 MiB."""
    assert xl.default_dom0_kib(8192 * KIB) == (8192 - 128) * KIB
    assert xl.default_dom0_kib(1600 * KIB) == 1500 * KIB


# -- B4: changes while it runs -----------------------------------------------------------------------------------------


def test_the_numbers_of_mem_set_in_the_example() -> None:
    """B4.1, `mem-set 1024m` of B-1: PoD target 260,352, 288 more than at the build; xenstore 1 MiB more."""

    class Recorder(TracedMachine):
        def set_pod_target(self, dom: int, pages: int) -> int:
            asked.append(pages)
            return super().set_pod_target(dom, pages)

    asked: list[int] = []
    machine = Recorder(2 * PAGES_PER_GIB)
    domain = built(machine, 1024, 2048)
    xenstore_kib = domain.xenstore_target_kib
    assert toolstack.mem_set(machine, domain, 1024 * MIB) == ""
    assert asked == [260_064, 260_352]
    assert machine.counters(1).max_pages == 262_400
    assert (domain.xenstore_target_kib, domain.xenstore_target_kib - xenstore_kib) == (1_040_384, 1024)


def test_mem_max() -> None:
    """B4.4: quota and static-max, beyond the configured maxmem too; the guest is not told, PoD not touched."""
    machine = TracedMachine(2 * PAGES_PER_GIB)
    domain = built(machine, 1024, 2048)
    before, out = machine.counters(1), domain.pages_to_balloon_out
    assert toolstack.mem_max(machine, domain, 4096 * MIB) == ""
    assert machine.counters(1) == before._replace(max_pages=4097 * MIB)
    assert (domain.static_max_kib, domain.pages_to_balloon_out) == (4096 * KIB, out)


def test_mem_max_stops_at_the_target_in_xenstore() -> None:
    """B4.4: 1015 MiB are allowed to B-1 (1,039,360 KiB in xenstore), 1014 are not, and change nothing."""
    machine = TracedMachine(2 * PAGES_PER_GIB)
    domain = built(machine, 1024, 2048)
    assert toolstack.mem_max(machine, domain, 1014 * MIB).startswith("memory_static_max must be greater")
    assert machine.counters(1).max_pages == 262_400
    assert toolstack.mem_max(machine, domain, 1015 * MIB) == ""
    assert machine.counters(1).max_pages == 1016 * MIB


# -- A3.8, A5.3, H3, H5: on the machine itself -------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("backed", "indebted", "entries", "cache", "freed"),
    [(False, True, -1, 0, 0), (True, True, 0, 1, 0), (False, False, -1, -1, 1), (True, False, 0, 0, 1)],
)
def test_what_giving_back_one_page_does(backed: bool, indebted: bool, entries: int, cache: int, freed: int) -> None:
    """A3.8, all four rows of the table: E, C and the host's free pages."""
    machine = TracedMachine(PAGES_PER_GIB)
    built(machine, 64, 128)
    first = 0x6000  # 96 MiB, untouched so far
    if backed:
        machine.touch_range(1, first, 512, content=DATA)
    if not indebted:
        assert machine.balloon_range(1, 0x200, machine.debt_pages(1)) == 64 * MIB
        assert machine.debt_pages(1) == 0
    before, free = machine.counters(1), machine.free_pages
    assert machine.balloon_range(1, first, 1) == 1
    after = machine.counters(1)
    assert after.entry_count - before.entry_count == entries
    assert after.cache_count - before.cache_count == cache
    assert machine.free_pages - free == freed
    assert machine.debt_pages(1) == (64 * MIB - 1 if indebted else 0)


def test_nothing_reaches_the_host_before_the_debt_is_paid() -> None:
    """A3.8, memory 1024 and maxmem 2048: 262,144 pages for nothing, and page 262,145 is the host's first."""
    machine = TracedMachine(2 * PAGES_PER_GIB)
    built(machine, 1024, 2048)
    free = machine.free_pages
    assert machine.balloon_range(1, 0x800, 262_144) == 262_144
    assert (machine.free_pages - free, machine.debt_pages(1)) == (0, 0)
    assert machine.balloon_range(1, 0x800 + 262_144, 1) == 1
    assert machine.free_pages - free == 1


def test_a_limit_below_what_is_owned() -> None:
    """A5.3: tot 262,144, limit 200,000: deflating fails until 62,145 pages have really left."""
    machine = TracedMachine(2 * PAGES_PER_GIB)
    machine.create(1, maxmem_pages=300_000, max_pages=262_144)
    assert machine.populate_seq(1, 0, 1, 18, 1) == 1
    assert machine.tot_pages(1) == 262_144
    machine.set_max_pages(1, 200_000)
    assert machine.balloon_range(1, 0, 62_144) == 62_144
    assert machine.populate_range(1, 0, 1) == 0
    assert machine.balloon_range(1, 62_144, 1) == 1
    assert machine.populate_range(1, 0, 1) == 1
    assert machine.populate_range(1, 1, 1) == 0


def test_pages_stolen_for_the_cache_do_not_leave() -> None:
    """A5.3: with a debt, ballooned RAM goes to the cache: as much is owned as before, and deflating still fails."""
    machine = TracedMachine(PAGES_PER_GIB)
    domain = built(machine, 64, 128)
    machine.set_max_pages(1, machine.tot_pages(1))
    machine.touch_range(1, 0x800, 512, content=DATA)
    assert machine.balloon_range(1, 0x800, 512) == 512
    assert machine.populate_range(1, 0x800, 1) == 0
    assert machine.tot_pages(1) == domain.numbers.memory_pages - 8


def test_an_own_claim_too_small_is_of_no_use() -> None:
    """H3.2: free 1100, claims 800 (300 own), a request of 512: refused, though 300 own + 300 unclaimed would do."""
    machine = TracedMachine(1100)
    for dom in (1, 2):
        machine.create(dom, maxmem_pages=4096, max_pages=4096)
    assert machine.claim(1, 300) == machine.claim(2, 500) == 0
    assert (machine.free_pages, machine.outstanding_claims) == (1100, 800)
    assert machine.populate(1, 0, 9) == 0
    assert machine.populate(1, 0, 8) == 1  # 256 are within its claim
    assert machine.outstanding_claims == 800 - 256


def test_a_pool_cannot_use_a_claim() -> None:
    """H3.4: what is not counted as a domain's (a paging pool, dom0) gets unclaimed memory only, the claimant's too."""
    machine = TracedMachine(1100)
    machine.create(1, maxmem_pages=4096, max_pages=4096)
    assert machine.claim(1, 1000) == 0
    assert machine.set_aside(101) == -12
    handle = machine.set_aside(100)
    assert (handle > 0, machine.free_pages, machine.outstanding_claims) == (True, 1000, 1000)
    assert machine.set_aside(1) == -12, "only claimed memory is left"
    # Pages freed later never replenish a claim (H3.3), and a death drops it (H3.5).
    assert machine.populate(1, 0, 0) == 1
    machine.decrease(1, 0, 0)
    assert (machine.free_pages, machine.outstanding_claims) == (1000, 999)
    machine.destroy(1)
    assert (machine.set_aside(1000) > 0, machine.free_pages) == (True, 0)


def test_claim_vectors() -> None:
    """H5, the table: stake, populate, cancel, destroy, and every refusal leaves what was."""
    machine = TracedMachine(4096)
    machine.create(1, maxmem_pages=8192, max_pages=8192)
    assert machine.outstanding_claims == 0
    assert machine.claim(1, 4 * MIB) == 0
    assert machine.outstanding_claims == 1024
    assert machine.populate(1, 0, 9) == 1
    assert machine.outstanding_claims == 512
    assert machine.claim(1, 2000) == -22  # one is outstanding
    assert machine.claim(1, 0) == machine.claim(1, 0) == 0  # cancelled, twice
    assert machine.outstanding_claims == 0
    assert machine.claim(1, 512) == -22  # no more than it has
    assert machine.claim(1, 8193) == -22  # above its limit
    assert machine.claim(1, 4097) == -12  # 3585 more, of 3584
    assert (machine.outstanding_claims, machine.free_pages) == (0, 3584)
    assert machine.claim(1, 4096) == 0
    machine.destroy(1)
    assert (machine.outstanding_claims, machine.free_pages) == (0, 4096)


@pytest.mark.parametrize("claims", [True, False])
def test_the_race_of_two_builds(claims: bool) -> None:
    """H5: 1000 free, A and B need 700 each. With claims B fails at once and A cannot; without, both fail at 500."""
    machine = TracedMachine(1000)
    for dom in (1, 2):
        machine.create(dom, maxmem_pages=4096, max_pages=4096)
    if claims:
        assert machine.claim(1, 700) == 0
        assert machine.claim(2, 700) == -12
    got = {1: 0, 2: 0}
    for page in range(700):
        for dom in (1, 2):
            got[dom] += machine.populate(dom, page, 0)
    # B goes on without a claim, and may have what is not claimed.
    assert got == ({1: 700, 2: 300} if claims else {1: 500, 2: 500})


# -- D1: settings ------------------------------------------------------------------------------------------------------


def test_settings_out_of_order() -> None:
    """D1.1: each pair of neighbours."""
    assert xapi.violation(Constraints(1, 2, 3, 4)) == xapi.violation(Constraints(2, 2, 2, 2)) == ""
    for wrong in ((3, 2, 3, 4), (1, 3, 2, 4), (1, 2, 5, 4)):
        assert xapi.violation(Constraints(*wrong)).startswith("MEMORY_CONSTRAINT_VIOLATION_ORDER: ")


def test_settings_that_must_be_pinned() -> None:
    """D1.2: where dynamic memory is not allowed, dynamic_min = dynamic_max = static_max, with the reason."""
    why = "nested virtualisation"
    assert xapi.violation(Constraints(1, 4, 4, 4), pinned_because=why) == ""
    text = xapi.violation(Constraints(1, 2, 4, 4), pinned_because=why)
    assert text.startswith("MEMORY_CONSTRAINT_VIOLATION_MAXPIN: ")
    assert why in text
    assert xapi.violation(Constraints(5, 2, 4, 4), pinned_because=why).startswith("MEMORY_CONSTRAINT_VIOLATION_ORDER")


def test_a_range_of_one_size() -> None:
    """What an operator's target makes of settings, and a migration (D4.7): in order only within the static range."""
    settings = Constraints(256, 512, 2048, 2048)
    assert xapi.pinned(settings, 700) == Constraints(256, 700, 700, 2048)
    assert xapi.sent(settings) == Constraints(256, 512, 512, 2048)
    assert xapi.violation(xapi.pinned(settings, 256)) == xapi.violation(xapi.pinned(settings, 2048)) == ""
    for size in (255, 2049):
        assert xapi.violation(xapi.pinned(settings, size)).startswith("MEMORY_CONSTRAINT_VIOLATION_ORDER: ")


# -- D2: overhead ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("static_max", "vcpus", "shadow", "overhead"), [(2048, 2, 18, 21), (4096, 2, 34, 37), (16_384, 4, 132, 135)]
)
def test_overheads_of_the_examples(static_max: int, vcpus: int, shadow: int, overhead: int) -> None:
    """D2.4, HVM with multiplier 1."""
    assert (xapi.shadow_mib(static_max, vcpus), xapi.overhead_mib(static_max, vcpus)) == (shadow, overhead)


def test_overheads_of_other_kinds() -> None:
    """D2.1, D2.2: PV has no internal overhead; PV in PVH has a shim; a multiplier scales the pool; 1 MiB at least."""
    assert xapi.overhead_mib(2048, 2, kind="pv") == 20
    assert xapi.overhead_mib(2048, 2, kind="pv_in_pvh") == 21 + 23 + 22
    assert xapi.shadow_mib(2048, 2, 2.5) == 45
    assert xapi.shadow_mib(1, 0) == 1
    assert xapi.build_sizes(2048, 1024, 8) == (1016, 2040)
    assert xapi.build_sizes(2048, 1024, 0, shim=45) == (1069, 2093)


def test_a_domain_of_xapi_on_a_machine() -> None:
    """D2.3, D2.4, D4.5, B-1's sizes under XAPI: claim 1016 MiB, limit target + overhead + 1 MiB, debt 1024 MiB."""
    machine = TracedMachine(2 * PAGES_PER_GIB)
    domain = built(machine, 1024, 2048, toolstack="xapi")
    numbers = domain.numbers
    assert (numbers.claim_pages, numbers.max_pages) == (1016 * MIB, (1024 + 21 + 1) * MIB)
    assert (numbers.paging_pages, numbers.need_pages) == (18 * MIB, (1024 + 21) * MIB)
    assert machine.debt_pages(1) == 1024 * MIB
    assert machine.tot_pages(1) == 1024 * MIB - 32 + 24
    assert domain.pages_to_balloon_out_less_video == 1024 * MIB  # the debt, to the page
    machine.audit()


def test_squeezed_never_sets_a_pod_target() -> None:
    """D4.5, D5.8: a raise moves limit and xenstore, and the debt stays; `mem-set` would have paid some of it."""
    machine = TracedMachine(2 * PAGES_PER_GIB)
    domain = built(machine, 1024, 2048, toolstack="xapi")
    assert toolstack.set_target(machine, domain, 1536 * MIB) == ""
    assert machine.debt_pages(1) == 1024 * MIB
    assert machine.counters(1).max_pages == 1537 * MIB
    assert domain.target_pages == 1536 * MIB
    domain.toolstack = "xl"
    assert toolstack.set_target(machine, domain, 1536 * MIB) == ""
    assert machine.debt_pages(1) == 1024 * MIB - (512 - 8) * MIB - 256 + 24 - 32


def test_initial_targets() -> None:
    """D4.3: what was reserved, less the overhead, but no more than dynamic_max."""
    assert xapi.initial_target(2048, 1045, 21) == 1024
    assert xapi.initial_target(2048, 4000, 21) == 2048
    assert Numbers.of(request(7, "linux", 512, 512), HostConfig(), GUEST).pod is False
    assert xapi.numbers(request(7, "linux", 1024, 1024), HostConfig(), GUEST).pod is False
    assert xapi.numbers(request(7, "linux", 1023, 1024), HostConfig(), GUEST).pod is True


def test_a_build_begins_where_target_and_overhead_are_free() -> None:
    """D4.4: with a page less XAPI gives up, nothing being left to scrub, where xl would still have built."""
    need_pages = (64 + xapi.overhead_mib(128, 2)) * MIB
    built(TracedMachine(need_pages), 64, 128, toolstack="xapi")
    machine = TracedMachine(need_pages - 1)
    failed = toolstack.build(machine, 1, request(7, "linux", 64, 128), HostConfig(toolstack="xapi"), GUEST)
    text = "HOST_NOT_ENOUGH_FREE_MEMORY: 70 MiB needed, 69 available"
    assert failed == toolstack.BuildFailed("host_memory", text)
    assert machine.free_pages == need_pages - 1
    built(machine, 64, 128)


def test_what_a_receiver_reserves() -> None:
    """D4.7: limit - 1 MiB, at least tot."""
    assert xapi.received(510, 513, 1) == 512
    assert xapi.received(600, 513, 1) == 600


# -- D3: capacity ------------------------------------------------------------------------------------------------------


def test_admission_is_to_the_page() -> None:
    """D3.2, D3.4: 72 MiB are kept; a start needs dynamic_min + overhead, and what is said is in MiB."""
    assert xapi.RESERVE_MIB == 72
    assert xapi.short(1045 * MIB, 1045 * MIB) == ""
    assert xapi.short(1045 * MIB, 1045 * MIB - 1) == ("HOST_NOT_ENOUGH_FREE_MEMORY: 1045 MiB needed, 1044 available")
    assert xapi.short(MIB, -MIB).endswith("1 MiB needed, 0 available")
