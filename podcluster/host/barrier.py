"""The boot barrier of a kernel that lets user space wait for its balloon (C1.8).

What        `poll_ns`, when it looks; how long it waits for a driver that has stopped.
Units       ns of simulated time.
"""

from __future__ import annotations

from typing import Final

from podcluster.units import NS_PER_S

POLL_NS: Final = NS_PER_S // 10
TIMEOUT_NS: Final = 180 * NS_PER_S  # xen.balloon_boot_timeout


def poll_ns(first_ns: int, at_ns: int) -> int:
    """When a barrier that looks each 0.1 s from `first_ns` on sees what happens at `at_ns`."""
    return first_ns + max(0, -(-(at_ns - first_ns) // POLL_NS)) * POLL_NS
