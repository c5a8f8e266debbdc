"""Processes that benchmarks compare with, and how much memory one has had.

What        `warm`, so many processes that have all begun before the first is given work; `peak_rss_mib`.
"""

from __future__ import annotations

import multiprocessing
import resource
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from functools import partial
from multiprocessing.synchronize import Barrier
from typing import Final

START_S: Final = 600
"""Most that a process may take to begin: it may have kernels to compile."""


@contextmanager
def warm(count: int, begin: Callable[..., None], *initial: object) -> Iterator[ProcessPoolExecutor]:
    """So many processes, in each of which `begin(*initial)` is over; a function of a module, since they import it."""
    context = multiprocessing.get_context("spawn")  # what a fork would share has no part in their memory
    with ProcessPoolExecutor(count, context, partial(_begin, context.Barrier(count), begin, *initial)) as pool:
        list(pool.map(abs, [0] * count))
        yield pool


def _begin(all_warm: Barrier, begin: Callable[..., None], *initial: object) -> None:
    begin(*initial)
    all_warm.wait(START_S)


def peak_rss_mib() -> float:
    """The most memory that this process ever had [MiB]."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (1024 if sys.platform != "darwin" else 1024**2)
