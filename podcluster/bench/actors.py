"""What two actors make of two cores: the part of `bench trace` that runs on Ray.

What        `two_actor_share`: by how much two actors are faster than one, as a share of by how much two processes that
            each simulate the whole of it alone do more than one of them does. What the machine itself does not give
            two processes (shared caches, other people's work) is in both: they are measured in turns.
Units       Seconds of wall time; medians. Outside the clock: starting Ray, actors and processes, loading their kernels,
            drawing the demand, and building the hosts of actors.
"""

from __future__ import annotations

import statistics
import time
from concurrent.futures import ProcessPoolExecutor
from typing import Any, Final

from podcluster.bench.month import Rows, draw, run_on, simulate
from podcluster.bench.processes import warm
from podcluster.bench.said import say
from podcluster.cluster.plan import Plan, make_plan
from podcluster.cluster.ray_pool import RayEngine
from podcluster.config import Config, EngineConfig
from podcluster.records.machines import Workload

ROUNDS: Final = 9  # at least: a quotient of four medians of a second each, on machines where others work as well

_case: tuple[Config, Plan, Workload] | None = None  # of a process that simulates alone


def begin(config: Config) -> None:
    """Draw the machines in this process, and load its kernels."""
    global _case
    workload, _ = draw(config)
    _case = config, make_plan(config, workload, config.seed), workload
    alone(0)


def alone(_: int) -> float:
    """Simulate the whole of it in this process; seconds."""
    assert _case is not None
    return simulate(*_case, Rows())


def together_s(pool: ProcessPoolExecutor, processes: int) -> float:
    """Seconds until so many processes have each simulated the whole of it."""
    started = time.perf_counter()
    list(pool.map(alone, range(processes)))
    return time.perf_counter() - started


def on_actors_s(engine: RayEngine, actors: int, config: Config, workload: Workload) -> float:
    """Seconds of one run on so many actors, all of which have started before."""
    plan = make_plan(config, workload, config.seed)
    pool = engine.pool(EngineConfig(kind="ray", actors=actors), plan.specs, plan.hosts)
    pool.advance(0, {})
    return run_on(pool, config, plan, workload, Rows())


def two_actor_share(config: Config, workload: Workload, repeat: int) -> dict[str, Any]:
    """`two_actor_share`, and the two speed-ups that it is made of, of `repeat` rounds or more."""
    alone_s: dict[int, list[float]] = {1: [], 2: []}  # by how many processes, ...
    actors_s: dict[int, list[float]] = {1: [], 2: []}  # ... and by how many actors
    engine = RayEngine("local")
    try:
        on_actors_s(engine, 2, config, workload)  # warm up
        with warm(2, begin, config) as pool:
            rounds = max(repeat, ROUNDS)
            for done in range(rounds):
                say(f"trace: {done} of {rounds} rounds on one actor and on two")
                for count in (1, 2):
                    alone_s[count].append(together_s(pool, count))
                    actors_s[count].append(on_actors_s(engine, count, config, workload))
    finally:
        engine.close()
    independent = 2 * statistics.median(alone_s[1]) / statistics.median(alone_s[2])
    actors = statistics.median(actors_s[1]) / statistics.median(actors_s[2])
    return {
        "two_actor_share": actors / independent,
        "two_actor_speedup": actors,
        "two_process_speedup": independent,
        "actor_seconds": {str(count): statistics.median(seconds) for count, seconds in actors_s.items()},
    }
