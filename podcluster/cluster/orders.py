"""What an operator orders while guests run: lines of `workload.orders`, as commands to hosts.

What        `parse`: "60 mem-set 0 1024" is `xl mem-set` of domain_id 0 to 1024 MiB at 60 s; `mem-max` likewise;
            "90 destroy 0" ends it, and "80 pci-attach 0" passes a device through to it.
Units       Seconds and MiB in a line; ns and pages in a command.
"""

from __future__ import annotations

from collections.abc import Container, Mapping, Sequence
from typing import Final

from podcluster.errors import ConfigError
from podcluster.records import AttachDevice, SetMaxMem, SetTarget, StopDomain
from podcluster.units import mib_to_pages, s_to_ns

Order = SetTarget | SetMaxMem | AttachDevice | StopDomain
# Verbs that take no size.
BARE: Final[Mapping[str, type[StopDomain] | type[AttachDevice]]] = {"destroy": StopDomain, "pci-attach": AttachDevice}


def parse(lines: Sequence[str], domain_ids: Container[int], end_ns: int) -> tuple[Order, ...]:
    """The orders in order of time; one that the run cannot carry out is the user's mistake."""
    orders = [_order(line) for line in lines]
    for line, order in zip(lines, orders, strict=True):
        if order.domain_id not in domain_ids:
            raise _mistake(f"about a domain of the workload, which has no {order.domain_id}", line)
        if not 0 < order.at_ns < end_ns:
            raise _mistake("at a time within the run", line)
    return tuple(sorted(orders, key=lambda order: order.at_ns))


def _order(line: str) -> Order:
    words = line.split()
    try:
        at_ns, domain_id = s_to_ns(float(words[0])), int(words[2])
        if words[1] in BARE and len(words) == 3:
            return BARE[words[1]](at_ns, domain_id)
        pages = mib_to_pages(float(words[3]))
        if words[1] == "mem-set" and len(words) == 4:
            return SetTarget(at_ns, domain_id, pages)
        if words[1] == "mem-max" and len(words) == 4:
            return SetMaxMem(at_ns, domain_id, pages)
    except (ValueError, IndexError, OverflowError):
        pass
    raise _mistake("'SECONDS mem-set|mem-max DOMAIN MIB' or 'SECONDS destroy|pci-attach DOMAIN'", line)


def _mistake(rule: str, line: str) -> ConfigError:
    return ConfigError(f"workload.orders must be {rule}, got '{line}': try 'workload.orders=[60 mem-set 0 512]'")
