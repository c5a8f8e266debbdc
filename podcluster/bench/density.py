"""`podcluster bench density`: how many hosts a GiB of memory holds that are not in flight.

What        Hosts of 128 GiB with 5 guests of 6 GiB, promised 9: every class of guest that `conf/guest` has, drawn for
            each as `bench storm` does. They boot together and are followed for five minutes, in one shard of this
            process that has memory for no host out of its turn: so all are packed, and nothing is in a file.
Units       `_bytes`, `_mib` and `_gib` of this computer's memory: the proportional set sizes of this process and of all
            that it has started, so whatever the run holds counts, its interpreter and kernels included.
Figures     `hosts_per_gib` is hosts over all memory, the fixed cost (`fixed_mib`: of the same process before its first
            host) included, and so grows with the number of hosts; `hosts_in_one_gib` is how many hosts there would be
            if all memory were one GiB. `marginal_bytes` is what one more host takes, from half of the hosts to all of
            them; `packed_bytes` the mean size of what is kept of one.
Clock       `host_ms` is wall time a host, from its building to its packed bytes; loading kernels, counting memory after
            the last host, and the check are outside it.
Check       `SAMPLE` hosts, evenly taken, are unpacked and live on for five minutes; the digest of all that they report
            is that of hosts that were never packed, from their boot on.
"""

from __future__ import annotations

import gc
import hashlib
import os
import statistics
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

from podcluster.bench import storm
from podcluster.bench.said import say
from podcluster.cluster.pool import PACKING, HostPlan, HostShard
from podcluster.cluster.processes import PROC, descendants
from podcluster.errors import ConfigError
from podcluster.records.commands import Close, StartDomain
from podcluster.records.hosts import HostSpec
from podcluster.records.reports import HostReport
from podcluster.units import gib_to_pages, s_to_ns

REPEAT = 1
HOSTS: Final = 10_000  # the largest cluster that podcluster is for
QUICK_DIVISOR: Final = 20
HOSTS_AT_ONCE: Final = 100  # of the commands that are there at a time
HOST_GIB: Final = 128
GUESTS_PER_HOST: Final = 5
BOOTED_S: Final = 300
END_S: Final = 600
SAMPLE: Final = 20
GIB: Final = 1024**3
MIB: Final = 1024**2
BOUNDS = {"hosts_per_gib": (">=", 2000.0), "hosts_in_one_gib": (">=", 15_000.0)}


class Density:
    """Hosts and what they are told."""

    def __init__(self) -> None:
        config = storm.configure()
        self._storm = storm.Storm(config)
        self._spec = HostSpec(0, gib_to_pages(HOST_GIB), config.usable_pages_of(HOST_GIB), config.cluster.host_cpus)
        self.plan = HostPlan(config.host, config.guests, config.seed, s_to_ns(BOOTED_S), config.controller)

    def spec(self, host_id: int) -> HostSpec:
        """One of the hosts."""
        return replace(self._spec, host_id=host_id)

    def commands(self, host_id: int) -> list[StartDomain]:
        """Its guests start."""
        return [StartDomain(1, machine) for machine in self._storm.machines(host_id)[:GUESTS_PER_HOST]]

    def shard(self, room_bytes: int | None) -> HostShard:
        """A shard without hosts yet, and with so much memory for hosts that are not packed."""
        return HostShard(self.plan, packing=PACKING._replace(room_bytes=room_bytes))

    def boot(self, host_ids: Sequence[int], room_bytes: int | None) -> tuple[HostShard, list[HostReport]]:
        """Boot hosts in a shard of their own."""
        shard = self.shard(room_bytes)
        shard.add([self.spec(host_id) for host_id in host_ids])
        commands = {host_id: self.commands(host_id) for host_id in host_ids}
        return shard, shard.advance(s_to_ns(BOOTED_S), commands)


