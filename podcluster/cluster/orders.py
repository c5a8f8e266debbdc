"""What an operator orders while guests run: lines of `workload.orders`, as items of the cluster's agenda.

What        `parse`: "60 mem-set 0 1024" is `xl mem-set` of domain_id 0 to 1024 MiB at 60 s; `mem-max` likewise;
            "90 destroy 0" ends it, "80 pci-attach 0" passes a device through to it, "90 migrate 0 2" sends it to host
            2. "60 host-fail 3" lets host 3 die, "600 host-recover 3" brings it back; "60 host-evacuate 3" empties it,
            "600 host-enable 3" gives it domains again.
Units       Seconds and MiB in a line; ns and pages in a command.
"""

from __future__ import annotations

from collections.abc import Callable, Container, Mapping, Sequence
from typing import Final, NamedTuple

from podcluster.cluster.agenda import Enabling, Evacuation, Failure, Item, Migration, Operation, Recovery
from podcluster.config import MAX_MIB
from podcluster.errors import ConfigError
from podcluster.records.commands import AttachDevice, SetMaxMem, SetTarget, StopDomain
from podcluster.units import mib_to_pages, s_to_ns

# Verbs that take no size.
BARE: Final[Mapping[str, type[StopDomain] | type[AttachDevice]]] = {"destroy": StopDomain, "pci-attach": AttachDevice}
SIZED: Final[Mapping[str, type[SetTarget] | type[SetMaxMem]]] = {"mem-set": SetTarget, "mem-max": SetMaxMem}
HOST_VERBS: Final[dict[str, Callable[[int], Item]]] = {
    "host-fail": Failure,
    "host-recover": Recovery,
    "host-evacuate": Evacuation,
    "host-enable": Enabling,
}
FORMS: Final = (
    "'SECONDS mem-set|mem-max DOMAIN MIB', 'SECONDS destroy|pci-attach DOMAIN', 'SECONDS migrate DOMAIN HOST' or "
    "'SECONDS host-fail|host-recover|host-evacuate|host-enable HOST'"
)


class Order(NamedTuple):
    """One order: when, and what."""

    at_ns: int
    item: Item


def parse(lines: Sequence[str], domain_ids: Container[int], hosts: int, end_ns: int) -> tuple[Order, ...]:
    """The orders in order of time; one that the run cannot carry out is the user's mistake."""
    orders = [_order(line) for line in lines]
    for line, order in zip(lines, orders, strict=True):
        item = order.item
        domain_id = item.order.domain_id if isinstance(item, Operation) else getattr(item, "domain_id", None)
        if domain_id is not None and domain_id not in domain_ids:
            raise _mistake(f"about a domain of the workload, which has no {domain_id}", line)
        if not isinstance(item, Operation) and not 0 <= getattr(item, "host_id", 0) < hosts:
            raise _mistake(f"about one of the hosts 0 to {hosts - 1}", line)
        if not 0 < order.at_ns < end_ns:
            raise _mistake("at a time within the run", line)
    return tuple(sorted(orders, key=lambda order: order.at_ns))


def _order(line: str) -> Order:
    words = line.split()
    try:
        at_ns, verb, number = s_to_ns(float(words[0])), words[1], int(words[2])
        if len(words) == 3 and verb in BARE:
            return Order(at_ns, Operation(BARE[verb](at_ns, number)))
        if len(words) == 3 and verb in HOST_VERBS:
            return Order(at_ns, HOST_VERBS[verb](number))
        if len(words) == 4 and verb == "migrate":
            return Order(at_ns, Migration(number, int(words[3])))
        mib = float(words[3])
        if len(words) == 4 and verb in SIZED:
            if not 1 <= mib <= MAX_MIB:
                raise _mistake(f"of 1 to {MAX_MIB} MiB", line)
            return Order(at_ns, Operation(SIZED[verb](at_ns, number, mib_to_pages(mib))))
    except (ValueError, IndexError, OverflowError):
        pass
    raise _mistake(FORMS, line)


def _mistake(rule: str, line: str) -> ConfigError:
    return ConfigError(f"workload.orders must be {rule}, got '{line}': try 'workload.orders=[60 mem-set 0 512]'")
