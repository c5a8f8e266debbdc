"""`podcluster bench placement`: how many machines a second find a host, through the index that runs use.

What        Best fit and first fit by need_memory fill 100, 1,000 and 10,000 empty hosts of 128 GiB with 14 machines
            each, in one batch; the clock runs from the batch to the list of answers, every commitment made. Medians
            over several repetitions after a warm-up, each on a new index made outside the clock.
Units       `_per_s` placements per second of wall time, by number of hosts; `_slowdown` processor time of a placement
            on 10,000 hosts over that on 100, medians: the one fill takes 30 ms, in which a busy machine does other
            things, the other 0.3 ms, in which it does not.
Machines    Uniform from 4 to 13 GiB in steps of 2 MiB, which fill 95 % of U; none is left over.
Beside      `best_fit_from_asks_per_s` has the making of the batch from its requests in the clock, and
            `best_fit_one_by_one_per_s` places without batches, as requests with groups or old views are; 10,000 hosts.
Check       Answers are those of the plain scan over views: all of them on 100 hosts, a sample on more.
"""

import statistics
import time
from collections.abc import Sequence
from typing import Any, Final, NamedTuple

from podcluster.bench.said import say
from podcluster.config import ControllerConfig, HostConfig
from podcluster.placement.batch import Batch, place_batch
from podcluster.placement.hosts import empty_hosts
from podcluster.placement.index import HostIndex
from podcluster.placement.policy import Policy, make_policy
from podcluster.records.hosts import Ask, Rejected
from podcluster.rng import stream
from podcluster.units import PAGES_PER_MIB, SUPERPAGE_PAGES, gib_to_pages

REPEAT = 9
HOSTS: Final = (100, 1000, 10_000)
HOST_GIB: Final = 128
MACHINES_PER_HOST: Final = 14
MACHINE_GIB: Final = (4, 13)
SAMPLES: Final = 12
"""Requests that are placed by plain scan, too, on more than 100 hosts."""
BOUNDS = {
    "best_fit_10000_per_s": (">=", 1e6),
    "first_fit_10000_per_s": (">=", 1e6),
    "best_fit_slowdown": ("<=", 2.0),
    "first_fit_slowdown": ("<=", 2.0),
}


def usable_pages() -> int:
    """U of a host with what Xen and dom0 take by default."""
    host = HostConfig()
    return (
        gib_to_pages(HOST_GIB)
        - (host.xen_mib_of(HOST_GIB) + host.dom0_mib_least(0, ControllerConfig())) * PAGES_PER_MIB
    )


def machines(hosts: int) -> list[Ask]:
    """The requests for so many hosts, the same in every run."""
    low, high = (gib_to_pages(gib) // SUPERPAGE_PAGES for gib in MACHINE_GIB)
    sizes = stream(1, "bench", "placement", hosts).integers(low, high, hosts * MACHINES_PER_HOST, endpoint=True)
    return [Ask(pages, pages, 0, i) for i, pages in enumerate((sizes * SUPERPAGE_PAGES).tolist())]


def new_index(hosts: int, policy: Policy) -> HostIndex:
    """Empty hosts, as a run begins."""
    return HostIndex(empty_hosts(hosts, usable_pages()), policy.rules, policy.search_kind)


class Filled(NamedTuple):
    """Answers to a batch, and the seconds it took, of wall and of processor time."""

    answers: list[int | Rejected]
    wall_s: float
    cpu_s: float


def fill(name: str, hosts: int, batch: Batch) -> Filled:
    """Place the batch on empty hosts."""
    policy = make_policy(name)
    index = new_index(hosts, policy)
    wall, cpu = time.perf_counter(), time.process_time()
    answers = place_batch(policy, batch, index)
    return Filled(answers, time.perf_counter() - wall, time.process_time() - cpu)


def equals_scan(name: str, hosts: int, asks: Sequence[Ask], answers: Sequence[int | Rejected]) -> int:
    """Hold answers against the policy's definition on views; how many were."""
    policy, reference = make_policy(name), make_policy(name)
    index = new_index(hosts, policy)
    step = 1 if hosts <= HOSTS[0] else len(asks) // SAMPLES
    for first in range(0, len(asks), step):
        expected = reference.place(asks[first], index.views())
        assert expected == answers[first], f"request {first} on {hosts} hosts: {answers[first]}, by scan {expected}"
        place_batch(policy, Batch.of(asks[first : first + step]), index)
    return len(range(0, len(asks), step))


def one_by_one(name: str, hosts: int, asks: Sequence[Ask]) -> float:
    """Seconds that the requests take without batches."""
    policy = make_policy(name)
    index = new_index(hosts, policy)
    started = time.perf_counter()
    for ask in asks:
        answer = policy.place_indexed(ask, index)
        assert not isinstance(answer, Rejected)
        index.place(answer, ask)
    return time.perf_counter() - started


def measure(repeat: int, *, quick: bool) -> dict[str, Any]:
    """All figures; `quick` leaves out those without batches."""
    figures: dict[str, Any] = {}
    spread: dict[str, dict[str, list[float]]] = {}
    checked = 0
    for name in ("best_fit", "first_fit"):
        key = f"{name}_per_s"
        figures[key], spread[key] = {}, {}
        each_s = []  # processor time of a placement, by number of hosts
        for hosts in HOSTS:
            say(f"placement: {name} on {hosts:,} hosts")
            asks = machines(hosts)
            batch = Batch.of(asks)
            answers = fill(name, hosts, batch).answers
            assert not any(isinstance(answer, Rejected) for answer in answers), f"{name}: {hosts} hosts are too few"
            checked += equals_scan(name, hosts, asks, answers)
            filled = [fill(name, hosts, batch) for _ in range(repeat)]
            rates = [len(asks) / one.wall_s for one in filled]
            each_s.append(statistics.median(one.cpu_s for one in filled) / len(asks))
            figures[key][str(hosts)] = statistics.median(rates)
            spread[key][str(hosts)] = [min(rates), max(rates)]
        figures[f"{name}_10000_per_s"] = figures[key]["10000"]
        figures[f"{name}_slowdown"] = each_s[-1] / each_s[0]
    asks = machines(HOSTS[-1])
    started = time.perf_counter()
    batch = Batch.of(asks)
    made_s = time.perf_counter() - started
    figures["best_fit_from_asks_per_s"] = len(asks) / (made_s + fill("best_fit", HOSTS[-1], batch).wall_s)
    if not quick:
        figures["best_fit_one_by_one_per_s"] = len(asks) / one_by_one("best_fit", HOSTS[-1], asks)
    return {**figures, "answers_checked": checked, "repeat": repeat, "spread": spread}
