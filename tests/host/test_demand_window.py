"""Is the curve that a guest goes along the one it was given, and is leaving out its quiet pieces the same life?"""

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from podcluster.host import follow, machine
from podcluster.host.demand_window import DemandWindow, range_maxima, values_at
from podcluster.records.demand import Demand
from podcluster.units import PAGES_PER_MIB, s_to_ns
from tests.host.lives import curve
from tests.host.test_guest import Rig


@st.composite
def demands(draw: st.DrawFn) -> Demand:
    times = [0, *sorted(draw(st.sets(st.integers(1, 300), max_size=12)))]
    pages = draw(st.lists(st.integers(0, 1000), min_size=len(times), max_size=len(times)))
    return Demand(np.array(times, np.int64), np.array(pages, np.int64))


@given(demand=demands(), start=st.integers(0, 200), hold=st.integers(-1, 200))
def test_window_against_the_definition(demand: Demand, start: int, hold: int) -> None:
    """DW-1, G3: W at each instant, and the most it was in the window, looked at every ns."""
    window = DemandWindow(demand, start, hold, 10**9)
    instants = [window.instant_ns(piece) for piece in range(len(window))]
    assert instants[0] == start
    assert all(at in instants for at in demand.t_ns if at > start)
    for i, at in enumerate(instants):
        assert i == 0 or window.w[i] == demand.at(at)
        if hold >= 0:
            assert window.most(i) == max(demand.at(t) for t in range(max(start, at - hold), at + 1))
            assert window.piece(at) == i


def test_values_of_very_large_guests_do_not_overflow() -> None:
    """A jump of 4 TiB in a day passes 2**63 on the way."""
    demand = Demand(np.array([0, 86_400 * 10**9], np.int64), np.array([0, 1 << 30], np.int64))
    instants = np.arange(0, 86_400, 3600, dtype=np.int64) * 10**9
    assert values_at(demand, instants).tolist() == [demand.at(int(at)) for at in instants]


@given(st.lists(st.integers(-50, 50), min_size=1, max_size=40), st.data())
def test_maxima_of_ranges(values: list[int], data: st.DataObject) -> None:
    """Against max()."""
    pairs = data.draw(st.lists(st.tuples(*[st.integers(0, len(values) - 1)] * 2), min_size=1, max_size=20))
    first, last = np.array([min(pair) for pair in pairs]), np.array([max(pair) for pair in pairs])
    found = range_maxima(np.array(values, np.int64), first, last)
    assert found.tolist() == [max(values[a : b + 1]) for a, b in zip(first, last, strict=True)]


points = st.lists(st.tuples(st.integers(0, 62), st.integers(1, 30)), min_size=20, max_size=40)


@settings(max_examples=40, deadline=None)
@given(
    points=points,
    hold_s=st.sampled_from([-1, 0, 30, 45]),
    cache=st.sampled_from([0, 2, 40]),
    swap_mib=st.sampled_from([0, 4, 32]),
    kind=st.sampled_from(["linux_no_driver", "windows"]),
    cuts=st.lists(st.integers(11, 600), max_size=8),
    rate=st.sampled_from([1, 300]),
)
def test_quiet_pieces_may_be_left_out(
    points: list[tuple[int, int]], hold_s: int, cache: int, swap_mib: int, kind: str, cuts: list[int], rate: int
) -> None:
    """GD-4: batch by batch through every piece, or quiet ones left out, looked at on the way or not: the same pages
    written, the same held, cached, swapped, killed, at each look.
    """
    demand = curve(*[(10 * i + (shift - 15) / 3 * (i > 0), mib) for i, (mib, shift) in enumerate(points)])
    changed: dict[str, Any] = {
        "page_cache": {"rate_mib_per_s": cache},
        "swap": {"mib": swap_mib, "latency_us": 200},
        "scrubber": "none",
        "scrub_rate_mib_per_s": [rate, rate],
        "services_s": [1, 1],
    }
    hold_ns = -1 if hold_s < 0 else s_to_ns(hold_s)
    seen = []
    for ahead in (False, True):
        rig = Rig(kind, 64, 64, demand, hold_ns=hold_ns, ahead=ahead, **changed)
        looks = []
        for cut in [*sorted(set(cuts)), 700]:
            if ahead:
                rig.run_to(cut)
            else:
                while rig.guest.end is None and rig.guest.next_ns <= s_to_ns(cut):
                    rig.guest.step()
            looks.append((rig.guest.stats(s_to_ns(cut) + 1), rig.memory.cache, rig.memory.nonzero_runs))
        held = rig.guest.held
        seen.append((looks, held.totals(s_to_ns(700)), held.kills, held.swapped_peak, rig.memory.nonzero_peak))
    assert seen[0] == seen[1]


@pytest.mark.parametrize("latency_us", [0, 7, 900])
def test_thousands_of_batches_go_to_swap_as_they_would_one_by_one(
    latency_us: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """GD-2, SW-1: rises that the guest keeps up with, a jump that it does not, and more than swap has room for, cut in
    the middle; more stretches of work than there is room for at once.
    """
    monkeypatch.setattr(machine, "TOLD", follow.room_for(300))
    demand = curve((0, 20), (30, 30), (100, 3000), (130, 100), (131, 2900.7), (170, 3100), (200, 40), (333, 9000))
    swap = {"mib": 4096, "latency_us": latency_us, "mib_per_s": 700}
    seen = []
    for together in (False, True):
        rig = Rig("linux_no_driver", 64, 64, demand, hold_ns=0, swap=swap)
        looks = []
        for cut in (50, 77.7, 131.2, 250, 400):
            if together:
                rig.run_to(cut)
            else:
                while rig.guest.end is None and rig.guest.next_ns <= s_to_ns(cut):
                    rig.guest.step()
            looks.append(rig.guest.stats(s_to_ns(cut) + 1))
        held = rig.guest.held
        seen.append((looks, held.totals(s_to_ns(400)), held.kills, held.swapped_peak))
    assert seen[0] == seen[1]
    assert seen[0][1].out_pages > 2000 * 512


@pytest.mark.parametrize("hold_s", [-1, 0, 3600])
def test_a_month_of_samples_is_a_few_acts(hold_s: int) -> None:
    """G3, G4: 8,640 samples that stay below what was once in use, and a few that do not."""
    rng = np.random.default_rng(4)
    mib = 20 + 10 * rng.random(8640)
    mib[[2000, 5000]] = 40, 45
    demand = Demand(np.arange(8640, dtype=np.int64) * 300 * 10**9, (mib * PAGES_PER_MIB).astype(np.int64))
    rig = Rig(
        "linux_no_driver",
        64,
        64,
        demand,
        hold_ns=-1 if hold_s < 0 else s_to_ns(hold_s),
        page_cache={"rate_mib_per_s": 0},
    )
    rig.run_to(60)
    acts = 0
    while rig.guest.next_ns <= s_to_ns(300 * 8640):
        rig.guest.run(rig.guest.next_ns)
        acts += 1
    assert acts < 80
