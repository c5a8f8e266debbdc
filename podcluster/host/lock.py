"""Xen's lock on one domain, and the time that passes inside it (G6).

What        `Lock`: populate, sweep and decrease reservation of one domain exclude each other. What may enter Xen waits
            until the lock is free, and holds it for as long as Xen takes.
Units       ns of simulated time.
Invariants  [LK-1] who enters begins at max(due, when the lock is free): the instants at which acts of one guest begin
                   never run backwards.
            [LK-2] the stream of an act that took time in Xen goes on later by all of it, the wait included; one that
                   found nothing to do there keeps its pace.
            [LK-3] where nothing that Xen does takes time, no instant moves.
Departs     A batch holds the lock once, for the sum of what its accesses take, and not access by access; so between two
            batches of different vCPUs the order is that of their instants. The toolstack's hypercalls neither wait nor
            take time.
"""

from __future__ import annotations

from typing import Protocol


class Clocked(Protocol):
    """Whose clock runs on while Xen works."""

    def set_clock(self, dom: int, now_ns: int) -> None:
        """Set Xen's clock for this domain."""

    def clock(self, dom: int) -> int:
        """Xen's clock for this domain: what was set, and what Xen took since [ns]."""

    def set_interrupts(self, dom: int, enabled: bool, vcpu: int) -> None:
        """Which vCPU acts next, and whether interrupts may reach it (G7)."""


class Lock:
    """The lock of one domain."""

    __slots__ = (
        "_began_ns",
        "_domid",
        "_due_ns",
        "_interrupts",
        "_machine",
        "faults",
        "free_ns",
        "held_ns",
        "served_page_ns",
    )

    def __init__(self, machine: Clocked | None, domid: int, *, served_page_ns: int | None = None) -> None:
        """`machine` None: nothing that Xen does takes time, or depends on it [LK-3]. `served_page_ns`: most that one
        page takes while the guest owes nothing; None where Xen reclaims all the same.
        """
        self.served_page_ns = served_page_ns
        self._machine = machine
        self._domid = domid
        self.faults = machine is not None  # whether accesses may take time: not once no entry is left [G12]
        self.free_ns = 0  # since when it is free
        self.held_ns = 0  # how long it was held
        self._due_ns = self._began_ns = 0
        self._interrupts: tuple[bool, int] | None = None  # as last told

    @property
    def timed(self) -> bool:
        """Whether what Xen does takes time at all, or depends on it."""
        return self._machine is not None

    @property
    def served_ns(self) -> int:
        """`served_page_ns` for a kernel: -1 for None."""
        return -1 if self.served_page_ns is None else self.served_page_ns

    @property
    def books(self) -> tuple[int, int, bool]:
        """What a kernel that paces acts itself takes and changes."""
        return self.free_ns, self.held_ns, self.faults

    def act_on(self, vcpu: int, *, interrupts: bool) -> None:
        """Say which vCPU acts next, the guest's interrupts enabled or not."""
        if self._machine is not None and self._interrupts != (interrupts, vcpu):
            self._interrupts = (interrupts, vcpu)
            self._machine.set_interrupts(self._domid, interrupts, vcpu)

    def held(self, free_ns: int, ns: int) -> None:
        """Acts of several vCPUs that a kernel has paced held it for so long, the last until `free_ns`."""
        self._interrupts = None
        self.free_ns = free_ns
        self.held_ns += ns

    def ready_ns(self, due_ns: int) -> int:
        """When an act that is due at `due_ns` and may enter Xen can begin [LK-1]."""
        return max(due_ns, self.free_ns)

    def enter(self, due_ns: int, *, vcpu: int = 0, interrupts: bool = True) -> int:
        """An act that may enter Xen is about to begin, on this vCPU, the guest's interrupts enabled or not: when."""
        if self._machine is None:
            return due_ns
        self._due_ns, self._began_ns = due_ns, self.ready_ns(due_ns)
        self.act_on(vcpu, interrupts=interrupts)
        self._machine.set_clock(self._domid, self._began_ns)
        return self._began_ns

    def leave(self) -> int:
        """It is over: by how much its stream is late from here on [LK-2]."""
        if self._machine is None:
            return 0
        end_ns = self._machine.clock(self._domid)
        if end_ns == self._began_ns:
            return 0
        self.held_ns += end_ns - self._began_ns
        self.free_ns = end_ns
        return end_ns - self._due_ns
