"""`podcluster bench storm`: a data centre that boots all at once, page by page.

What        Hosts of 256 GiB, on each of which 40 machines of 6 GiB, promised 9, are built and boot at the same instant,
            and are followed until five minutes later: every class of guest that `conf/guest` has, drawn for each by
            weights. 10,000 hosts by default: 400,000 guests, for which five minutes are 0.75 s per thousand.
Engine      Hosts know nothing of each other here, for each is given its own 40 machines and nothing moves. So `WORKERS`
            processes take hosts a few at a time; of a host that is done its rows are counted and hashed, and its memory
            goes to the next. The clock runs from the first host handed out to the last counted, every process started
            and warm before it; machines are drawn inside it.
Units       `seconds` of wall time; pages of 4 KiB; `guest_ms` processor time of all workers per guest, in ms;
            `peak_rss_mib` the sum over all processes of the most that each ever had, what they share counted in each.
Curve       With `--curve` a hundredth and a tenth of the hosts are booted before, by the same processes, where that is
            `CURVE_FROM` or more; `curve_deviation` is the farthest that seconds per host lie from those of the fewest,
            as a share of these.
Audits      Off here (`host.check=off`): a run by default recounts one domain a host and epoch.
Check       `rows_sha256` is of every row of domains, hosts and events in order of host, whoever computed it. And one
            host with a machine of each class boots once more with every access and every hypercall a page at a time:
            the digest of its rows is that of the fast path.
"""

from __future__ import annotations

import hashlib
import os
import time
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from typing import Any, Final

from podcluster.bench.page_loop import make_page_loop_host
from podcluster.bench.processes import peak_rss_mib, warm
from podcluster.bench.said import say
from podcluster.cluster.pool import HostPlan, MakeHost, let_go_of_host, make_host
from podcluster.config import Config
from podcluster.records.commands import Close, Command, StartDomain
from podcluster.records.hosts import HostSpec
from podcluster.records.machines import MachineRequest
from podcluster.records.reports import HostReport
from podcluster.units import SUPERPAGE_PAGES, gib_to_pages, s_to_ns
from podcluster.workloads import one
from podcluster.workloads.classes import ClassOf, always, class_of

REPEAT = 1
HOSTS: Final = 10_000
QUICK_DIVISOR: Final = 100
HOST_GIB: Final = 256
GUESTS_PER_HOST: Final = 40
MEMORY_MIB: Final = 6144
OVERCOMMIT: Final = 1.5
DURATION_S: Final = 300
WEIGHTS: Final = {
    "linux": 43,
    "linux_old": 15,
    "linux_hardened": 10,
    "linux_no_driver": 5,
    "windows": 18,
    "windows_old": 5,
    "windows_no_driver": 1,
    "installer": 2,
    "scrubber": 1,
}
"""Those of `guest=mix`, with something for the classes that it leaves out."""
WORKERS: Final = 2
HOSTS_PER_TASK: Final = 2
CURVE_FROM: Final = 100  # fewer hosts leave a process idle at the end for too much of the time
BOUNDS = {
    "seconds_per_1000_guests": ("<=", 0.75),
    "peak_rss_mib": ("<=", 4096.0),
    "curve_deviation": ("<=", 0.2),
}


def configure() -> Config:
    """The configuration that each host and its machines follow."""
    from podcluster.cli import compose

    weights = ",".join(f"{name}:{weight}" for name, weight in WEIGHTS.items())
    return compose(
        [
            "cluster.hosts=1",
            f"cluster.host_mem_gib={HOST_GIB}",
            "guest=mix",
            f"guest.weights={{{weights}}}",
            "workload=alike",
            f"workload.machines={GUESTS_PER_HOST}",
            f"workload.memory_mib={MEMORY_MIB}",
            f"workload.maxmem_mib={int(MEMORY_MIB * OVERCOMMIT)}",
            "workload.boot_spread_s=0",
            f"study.duration_s={DURATION_S}",
            "study.telemetry_s=0",
            "engine=inline",
            "host.check=off",
        ]
    )


@dataclass(frozen=True, slots=True)
class Tally:
    """What is kept of hosts that are done: `sha256` of the rows of each by host_id; `cpu_s` of the process that
    computed them, which that was, and the most memory that it ever had.
    """

    fates: Counter[str]
    pages_populated: int
    sha256: dict[int, bytes]
    cpu_s: float
    pid: int
    peak_rss_mib: float


