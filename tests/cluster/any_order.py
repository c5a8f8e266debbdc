"""Hosts that are walked, and replies that come, in an order drawn anew each time; and what has been said meanwhile."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import Any

from podcluster import rng
from podcluster.cluster.exchange import Message, ShardServer, Tag, Transport
from podcluster.cluster.pool import CommandsByHost, HostPlan, HostShard, MakeHost, Packing
from podcluster.records.reports import HostReport

WAIT_S = 0.02  # for replies that may overtake each other


class AnyOrderShard(HostShard):
    """Steps its hosts in an order drawn for each step, and reports in that."""

    def advance(self, until_ns: int, commands: CommandsByHost) -> list[HostReport]:
        """Draw, and step."""
        rng.stream(5, "test", "order", until_ns).shuffle(self.host_ids)
        return super().advance(until_ns, commands)


class SortedShard(AnyOrderShard):
    """The same for the pool of one process, which takes reports as they are; remembers the orders."""

    orders: list[list[int]] = []  # noqa: RUF012  of all shards, since a pool makes its own

    def advance(self, until_ns: int, commands: CommandsByHost) -> list[HostReport]:
        """Reports in the order of hosts, whatever order they were walked in."""
        reports = super().advance(until_ns, commands)
        self.orders.append([report.host_id for report in reports])
        return sorted(reports, key=lambda report: report.host_id)


class AnyOrderServer(ShardServer):
    """Holds such a shard."""

    def begin(self, tag: Tag, plan: HostPlan, make: MakeHost, packing: Packing) -> tuple[Tag, None]:
        """Put it in the place of the other, which has no hosts yet."""
        super().begin(tag, plan, make, packing)
        self._shard = AnyOrderShard(plan, make, packing)
        return tag, None


@dataclass
class AnyOrder:
    """A transport over another: replies that come at about the same time are handed on in an order that is drawn."""

    carrier: Transport
    sent: Counter[tuple[str, int, int]] = field(default_factory=Counter)  # by method, shard and epoch
    told: Counter[tuple[str, int, int]] = field(default_factory=Counter)
    walked: list[list[int]] = field(default_factory=list)  # host_ids of each shard's reports
    replied: list[list[int]] = field(default_factory=list)  # shards, as their replies were handed on
    draw: Any = field(default_factory=lambda: rng.stream(6, "test", "order"))

    def send(self, tag: Tag, message: Message) -> None:
        """Count it, and pass it on."""
        self.sent[message.method, tag.shard, tag.epoch] += 1
        self.carrier.send(tag, message)

    def tell(self, tag: Tag, message: Message) -> None:
        """Likewise."""
        self.told[message.method, tag.shard, tag.epoch] += 1
        self.carrier.tell(tag, message)

    def receive(self, timeout_s: float) -> list[tuple[Tag, Any]]:
        """Wait a little for others once one is there."""
        replies = self.carrier.receive(timeout_s)
        while more := self.carrier.receive(WAIT_S) if replies else []:
            replies += more
        replies = [replies[at] for at in self.draw.permutation(len(replies))]
        for _, answer in replies:
            if isinstance(answer, list) and answer and isinstance(answer[0], HostReport):
                self.walked.append([report.host_id for report in answer])
        self.replied.append([tag.shard for tag, _ in replies])
        return replies

    def renew(self, shard: int) -> None:
        """Pass it on."""
        self.carrier.renew(shard)
