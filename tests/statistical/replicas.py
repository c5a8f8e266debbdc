"""Replicas of an experiment against what theory says, with an error bar."""

from collections.abc import Callable

import numpy as np

from podcluster.rng import stream

REPLICAS = 40


def check(name: str, experiment: Callable[[np.random.Generator], float], theory: float) -> None:
    """The mean over replicas is within four standard errors of `theory`; each replica has a stream of its own."""
    results = np.array([experiment(stream(20_09, "test", name, replica)) for replica in range(REPLICAS)])
    error = float(results.std(ddof=1)) / REPLICAS**0.5
    assert error > 0, f"{name}: replicas do not differ"
    assert abs(float(results.mean()) - theory) <= 4 * error, f"{name}: {results.mean()} +- {error}, theory {theory}"
