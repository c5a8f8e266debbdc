"""Machines that come and go, of traces and of the family: rules kept, draws named, shares nested, storms whole."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from podcluster.config import Config
from podcluster.errors import ConfigError, InvariantError
from podcluster.io.traces import read_machines
from podcluster.records.machines import LifeTable, Workload
from podcluster.units import NS_PER_S, PAGES_PER_GIB
from podcluster.workloads import churn, requests, synthetic

MakeConfig = Callable[..., Config]
HOUR = 3600


def table(machines: int = 200, batch: int = 5) -> LifeTable:
    """Batches of five arrive every 300 s and live for about 1,500 s; the last batch does not leave."""
    number = np.arange(machines, dtype=np.int64)
    batches = number // batch
    arrival_s = batches * 300
    return LifeTable(
        source="a table",
        epoch_s=0,
        end_s=int(arrival_s[-1]) + 300,
        machine_id=number + 1000,
        batch=batches,
        vcpus=np.full(machines, 2, dtype=np.int64),
        maxmem_kib=np.full(machines, 2 * 1024 * 1024 - 1, dtype=np.int64),
        arrival_s=arrival_s,
        least_life_s=np.full(machines, 1350, dtype=np.int64),
        most_life_s=np.full(machines, 1650, dtype=np.int64),
        leaves=batches < batches[-1],
    )


def make(
    config: Config, duration_s: int, lives: LifeTable | None = None, replication: int = 0, replications: int = 1
) -> Workload:
    """Requests of a configuration."""
    return requests(
        config.workload, config.guest, config.overcommit, lives, config.seed, duration_s,
        usable_pages=120 * PAGES_PER_GIB, replication=replication, replications=replications,
    )  # fmt: skip


@pytest.fixture
def trace(make_config: MakeConfig) -> Config:
    """The whole table."""
    return make_config("workload=azure_v1", "workload.path=somewhere", "workload.share=1", "overcommit=2")


@pytest.fixture
def family(make_config: MakeConfig) -> Config:
    """500 machines a day."""
    return make_config("workload=churn", "workload.arrivals_per_day=500", "overcommit=2")


def check_rules(made: Workload, duration_s: int) -> None:
    """[WL-1] [WL-2] [WL-4] of every machine."""
    assert [one.arrival_ns for one in made.requests] == sorted(one.arrival_ns for one in made.requests)
    assert len({one.domain_id for one in made.requests}) == len(made.requests)
    for one in made.requests:
        assert 0 <= one.arrival_ns <= duration_s * NS_PER_S
        assert one.departure_ns is None or one.departure_ns > one.arrival_ns
        assert one.memory_pages <= one.maxmem_pages <= 120 * PAGES_PER_GIB
        assert one.demand.t_ns[0] == 0 and (np.diff(one.demand.t_ns) > 0).all()
        last_ns = duration_s * NS_PER_S if one.departure_ns is None else min(one.departure_ns, duration_s * NS_PER_S)
        assert one.demand.t_ns[-1] >= last_ns
        assert 0 <= one.demand.pages.min() <= one.demand.pages.max() <= one.maxmem_pages


def test_a_trace_is_followed_arrival_by_arrival(trace: Config) -> None:
    """Sizes rounded up to MiB; each request at one instant within its reading; lives within what is known of them."""
    made = make(trace, 4 * HOUR, table())
    check_rules(made, 4 * HOUR)
    assert len(made.requests) == 200
    for one in made.requests:
        assert one.maxmem_pages == 2 * PAGES_PER_GIB
        reading_ns = one.domain_id // 5 * 300 * NS_PER_S
        assert reading_ns <= one.arrival_ns < reading_ns + 300 * NS_PER_S
        if one.domain_id < 195:
            assert one.departure_ns is not None
            assert 1350 <= (one.departure_ns - one.arrival_ns) / NS_PER_S <= 1650
        else:
            assert one.departure_ns is None
    instants = Counter(one.arrival_ns for one in made.requests)
    assert set(instants.values()) == {5} and len(instants) == 40
    assert made.conditional_on == "a table"


def test_a_spread_of_nothing_is_a_storm(trace: Config) -> None:
    """workload.boot_spread_s=0: whole requests at the instants that the trace has."""
    trace.workload.boot_spread_s = 0
    made = make(trace, 4 * HOUR, table())
    assert {one.arrival_ns for one in made.requests} == {reading * 300 * NS_PER_S for reading in range(40)}


def test_machines_that_live_when_the_window_begins_boot_at_its_start(trace: Config) -> None:
    """From 3,000 s on: who came before 1,350 s has left, who came after 1,650 s is there, boots within the spread."""
    trace.workload.start_s = 3000
    made = make(trace, HOUR, table())
    check_rules(made, HOUR)
    before = [one for one in made.requests if one.domain_id // 5 * 300 < 3000]
    assert {one.domain_id for one in before} <= set(range(20, 50))
    assert {one.domain_id for one in before} >= set(range(30, 50))
    assert all(one.arrival_ns < 300 * NS_PER_S for one in before)
    assert any("were there before" in note for note in made.notes)


def test_a_smaller_share_is_some_of_the_same_requests(trace: Config) -> None:
    """[WL-3] nested, whole requests, about as many as asked for, each machine as it was."""
    found = {}
    for share in (1.0, 0.5, 0.25):
        trace.workload.share = share
        found[share] = {one.domain_id: one for one in make(trace, 24 * HOUR, table(5000)).requests}
    assert set(found[0.25]) < set(found[0.5]) < set(found[1.0])
    assert set(Counter(number // 5 for number in found[0.25]).values()) == {5}
    requests_there = len(found[1.0]) / 5
    assert abs(len(found[0.25]) / len(found[1.0]) - 0.25) < 4 * (0.25 * 0.75 / requests_there) ** 0.5
    for number, one in found[0.25].items():
        other = found[1.0][number]
        assert (one.arrival_ns, one.departure_ns) == (other.arrival_ns, other.departure_ns)


def test_replications_draw_other_requests_and_days(trace: Config) -> None:
    """machines_days: another share of the requests on another day; resample=none leaves all as they are."""
    trace.workload.share = 0.5
    first, second = (make(trace, HOUR, table(5000), replication, 2) for replication in (0, 1))
    assert first.resample == second.resample == "machines_days"
    assert {one.domain_id for one in first.requests} != {one.domain_id for one in second.requests}
    trace.workload.resample = "none"
    first, second = (make(trace, HOUR, table(5000), replication, 2) for replication in (0, 1))
    assert {one.domain_id for one in first.requests} == {one.domain_id for one in second.requests}


def test_mistakes_about_a_trace(trace: Config) -> None:
    """No table, a window behind the trace, no machine that is large enough: each one line."""
    with pytest.raises(InvariantError, match=r"\[WL-0\]"):
        make(trace, HOUR)
    trace.workload.min_maxmem_mib = 4096
    with pytest.raises(ConfigError, match=r"^workload must ask for some machine within the run, got none in 3600 s: "):
        make(trace, HOUR, table())
    trace.workload.start_s = 10**6
    with pytest.raises(ConfigError, match=r"^workload.start_s must be below the 12000 s that a table lasts"):
        make(trace, HOUR, table())


def test_the_family_keeps_the_rules(family: Config) -> None:
    """Some were there before, many leave, some stay; no size that the fit has not."""
    made = make(family, 24 * HOUR)
    check_rules(made, 24 * HOUR)
    sizes = {flavour.maxmem_mib * 256 for tenant in churn.FITTED.tenants for flavour in tenant.flavours}
    assert {one.maxmem_pages for one in made.requests} <= sizes
    assert any("were there before" in note for note in made.notes)
    gone = sum(one.departure_ns is not None and one.departure_ns < 24 * HOUR * NS_PER_S for one in made.requests)
    assert 0 < gone < len(made.requests)


def test_a_longer_run_of_the_family_begins_with_the_shorter(family: Config) -> None:
    """[WL-3] the first day of two days, arrival by arrival; another seed is other machines."""
    short, long = (make(family, days * 24 * HOUR).requests for days in (1, 2))
    first = {one.domain_id: one for one in long if one.arrival_ns <= 24 * HOUR * NS_PER_S}
    assert {one.domain_id for one in short} == set(first)
    for one in short:
        other = first[one.domain_id]
        assert (one.arrival_ns, one.departure_ns, one.name) == (other.arrival_ns, other.departure_ns, other.name)
        shared = min(len(one.demand.pages), len(other.demand.pages)) - 1
        assert one.demand.pages[:shared].tolist() == other.demand.pages[:shared].tolist()
    family.seed = 2
    assert [one.arrival_ns for one in make(family, 24 * HOUR).requests] != [one.arrival_ns for one in short]


def test_as_many_come_as_asked_for(family: Config) -> None:
    """Machines a day over 30 days, against the mean asked for: 4 standard errors, days being independent."""
    family.workload.arrivals_per_day = 2000
    lives = list(churn.arrivals_of(family.workload, 3, 0, 30 * 24 * HOUR))
    per_day = Counter(one.arrival_ns // (24 * HOUR * NS_PER_S) for one in lives if one.arrival_ns >= 0)
    counts = np.array([per_day[day] for day in range(30)])
    assert abs(counts.mean() - 2000) <= 4 * counts.std(ddof=1) / 30**0.5


@pytest.mark.parametrize("tenant", churn.FITTED.tenants, ids=lambda tenant: str(tenant.most))
def test_the_day_swells_as_the_fit_says(tenant: churn.Tenant) -> None:
    """Mean of exp(i hour) of instants is swell/2 at the peak's hour: 100,000 instants, 4 standard errors."""
    hours = churn.instants(np.random.default_rng(1).random(100_000), tenant) / 3600
    wave = np.exp(2j * np.pi * (hours - tenant.swell_peak_h) / 24).mean()
    assert abs(wave - tenant.swell / 2) < 4 * (0.5 / 100_000) ** 0.5