class Storm:
    """What a process needs to boot any of the hosts."""

    def __init__(self, config: Config) -> None:
        self._spec = HostSpec(0, gib_to_pages(HOST_GIB), config.usable_pages, config.cluster.host_cpus)
        self._plan = HostPlan(config.host, config.guests, config.seed, s_to_ns(DURATION_S), config.controller)
        self._guests: ClassOf = class_of(config.guest, config.classes, config.seed, 0)
        self._machines = {
            name: one.requests(config.workload, always(guest), OVERCOMMIT).requests[0]
            for name, guest in config.classes.items()
        }

    def machines(self, host_id: int) -> list[MachineRequest]:
        """The machines of one host."""
        first = host_id * GUESTS_PER_HOST
        return [
            self._named(self._machines[self._guests(domain_id).os_class], domain_id)
            for domain_id in range(first, first + GUESTS_PER_HOST)
        ]

    def one_of_each(self) -> list[MachineRequest]:
        """A machine of each class."""
        return [self._named(machine, domain_id) for domain_id, machine in enumerate(self._machines.values())]

    def boot(self, host_id: int, machines: Sequence[MachineRequest], make: MakeHost = make_host) -> HostReport:
        """Boot these at once on a host of their own, and follow them to the end."""
        end_ns = self._plan.telemetry_ns
        commands: list[Command] = [StartDomain(1, machine) for machine in machines]
        host = make(replace(self._spec, host_id=host_id), self._plan)
        report = host.advance(end_ns, [*commands, Close(end_ns)])
        let_go_of_host(host)
        return report

    def tally(self, host_ids: Sequence[int]) -> Tally:
        """Boot these hosts one after another; what is kept of them."""
        began_s = time.process_time()
        fates: Counter[str] = Counter()
        pages, digests = 0, {}
        for host_id in host_ids:
            report = self.boot(host_id, self.machines(host_id))
            fates.update(row.fate for row in report.domains)
            pages += sum(row.populated_4k + row.populated_2m * SUPERPAGE_PAGES for row in report.domains)
            digests[host_id] = digest(report)
        return Tally(fates, pages, digests, time.process_time() - began_s, os.getpid(), peak_rss_mib())

    @staticmethod
    def _named(machine: MachineRequest, domain_id: int) -> MachineRequest:
        return replace(machine, domain_id=domain_id, name=f"storm{domain_id}")


def digest(report: HostReport) -> bytes:
    """SHA-256 of all rows that a host has reported."""
    return hashlib.sha256(repr((report.domains, report.events, report.host)).encode()).digest()


# -- processes ---------------------------------------------------------------------------------------------------------

_storm: Storm | None = None  # of a worker


def begin(config: Config) -> None:
    """Load the kernels of this process, a worker."""
    global _storm
    _storm = Storm(config)
    _storm.boot(0, _storm.one_of_each())


def _tally(host_ids: Sequence[int]) -> Tally:
    assert _storm is not None
    return _storm.tally(host_ids)


def boot_all(pool: ProcessPoolExecutor, hosts: int) -> dict[str, Any]:
    """Boot so many hosts; the figures."""
    started = time.perf_counter()
    fates: Counter[str] = Counter()
    pages, cpu_s = 0, 0.0
    digests: dict[int, bytes] = {}
    peaks: dict[int, float] = {}
    tasks = [range(first, min(first + HOSTS_PER_TASK, hosts)) for first in range(0, hosts, HOSTS_PER_TASK)]
    for done in pool.map(_tally, tasks):
        fates += done.fates
        pages += done.pages_populated
        cpu_s += done.cpu_s
        digests |= done.sha256
        peaks[done.pid] = max(peaks.get(done.pid, 0.0), done.peak_rss_mib)
        say(f"storm: {len(digests):,} of {hosts:,} hosts booted")
    seconds = time.perf_counter() - started
    peaks[os.getpid()] = peak_rss_mib()
    guests = sum(fates.values())
    return {
        "seconds": seconds,
        "seconds_per_1000_guests": seconds / guests * 1000,
        "guests": guests,
        "pages_populated": pages,
        "peak_rss_mib": sum(peaks.values()),
        "crash_rate": fates["pod_oom"] / guests,
        "guest_ms": cpu_s / guests * 1000,
        "fates": dict(sorted(fates.items())),
        "rows_sha256": hashlib.sha256(b"".join(digests[host_id] for host_id in range(hosts))).hexdigest(),
    }


def equals_page_loop(config: Config) -> bool:
    """Whether a host with one machine of each class writes the same rows with every page on its own."""
    host = Storm(config)
    machines = host.one_of_each()
    return digest(host.boot(0, machines)) == digest(host.boot(0, machines, make_page_loop_host))


def measure(repeat: int, *, quick: bool, hosts: int | None = None, curve: bool = False) -> dict[str, Any]:
    """All figures, of the repetition whose time is the median; without `hosts` a `quick` one has a hundredth of all."""
    config = configure()
    hosts = hosts or (HOSTS // QUICK_DIVISOR if quick else HOSTS)
    started = time.perf_counter()
    before = [part for part in (hosts // 100, hosts // 10) if curve and part >= CURVE_FROM]
    figures: dict[str, Any] = {"hosts": hosts, "processes": WORKERS}
    with warm(WORKERS, begin, config) as pool:
        figures["start_s"] = time.perf_counter() - started
        curve_s: dict[str, float] = {}
        spread = []
        for size in (*before, hosts):
            runs = sorted((boot_all(pool, size) for _ in range(repeat)), key=lambda run: float(run["seconds"]))
            figures |= runs[(repeat - 1) // 2]
            curve_s[str(size)] = figures["seconds"]
            spread = [runs[0]["seconds"], runs[-1]["seconds"]]
    if curve:
        each_s = [seconds / int(size) for size, seconds in curve_s.items()]
        figures |= {"curve": curve_s, "curve_deviation": max(abs(one / each_s[0] - 1) for one in each_s)}
    figures["page_loop_equal"] = equals_page_loop(config)
    return {**figures, "repeat": repeat, "spread": {"seconds": spread}}
