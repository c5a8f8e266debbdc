"""Where a domain goes: one policy a file, and the index of hosts they share.

What        A policy is a pure function of a request and what is known of the hosts. It never sees a host itself.
            `ha.py` asks whether the hosts left by a failure could bear what ran on it.
Units       Pages. The request is need_memory (B3.1) and maxmem of the domain, and what of the need is not memory.
Invariants  [PLACE-1] committed + need <= U of the host a policy names   [PLACE-2] maxmem <= U of it
"""

from podcluster.placement.best_fit import BestFit
from podcluster.placement.first_fit import FirstFit
from podcluster.placement.hosts import HostCount, auto_host_count
from podcluster.placement.index import HostIndex
from podcluster.placement.policy import POLICIES, Policy, make_policy
from podcluster.placement.xapi import Xapi

__all__ = [
    "POLICIES",
    "BestFit",
    "FirstFit",
    "HostCount",
    "HostIndex",
    "Policy",
    "Xapi",
    "auto_host_count",
    "make_policy",
]