def test_classes_come_at_hours_of_their_own(family: Config) -> None:
    """Of 20 days: requests in each class's busier half of the day, against 1/2 + swell/pi; 4 standard errors."""
    family.workload.arrivals_per_day = 10_000
    lives = list(churn.arrivals_of(family.workload, 4, 0, 20 * 24 * HOUR))
    instants, sizes = np.unique([one.arrival_ns for one in lives if one.arrival_ns >= 0], return_counts=True)
    hours = instants / NS_PER_S / HOUR % 24
    least = 0
    for tenant in churn.FITTED.tenants[:3]:
        of_class = (sizes > least) & (sizes <= tenant.most)
        share = float((np.cos((hours[of_class] - tenant.swell_peak_h) * np.pi / 12) > 0).mean())
        assert abs(share - (0.5 + tenant.swell / np.pi)) < 4 * (0.25 / of_class.sum()) ** 0.5
        least = tenant.most


def test_lives_are_longer_for_who_comes_at_the_hour_of_the_fit() -> None:
    """The odds of each age, 20,000 machines at the best hour and at the worst, are exp(2 longer) apart: 4 standard
    errors of their logarithm; whatever the hour, nobody is younger than the first age or older than the last.
    """
    count, longest_s = 20_000, churn.FITTED.longest_h * 3600
    for tenant in churn.FITTED.tenants:
        draws = np.random.default_rng(5)
        best, worst = (
            np.concatenate([churn.lives_of(draws, 1, tenant, churn.log_odds(at_s)) for _ in range(count)])
            for at_s in (longest_s, longest_s + 12 * HOUR)
        )
        for age in churn.AGES_S[2:9]:
            shares = [float((ages > age).mean()) for ages in (best, worst)]
            odds = [share / (1 - share) for share in shares]
            error = sum(1 / (count * share * (1 - share)) for share in shares) ** 0.5
            assert abs(np.log(odds[0] / odds[1]) - 2 * churn.FITTED.longer) < 4 * error
        assert churn.AGES_S[0] <= min(best.min(), worst.min()) and max(best.max(), worst.max()) <= churn.AGES_S[-1]


