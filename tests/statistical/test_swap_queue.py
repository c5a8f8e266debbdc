"""Is the swap device the queue that it is said to be, and does missing pages cost what it is said to?"""

from collections import OrderedDict

import numpy as np
import pytest

from podcluster.host.swap import SwapDevice, Thrashing
from podcluster.records.demand import Demand
from podcluster.units import NS_PER_S
from tests.statistical.replicas import check

REQUESTS = 4000


def mean_wait_ns(device: SwapDevice, rng: np.random.Generator, per_s: float, pages: list[int]) -> float:
    """Poisson requests of so many pages; mean time before service begins, of all but the first tenth."""
    at_ns = 0.0
    waits = []
    for count, gap_s in zip(pages, rng.exponential(1 / per_s, len(pages)), strict=True):
        at_ns += gap_s * NS_PER_S
        done_ns = device.request(count, round(at_ns))
        waits.append(done_ns - device.service_ns(count) - at_ns)
    return float(np.mean(waits[len(waits) // 10 :]))


@pytest.mark.parametrize("load", [0.3, 0.6])
def test_requests_of_one_size_wait_as_in_m_d_1(load: float) -> None:
    """Poisson requests of one cluster: mean wait rho s / (2 (1 - rho))."""

    def one(rng: np.random.Generator) -> float:
        device = SwapDevice(latency_us=950, mib_per_s=625, cluster_pages=8)
        assert device.service_ns(8) == 1_000_000
        return mean_wait_ns(device, rng, load / 0.001, [8] * REQUESTS)

    check(f"m_d_1 {load}", one, 1_000_000 * load / (2 * (1 - load)))


def test_requests_of_many_sizes_wait_as_in_m_g_1() -> None:
    """Geometric numbers of pages: mean wait lambda E[S^2] / (2 (1 - lambda E[S])) (Pollaczek and Khinchine)."""
    device = SwapDevice(latency_us=100, mib_per_s=100, cluster_pages=4)
    sizes = np.arange(1, 400)
    weights = 0.1 * 0.9 ** (sizes - 1)
    service_s = np.array([device.service_ns(int(size)) for size in sizes]) / NS_PER_S
    mean, square = float(weights @ service_s), float(weights @ service_s**2)
    per_s = 0.5 / mean

    def one(rng: np.random.Generator) -> float:
        fresh = SwapDevice(latency_us=100, mib_per_s=100, cluster_pages=4)
        return mean_wait_ns(fresh, rng, per_s, rng.geometric(0.1, REQUESTS).tolist())

    check("m_g_1", one, per_s * square / (2 * (1 - per_s * mean)) * NS_PER_S)


@pytest.mark.parametrize("in_memory", [150, 190])
def test_a_working_set_that_does_not_fit_loses_x_over_1_plus_x(in_memory: int) -> None:
    """SW-3 against a guest that touches 200 pages at random, one each 2 ms of its own time, the least recently used
    going out: each miss is a request of a cluster, and each eighth one writes a cluster.
    """
    pages, step_ns, touches = 200, 2_000_000, 4000
    device = SwapDevice(latency_us=500, mib_per_s=100, cluster_pages=8)
    span = (0, 1000 * NS_PER_S)
    thrashing = Thrashing(device.miss_ns, pages * step_ns)
    spans, never = np.array([(in_memory, 10 * pages, *span)]), np.zeros((0, 2), np.int64)
    lost = thrashing.lost_ns(Demand.flat(pages), spans, never) / span[1]

    def one(rng: np.random.Generator) -> float:
        queue = SwapDevice(latency_us=500, mib_per_s=100, cluster_pages=8)
        resident = OrderedDict.fromkeys(range(in_memory))
        now_ns = misses = 0
        for page in rng.integers(0, pages, touches).tolist():
            now_ns += step_ns
            if page in resident:
                resident.move_to_end(page)
                continue
            misses += 1
            resident.popitem(last=False)
            resident[page] = None
            now_ns = queue.request(8, now_ns)
            if misses % 8 == 0:
                now_ns = queue.request(8, now_ns)
        return 1 - touches * step_ns / now_ns

    check(f"thrashing {in_memory}", one, lost)
