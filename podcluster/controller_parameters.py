"""The constants of the memory controllers: what their authors chose, as parameters of `conf/controller/<name>.yaml`.

What        One class a controller; `config.ControllerConfig` holds one of each and checks them.
Units       In the last word of each name. Sizes are MiB or KiB, shares are of 1.
Values      A default is the published constant and equals what the controller's file says (a test compares them); where
            it is from, and how sure we are, stands beside it in that file.
Checks      `at_least` and `at_most` in a field's metadata are its range; without `at_most`, to what its unit allows.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any


def within(default: float, at_least: float = 0, at_most: float | None = None) -> Any:
    """A parameter with its published value and its range."""
    return field(default=default, metadata={"at_least": at_least, "at_most": at_most})


@dataclass(kw_only=True)
class SqueezedParameters:
    """The balancing daemon of XAPI (docs/model.md D5)."""

    reserve_mib: int = within(72)  # kept free of everything
    check_s: float = within(10, 0.1)  # between two looks at whether memory is unbalanced
    round_s: float = within(1, 0.1)  # between two rounds of one run
    scrub_poll_s: float = within(0.25, 0.01)  # while freed pages await scrubbing
    stuck_s: float = within(5, 0)  # without progress for longer: left out of this run
    uncooperative_s: float = within(20, 0)  # off target for longer: flagged
    inaccuracy_kib: int = within(4)  # how far off still hits a target
    tolerance_kib: int = within(512, 1)  # a host is balanced with no more than this free above the reserve
    dom0_min_mib: int = within(0)  # dom0 is a domain like the others, with this minimum; 0: it is none of its business


@dataclass(kw_only=True)
class QmemmanParameters:
    """The memory manager of Qubes."""

    cache_factor: float = within(1.3, 1, 1000)  # a guest prefers this times what it uses
    least_pref_mib: int = within(200)  # and never less
    keep_free_mib: int = within(50)  # left to Xen when memory is shared out
    least_free_mib: int = within(25)  # left to Xen when a guest is started
    poll_s: float = within(0.1, 0.01)  # between two looks
    tries: int = within(5, 1, 1000)  # looks that a donor has before it is left out
    give_up_mib_per_s: float = within(100)  # slower than this, averaged over
    give_up_s: float = within(3, 0.1)  # this long, no start is waited for
    least_move_mib: int = within(150)  # moves of less in all are not made
    least_move_below_pref_mib: int = within(15)  # unless for a guest below what it prefers
    least_donation_mib: int = within(10)  # a donor with less above its preference is left alone
    report_change_mib: int = within(30)  # a guest reports when its use has changed by more
    start_margin: float = within(1.05, 1, 1000)  # borrowed for a start, over what it needs
    overhead_factor: float = within(1.00781, 1, 1000)  # free memory is divided by this: Xen's own use per page


@dataclass(kw_only=True)
class MomParameters:
    """The Memory Overcommit Manager of oVirt, with VDSM's balloon policy."""

    period_s: float = within(15, 0.1)
    samples: int = within(10, 1, 1000)  # that every average is over
    pressure_share: float = within(0.20, 0, 1)  # host free memory below this: shrink, else grow
    critical_share: float = within(0.05, 0, 1)  # below this guests may be pushed into their swap
    guest_free_share: float = within(0.20, 0, 1)  # free memory that a guest is left with
    change_share: float = within(0.05, 0, 1)  # of the guest, at most, in one step
    least_change_share: float = within(0.0025, 0, 1)  # of the guest: smaller steps are not made


@dataclass(kw_only=True)
class ProxmoxParameters:
    """Automatic memory allocation of Proxmox VE."""

    target_share: float = within(0.80, 0.01, 1)  # of the host's memory, to be used
    period_s: float = within(10, 0.1)
    most_change_mib: int = within(100, 1)  # of one guest, in one cycle
    dead_zone_mib: int = within(10)  # no change as near to the goal as this
    free_share: float = within(0.25, 0, 1000)  # of its minimum: a guest with less free is under pressure


@dataclass(kw_only=True)
class EsxParameters:
    """Share-based allocation with an idle-memory tax, as in ESX."""

    tax: float = within(0.75, 0, 0.99)  # tau: an idle page costs 1 / (1 - tau) times an active one
    period_s: float = within(15, 0.1)  # between two reallocations
    sample_s: float = within(60, 0.1)  # a period of sampling active memory
    balloon_share: float = within(0.65, 0, 1)  # of a guest, at most, in its balloon
    clear_share: float = within(1.0, 0, 1000)  # of minFree: nothing is reclaimed above
    soft_share: float = within(0.64, 0, 1000)  # below: by balloon
    hard_share: float = within(0.32, 0, 1000)  # below: beyond the balloon's cap
    low_share: float = within(0.16, 0, 1000)  # below: nothing grows


@dataclass(kw_only=True)
class SelfballoonParameters:
    """Self-ballooning in the guest's kernel (docs/model.md H6)."""

    period_s: float = within(5, 0.1)
    down_hysteresis: int = within(8, 1, 1_000_000)  # one part in this of the excess goes at a step
    up_hysteresis: int = within(1, 1, 1_000_000)
    reserve_share: float = within(0.10, 0, 1)  # of RAM, on top of what is committed
    least_usable_mib: int = within(0)  # floor; 0: the kernel's own curve


@dataclass(kw_only=True)
class HypervParameters:
    """Dynamic memory of Hyper-V: demand and a buffer."""

    buffer_share: float = within(0.20, 0.05, 20)  # of demand, given on top of it
    period_s: float = within(10, 0.1)
    reserve_mib: int = within(256)  # that the host keeps free
