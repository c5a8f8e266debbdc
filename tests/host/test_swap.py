"""Does a swap device serve one request at a time, and does what misses cost add up along any curve?"""

import math
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from podcluster.host.domain import ABOVE_VGA, VGA_HOLE
from podcluster.host.swap import Rows, SwapDevice, Thrashing
from podcluster.records.commands import SetTarget
from podcluster.records.demand import Demand
from podcluster.units import NS_PER_S, PAGES_PER_MIB, s_to_ns
from tests.host.lives import curve, guest_config, host_model, live, one_life, request, start

MIB = PAGES_PER_MIB


def device(latency_us: float = 1000, mib_per_s: float = 8, cluster_pages: int = 8) -> SwapDevice:
    """By default 1 ms a request and 0.488 ms a page."""
    return SwapDevice(latency_us=latency_us, mib_per_s=mib_per_s, cluster_pages=cluster_pages)


def test_a_request_costs_its_latency_and_its_pages() -> None:
    """SW-1: 20 pages are three requests of a cluster of 8."""
    assert device().service_ns(20) == 3_000_000 + round(20 * NS_PER_S / 2048)
    assert device().service_ns(0) == 0


def test_requests_queue() -> None:
    """SW-1: in order, one at a time; time with nothing to do is not busy."""
    queue = device(mib_per_s=1e9)
    assert [queue.request(8, at) for at in (0, 500_000, 5_000_000)] == [1_000_000, 2_000_000, 6_000_000]
    assert queue.busy.tolist() == [[0, 2_000_000], [5_000_000, 6_000_000]]


def test_what_a_device_can_move_in_a_time() -> None:
    """Full clusters, after what was asked before."""
    queue = device(mib_per_s=1e9)
    assert queue.pages_within(0, 10_500_000) == 80
    queue.request(16, 0)
    assert queue.pages_within(1_000_000, 10_000_000) == 72
    assert queue.pages_within(0, 1000) == 0


@given(
    points=st.lists(st.tuples(st.integers(1, 400), st.integers(0, 100)), max_size=6, unique_by=lambda point: point[0]),
    first=st.integers(0, 60),
    in_memory=st.integers(0, 90),
    swap=st.integers(0, 60),
    span=st.tuples(st.integers(0, 450), st.integers(0, 450)),
    waits=st.lists(st.integers(0, 450), max_size=6, unique=True),
)
def test_what_is_lost_is_the_integral(
    points: list[tuple[int, int]], first: int, in_memory: int, swap: int, span: tuple[int, int], waits: list[int]
) -> None:
    """SW-3: against a sum over small steps of x / (1 + x), waits left out, what is never had left out."""
    samples = [(0, first), *sorted(points)]
    demand = Demand(np.array([t for t, _ in samples], np.int64), np.array([w for _, w in samples], np.int64))
    waits = sorted(waits)
    waiting = list(zip(waits[::2], waits[1::2], strict=False))
    low, high = min(span), max(span)
    most = in_memory + swap
    steps = low + (np.arange(20 * (high - low)) + 0.5) / 20
    wanted = np.interp(steps, demand.t_ns.astype(float), demand.pages.astype(float))
    x = (np.clip(wanted, in_memory, most) - in_memory) * 30.0 / 1000
    lost = x / (1 + x)
    for a, b in waiting:
        lost[(steps >= a) & (steps < b)] = 0
    spans, busy = np.array([[in_memory, most, low, high]]), np.array(waiting, np.int64).reshape(-1, 2)
    found = Thrashing(30.0, 1000).lost_ns(demand, spans, busy)
    assert found == pytest.approx(float(lost.sum()) / 20, abs=0.05, rel=1e-3)


def lost_in_span(
    per_page: float, demand: Demand, span: tuple[int, int, int, int], waiting: list[tuple[int, int]]
) -> float:
    """SW-3 of one span by itself, from one instant to the next: the plain definition."""
    in_memory, most, low, high = span
    ends = {low, high, *demand.t_ns.tolist(), *(end for one in waiting for end in one)}
    instants = sorted(t for t in ends if low <= t <= high)
    top = per_page * (most - in_memory) / (1 + per_page * (most - in_memory)) if most > in_memory else 0.0

    def share(wanted: float) -> float:
        out = min(max(wanted, in_memory), most) - in_memory
        return per_page * out / (1 + per_page * out)

    def integral(wanted: float) -> float:
        out = min(max(wanted, in_memory), most) - in_memory
        return out - math.log1p(per_page * out) / per_page + top * max(0.0, wanted - most)

    lost = 0.0
    for a, b in pairwise(instants):
        if most <= in_memory or any(start <= a < stop for start, stop in waiting):
            continue
        left, right = np.interp([a, b], demand.t_ns.astype(float), demand.pages.astype(float)).tolist()
        steep = abs(right - left) >= 1
        mean = (integral(right) - integral(left)) / (right - left) if steep else (share(left) + share(right)) / 2
        lost += mean * (b - a)
    return lost


