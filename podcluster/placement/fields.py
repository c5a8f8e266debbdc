"""What the kernels of placement know of a host, and when it fits.

What        Two tables, a row a host. `host`: what it has left (`FIELDS` values). `table`: what is known of it
            (`WIDTH` columns), the first `LOADS` of which requests add to.
Units       Pages, vCPUs, ns; variances in MiB squared; size and room in the units of `rules.Rules`. All is int64.
Symbols     host    U, uncommitted memory, limit of size, vCPUs left, room
"""

from podcluster.placement.kernel import Int64s, routine

FIELDS = 5
USABLE, FREE, LIMIT, VCPUS, ROOM = 0, 1, 2, 3, 4

LOADS, WIDTH = 8, 11
COMMITTED, PROMISED, OVERHEAD, TAKEN_VCPUS, MEAN, VAR, LEAVES, HAS = 0, 1, 2, 5, 6, 7, 8, 9
"""Columns that kernels read by themselves; HAS is U."""

NOBODY = -1


@routine
def fits(host: Int64s, position: int, need: int, maxmem: int, size: int, vcpus: int) -> bool:
    """[PLACE-1] to [PLACE-4] of one host."""
    at = position * FIELDS
    return bool(
        host[at + FREE] >= need
        and host[at + USABLE] >= maxmem
        and host[at + LIMIT] >= size
        and host[at + VCPUS] >= vcpus
    )
