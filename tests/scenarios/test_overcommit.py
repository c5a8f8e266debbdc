"""Many guests without a balloon driver at several overcommits: who dies, exactly, and with what in Xen's books."""

from collections.abc import Sequence

import numpy as np
import pytest

from podcluster.config import GuestConfig
from podcluster.records.demand import Demand
from podcluster.records.rows import DomainRow
from podcluster.rng import stream
from podcluster.units import NS_PER_S, PAGES_PER_MIB
from tests.host.lives import guest_config, host_model, live, request, start

MIB = PAGES_PER_MIB
GUESTS = 24
SECONDS = 120


def crowd(guest: GuestConfig, overcommit: float) -> Sequence[DomainRow]:
    """Rows of 24 guests of 40 to 120 MiB whose demands wander up to all that they were promised."""
    told = []
    for domain_id in range(GUESTS):
        rng = stream(5, "crowd", domain_id)
        maxmem_mib = 4 * int(rng.integers(10, 31))
        memory_mib = max(20, int(maxmem_mib / overcommit))
        t_ns = np.arange(0, SECONDS, 5, dtype=np.int64) * NS_PER_S
        peak = rng.uniform(0.1, 0.95) * maxmem_mib * MIB
        pages = (peak * rng.uniform(0, 1, len(t_ns))).astype(np.int64)
        told.append(
            start(request(domain_id, guest.os_class, memory_mib, maxmem_mib, Demand(t_ns, pages)), 1 + domain_id)
        )
    return live(host_model(guest, ram_mib=3000, taken_mib=64), SECONDS, *told).domains


@pytest.mark.parametrize("overcommit", [1, 1.5, 2, 3])
@pytest.mark.parametrize("page_cache_mib_per_s", [0, 2, 20])
def test_who_dies_without_a_driver(overcommit: float, page_cache_mib_per_s: float) -> None:
    """`pod_oom` exactly for those whose own count passed what they own, with cache 0 and entries M - T to the page."""
    domains = crowd(guest_config("linux_no_driver", page_cache={"rate_mib_per_s": page_cache_mib_per_s}), overcommit)
    assert len(domains) == GUESTS
    dead = [row for row in domains if row.fate == "pod_oom"]
    assert {row.fate for row in domains} <= {"pod_oom", "running"}
    for row in domains:
        assert (row.fate == "pod_oom") == (row.nonzero_pages_peak > row.tot_pages)
        assert row.margin_pages == row.tot_pages - row.nonzero_pages_peak
    for row in dead:
        assert (row.cause, row.cache_count) == ("debt", 0)
        assert row.entry_count == row.maxmem_pages - row.memory_pages
        assert row.nonzero_pages_peak == row.tot_pages + 1
    if overcommit == 1:
        assert not dead
        assert all(row.entry_count == row.cache_count == 0 for row in domains)
    elif page_cache_mib_per_s == 0:
        assert 0 < len(dead) < GUESTS  # some of each, so that the test says something


@pytest.mark.parametrize("overcommit", [1, 1.25, 2, 3])
def test_all_die_who_dirty_everything_and_were_promised_more(overcommit: float) -> None:
    """Guests that dirty every page: all with M > T die, none with M = T."""
    for row in crowd(guest_config("linux_no_driver", dirty_all=True), overcommit):
        assert (row.fate == "pod_oom") == (row.maxmem_pages > row.memory_pages)


def test_more_of_the_same_machines_die_the_higher_the_overcommit() -> None:
    """Common random numbers: who dies at an overcommit dies at any higher one."""
    guest = guest_config("linux_no_driver", page_cache={"rate_mib_per_s": 0})
    before: set[int] = set()
    for overcommit in (1, 1.5, 2, 3):
        dead = {row.domain_id for row in crowd(guest, overcommit) if row.fate == "pod_oom"}
        assert before <= dead
        before = dead
    assert before


@pytest.mark.parametrize("kind", ["linux", "windows"])
def test_drivers_in_time_save_all(kind: str) -> None:
    """The same crowd with drivers that start before any demand: nobody dies, some swap instead."""
    guest = guest_config(
        kind, balloon={"boot_barrier": True, "start_s": [0.1, 0.2], "rate_pages_per_s": [50_000, 60_000]}
    )
    domains = crowd(guest, 2)
    assert {row.fate for row in domains} == {"running"}
    assert all(row.entry_count == row.cache_count for row in domains)
    assert any(row.swap_ns for row in domains)
