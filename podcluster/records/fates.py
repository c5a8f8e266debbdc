"""What can become of a domain, why, how it came to its host, and what can happen meanwhile: the words of the tables.

What        Each set of words twice: as a type, for who writes one down, and as a tuple in the order in which pages
            list them.
Invariants  Both have the same words. docs/glossary.md explains every fate and every cause.
"""

from __future__ import annotations

from typing import Final, Literal

Fate = Literal[
    "running",
    "shut_down",
    "pod_oom",
    "pod_oom_by_other",
    "guest_panic",
    "ept_violation",
    "build_failed",
    "rejected",
    "host_failed",
    "migrated",
]
FATES: Final[tuple[Fate, ...]] = (
    "running",  # alive when the run ended
    "shut_down",  # left at its departure time
    "pod_oom",  # Xen killed it: an access of its own found no page
    "pod_oom_by_other",  # the same, on another domain's access
    "guest_panic",  # balloon bug, boot barrier, no memory to boot
    "ept_violation",  # the paging pool ran dry
    "build_failed",  # the toolstack gave up; the cause says why
    "rejected",  # no host would take it
    "host_failed",
    "migrated",
)

Cause = Literal[
    "",
    "debt",  # distinct non-zero pages passed what it owns (G11): no reclaim could have helped
    "preempt",  # died below that limit: a sweep was cut off for pending work, with zero pages further down
    "wrap",  # a sweep reached the bottom, with zero pages above where it began
    "ring",  # zero pages were left that no sweep ever looks at, and the recent list no longer named
    "table_conflict",  # rfc2009: Xen was to put a superpage where a page table hung (R1); want of memory had no part
    "reclaim_short",  # died below that limit, no zero page that a check would have taken being left
    "balloon_bug",
    "boot_barrier",
    "no_memory_to_boot",
    "claim_failed",
    "no_memory",
    "dom0_short",
    "paging_pool",
    "refused",  # by the toolstack: populate-on-demand with passthrough, virtual NUMA, alternate p2m (E10)
    "memory_constraint",  # XAPI: the memory settings are not allowed (E15)
    "host_memory",  # XAPI: the host has not enough free memory (E13)
    "vms_failed_to_cooperate",  # squeezed: guests that were to give memory did not (E14)
    "rebooted",  # it shut down so as to be started again: an installer that is done
    "still_waiting",  # it left, or the run ended, before there was memory for it
    "no_host",
    "too_large",
    "lost_race",  # every host that was tried had less than an old view of it said
    "ha_plan",  # XAPI: after it there would have been no plan any more for the host failures to be tolerated (D7.7)
]
CAUSES: Final[tuple[Cause, ...]] = (
    "",
    "debt",
    "preempt",
    "wrap",
    "ring",
    "table_conflict",
    "reclaim_short",
    "balloon_bug",
    "boot_barrier",
    "no_memory_to_boot",
    "claim_failed",
    "no_memory",
    "dom0_short",
    "paging_pool",
    "refused",
    "memory_constraint",
    "host_memory",
    "vms_failed_to_cooperate",
    "rebooted",
    "still_waiting",
    "no_host",
    "too_large",
    "lost_race",
    "ha_plan",
)

Origin = Literal["boot", "restart", "ha", "migration"]
ORIGINS: Final[tuple[Origin, ...]] = (
    "boot",  # asked for by the workload
    "restart",  # built again on its host after a crash
    "ha",  # started on another host, its own having failed
    "migration",  # came from another host with what it had: no boot
)

EventKind = Literal[
    "place",
    "reject",
    "lost_race",
    "build_failed",
    "build_done",
    "boot_done",
    "balloon_done",
    "balloon_gave_up",
    "balloon_refused",
    "hotplug",
    "set_target",
    "uncooperative",
    "set_max",
    "attach",
    "over_allocation",
    "low_memory",
    "pod_oom",
    "pod_oom_by_other",
    "guest_panic",
    "ept_violation",
    "oom_kill",
    "shut_down",
    "destroy",
    "restart",
    "host_failed",
    "host_recovered",
    "ha_restart",
    "ha_waits",
    "ha_overcommitted",
    "ha_planned",
    "evacuate",
    "evacuate_refused",
    "enabled",
    "rebalance",
    "migrate",
    "migrate_refused",
    "migrate_done",
]
EVENT_KINDS: Final[tuple[EventKind, ...]] = (
    "place",
    "reject",
    "lost_race",
    "build_failed",
    "build_done",
    "boot_done",
    "balloon_done",
    "balloon_gave_up",
    "balloon_refused",
    "hotplug",
    "set_target",
    "uncooperative",
    "set_max",
    "attach",
    "over_allocation",
    "low_memory",
    "pod_oom",
    "pod_oom_by_other",
    "guest_panic",
    "ept_violation",
    "oom_kill",
    "shut_down",
    "destroy",
    "restart",
    "host_failed",
    "host_recovered",
    "ha_restart",
    "ha_waits",
    "ha_overcommitted",
    "ha_planned",
    "evacuate",
    "evacuate_refused",
    "enabled",
    "rebalance",
    "migrate",
    "migrate_refused",
    "migrate_done",
)
