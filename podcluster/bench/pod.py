"""`podcluster bench pod`: how fast and how small the page kernels are, through the interface that the simulator uses.

What        Medians over several repetitions after a warm-up; every repetition builds its guest anew outside the
            clock.
Units       As the keys say: `_per_s` operations or pages per second, `_s` seconds, `bytes_per_gib` bytes per GiB of
            maxmem.
Source      The cases are the ones that the hypervisor's own code and a prototype were measured with.
"""

import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from typing import Any

import numpy as np

from podcluster.bench.said import say
from podcluster.host.machine import Machine
from podcluster.host.written import DATA, ZERO
from podcluster.units import PAGES_PER_GIB, SUPERPAGE_PAGES

REPEAT = 15
BATCH_PAGES = 512
"""Pages in a hypercall of Linux's balloon driver."""
BOUNDS = {
    "populate_2m_per_s": (">=", 50e6),
    "touch_4k_random_per_s": (">=", 60e6),
    "scrub_boot_s": ("<=", 0.001),
    "sweep_pages_per_s": (">=", 2e9),
    "bytes_per_gib_intact": ("<=", 65_536),
    "bytes_per_gib_split": ("<=", 2_097_152),
    "compile_s": ("<=", 40),
    "start_s": ("<=", 2),
}
"""What each figure is to keep; printed beside it, judged by the reader."""


