"""What goes wrong, in the words that an operator reads.

What        The lines that Xen, the toolstack and guest kernels print: `death` for a domain that ended by itself; the
            others are named where they arise (`domain.py`, `xl.py`, `xapi.py`). docs/model.md E1-E16 lists them all.
Units       none.
"""

from __future__ import annotations

from typing import Final

from podcluster.records.fates import Cause, EventKind, Fate

CRASHED_BY: Final = "Domain {} reported crashed by domain {}"
PANICS: Final[dict[Cause, str]] = {
    "balloon_bug": "kernel BUG at drivers/xen/balloon.c!",
    "boot_barrier": "Kernel panic - not syncing: Initial ballooning failed!",
    "no_memory_to_boot": "Kernel panic - not syncing: Out of memory and no killable processes...",
    "paging_pool": "marking a GFN as non-PoD failed; kernel BUG at drivers/xen/balloon.c!",
}
EPT_VIOLATION: Final = "d{}: EPT violation (type 6): no page left in its paging pool of {} for a page table"
OVER_ALLOCATION: Final = "Over-allocation for d{}: {} > {}"
NO_EXTENT: Final = "Could not allocate order=0 extent: id={} memflags=0 ({} of {})"
NO_TABLE: Final = "d{}: no page left in its paging pool for a page table ({} of {})"
NOT_BUILT_IN: Final = "{} pages above all that it booted with: a kernel without memory hotplug leaves it at that"
NOT_ADDED: Final = "no room for the page descriptors of {} pages more"
LOW_MEMORY: Final = "low-memory interrupt: {} pages free, claims taken off, at the threshold of {}"
KINDS: Final[dict[Fate, EventKind]] = {
    "pod_oom": "pod_oom",
    "pod_oom_by_other": "pod_oom_by_other",
    "guest_panic": "guest_panic",
    "ept_violation": "ept_violation",
}


def death(fate: Fate, cause: Cause, domid: int, oom_line: str, pool_pages: int) -> tuple[EventKind, str]:
    """The kind of event and its text for a domain that Xen or its own kernel ended."""
    if fate == "pod_oom_by_other":
        # By dom0: no other domain touches a guest's pages here. Xen's first version may print no line before it (R1).
        return KINDS[fate], "; ".join(filter(None, (oom_line, CRASHED_BY.format(domid, 0))))
    if fate == "ept_violation":
        return KINDS[fate], EPT_VIOLATION.format(domid, pool_pages)
    return KINDS[fate], oom_line or PANICS.get(cause, cause)
