"""Machines: as a workload asks for them, and as traces tell of them.

What        `MachineRequest` and `Workload`, what a run is asked to start; `MachineTable` (sizes and use) and
            `LifeTable` (comings and goings), what a workload is made from.
Units       Of requests pages of 4 KiB and ns of simulated time; of tables KiB and seconds, as traces have them.
Symbols     M maxmem_pages   T memory_pages (the target)
Invariants  Requests of a workload are in order of arrival. Rows of a table are one machine each, in columns of one
            length, `offsets` and what it points to aside.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from podcluster.records.demand import Demand
from podcluster.records.fates import Origin
from podcluster.records.values import Int64Array, Sent


@dataclass(frozen=True, slots=True, eq=False)
class MachineRequest(Sent):
    """One machine the workload wants started: sizes in pages, times in ns of simulated time.

    `memory_pages` is the target it starts with (dynamic_min), at most `maxmem_pages`; `departure_ns` None means it
    stays to the end of the run. `attempt` counts boots of the same domain from 1, and its stays on other hosts;
    `origin` says how it came to this one. `hold_ns` is how long memory stays held after its last use, -1 for as long
    as the guest lives.
    """

    domain_id: int
    attempt: int
    name: str
    os_class: str
    vcpus: int
    maxmem_pages: int
    memory_pages: int
    arrival_ns: int
    departure_ns: int | None
    demand: Demand
    hold_ns: int = -1
    origin: Origin = "boot"


@dataclass(frozen=True, slots=True, eq=False)
class Workload:
    """The machines of one run in order of arrival, with what was left out of the source and why.

    `resample` is the scheme actually used (`none`, `machines`, `machines_days`); `conditional_on` names the data that
    every number of this run is conditional on, or is empty where the machines are drawn.
    """

    requests: tuple[MachineRequest, ...]
    notes: tuple[str, ...] = ()
    left_out: Mapping[str, int] = field(default_factory=dict)
    resample: str = "none"
    conditional_on: str = ""


@dataclass(frozen=True, slots=True, eq=False)
class MachineTable:
    """Machines and their memory use as read from a trace: columns of numpy, no file format in sight.

    Machine i has `machine_id[i]`, `vcpus[i]`, `maxmem_kib[i]` (as recorded) and the samples
    `offsets[i]:offsets[i + 1]` of `t_s` (seconds from `epoch_s`, strictly increasing within a machine) and `used_kib`
    (0 <= used <= maxmem). `source` names the trace in notes and figures; `notes` say in one line each what was clamped,
    filled or dropped on the way in.
    """

    source: str
    epoch_s: int
    end_s: int
    machine_id: Int64Array
    vcpus: Int64Array
    maxmem_kib: Int64Array
    offsets: Int64Array
    t_s: Int64Array
    used_kib: Int64Array
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, eq=False)
class LifeTable:
    """Machines that come and go, as read from a trace that says nothing of what memory they use.

    Machine i arrives `arrival_s[i]` seconds from `epoch_s`, in order, together with all of its `batch[i]`; it lives
    for at least `least_life_s[i]` and at most `most_life_s[i]`, or, where not `leaves[i]`, beyond `end_s`.
    """

    source: str
    epoch_s: int
    end_s: int
    machine_id: Int64Array
    batch: Int64Array
    vcpus: Int64Array
    maxmem_kib: Int64Array
    arrival_s: Int64Array
    least_life_s: Int64Array
    most_life_s: Int64Array
    leaves: NDArray[np.bool_]
    notes: tuple[str, ...] = ()
