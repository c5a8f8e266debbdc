"""Other work that arrives while Xen serves a guest: the process itself, and what it does to a sweep [G7]."""

import math
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from podcluster.host.pending import NEVER, bin_ns, next_arrival
from podcluster.host.traced import TracedMachine
from podcluster.host.written import DATA, ZERO
from podcluster.rng import key
from podcluster.units import NS_PER_S
from tests.reference import pending as slow

BLOCK = 512
DOM = 1
VCPU_KIND = 5  # vCPU 2, interrupts


def arrivals(seed: int, per_s: float, until_ns: int) -> list[int]:
    """The kernels' arrivals up to a time, asked for one after the other."""
    word = np.uint64(key(seed, "test"))
    found, at = [], 0
    while (at := int(next_arrival(word, bin_ns(per_s), at))) <= until_ns:
        found.append(at)
    return found


@given(seed=st.integers(0, 2**63), per_s=st.sampled_from((0.1, 7, 1000, 333_333, 10**6)), after=st.integers(0, 2**60))
def test_arrivals_are_those_of_the_slow_model(seed: int, per_s: float, after: int) -> None:
    """A function of key, vCPU, kind and time alone: the next one after any instant, without what was asked before."""
    word = key(seed)
    fast = int(next_arrival(np.uint64(word ^ slow.mix(VCPU_KIND)), bin_ns(per_s), after))
    assert fast == next(slow.arrivals(word, 2, 1, per_s, after))


@pytest.mark.parametrize("per_s", [250, 12_345.6])
def test_arrivals_are_poisson(per_s: float) -> None:
    """Counts in windows that ignore the bins: mean, variance and share of empty windows; no memory between windows.

    Theory: mean = variance = m, P(0) = exp(-m), correlation 0; each within 4 standard errors over 20,000 windows.
    """
    windows, m = 20_000, 0.73
    width_ns = m * NS_PER_S / per_s
    at = np.array(arrivals(1, per_s, int(windows * width_ns)))
    counts = np.bincount((at / width_ns).astype(int), minlength=windows)[:windows]
    assert abs(counts.mean() - m) <= 4 * math.sqrt(m / windows)
    # The variance of a Poisson sample's variance is (m + 2 m**2) / n.
    assert abs(counts.var(ddof=1) - m) <= 4 * math.sqrt((m + 2 * m * m) / windows)
    empty = math.exp(-m)
    assert abs(np.mean(counts == 0) - empty) <= 4 * math.sqrt(empty * (1 - empty) / windows)
    assert abs(np.corrcoef(counts[:-1], counts[1:])[0, 1]) <= 4 / math.sqrt(windows)


def test_times_between_arrivals_are_exponential() -> None:
    """Kolmogorov-Smirnov against 1 - exp(-t * rate): the distance stays below its 0.1 % point."""
    per_s = 1000
    gaps = np.sort([b - a for a, b in pairwise(arrivals(3, per_s, 5 * NS_PER_S))])
    theory = 1 - np.exp(-gaps * per_s / NS_PER_S)
    n = len(gaps)
    distance = max(np.max(np.arange(1, n + 1) / n - theory), np.max(theory - np.arange(n) / n))
    assert n > 4500 and distance < 1.95 / math.sqrt(n)


def test_rates_at_the_ends() -> None:
    assert bin_ns(0) == 0 and next_arrival(np.uint64(1), 0, 5) == NEVER
    assert bin_ns(math.inf) == -1
    assert bin_ns(10**12) == 1


def guest(costs: dict[str, int] | None = None) -> TracedMachine:
    """A guest of 8 MiB with 4 MiB, all dirty but two pages at the bottom of what it has populated; cache empty."""
    machine = TracedMachine(4096, costs=costs)
    machine.create(DOM, maxmem_pages=4 * BLOCK, max_pages=2 * BLOCK, sp_2m=False)
    machine.set_pod_target(DOM, 2 * BLOCK)
    machine.mark_pod_seq(DOM, 0, 4, 9)
    # From the top down, and not the top itself, so that the ring forgets the two and the first sweep starts above.
    machine.touch_range(DOM, 4 * BLOCK - 1, 1, content=DATA)
    machine.touch_range(DOM, 1, 2 * BLOCK - 1, content=DATA)
    machine.touch_range(DOM, 5, 2, content=ZERO)
    assert machine.counters(DOM).cache_count == 0
    return machine


LOOK = {"look_ns": 100}
NEXT = 3 * BLOCK  # a page that is still promised


def test_work_that_arrives_while_a_sweep_looks_kills_the_guest() -> None:
    """A sweep over 2,048 gfns takes 0.2 ms: at 10**6 arrivals per second it is cut off below its limit, empty-handed.

    Switch the rate off, or let each look take no time, and the same guest lives.
    """
    lives = guest(LOOK)
    assert lives.touch_range(DOM, NEXT, 1, content=DATA) == 1
    dies = guest(LOOK)
    dies.set_pending_work(DOM, 1, 10**6, 0)
    assert dies.touch_range(DOM, NEXT, 1, content=DATA) == 0
    assert dies.hazard(DOM) == (0, 2, 0)
    timeless = guest()
    timeless.set_pending_work(DOM, 1, 10**6, 0)
    assert timeless.touch_range(DOM, NEXT, 1, content=DATA) == 1


def test_interrupts_count_while_they_are_enabled() -> None:
    for enabled in (True, False):
        machine = guest(LOOK)
        machine.set_pending_work(DOM, 1, 0, 10**6)
        machine.set_interrupts(DOM, enabled, 0)
        assert machine.touch_range(DOM, NEXT, 1, content=DATA) == (0 if enabled else 1)


def test_what_arrived_before_the_fault_does_not_count() -> None:
    """Rates at which about one in ten sweeps of 0.2 ms is cut off: over 300 starting times, within 4 standard errors.

    Beyond its limit a sweep down from gfn 2,047 looks at 1,019 gfns before it meets a zero page; it dies if work has
    arrived by then, that is unless none arrived in 2,042 looks of 100 ns.
    """
    per_s, times = 500.0, 300
    died = 0
    for at in range(times):
        machine = guest(LOOK)
        machine.set_pending_work(DOM, 7, per_s, 0)
        machine.set_clock(DOM, at * 10**7)
        died += machine.touch_range(DOM, NEXT, 1, content=DATA) == 0
    share = 1 - math.exp(-per_s * 2041 * 100 / NS_PER_S)
    assert abs(died / times - share) <= 4 * math.sqrt(share * (1 - share) / times)


def test_always_and_never_are_as_in_the_traces() -> None:
    always, infinite = guest(), guest()
    always.set_preempt("always")
    infinite.set_pending_work(DOM, 1, math.inf, 0)
    for machine in (always, infinite):
        assert machine.touch_range(DOM, NEXT, 1, content=DATA) == 0
    assert always.state_record(DOM) == infinite.state_record(DOM)
    assert always.hazard(DOM) == infinite.hazard(DOM) == (0, 2, 0)