def _promised(maxmem_gib: int, target_gib: int, *, small: bool = False) -> Machine:
    """A host with one guest, built and not yet run, all of whose memory is promised in 2 MiB (or 4 KiB) entries."""
    maxmem, target = maxmem_gib * PAGES_PER_GIB, target_gib * PAGES_PER_GIB
    machine = Machine(target + PAGES_PER_GIB)
    machine.create(1, maxmem_pages=maxmem, max_pages=maxmem, sp_1g=False, sp_2m=not small)
    machine.set_pod_target(1, target)
    machine.mark_pod_extents(1, [(0, maxmem // SUPERPAGE_PAGES, 9)])
    return machine


def _seconds(action: Callable[[], object]) -> float:
    started = time.perf_counter()
    action()
    return time.perf_counter() - started


def populate_2m() -> float:
    """Case (a): demand-populate 4,096 entries of 2 MiB by range; populates per second."""
    machine = _promised(8, 8)
    pages = 8 * PAGES_PER_GIB
    seconds = _seconds(lambda: machine.touch_range(1, 0, pages, content=DATA))
    done = machine.counters(1).populated_2m
    assert done == 4096, f"{done} populates"
    return done / seconds


def touch_4k_random() -> float:
    """Case (b): first touch of 262,144 entries of 4 KiB in random order, by list; touches per second."""
    machine = _promised(1, 1, small=True)
    order = np.random.default_rng(1).permutation(PAGES_PER_GIB)
    seconds = _seconds(lambda: machine.touch_list(1, order, content=DATA))
    done = machine.counters(1).populated_4k
    assert done == PAGES_PER_GIB, f"{done} populates"
    return done / seconds


def scrub_boot() -> float:
    """Case (c): zeroes over 4 GiB with a target of 1 GiB, ascending, by range; seconds."""
    machine = _promised(4, 1)
    pages = 4 * PAGES_PER_GIB
    seconds = _seconds(lambda: machine.touch_range(1, 0, pages, content=ZERO))
    assert not machine.crashed(1)
    return seconds


def sweep() -> float:
    """Sweeps over 4 GiB of 4 KiB RAM entries, one page in 100,000 zero, until the bottom; pages looked at per second.

    Each sweep is set off as in life: by a touch of a promised page with the cache empty. The page that a sweep finds
    backs the page that set it off.
    """
    ram = 4 * PAGES_PER_GIB
    machine = Machine(ram + PAGES_PER_GIB)
    machine.create(1, maxmem_pages=ram + PAGES_PER_GIB, max_pages=ram, sp_1g=False, sp_2m=False)
    machine.set_pod_target(1, ram)
    machine.mark_pod_extents(1, [(0, (ram + PAGES_PER_GIB) // SUPERPAGE_PAGES, 9)])
    machine.touch_range(1, 0, ram, content=DATA)
    zeroes = np.random.default_rng(2).choice(ram, ram // 100_000, replace=False)
    machine.touch_list(1, zeroes, content=ZERO)
    # The recent list would find the latest pages first: what is touched here is dirty, and rolls it over.
    assert machine.counters(1).cache_count == 0
    touched = np.arange(ram, ram + len(zeroes) + 1, dtype=np.int64)
    seconds = _seconds(lambda: machine.touch_list(1, touched, content=DATA))
    found = machine.counters(1)
    assert found.crashed and found.reclaimed_4k == len(zeroes), found
    return ram / seconds


def _balloon_and_back() -> tuple[float, float]:
    """A guest of 4 GiB, all of it RAM in 2 MiB entries and dirty, gives everything to the host in hypercalls of
    `BATCH_PAGES`, from the top down, and takes it back; seconds of either.
    """
    pages = 4 * PAGES_PER_GIB
    machine = Machine(pages + PAGES_PER_GIB)
    machine.create(1, maxmem_pages=pages, max_pages=pages)
    machine.populate_seq(1, 0, pages // SUPERPAGE_PAGES, 9, 1)
    machine.touch_range(1, 0, pages, content=DATA)
    batches = range(pages - BATCH_PAGES, -1, -BATCH_PAGES)
    out = _seconds(lambda: [machine.balloon_range(1, first, BATCH_PAGES, descending=True) for first in batches])
    assert machine.tot_pages(1) == 0
    back = _seconds(lambda: [machine.populate_range(1, first, BATCH_PAGES, descending=True) for first in batches])
    assert machine.tot_pages(1) == pages
    return out, back


def balloon_ram() -> float:
    """Ballooning out of RAM that no promise stands beside; pages per second."""
    return 4 * PAGES_PER_GIB / _balloon_and_back()[0]


def deflate() -> float:
    """Taking real pages back where the balloon was; pages per second."""
    return 4 * PAGES_PER_GIB / _balloon_and_back()[1]


def bytes_per_gib() -> tuple[float, float]:
    """Bytes of a domain's arrays per GiB of maxmem: intact and half dirty; splintered out of order."""
    intact = _promised(4, 4)
    intact.touch_range(1, 0, 4 * PAGES_PER_GIB, content=DATA)
    # Half of every block zero again: contents that differ within a block cost their row.
    for block in range(4 * PAGES_PER_GIB // SUPERPAGE_PAGES):
        intact.touch_range(1, block * SUPERPAGE_PAGES, SUPERPAGE_PAGES // 2, content=ZERO)
    assert intact.entry_map(1)[1] == 4 * PAGES_PER_GIB // SUPERPAGE_PAGES
    split = _promised(1, 1, small=True)
    split.touch_list(1, np.random.default_rng(3).permutation(PAGES_PER_GIB), content=DATA)
    assert split.entry_map(1)[0] == PAGES_PER_GIB
    return intact.memory_bytes() / 4, float(split.memory_bytes())


def compile_seconds() -> float:
    """Seconds that compiling all kernels takes from a cold cache, in a process of its own."""
    with tempfile.TemporaryDirectory() as folder:
        env = {**os.environ, "PODCLUSTER_KERNEL_CACHE": folder}
        code = "from podcluster.host.kernel import compile_all; print(compile_all())"
        done = subprocess.run([sys.executable, "-c", code], env=env, check=True, capture_output=True, text=True)
    return float(done.stdout.split()[-1])


def start_seconds() -> float:
    """Seconds of `podcluster workload=one` as a whole process with a warm cache (a fresh run folder each time)."""
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "podcluster", "workload=one", "guest=linux"]
        command += ["workload.memory_mib=256", "workload.maxmem_mib=512", f"hydra.run.dir={folder}/run"]
        return _seconds(lambda: subprocess.run(command, check=True, capture_output=True))


def measure(repeat: int, *, quick: bool) -> dict[str, Any]:
    """All figures of the pod benchmark; `quick` leaves out compilation and start-up."""
    figures: dict[str, Any] = {}
    spread: dict[str, list[float]] = {}
    cases = {
        "populate_2m_per_s": populate_2m,
        "touch_4k_random_per_s": touch_4k_random,
        "scrub_boot_s": scrub_boot,
        "sweep_pages_per_s": sweep,
        "balloon_ram_pages_per_s": balloon_ram,
        "deflate_pages_per_s": deflate,
    }
    for key, case in cases.items():
        say(f"pod: {key}")
        case()
        measured = [case() for _ in range(repeat)]
        figures[key] = statistics.median(measured)
        spread[key] = [min(measured), max(measured)]
    figures["bytes_per_gib_intact"], figures["bytes_per_gib_split"] = bytes_per_gib()
    if not quick:
        say("pod: compile_s")
        figures["compile_s"] = compile_seconds()
        measured = [start_seconds() for _ in range(min(repeat, 5))]
        figures["start_s"] = statistics.median(measured)
        spread["start_s"] = [min(measured), max(measured)]
    return {**figures, "repeat": repeat, "spread": spread}
