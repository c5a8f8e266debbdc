"""Hosts as placement knows them, and what it is asked.

What        `HostSpec`, a machine of the cluster; `HostView`, what is known of it at some instant; `Ask`, a domain that
            wants a host; `Rejected`, the answer that there is none.
Units       Pages of 4 KiB; ns of simulated time; variances in MiB squared.
Symbols     U usable_pages (RAM less Xen and dom0)
Invariants  A view is as of its `at_ns`, however late it is looked at. What the scheduler adds from its own book is 0
            in what a host says.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from podcluster.records.fates import Cause
from podcluster.records.values import Sent

NOWHERE: Final = -1
"""No host, where one may be preferred."""


@dataclass(frozen=True, slots=True)
class HostSpec:
    """One machine of the cluster [pages]; `usable_pages` (U) is RAM less Xen's own and dom0's; `cpus` it has."""

    host_id: int
    ram_pages: int
    usable_pages: int
    cpus: int = 0


@dataclass(frozen=True, slots=True)
class HostView(Sent):
    """What a scheduler knows of a host, as of `at_ns` [pages].

    `committed_pages` is the sum of need_memory (B3.1) of the domains there, `overhead_pages` what of it is not their
    memory, both with what the toolstack keeps free (D3.2); `promised_pages` the sum of their maxmem, `free_pages` what
    the host's heap has free. A host says so much itself. What follows in the second half the scheduler adds from its
    own book: CPUs and vCPUs, present targets and demand as last sampled, sums of what its forecast says of the domains
    (mean demand, and its variance in MiB squared), and when the last of them is to leave (0: nobody is there).
    """

    host_id: int
    usable_pages: int
    committed_pages: int
    promised_pages: int
    free_pages: int
    domains: int
    at_ns: int
    overhead_pages: int = 0
    cpus: int = 0
    vcpus: int = 0
    target_pages: int = 0
    demanded_pages: int = 0
    mean_pages: int = 0
    var_mib2: int = 0
    leaves_ns: int = 0


@dataclass(frozen=True, slots=True)
class Ask:
    """What placement needs to know of a request [pages]: need_memory, maxmem, and what of the need is not memory.

    The second half is for the policies and rules that look at it: vCPUs, forecast demand (mean, and variance in MiB
    squared), forecast departure, the groups of which it is a member (empty: of none), and the host that it prefers.
    """

    need_pages: int
    maxmem_pages: int
    overhead_pages: int = 0
    domain_id: int = 0
    vcpus: int = 0
    mean_pages: int = 0
    var_mib2: int = 0
    arrival_ns: int = 0
    leaves_ns: int = 0
    affinity: str = ""
    anti_affinity: str = ""
    preferred_host: int = NOWHERE


@dataclass(frozen=True, slots=True)
class Rejected:
    """No host took a request: why in words for the user, and as the cause its row carries."""

    reason: str
    cause: Cause = "no_host"