def test_requests_and_lives_have_the_shares_of_the_fit() -> None:
    """S at each knot, of machines per request and of ages: 4 standard errors of a share of 20,000."""
    draws, count = np.random.default_rng(2), 20_000
    sizes = churn.request_sizes(draws.random(count))
    for n, share in churn.FITTED.sizes[:-1]:
        assert abs((sizes >= n).mean() - share) <= 4 * (share * (1 - share) / count) ** 0.5
    for tenant in churn.FITTED.tenants:
        ages = np.concatenate([churn.lives_of(draws, 1, tenant) for _ in range(count)])
        for age, share in zip(churn.AGES_S, tenant.ages, strict=True):
            assert abs((ages > age).mean() - share) <= 4 * (share * (1 - share) / count) ** 0.5 + 1e-12


def test_machines_of_one_request_often_live_alike() -> None:
    """As often as the fit says: 4,000 requests of two machines, 4 standard errors."""
    tenant, draws = churn.FITTED.tenants[1], np.random.default_rng(3)
    same = np.mean([len(set(churn.lives_of(draws, 2, tenant).tolist())) == 1 for _ in range(4000)])
    assert abs(same - tenant.alike) <= 4 * (tenant.alike * (1 - tenant.alike) / 4000) ** 0.5


@pytest.mark.parametrize("maxmem_mib", [64, 768, 1792, 14_336, 57_344, 700_000])
def test_a_machine_of_a_size_has_a_kind_that_has_such_sizes(maxmem_mib: int) -> None:
    """Within a factor of two, or the nearest; its use is of that size and its own."""
    machine = synthetic.machine_of(1, ("a", maxmem_mib), maxmem_mib, 3, 1)
    assert (machine.maxmem_mib, machine.vcpus) == (maxmem_mib, 3)
    nearest = min(abs(np.log2(size.maxmem_mib / maxmem_mib)) for size in machine.kind.sizes)
    every = min(abs(np.log2(size.maxmem_mib / maxmem_mib)) for kind in synthetic.FITTED.kinds for size in kind.sizes)
    assert nearest <= max(1, every)


def test_the_real_traces_become_machines(make_config: MakeConfig, shared_dir: Path) -> None:
    """A share of Azure V1 and openb's pods, as shipped but for their folders: rules kept."""
    for family, folder in (("azure_v1", "azure_v1_arrivals"), ("alibaba_pods", "alibaba_openb_pods")):
        config = make_config(f"workload={family}", f"workload.path={shared_dir / 'traces' / folder}")
        lives = read_machines(config.workload)
        assert isinstance(lives, LifeTable)
        made = make(config, 6 * HOUR, lives)
        check_rules(made, 6 * HOUR)
        assert len(made.requests) > 10
