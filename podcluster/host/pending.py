"""Work that waits for a CPU while Xen serves a guest on it: when it arrives, and whether some waits.

What        A Poisson process for each vCPU and kind of work [G7]: time is cut into bins that hold one arrival on
            average; how many there are in a bin, and where, are hashes of (key of the domain, kind, vCPU, bin). So the
            arrivals are the same however time is cut, and whoever asks first.
Units       ns of simulated time.
Invariants  An arrival counts from when Xen was entered (`rec.entry_ns`): what came before was seen to in the guest.
Departs     A bin is a whole number of ns: above 10**6 arrivals per second the rate is rounded noticeably. 20 arrivals
            in one bin are taken for all there can be (probability 10**-19), and 64 empty bins for no arrival at all.
"""

import math

import numpy as np

from podcluster.host.kernel import kernel, routine
from podcluster.host.state import DomainState, HostState

NEVER = 1 << 62
ALWAYS = -1
"""In place of the width of a bin: work waits whenever Xen looks. (0: never.)"""
NS_PER_S = 10**9
BINS = 64

_SHARES = [math.exp(-1) / math.factorial(n) for n in range(20)]
AT_MOST = np.array([math.fsum(_SHARES[: n + 1]) for n in range(20)])
"""Probability of at most n arrivals in a bin."""


def bin_ns(per_s: float) -> int:
    """Width of a bin at a rate, at least 1 ns; 0 for never, ALWAYS for an infinite rate."""
    if per_s == 0:
        return 0
    return ALWAYS if math.isinf(per_s) else max(round(NS_PER_S / per_s), 1)


@routine
def mix(z: np.uint64) -> np.uint64:
    """A word whose bits all depend on all bits of `z`."""
    z = z + np.uint64(0x9E3779B97F4A7C15)
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return z ^ (z >> np.uint64(31))


@routine
def _share(word: np.uint64) -> float:
    """A number in [0, 1) from the upper 53 bits."""
    return float(word >> np.uint64(11)) * 2.0**-53


@kernel
def next_arrival(key: np.uint64, width_ns: int, after_ns: int) -> int:
    """The first arrival later than `after_ns` of the process `key`; NEVER."""
    if width_ns == 0:
        return NEVER
    first = after_ns // width_ns
    for k in range(first, first + BINS):
        word = mix(key ^ mix(np.uint64(k)))
        share = _share(word)
        found = NEVER
        for n in range(20):
            if share < AT_MOST[n]:
                break
            word = mix(word)
            at = k * width_ns + int(_share(word) * width_ns)
            if after_ns < at < found:
                found = at
        if found != NEVER:
            return found
    return NEVER


@routine
def next_work(h: HostState, g: DomainState) -> int:
    """When work waits, at the earliest, for the vCPU that entered Xen at `rec.entry_ns`; NEVER."""
    r = g.rec[0]
    if h.rec[0].preempt or r.softirq_bin_ns == ALWAYS or (r.irqs_on and r.irq_bin_ns == ALWAYS):
        return int(r.entry_ns)
    key = np.uint64(r.pending_key) ^ mix(np.uint64(2 * r.vcpu))
    due = next_arrival(key, r.softirq_bin_ns, r.entry_ns)
    if r.irqs_on:
        key = np.uint64(r.pending_key) ^ mix(np.uint64(2 * r.vcpu + 1))
        due = min(due, next_arrival(key, r.irq_bin_ns, r.entry_ns))
    return due
