"""Placement policies: the definition on hand-made hosts, and the index against the definition on drawn ones."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from podcluster.config import COMPARES_ROOMS, PlacementConfig
from podcluster.config import POLICIES as NAMES
from podcluster.errors import ConfigError, InvariantError
from podcluster.placement.batch import Batch, place_batch
from podcluster.placement.groups import Groups, is_grouped
from podcluster.placement.groups import place as place_by_ranks
from podcluster.placement.groups import place_indexed as place_by_ranks_indexed
from podcluster.placement.hosts import HostCount, Stay, auto_host_count, empty_hosts, most_needed, unplaced
from podcluster.placement.index import HostIndex, Terms
from podcluster.placement.policy import POLICIES, Policy, make_policy
from podcluster.placement.rules import BY, Rules
from podcluster.records.hosts import NOWHERE, Ask, HostView, Rejected

PACKERS = ("best_fit", "first_fit")


def named(name: str, **keys: object) -> Policy:
    """The policy of this name with these keys of `placement`, vCPUs and memory limited where it needs that."""
    if name == "dot_product":
        keys = {"vcpu_ratio": 1000, **keys}
    if name not in COMPARES_ROOMS and keys.get("by", "dynamic_min") != "dynamic_min":
        keys = {**keys, "memory_ratio": keys.get("memory_ratio") or 1000}
    return make_policy(PlacementConfig(policy=name, **keys))  # type: ignore[arg-type]


def index_for(policy: Policy, views: list[HostView]) -> HostIndex:
    """What a run keeps for this policy."""
    return HostIndex(views, policy.rules, policy.search_kind)


def view(host_id: int, usable: int, committed: int, cpus: int = 8, **more: int) -> HostView:
    """A host of which only what placement reads matters."""
    return HostView(host_id, usable, committed, 0, 0, 0, 0, cpus=cpus, **more)


def asks(needs: list[int], maxmem: int | None = None) -> list[Ask]:
    """Requests of these needs, promised `maxmem` each or what they need."""
    return [Ask(need, maxmem or need, domain_id=i) for i, need in enumerate(needs)]


def to_stay(wanted: list[Ask]) -> list[Stay]:
    """All at once and to the end."""
    return [Stay(ask, 0, None) for ask in wanted]


def stays(needs: list[int], maxmem: int | None = None) -> list[Stay]:
    """Requests of these needs, all at once and to the end."""
    return to_stay(asks(needs, maxmem))


def test_each_packer_picks_what_its_name_says() -> None:
    """Hosts with 10, 30, 40 and 20 pages left; 15 go to the first that fits, the tightest, the roomiest."""
    views = [view(0, 100, 90), view(4, 100, 70), view(5, 100, 60), view(7, 100, 80)]
    assert named("first_fit").place(Ask(15, 50), views) == 4
    assert named("best_fit").place(Ask(15, 50), views) == 7
    assert named("worst_fit").place(Ask(15, 50), views) == 5
    next_fit = named("next_fit")
    assert [next_fit.place(Ask(need, 50), views) for need in (15, 35, 15, 25, 5, 15)] == [4, 5, 5, 5, 5, 5]
    assert next_fit.place(Ask(15, 50), [view(0, 100, 80), view(5, 100, 90)]) == 0  # round again


def test_equals_go_to_the_lowest_host() -> None:
    """Best and worst fit on hosts with the same room."""
    views = [view(2, 100, 50), view(3, 100, 50), view(9, 100, 50)]
    for name in ("best_fit", "worst_fit"):
        assert named(name).place(Ask(1, 1), views) == 2
        assert named(name).place_indexed(Ask(1, 1), index_for(named(name), views)) == 2


def test_random_fit_is_uniform_over_what_fits() -> None:
    """Of five hosts three fit: 3,000 domains, each share within four standard errors of a third."""
    views = [view(i, 100, 95 if i in (1, 4) else 10 * i) for i in range(5)]
    policy = named("random_fit")
    picks = [policy.place(Ask(20, 20, 0, domain_id), views) for domain_id in range(3000)]
    assert set(picks) == {0, 2, 3}
    for host_id in (0, 2, 3):
        assert abs(picks.count(host_id) / 3000 - 1 / 3) <= 4 * (2 / 9 / 3000) ** 0.5


def test_a_dot_product_takes_the_host_whose_rest_has_the_shape_of_the_request() -> None:
    """A request of memory goes where memory is left, one of vCPUs where those are."""
    memory, vcpus = view(0, 100, 10, 8, vcpus=7), view(1, 100, 85, 8, vcpus=0)
    policy = named("dot_product", vcpu_ratio=1)
    # Shares 0.15 and 0.125 are asked: 0.15 x 0.9 + 0.125 x 0.125 = 0.151 there, 0.15 x 0.15 + 0.125 = 0.148 here.
    assert policy.place(Ask(15, 15, vcpus=1), [memory, vcpus]) == 0
    assert policy.place(Ask(1, 1, vcpus=1), [memory, vcpus]) == 1
    # A ratio that leaves a host no vCPU at all leaves it machines without any.
    assert named("dot_product", vcpu_ratio=0.1).place(Ask(1, 1), [view(0, 100, 10)]) == 0
    with pytest.raises(InvariantError, match="PLACE-3"):
        POLICIES["dot_product"](PlacementConfig(policy="first_fit"), Rules(), 0)


def test_a_chance_constraint_counts_the_variance_of_all() -> None:
    """[PLACE-6] by hand: U 10,000 pages, means 5,000 + 2,000, variances 3 + 1 MiB^2 with z: 7,000 + z x 2 x 256."""
    host = view(0, 10_000, 100, mean_pages=5000, var_mib2=3)
    ask = Ask(10, 10, 0, 0, mean_pages=2000, var_mib2=1)
    limit = 3000 / 512
    assert named("chance_constrained", z=limit - 1e-6).place(ask, [host]) == 0
    assert isinstance(named("chance_constrained", z=limit + 1e-6).place(ask, [host]), Rejected)
    # Of those that bear it, the tightest; overheads are no room for demand.
    tight = view(1, 10_000, 100, mean_pages=5000, var_mib2=3, overhead_pages=1)
    assert named("chance_constrained", z=1).place(ask, [host, tight]) == 1


def test_a_rejection_for_its_demand_says_so() -> None:
    """[PLACE-6] is named with the request's numbers where its memory would fit, by definition, index and batch, in a
    group and beside ratios; and not where its memory does not fit.
    """
    host = view(0, 256_000, 25_600, mean_pages=128_000, var_mib2=9)
    ask = Ask(2560, 256_000, mean_pages=128_000, var_mib2=16)
    words = (
        "needs 10 MiB; the host with most has 900 MiB uncommitted, but with the demand there its own (mean 500 MiB, "
        "sd 4 MiB) is beyond each host with room at mean + 2.5 sd [PLACE-6]"
    )
    policy = named("chance_constrained", z=2.5)
    index, grouped = index_for(policy, [host]), replace(ask, anti_affinity="a")
    assert policy.place(ask, [host]) == policy.place_indexed(ask, index) == Rejected(words)
    assert place_batch(policy, Batch.of([ask]), index) == [Rejected(words)]
    assert place_by_ranks(policy, grouped, [host], Groups()) == Rejected(words)
    assert place_by_ranks_indexed(policy, grouped, index, Groups()) == Rejected(words)
    limited = named("chance_constrained", z=2.5, vcpu_ratio=1).place(ask, [host])
    assert limited == Rejected(f"{words}, or not the vCPUs or the room that its ratios allow")
    large = replace(ask, need_pages=256_000)
    assert policy.place(large, [host]) == Rejected("needs 1000 MiB; the host with most has 900 MiB uncommitted")


def test_lifetimes_are_kept_together() -> None:
    """What leaves by 50 joins a host that stays until 60, not the tighter one that empties at 20, nor an empty one."""
    views = [view(0, 100, 0), view(1, 100, 60, leaves_ns=20), view(2, 100, 10, leaves_ns=60)]
    ask = Ask(10, 10, arrival_ns=5, leaves_ns=50)
    policy = POLICIES["lifetime_aware"](PlacementConfig(policy="lifetime_aware", lifetime_bucket_s=1), Rules(), 0)
    in_ns = make_policy(PlacementConfig(policy="lifetime_aware"))
    in_ns.terms = Terms(bucket_ns=1)
    assert in_ns.place(ask, views) == 2
    assert in_ns.place(replace(ask, leaves_ns=70), views) == 2  # 10 longer than there, 50 than on host 1
    # One second tells nothing apart here: an empty host costs a bucket, so does host 1, and host 2 nothing.
    assert policy.place(ask, views) == 2
    assert policy.place(replace(ask, leaves_ns=70), views) == 1


@pytest.mark.parametrize("name", NAMES)
def test_the_last_page_may_be_committed_and_not_one_more(name: str) -> None:
    """[PLACE-1] at and past the edge."""
    views = [view(3, 100, 90)]
    assert named(name).place(Ask(10, 100), views) == 3
    rejected = named(name).place(Ask(11, 100), views)
    assert isinstance(rejected, Rejected)
    assert rejected.cause == "no_host"


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("by", BY)
def test_whatever_is_placed_by_need_memory_stays_within_the_host(name: str, by: str) -> None:
    """[PLACE-1]: a host that is empty by every other measure and has no need_memory left is not taken."""
    full = view(3, 1000, 995)
    assert isinstance(named(name, by=by).place(Ask(6, 6), [full]), Rejected)
    assert isinstance(named(name, by=by).place_indexed(Ask(6, 6), index_for(named(name, by=by), [full])), Rejected)


@pytest.mark.parametrize("name", NAMES)
def test_ratios_are_kept_to_the_unit(name: str) -> None:
    """[PLACE-3] 1.5 vCPUs per CPU of 8 are 12; [PLACE-4] 1.25 of maxmem are 125 of 100 pages."""
    host = view(0, 100, 10, 8, vcpus=10)
    assert named(name, vcpu_ratio=1.5).place(Ask(5, 5, vcpus=2), [host]) == 0
    assert isinstance(named(name, vcpu_ratio=1.5).place(Ask(5, 5, vcpus=3), [host]), Rejected)
    promised = replace(host, promised_pages=100)
    assert named(name, by="maxmem", memory_ratio=1.25).place(Ask(5, 25), [promised]) == 0
    assert isinstance(named(name, by="maxmem", memory_ratio=1.25).place(Ask(5, 26), [promised]), Rejected)
    assert named(name, by="maxmem", memory_ratio=1000).place(Ask(5, 26), [promised]) == 0


def test_what_a_request_counts_for() -> None:
    """Each measure by hand, of a request and of a host, in the units of the measure."""
    ask = Ask(need_pages=50, maxmem_pages=80, overhead_pages=10, mean_pages=30)
    host = HostView(0, 1000, 500, 800, 0, 0, 0, overhead_pages=100, target_pages=420, demanded_pages=300)
    sizes = {by: Rules(by, maxmem_percent=25).size(ask) for by in BY}
    assert sizes == {"dynamic_min": 50, "target": 50, "maxmem": 90, "blend": 25 * 90 + 75 * 50, "demand": 40}
    loads = {by: Rules(by, maxmem_percent=25).load(host) for by in BY}
    assert loads == {"dynamic_min": 500, "target": 520, "maxmem": 900, "blend": 25 * 900 + 75 * 500, "demand": 400}
    assert Rules("blend", memory_ratio=Fraction("0.3")).capacity(1000) == 30_000


def test_policies_differ_by_what_they_place_by() -> None:
    """The tightest by need is the roomiest by maxmem."""
    views = [replace(view(0, 100, 60), promised_pages=60), replace(view(1, 100, 40), promised_pages=90)]
    assert named("best_fit").place(Ask(5, 10), views) == 0
    assert named("best_fit", by="maxmem").place(Ask(5, 10), views) == 1


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("by", sorted(set(BY) - {"dynamic_min"}))
def test_each_policy_places_by_each_measure(name: str, by: str) -> None:
    """Host 0 has less committed than host 1 and more of all else: by that tighter, and too full at a ratio of 0.9. The
    hosts that 40 domains are given differ, and a policy that compares no rooms is refused without a ratio.
    """
    views = [
        replace(view(host_id, 100, committed), promised_pages=other, target_pages=other, demanded_pages=other)
        for host_id, committed, other in ((0, 40, 80), (1, 50, 50))
    ]
    wanted = [Ask(11, 20, 0, domain_id, mean_pages=11) for domain_id in range(40)]
    ratio = None if name in COMPARES_ROOMS else 0.9
    keys = {"maxmem_percent": 90, "vcpu_ratio": 1, "memory_ratio": ratio}
    policies = named(name, **keys), named(name, by=by, **keys)
    found = [{policy.place(ask, views) for ask in wanted} for policy in policies]
    assert found == [{policy.place_indexed(ask, index_for(policy, views)) for ask in wanted} for policy in policies]
    draws = name in ("random_fit", "xapi")
    tightest = name in ("best_fit", "lifetime_aware")
    assert found == ([{0, 1}, {1}] if draws else [{1}, {0}] if tightest else [{0}, {1}])
    if ratio is not None:
        with pytest.raises(ConfigError, match=f"memory_ratio must be given with placement.by={by} and {name}"):
            PlacementConfig(policy=name, by=by)


@pytest.mark.parametrize("name", NAMES)
def test_no_guest_is_promised_more_than_its_host(name: str) -> None:
    """[PLACE-2]: a small need does not help a maxmem above U; a larger host takes it."""
    small, large = view(0, 100, 0), view(1, 200, 150)
    rejected = named(name).place(Ask(5, 101), [small])
    assert isinstance(rejected, Rejected)
    assert rejected.cause == "too_large"
    assert named(name).place(Ask(5, 101), [small, large]) == 1
    assert named(name).place_indexed(Ask(5, 101), index_for(named(name), [small, large])) == 1


@pytest.mark.parametrize("name", NAMES)
def test_no_hosts_at_all_is_a_rejection(name: str) -> None:
    """An empty cluster answers, in words."""
    assert isinstance(named(name).place(Ask(1, 1), []), Rejected)
    assert isinstance(named(name).place_indexed(Ask(1, 1), index_for(named(name), [])), Rejected)
    (answer,) = place_batch(named(name), Batch.of(asks([1])), index_for(named(name), []))
    assert isinstance(answer, Rejected)


def test_an_unknown_policy_lists_the_known_ones() -> None:
    """One line with key, value and remedy; the names of the configuration are those of the policies."""
    with pytest.raises(ConfigError, match=r"placement\.policy must be one of first_fit, next_fit, .*, got worst:"):
        PlacementConfig(policy="worst")
    assert tuple(POLICIES) == NAMES


# -- the index against the definition ----------------------------------------------------------------------------------

GROUPS = ("", "", "", "a", "b")
hosts_drawn = st.lists(st.tuples(st.integers(1, 60), st.integers(0, 60), st.integers(1, 6)), min_size=1, max_size=9)
asks_drawn = st.lists(
    st.builds(
        Ask,
        need_pages=st.integers(0, 30),
        maxmem_pages=st.integers(1, 70),
        overhead_pages=st.integers(0, 3),
        domain_id=st.integers(0, 99),
        vcpus=st.integers(0, 4),
        mean_pages=st.integers(0, 40),
        var_mib2=st.integers(0, 3),
        arrival_ns=st.integers(0, 50),
        leaves_ns=st.integers(0, 100),
        affinity=st.sampled_from(GROUPS),
        anti_affinity=st.sampled_from(GROUPS),
        preferred_host=st.integers(NOWHERE, 5),
    ),
    max_size=40,
)
rules_drawn = st.fixed_dictionaries(
    {
        "by": st.sampled_from(BY),
        "maxmem_percent": st.integers(0, 100),
        "memory_ratio": st.sampled_from([None, 0.8, 1.5]),
        "vcpu_ratio": st.sampled_from([None, 0.5, 2]),
        "lifetime_bucket_s": st.just(1),
    }
)


def drawn_views(hosts: list[tuple[int, int, int]]) -> list[HostView]:
    return [view(2 * i + 1, u, min(c, u), cpus, target_pages=c // 2) for i, (u, c, cpus) in enumerate(hosts)]


def made(name: str, rules: dict[str, object]) -> Callable[[], Policy]:
    """Two of a policy see the same; dot products need a ratio."""
    if name == "dot_product" and rules["vcpu_ratio"] is None:
        rules = {**rules, "vcpu_ratio": 3}
    return lambda: named(name, **rules)


@given(name=st.sampled_from(NAMES), hosts=hosts_drawn, requests=asks_drawn, rules=rules_drawn, data=st.data())
def test_the_index_chooses_as_the_definition_does(
    name: str, hosts: list[tuple[int, int, int]], requests: list[Ask], rules: dict[str, object], data: st.DataObject
) -> None:
    """Hosts of mixed sizes under placements, departures, newer views and closed hosts: same answer, rules kept."""
    make = made(name, rules)
    by_definition, by_index = make(), make()
    index = index_for(by_index, drawn_views(hosts))
    groups = Groups(strict=data.draw(st.booleans()))
    placed: list[tuple[int, Ask]] = []
    for ask in requests:
        step = data.draw(st.sampled_from(["go", "go", "leave", "observe", "close", "open"]))
        host_id = data.draw(st.sampled_from(index.host_ids))
        if step == "leave" and placed:
            gone_from, gone = placed.pop(len(placed) // 2)
            index.leave(gone_from, gone)
            groups.leave(gone_from, gone)
        elif step == "observe":
            known = index.view(index.position(host_id))
            index.observe(replace(known, target_pages=known.target_pages + 3, demanded_pages=17))
        elif step == "close":
            index.close(host_id)
        elif step == "open":
            index.open(host_id)
        views = index.views()
        expected = place_by_ranks(by_definition, ask, views, groups)
        answer = place_by_ranks_indexed(by_index, ask, index, groups)
        if isinstance(expected, Rejected):
            assert isinstance(answer, Rejected) and answer.cause in (expected.cause, "no_host")
            assert name != "xapi" or is_grouped(ask) or answer == expected
            continue
        assert answer == expected
        assert Rules.fits(by_index.rules, ask, next(one for one in views if one.host_id == answer))
        index.place(expected, ask)
        groups.enter(expected, ask)
        placed.append((expected, ask))
    index.audit()
    for one in index.views():
        here = [ask for host_id, ask in placed if host_id == one.host_id]
        assert one.vcpus == sum(ask.vcpus for ask in here)
        assert one.var_mib2 == sum(ask.var_mib2 for ask in here)
        assert one.leaves_ns == max((ask.leaves_ns for ask in here), default=0)
        assert one.committed_pages <= one.usable_pages


@given(name=st.sampled_from(NAMES), hosts=hosts_drawn, requests=asks_drawn, rules=rules_drawn)
def test_a_batch_is_its_requests_one_by_one(
    name: str, hosts: list[tuple[int, int, int]], requests: list[Ask], rules: dict[str, object]
) -> None:
    """Same answers, rejections with the same words, and the same views afterwards; cut in two batches as well."""
    make = made(name, rules)
    requests = [replace(ask, affinity="", anti_affinity="", preferred_host=NOWHERE) for ask in requests]
    views = drawn_views(hosts)
    single = make()
    index = index_for(single, views)
    expected = []
    for ask in requests:
        answer = single.place_indexed(ask, index)
        expected.append(answer)
        if not isinstance(answer, Rejected):
            index.place(answer, ask)
    for cut in (len(requests), len(requests) // 2):
        policy = make()
        other = index_for(policy, views)
        batch = Batch.of(requests)
        answers = place_batch(policy, batch[:cut], other) + place_batch(policy, batch[cut:], other)
        assert answers == expected
        assert other.views() == index.views()
        other.audit()


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("ratio", [None, 1.2])
def test_many_hosts_through_fill_and_drain(name: str, ratio: float | None) -> None:
    """700 hosts, so that blocks split and join: 6,000 placements and departures, the plain scan for every 25th."""
    make = made(name, {"vcpu_ratio": ratio})
    policy, reference = make(), make()
    index = index_for(policy, empty_hosts(700, 4000, 7, cpus=32))
    placed: list[tuple[int, Ask]] = []
    for k in range(6000):
        # A fixed walk: fill, drain, fill; sizes and who leaves are hashes of the step.
        if placed and (k // 1500) % 2 and k % 3:
            host_id, gone = placed.pop(k * 7919 % len(placed))
            index.leave(host_id, gone)
            continue
        need, mean = 200 + k * 104_729 % 1500, 100 + k * 7841 % 700
        ask = Ask(
            need,
            2000,
            3,
            k,
            vcpus=1 + k % 5,
            mean_pages=mean,
            var_mib2=k % 4,
            arrival_ns=k,
            leaves_ns=k + k * 677 % 9000,
        )
        reference.cursor = policy.cursor
        answer = policy.place_indexed(ask, index)
        if k % 25 == 0:
            assert answer == reference.place(ask, index.views())
        if k % 100 == 0:
            index.audit()
        if not isinstance(answer, Rejected):
            index.place(answer, ask)
            placed.append((answer, ask))
    assert len({host_id for host_id, _ in placed}) > 300


def test_the_index_refuses_what_no_host_can_hold() -> None:
    """Committing past U, or giving back more than was taken, is our mistake and stops the run."""
    index = HostIndex(empty_hosts(2, 10))
    index.commit(1, 10)
    with pytest.raises(InvariantError, match="PLACE-1"):
        index.commit(1, 1)
    with pytest.raises(InvariantError, match="PLACE-1"):
        index.release(0, 1)
    with pytest.raises(InvariantError, match="PLACE-0"):
        HostIndex([view(1, 1, 0), view(1, 1, 0)])


def test_a_damaged_index_does_not_go_unnoticed() -> None:
    """Every word of the structures that is in use, one after the other: changed, and the audit stops the run."""
    for name in ("first_fit", "best_fit"):
        policy = named(name)
        index = index_for(policy, [view(i, 100, i * 7 % 60) for i in range(70)])
        index.audit()
        host, tree, block, directory, dims = index._state
        in_use = [(host, k) for k in range(len(host))] + [(tree, k) for k in range(dims, len(tree))]
        if len(block):
            in_use += [(block, k) for k in (0, 1, 66, 67, 130, 131, 196)] + [(directory, k) for k in (0, 2, 3)]
        for array, k in in_use:
            array[k] += 1
            with pytest.raises((InvariantError, IndexError)):
                index.audit()
            array[k] -= 1
        index.audit()


# -- groups ------------------------------------------------------------------------------------------------------------


def test_members_are_spread_or_kept_together() -> None:
    """D6.4 on three hosts: fewest members first; affinity to where members are while there is room."""
    groups, policy = Groups(), named("first_fit")
    views = [view(0, 100, 0), view(1, 100, 0), view(2, 100, 95)]
    apart = Ask(10, 10, anti_affinity="db")
    for expected in (0, 1, 0, 1):  # host 2 has no room
        answer = place_by_ranks(policy, apart, views, groups)
        assert answer == expected
        groups.enter(expected, apart)
    together = Ask(5, 5, affinity="web")
    groups.enter(2, together)
    assert place_by_ranks(policy, together, views, groups) == 2
    assert place_by_ranks(policy, replace(together, need_pages=6), views, groups) == 0


def test_strict_groups_reject_rather_than_mix() -> None:
    """Both hosts have a member, or the one with members is full."""
    groups, policy = Groups(strict=True), named("first_fit")
    views = [view(0, 100, 0), view(1, 100, 95)]
    apart, together = Ask(10, 10, anti_affinity="db"), Ask(10, 10, affinity="web")
    groups.enter(0, apart)
    rejected = place_by_ranks(policy, apart, views, groups)
    assert isinstance(rejected, Rejected)
    assert rejected.reason.endswith("uncommitted, or its strict group forbids it the hosts with room")
    groups.enter(1, together)
    assert isinstance(place_by_ranks(policy, together, views, groups), Rejected)
    groups.leave(0, apart)
    assert place_by_ranks(policy, apart, views, groups) == 0
    assert is_grouped(apart) and not is_grouped(Ask(1, 1))
    with pytest.raises(InvariantError, match="PLACE-7"):
        groups.leave(0, apart)


# -- how many hosts ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", PACKERS)
def test_auto_takes_the_least_number_when_it_fits(name: str) -> None:
    """Six halves fit three hosts to the page; nothing at all still gets a host."""
    policy = named(name)
    assert auto_host_count(stays([50] * 6, 60), 100, policy) == HostCount(3, 0)
    assert auto_host_count([], 100, policy) == HostCount(1, 0)


def test_auto_counts_vcpus_where_a_ratio_limits_them() -> None:
    """Ten machines of 4 vCPUs on hosts of 8 CPUs: by memory one host, at two vCPUs per CPU three."""
    machines = [Ask(1, 1, domain_id=i, vcpus=4) for i in range(10)]
    assert auto_host_count(to_stay(machines), 100, named("first_fit"), cpus=8) == HostCount(1, 0)
    assert auto_host_count(to_stay(machines), 100, named("first_fit", vcpu_ratio=2), cpus=8) == HostCount(3, 0)


@pytest.mark.parametrize(
    "large", [Ask(91, 91, vcpus=1), Ask(10**15, 50, vcpus=1), Ask(5, 101, vcpus=1), Ask(5, 5, vcpus=17)]
)
def test_auto_does_not_count_who_fits_no_host(large: Ask) -> None:
    """Four of 45 fit two hosts of 100 with 10 kept free; one that is too large, in what it needs, is promised or has of
    vCPUs, is left over and takes no host.
    """
    machines = [*asks([45] * 4), *(replace(large, domain_id=i) for i in range(4, 7))]
    policy = named("first_fit", vcpu_ratio=2)
    assert auto_host_count(to_stay(machines), 100, policy, 10, cpus=8) == HostCount(2, 3)
    assert auto_host_count(to_stay([large]), 100, policy, 10, cpus=8) == HostCount(1, 1)
    assert auto_host_count(to_stay([large]), 100, policy, 100, cpus=8) == HostCount(1, 1)


def test_auto_keeps_groups_apart() -> None:
    """Three members on two hosts by memory: one is left over where groups are strict (10 % more is one host more)."""
    machines = [Ask(40, 40, domain_id=i, anti_affinity="db") for i in range(4)]
    assert auto_host_count(to_stay(machines), 100, named("first_fit")) == HostCount(2, 0)
    assert auto_host_count(to_stay(machines), 100, named("first_fit"), strict=True) == HostCount(3, 1)


@pytest.mark.parametrize("name", NAMES)
def test_auto_counts_who_is_there_at_one_instant(name: str) -> None:
    """Ten of 60 pages, each gone when the next comes, want one host; two at a time want two, and on one of two hosts
    every second one is left over.
    """
    policy = named(name)
    one_by_one = [Stay(ask, 10 * i, 10 * (i + 1)) for i, ask in enumerate(asks([60] * 10))]
    assert most_needed(one_by_one) == 60
    assert auto_host_count(one_by_one, 100, policy, cpus=8) == HostCount(1, 0)
    two = [Stay(ask, 10 * i, 10 * (i + 2)) for i, ask in enumerate(asks([60] * 10))]
    assert most_needed(two) == 120
    assert auto_host_count(two, 100, policy, cpus=8) == HostCount(2, 0)
    assert unplaced(two, 1, 100, policy, cpus=8) == 5


@given(
    name=st.sampled_from(NAMES),
    drawn=st.lists(st.tuples(st.integers(1, 60), st.integers(0, 5), st.none() | st.integers(1, 40)), max_size=40),
    grouped=st.booleans(),
)
def test_those_left_over_are_those_of_one_at_a_time(
    name: str, drawn: list[tuple[int, int, int | None]], grouped: bool
) -> None:
    """Arrivals and departures drawn, in batches between departures, against each on its own with plain scans."""
    arrival_ns, machines = 0, []
    for k, (need, gap, life) in enumerate(drawn):
        arrival_ns += gap
        departure_ns = None if life is None else arrival_ns + life
        ask = Ask(
            need, need, 0, k, vcpus=1, leaves_ns=departure_ns or 99, anti_affinity="x" if grouped and k % 3 else ""
        )
        machines.append(Stay(ask, arrival_ns, departure_ns))
    policy, groups, left_over = named(name), Groups(), 0
    here: list[tuple[int, int, Ask]] = []
    index = HostIndex(empty_hosts(3, 100, 2, cpus=8), policy.rules)
    for stay in machines:
        for gone in [one for one in here if one[0] <= stay.arrival_ns]:
            here.remove(gone)
            index.leave(gone[1], gone[2])
            groups.leave(gone[1], gone[2])
        answer = place_by_ranks(policy, stay.ask, index.views(), groups)
        if isinstance(answer, Rejected):
            left_over += 1
            continue
        index.place(answer, stay.ask)
        groups.enter(answer, stay.ask)
        if stay.departure_ns is not None:
            here.append((stay.departure_ns, answer, stay.ask))
    assert unplaced(machines, 3, 100, named(name), 2, cpus=8) == left_over


@pytest.mark.parametrize("name", PACKERS)
def test_auto_adds_one_host_at_a_time(name: str) -> None:
    """Fifteen of 60 pages want nine hosts by their sum, ten by 10 % more, fifteen in truth: the rest is left over."""
    policy = named(name)
    assert auto_host_count(stays([60] * 15), 100, policy) == HostCount(10, 5)
    # 20 x 51 and 20 x 46 pages: 1,940 pages are 20 hosts of 100 by their sum, and 51 + 46 fit one host.
    assert auto_host_count(stays([51, 46] * 20, 51), 100, policy) == HostCount(20, 0)
    # The same in another order (small ones paired first) leaves ten hosts to find for the large: past the 10 %.
    needs = [46] * 20 + [51] * 20
    count = auto_host_count(stays(needs, 51), 100, policy)
    assert count == HostCount(22, 8)
    assert unplaced(stays(needs, 51), 30, 100, policy) == 0


@given(needs=st.lists(st.integers(1, 100), min_size=1, max_size=60), name=st.sampled_from(NAMES))
def test_auto_never_takes_fewer_than_the_sum_nor_more_than_ten_percent(needs: list[int], name: str) -> None:
    """The stated bounds for any list of domains, and the count left over is the one the policy leaves."""
    policy = named(name)
    least = -(-sum(needs) // 100)
    count = auto_host_count(stays(needs), 100, policy, cpus=8)
    assert least <= count.hosts <= least + -(-least // 10)
    assert unplaced(stays(needs), count.hosts, 100, policy, cpus=8) == count.unplaced