@given(
    points=st.lists(
        st.tuples(st.integers(1, 4000), st.integers(0, 1 << 16)), max_size=20, unique_by=lambda point: point[0]
    ),
    first=st.integers(0, 1 << 16),
    sizes=st.lists(st.tuples(st.integers(0, 1 << 15), st.integers(0, 1 << 15)), min_size=1, max_size=8),
    ends=st.lists(st.integers(0, 4500), min_size=16, max_size=16),
    waits=st.lists(st.integers(0, 4500), max_size=12, unique=True),
)
def test_all_spans_at_once_are_the_spans_one_by_one(
    points: list[tuple[int, int]],
    first: int,
    sizes: list[tuple[int, int]],
    ends: list[int],
    waits: list[int],
) -> None:
    """SW-3: spans that touch or leave gaps, some empty, some without swap, against `lost_in_span`, to rounding."""
    samples = [(0, first), *sorted(points)]
    second = NS_PER_S
    demand = Demand(np.array([t * second for t, _ in samples], np.int64), np.array([w for _, w in samples], np.int64))
    edges = [second * end for end in sorted(ends)]
    spans = [(r, r + swap, a, b) for (r, swap), a, b in zip(sizes, edges[::2], edges[1::2], strict=False)]
    waits = [second * wait for wait in sorted(waits)]
    waiting = list(zip(waits[::2], waits[1::2], strict=False))
    found = Thrashing(150_000.0, 60 * second).lost_ns(
        demand, np.array(spans, np.int64), np.array(waiting, np.int64).reshape(-1, 2)
    )
    expected = sum(lost_in_span(150_000.0 / (60 * second), demand, span, waiting) for span in spans)
    assert found == pytest.approx(expected, rel=1e-9, abs=1e-3 * second / 1000)


def test_rows_that_grow_keep_what_they_hold() -> None:
    """One at a time and many at once, past what there is room for, against a list."""
    rows, plain = Rows(2), list[list[int]]()
    for k in range(100):
        rows.append((k, -k))
        rows.extend(np.arange(2 * k + 5, dtype=np.int64), k)
        plain += [[k, -k], *np.arange(2 * k).reshape(-1, 2).tolist()]
    assert rows.all.tolist() == plain


def test_a_faster_device_costs_less_and_none_costs_applications() -> None:
    """What was said in 2008: no swap disk means application failures, a swap disk very poor performance for a while."""
    demand = curve((0, 20), (100, 20), (110, 66), (400, 66), (410, 20))
    devices = {"none": (0, 0, 1), "hdd": (64, 8000, 150), "ssd": (64, 150, 500), "nvme": (64, 100, 2000)}
    rows = {
        name: one_life(
            "linux_no_driver",
            64,
            64,
            until_s=600,
            demand=demand,
            page_cache={"rate_mib_per_s": 0},
            swap={"mib": mib, "latency_us": latency_us, "mib_per_s": mib_per_s},
        )
        for name, (mib, latency_us, mib_per_s) in devices.items()
    }
    assert [rows[name].oom_kills for name in devices] == [1, 0, 0, 0]
    assert rows["none"].swap_ns == rows["none"].swap_in_pages == rows["none"].swap_out_pages == 0
    assert rows["hdd"].swap_ns > 5 * rows["ssd"].swap_ns > 5 * rows["nvme"].swap_ns > 0
    assert rows["hdd"].slowdown > rows["ssd"].slowdown > rows["nvme"].slowdown > rows["none"].slowdown == 1
    assert all(rows[name].fate == "running" for name in devices)


def test_windows_goes_below_its_working_set_through_its_page_file() -> None:
    """C2.5: a target that what it holds does not fit in is reached through the page file; Linux keeps what it holds."""
    swap, no_cache = {"mib": 64, "mib_per_s": 50}, {"rate_mib_per_s": 0}
    short = {}
    for kind in ("windows", "linux"):
        balloon = {"start_s": [0, 0], "boot_barrier": False, "reserve_mib": 2}
        guest = guest_config(
            kind, services_mib=[40, 40], scrubber="none", balloon=balloon, swap=swap, page_cache=no_cache
        )
        model = host_model(guest)
        model.advance(s_to_ns(30), [start(request(0, kind, 72, 72))])
        row = live(model, 120, SetTarget(s_to_ns(30.5), 0, 40 * MIB)).domains[0]
        goal = 72 - 40 + (8 if kind == "linux" else 0)
        short[kind] = goal * MIB - row.ballooned_pages
        assert row.fate == "running"
        assert (row.swap_out_pages > 0) == (kind == "windows")
    assert short["windows"] == 0 < short["linux"]


@pytest.mark.parametrize(("wants_mib", "kills"), [(55, 0), (75, 1)])
def test_an_application_or_the_balloon(wants_mib: int, kills: int) -> None:
    """C1.10: with the notifier, pages come back from the balloon, 512 at a time, before an application is killed, which
    lives if what they come to is enough for it; without, it is killed in both cases.
    """
    without, helped = (
        one_life(
            "linux",
            64,
            128,
            until_s=200,
            demand=curve((0, 20), (60, 20), (70, wants_mib)),
            page_cache={"rate_mib_per_s": 0},
            swap={"mib": 0},
            balloon={"deflate_on_oom": deflate_on_oom},
        )
        for deflate_on_oom in (False, True)
    )
    quota, ram = (64 + 1) * MIB, (128 - 8) * MIB - (ABOVE_VGA - VGA_HOLE)
    has = ram - without.ballooned_pages
    may_have = has + quota - without.tot_pages  # what the balloon took too much, and the 1 MiB of Xen's limit
    assert (has < wants_mib * MIB, may_have < wants_mib * MIB) == (True, bool(kills))
    assert (without.oom_kills, helped.oom_kills) == (1, kills)
    came = without.ballooned_pages - helped.ballooned_pages
    assert came == (may_have - has if kills else -(-(wants_mib * MIB - has) // 512) * 512)
    assert helped.tot_pages - without.tot_pages == came
    assert helped.entry_count == helped.cache_count
