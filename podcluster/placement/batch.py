"""Many requests in one call: the same answers as one after another, at a fraction of the cost.

What        `Batch` holds requests as columns. `place_batch` places them in their order; policies that are a search of
            the index alone do so within one kernel call, the others one by one.
Units       Those of records.hosts.Ask.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from operator import attrgetter
from typing import TYPE_CHECKING, Final

import numpy as np

from podcluster.records.hosts import Ask, Rejected
from podcluster.records.values import Int64Array

if TYPE_CHECKING:
    from podcluster.placement.index import HostIndex
    from podcluster.placement.policy import Policy


PART: Final = 2048
"""Requests of a batch that are handed to the kernel together, so that what is made for them stays in the cache."""


@dataclass(frozen=True, slots=True)
class Batch:
    """Requests in order, a column each of what an Ask says in numbers; a slice is a Batch."""

    need_pages: Int64Array
    maxmem_pages: Int64Array
    overhead_pages: Int64Array
    domain_id: Int64Array
    vcpus: Int64Array
    mean_pages: Int64Array
    var_mib2: Int64Array
    arrival_ns: Int64Array
    leaves_ns: Int64Array

    @staticmethod
    def of(asks: Sequence[Ask]) -> Batch:
        """These requests as columns."""
        names = [field.name for field in fields(Batch)]
        return Batch(**{name: np.fromiter(map(attrgetter(name), asks), np.int64, len(asks)) for name in names})

    def __len__(self) -> int:
        return len(self.need_pages)

    def __getitem__(self, part: slice) -> Batch:
        return Batch(**{field.name: getattr(self, field.name)[part] for field in fields(Batch)})

    def ask(self, k: int) -> Ask:
        """One of the requests, without its groups."""
        return Ask(
            need_pages=int(self.need_pages[k]),
            maxmem_pages=int(self.maxmem_pages[k]),
            overhead_pages=int(self.overhead_pages[k]),
            domain_id=int(self.domain_id[k]),
            vcpus=int(self.vcpus[k]),
            mean_pages=int(self.mean_pages[k]),
            var_mib2=int(self.var_mib2[k]),
            arrival_ns=int(self.arrival_ns[k]),
            leaves_ns=int(self.leaves_ns[k]),
        )


def place_batch(policy: Policy, batch: Batch, index: HostIndex) -> list[int | Rejected]:
    """Place these requests, in this order, and commit what they need: a host_id or a rejection for each."""
    if policy.search_kind is None:
        answers: list[int | Rejected] = []
        for k in range(len(batch)):
            ask = batch.ask(k)
            answer = policy.place_indexed(ask, index)
            if not isinstance(answer, Rejected):
                index.place(answer, ask)
            answers.append(answer)
        return answers
    host_ids = np.array([*index.host_ids, -1], dtype=np.int64)
    answers = []
    for first in range(0, len(batch), PART):
        part = batch[first : first + PART]
        positions, most, policy.cursor = index.fill(part, policy.cursor, policy.terms)
        found: list[int | Rejected] = host_ids[positions].tolist()
        for k in np.flatnonzero(positions < 0).tolist():
            found[k] = index.rejection(part.ask(k), int(most[k]))
        answers += found
    return answers
