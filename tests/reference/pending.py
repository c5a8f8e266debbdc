"""When other work arrives for a vCPU's CPU: a Poisson process, written down arrival by arrival.

Units       ns of simulated time; a bin is the mean time between arrivals, in whole ns.
Rules       G7: arrivals are a function of (key, vCPU, kind of work, bin) alone.
"""

import math
from collections.abc import Iterator

MASK = (1 << 64) - 1
BELOW = [math.fsum(math.exp(-1) / math.factorial(k) for k in range(n + 1)) for n in range(20)]


def mix(z: int) -> int:
    """splitmix64's finaliser."""
    z = (z + 0x9E3779B97F4A7C15) & MASK
    z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & MASK
    z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & MASK
    return z ^ (z >> 31)


def share(word: int) -> float:
    """A number in [0, 1)."""
    return (word >> 11) / 2**53


def arrivals_of_bin(key: int, bin_ns: int, k: int) -> list[int]:
    """All arrivals in [k * bin, (k + 1) * bin), ascending."""
    word = mix(key ^ mix(k))
    count = sum(share(word) >= below for below in BELOW)
    found = []
    for _ in range(count):
        word = mix(word)
        found.append(k * bin_ns + int(share(word) * bin_ns))
    return sorted(found)


def arrivals(key: int, vcpu: int, kind: int, per_s: float, after_ns: int) -> Iterator[int]:
    """Arrivals of softirqs (kind 0) or interrupts (1) later than `after_ns`, for ever."""
    bin_ns = max(round(10**9 / per_s), 1)
    k = after_ns // bin_ns
    while True:
        for at in arrivals_of_bin(key ^ mix(2 * vcpu + kind), bin_ns, k):
            if at > after_ns:
                yield at
        k += 1
