"""HA planning (D7): packing, the choice of method, both methods on small pools, and both against plain search."""

from __future__ import annotations

from itertools import permutations, product

import pytest
from hypothesis import given
from hypothesis import strategies as st

from podcluster.placement import ha
from podcluster.placement.groups import FREE, Bar
from podcluster.placement.ha import Protected


def test_packing_is_largest_first_onto_the_roomiest() -> None:
    """D7.2: re-sorted after each, a VM that does not fit there is skipped, the rest go on."""
    assert ha.pack([4, 9, 5], {1: 10, 2: 8}) == [None, 1, 2]  # 9 -> 1 (1 left), 5 -> 2 (3 left), 4 fits nowhere
    assert ha.pack([4, 9, 3], {1: 10, 2: 8}) == [2, 1, 2]
    assert ha.pack([20, 1], {1: 10}) == [None, 1]
    assert ha.pack([1], {}) == [None]
    assert ha.pack([5, 5], {3: 5, 4: 5}) == [3, 4]


@pytest.mark.parametrize(
    ("hosts", "failures", "exhaustive"),
    [(8, 4, True), (16, 3, True), (32, 3, False), (32, 2, True), (33, 1, False), (59, 2, False), (15, 3, True)],
)
def test_the_choice_of_method(hosts: int, failures: int, exhaustive: bool) -> None:
    """D7.3: C(8,4) 4! = 1680 and C(16,3) 3! = 3360 sequences are tried, 29,760 are not; never with more than 32."""
    assert ha.is_exhaustive(hosts, failures) is exhaustive


def test_three_hosts_of_which_one_may_fail() -> None:
    """Two VMs of 6 on each of three hosts with room 12: any one may die, no two."""
    vms = [Protected(host, 6) for host in (1, 2, 3) for _ in range(2)]
    free = {1: 12, 2: 12, 3: 12}
    assert ha.plan_exists(free, vms, 1)
    assert not ha.plan_exists(free, vms, 2)
    assert ha.tolerable(free, vms) == 1
    assert not ha.plan_exists(free | {3: 5, 2: 5}, vms, 1)


def test_what_is_never_possible() -> None:
    """D7.4, D7.6: fewer hosts than failures, as many with anything to protect, or a pinned VM."""
    free = {1: 100, 2: 100}
    assert not ha.plan_exists(free, [], 3)
    assert ha.plan_exists(free, [], 2)
    assert not ha.plan_exists(free, [Protected(1, 1)], 2)
    assert ha.plan_exists(free, [Protected(1, 1)], 1)
    assert not ha.plan_exists(free, [Protected(1, 1, agile=False)], 1)
    assert ha.plan_exists(free, [Protected(1, 1, agile=False)], 0)


def test_the_bound_counts_slots_of_the_largest_vm() -> None:
    """D7.3: largest 4: slots 5, 2, 1 of 20, 11, 7 free; the roomiest dies; its 3 slots must take the fullest host."""
    free = {1: 20, 2: 11, 3: 7}
    vms = [Protected(2, 4), *[Protected(2, 1)] * 2, Protected(1, 1)]
    assert ha.survives_bound(free, vms, 1)
    assert not ha.survives_bound(free, [*vms, Protected(2, 1)], 1)
    assert not ha.survives_bound(free, vms, 2)  # 1 slot left, 4 to move
    assert ha.survives_bound(free, [], 2)


def test_tolerable_failures_under_a_cluster_stack() -> None:
    """D7.5: below half of the hosts, whatever the plan says."""
    free = dict.fromkeys(range(8), 100)
    vms = [Protected(host, 1) for host in range(8)]
    assert ha.tolerable(free, vms) == 7
    assert ha.tolerable(free, vms, cluster_stack=True) == 3
    assert ha.tolerable({1: 0, 2: 0}, [Protected(1, 1), Protected(2, 1)]) == 0


def test_when_an_operation_is_refused() -> None:
    """D7.7: only where it turns a plan into none, and overcommit is not allowed."""
    asked = product((True, False), repeat=3)
    refused = [(b, a, o) for b, a, o in asked if ha.breaks_plan(b, a, allow_overcommit=o)]
    assert refused == [(True, False, False)]


def test_an_evacuation_packs_onto_the_others() -> None:
    """D7.8: never back onto the host that is emptied."""
    assert ha.evacuation(1, {1: 99, 2: 5, 3: 4}, [4, 5]) == [3, 2]
    assert ha.evacuation(1, {1: 99, 2: 5}, [4, 5]) == [None, 2]


pools = st.tuples(
    st.lists(st.integers(0, 12), min_size=2, max_size=4),
    st.lists(st.tuples(st.integers(0, 3), st.integers(1, 6)), max_size=6),
    st.integers(1, 3),
)


@given(pools)
def test_the_exhaustive_method_is_every_sequence(pool: tuple[list[int], list[tuple[int, int]], int]) -> None:
    """Against the sequences written out: kill one after another, pack what ran there, anything left over is no plan."""
    rooms, raw, failures = pool
    free = dict(enumerate(rooms))
    vms = [Protected(host % len(free), size) for host, size in raw]
    failures = min(failures, len(free) - 1)

    def survives(sequence: tuple[int, ...]) -> bool:
        left, where = dict(free), [[vm.host_id, vm.size] for vm in vms]
        for dead in sequence:
            del left[dead]
            moved = [vm for vm in where if vm[0] == dead]
            for vm, place in zip(moved, ha.pack([size for _, size in moved], left), strict=True):
                if place is None:
                    return False
                vm[0] = place
                left[place] -= vm[1]
        return True

    expected = all(survives(sequence) for sequence in permutations(free, failures))
    assert ha.survives_all(free, vms, failures) == expected
    assert ha.plan_exists(free, vms, failures) == expected


@given(pools)
def test_the_bound_is_on_the_safe_side(pool: tuple[list[int], list[tuple[int, int]], int]) -> None:
    """One failure: where the approximate method promises a plan, the exhaustive one finds it."""
    rooms, raw, _ = pool
    free = dict(enumerate(rooms))
    vms = [Protected(host % len(free), size) for host, size in raw]
    if ha.survives_bound(free, vms, 1):
        assert ha.survives_all(free, vms, 1)


def test_barred_hosts_are_left_out_before_one_is_chosen() -> None:
    """[PLACE-8] the roomiest of the others; two that are to be apart do not meet in one plan."""
    free = {1: 10, 2: 9, 3: 8}
    assert ha.pack([2, 2], free, [Bar(frozenset({1})), FREE]) == [2, 1]
    assert ha.pack([4, 3, 2], free, [Bar(frozenset({1}), "db"), Bar(frozenset({1}), "db"), FREE]) == [2, 3, 1]
    assert ha.pack([2, 2], free, [Bar(frozenset({1, 2, 3})), FREE]) == [None, 1]
    assert ha.evacuation(1, free, [2, 2], [Bar(frozenset({2}), "db"), Bar(frozenset(), "db")]) == [3, 2]
