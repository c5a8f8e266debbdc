"""High availability: domains that lost their host, started again on others.

What        `Lost`, those waiting; `restart_order` says who comes when and where: protected domains by the plan (D7.2),
            those for whom it has no place and best-effort ones by the placement policy.
Units       Pages of 4 KiB; simulated time in ns.
Rules       docs/model.md D7.
Departs     The plan takes every domain at its static maximum, on hosts that have all of theirs at static maximum
            (D7.1); where dynamic memory leaves room that the plan does not see, starts are tried all the same, by the
            rules for any start (D3.4), the largest first. All that are due start at one instant: there are no start
            orders.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from podcluster.cluster.failures import Priority
from podcluster.placement.ha import pack
from podcluster.records.hosts import Ask, HostView
from podcluster.records.machines import MachineRequest


@dataclass(slots=True, eq=False)
class Lost:
    """A domain without a host: its next attempt, due at `due_ns`; `tried` once there was no room for it."""

    request: MachineRequest
    ask: Ask
    priority: Priority
    due_ns: int
    tried: bool = False


def restart_order(lost: Sequence[Lost], views: Sequence[HostView]) -> list[tuple[Lost, int | None]]:
    """Who is started again in which order, with the host that the plan has for it (None: the policy's choice)."""
    ordered = sorted(lost, key=lambda one: (-static_need(one.ask), one.request.domain_id))
    protected = [one for one in ordered if one.priority == "restart"]
    places = pack([static_need(one.ask) for one in protected], static_free(views))
    planned = [(one, place) for one, place in zip(protected, places, strict=True) if place is not None]
    others = [(one, None) for one, place in zip(protected, places, strict=True) if place is None]
    return [*planned, *others, *((one, None) for one in ordered if one.priority != "restart")]


def static_need(ask: Ask) -> int:
    """What a domain takes at its static maximum [pages] (D7.1)."""
    return ask.maxmem_pages + ask.overhead_pages


def static_free(views: Sequence[HostView]) -> Mapping[int, int]:
    """What hosts have left with all their domains at static maximum [pages]; below 0 where they are overcommitted."""
    return {view.host_id: view.usable_pages - view.promised_pages - view.overhead_pages for view in views}
