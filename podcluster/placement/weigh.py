"""Policies that weigh every host that fits, in one pass over the hosts without anything in between.

What        `heaviest` finds the position that dot product, chance-constrained packing or lifetime awareness names; the
            policies' files say what each weighs, and are what it must equal. `xapi_values` is what XAPI makes of each
            host before it draws, `nth_largest` whom a draw hits.
Units       Those of `fields.py`; a bucket in ns.
Cost        Linear in the hosts, 3 to 5 ns each: what a host weighs depends on the request, in more than
            one number, so there is no order of hosts to keep.
Invariants  Floats are those of the definition to the last bit: the same operations in the same order.
"""

from math import sqrt

from podcluster.placement.fields import (
    COMMITTED,
    FIELDS,
    HAS,
    LEAVES,
    MEAN,
    NOBODY,
    OVERHEAD,
    PROMISED,
    ROOM,
    TAKEN_VCPUS,
    VAR,
    WIDTH,
    fits,
)
from podcluster.placement.kernel import Int64s, kernel, routine

DOT_PRODUCT, CHANCE_CONSTRAINED, LIFETIME_AWARE = 4, 5, 6
NO_MEMBER = -(1 << 62)
POSSIBLE_WHOLLY = 1000


@routine
def _aligned(host: Int64s, table: Int64s, capacity: Int64s, need: int, maxmem: int, size: int, vcpus: int) -> int:
    """The host that fits whose rest is most aligned with the request, the first of equals, or NOBODY."""
    found, most = NOBODY, 0.0
    of_memory, of_vcpus, asked_memory, asked_vcpus = 0, 0, 0.0, 0.0  # the same for hosts that are alike
    for i in range(len(host) // FIELDS):
        if not fits(host, i, need, maxmem, size, vcpus):
            continue
        cpu_capacity = capacity[2 * i + 1]
        left = cpu_capacity - table[i * WIDTH + TAKEN_VCPUS]
        if capacity[2 * i] != of_memory or cpu_capacity != of_vcpus:
            of_memory, of_vcpus = max(1, capacity[2 * i]), max(1, cpu_capacity)
            asked_memory, asked_vcpus = size / of_memory, vcpus / of_vcpus
        weight = asked_memory * (host[i * FIELDS + ROOM] / of_memory) + asked_vcpus * (left / of_vcpus)
        if found == NOBODY or weight > most:
            found, most = i, weight
    return found


@routine
def _tightest_bearing(
    host: Int64s,
    table: Int64s,
    need: int,
    maxmem: int,
    size: int,
    vcpus: int,
    overhead: int,
    mean: int,
    var: int,
    pages_per_sd: float,
) -> int:
    """The host that fits and bears the request [PLACE-6] with the least margin, the first of equals, or NOBODY."""
    found, least = NOBODY, 0.0
    for i in range(len(host) // FIELDS):
        if not fits(host, i, need, maxmem, size, vcpus):
            continue
        at = i * WIDTH
        quantile = (table[at + MEAN] + mean) + pages_per_sd * sqrt(table[at + VAR] + var)
        margin = (table[at + HAS] - table[at + OVERHEAD] - overhead) - quantile
        if margin >= 0 and (found == NOBODY or margin < least):
            found, least = i, margin
    return found


@routine
def _least_extended(
    host: Int64s,
    table: Int64s,
    need: int,
    maxmem: int,
    size: int,
    vcpus: int,
    arrives: int,
    leaves: int,
    bucket: int,
) -> int:
    """The host that fits whose life is extended by fewest buckets, the tightest of those, the first of equals."""
    found, fewest, least = NOBODY, 0, 0
    for i in range(len(host) // FIELDS):
        if not fits(host, i, need, maxmem, size, vcpus):
            continue
        beyond = leaves - max(table[i * WIDTH + LEAVES], arrives)
        buckets = (beyond + bucket - 1) // bucket if beyond > 0 else 0
        room = host[i * FIELDS + ROOM]
        if found == NOBODY or buckets < fewest or (buckets == fewest and room < least):
            found, fewest, least = i, buckets, room
    return found


@routine
def heaviest(
    host: Int64s,
    table: Int64s,
    capacity: Int64s,
    kind: int,
    need: int,
    maxmem: int,
    size: int,
    vcpus: int,
    overhead: int,
    mean: int,
    var: int,
    arrives: int,
    leaves: int,
    bucket: int,
    pages_per_sd: float,
) -> int:
    """The position that a policy that weighs all names, or NOBODY."""
    if kind == DOT_PRODUCT:
        return _aligned(host, table, capacity, need, maxmem, size, vcpus)
    if kind == CHANCE_CONSTRAINED:
        return _tightest_bearing(host, table, need, maxmem, size, vcpus, overhead, mean, var, pages_per_sd)
    return _least_extended(host, table, need, maxmem, size, vcpus, arrives, leaves, bucket)


@kernel
def xapi_values(
    table: Int64s,
    positions: Int64s,
    coordinator: int,
    need: int,
    maxmem: int,
    overhead: int,
    definite: Int64s,
    possible: Int64s,
) -> None:
    """The value of each of the hosts at these positions in the first category that it is of, definite or possible, with
    the request on it; NO_MEMBER in the other, or in both (D6.1, D6.2). `coordinator`: the position of whom the bias is
    against, or NOBODY.
    """
    for k in range(len(positions)):
        at = positions[k] * WIDTH
        definite[k] = possible[k] = NO_MEMBER
        avail = table[at + HAS] - table[at + OVERHEAD] - overhead
        most = table[at + PROMISED] + maxmem
        least = table[at + COMMITTED] - table[at + OVERHEAD] + need - overhead
        if avail >= most:
            definite[k] = (avail - most - 1) // 2 if positions[k] == coordinator else avail - most
        elif avail >= least:
            possible[k] = POSSIBLE_WHOLLY * (avail - least) // (most - least)


@kernel
def nth_largest(values: Int64s, scratch: Int64s, rank: int) -> int:
    """The index of the member at this rank of `values`, largest first and equals in their order. `scratch` is as long.

    Selection by three-way partition: equals, of which empty hosts have many, cost nothing more.
    """
    low, high = 0, 0
    for value in values:
        if value != NO_MEMBER:
            scratch[high] = value
            high += 1
    while True:
        first, middle, last = scratch[low], scratch[(low + high) // 2], scratch[high - 1]
        pivot = max(min(first, middle), min(max(first, middle), last))
        larger, k, smaller = low, low, high  # [low, larger) above the pivot, [larger, k) at it, [smaller, high) below
        while k < smaller:
            value = scratch[k]
            if value > pivot:
                scratch[k], scratch[larger] = scratch[larger], value
                larger += 1
                k += 1
            elif value < pivot:
                smaller -= 1
                scratch[k], scratch[smaller] = scratch[smaller], value
            else:
                k += 1
        if rank < larger:
            high = larger
        elif rank < smaller:
            break
        else:
            low = smaller
    before = rank - larger  # of the equals
    for k in range(len(values)):
        if values[k] == pivot:
            if before == 0:
                return k
            before -= 1
    return NOBODY