def digest(reports: Sequence[HostReport]) -> str:
    """SHA-256 of all that hosts have reported."""
    return hashlib.sha256("\n".join(map(repr, reports)).encode()).hexdigest()


def ends(shard: HostShard) -> list[HostReport]:
    """What hosts report that live on."""
    end_ns = s_to_ns(END_S)
    return shard.advance(end_ns, {host_id: [Close(end_ns)] for host_id in shard.host_ids})


def lives_as_never_packed(density: Density, host_id: int, report: str, packed: bytes) -> bool:
    """Whether a host that was packed has reported, and reports, what it does when it is never packed."""
    never, first = density.boot([host_id], None)
    again = density.shard(None)
    again.add([density.spec(host_id)], {host_id: packed})
    return digest(first) == report and digest(ends(again)) == digest(ends(never))


def held_bytes() -> int:
    """Memory of this process and of all that it has started, what several share counted in parts."""
    gc.collect()
    return sum(_pss_bytes(PROC / str(pid) / "smaps_rollup") for pid in (os.getpid(), *descendants(os.getpid())))


def _pss_bytes(rollup: Path) -> int:
    line = next(line for line in rollup.read_text().splitlines() if line.startswith("Pss:"))
    return int(line.split()[1]) * 1024


def measure(repeat: int, *, quick: bool, hosts: int | None = None) -> dict[str, Any]:
    """All figures, of the repetition whose `hosts_per_gib` is the median."""
    hosts = hosts or (HOSTS // QUICK_DIVISOR if quick else HOSTS)
    runs = sorted((_once(hosts) for _ in range(repeat)), key=lambda figures: float(figures["hosts_per_gib"]))
    spread = {"hosts_per_gib": [runs[0]["hosts_per_gib"], runs[-1]["hosts_per_gib"]]}
    return {**runs[(repeat - 1) // 2], "repeat": repeat, "spread": spread}


def _once(hosts: int) -> dict[str, Any]:
    density = Density()
    density.boot([hosts], 0)  # load the kernels
    fixed = held_bytes()
    started = time.perf_counter()
    shards: list[HostShard] = []
    reported: dict[int, str] = {}
    sample = range(0, hosts, max(1, hosts // SAMPLE))
    middle = half = 0
    for first in range(0, hosts, HOSTS_AT_ONCE):
        host_ids = range(first, min(first + HOSTS_AT_ONCE, hosts))
        shard, reports = density.boot(host_ids, 0)
        shards.append(shard)
        reported |= {host_id: digest([reports[host_id - first]]) for host_id in sample if host_id in host_ids}
        del reports
        if not half and host_ids.stop >= hosts // 2:
            middle, half = held_bytes(), host_ids.stop
        say(f"density: {host_ids.stop:,} of {hosts:,} hosts booted and packed")
    seconds = time.perf_counter() - started
    held = held_bytes()
    marginal = (held - middle) / (hosts - half) if hosts > half else (held - fixed) / hosts
    if marginal <= 0:
        raise ConfigError(
            f"podcluster bench density: --hosts must be enough for memory to grow, got {hosts}: try {HOSTS}"
        )
    packed = {host_id: shards[host_id // HOSTS_AT_ONCE].pack([host_id])[host_id] for host_id in sample}
    equal = sum(lives_as_never_packed(density, host_id, reported[host_id], packed[host_id]) for host_id in sample)
    return {
        "hosts": hosts,
        "guests": hosts * GUESTS_PER_HOST,
        "hosts_per_gib": hosts / (held / GIB),
        "hosts_in_one_gib": (GIB - fixed) / marginal,
        "marginal_bytes": marginal,
        "packed_bytes": statistics.fmean(map(len, packed.values())),
        "fixed_mib": fixed / MIB,
        "held_mib": held / MIB,
        "residents": sum(len(shard.residents) for shard in shards),
        "host_ms": seconds / hosts * 1000,
        "checked": len(sample),
        "checked_equal": equal,
    }
