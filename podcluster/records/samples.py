"""Samples of hosts and of machines at instants: their rows, and many of them as one block.

What        `SampleRow` and `MachineSampleRow`; `SampleBlock` and `MachineSampleBlock`, the same by column.
Units       Those of each column.
Symbols     W(t) the demand
Invariants  A block has a line of int64 for each field of its row, in order: one is as good as the other. Every field
            has a non-blank unit and doc.
Departs     A sample that sums over all hosts has host_id -1.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, fields
from typing import Any, ClassVar, Final, Self, overload

import numpy as np

from podcluster.records.values import Int64Array, column


@dataclass(frozen=True, slots=True)
class SampleRow:
    """One instant of one host, or of all (host_id -1)."""

    t_ns: int = column("ns", "Simulated time.")
    host_id: int = column("1", "Host; -1 is the sum over all hosts.")
    promised_pages: int = column("pages", "Sum of maxmem of the domains there.")
    target_pages: int = column("pages", "Sum of their targets.")
    owned_pages: int = column("pages", "Sum of their tot_pages.")
    populated_pages: int = column("pages", "gfns backed by a frame.")
    demanded_pages: int = column("pages", "What guests want: sum of W(t); while one boots, what it has taken.")
    cache_pages: int = column("pages", "Pages in populate-on-demand caches.")
    entry_pages: int = column("pages", "gfns marked populate-on-demand and not yet backed.")
    free_pages: int = column("pages", "Free memory in the heap.")
    domains_running: int = column("1", "Domains alive.")
    deaths: int = column("1", "Domains dead since the start of the run.")


@dataclass(frozen=True, slots=True)
class MachineSampleRow:
    """One instant of one machine."""

    t_ns: int = column("ns", "Simulated time.")
    host_id: int = column("1", "Host that it is on.")
    domain_id: int = column("1", "Machine, with a domain there that lives.")
    target_pages: int = column("pages", "Its target.")
    owned_pages: int = column("pages", "Its tot_pages.")
    demanded_pages: int = column("pages", "What it wants: W(t); while it boots, what it has taken.")


@dataclass(frozen=True, slots=True, eq=False)
class RowBlock(Sequence[Any]):
    """Many rows of numbers by column: a long run has millions, which never are objects on their way.

    `columns` is int64[column, row], a line for each field of ROW. As a sequence it is the rows one by one, for who
    looks at a few.
    """

    ROW: ClassVar[type[Any]]
    NAMES: ClassVar[tuple[str, ...]]  # of its fields, in order
    columns: Int64Array

    @classmethod
    def of(cls, rows: Iterable[Any]) -> Self:
        """These rows."""
        names = cls.NAMES
        listed = [[getattr(row, name) for name in names] for row in rows]
        return cls(np.array(listed, dtype=np.int64).reshape(-1, len(names)).T.copy())

    @classmethod
    def join(cls, blocks: Iterable[Self]) -> Self:
        """Their rows, one block after another."""
        columns = [block.columns for block in blocks]
        return cls(np.concatenate(columns, axis=1) if columns else np.zeros((len(cls.NAMES), 0), dtype=np.int64))

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.columns,)  # as `Sent`

    def column(self, name: str) -> Int64Array:
        """One column, int64[rows]."""
        found: Int64Array = self.columns[self.NAMES.index(name)]
        return found

    def __eq__(self, other: object) -> bool:
        return type(other) is type(self) and np.array_equal(self.columns, other.columns)

    def __hash__(self) -> int:
        return hash(self.columns.tobytes())

    def __len__(self) -> int:
        return int(self.columns.shape[1])

    @overload
    def __getitem__(self, index: int) -> Any: ...
    @overload
    def __getitem__(self, index: slice) -> Self: ...
    def __getitem__(self, index: int | slice) -> Any:
        if isinstance(index, slice):
            return type(self)(self.columns[:, index])
        return self.ROW(*self.columns[:, index].tolist())


def _names(row: type[Any]) -> tuple[str, ...]:
    return tuple(item.name for item in fields(row))


class SampleBlock(RowBlock):
    """Samples of hosts."""

    __slots__ = ()
    ROW = SampleRow
    NAMES = _names(SampleRow)


class MachineSampleBlock(RowBlock):
    """Samples of machines."""

    __slots__ = ()
    ROW = MachineSampleRow
    NAMES = _names(MachineSampleRow)


NO_SAMPLES: Final = SampleBlock.join(())
NO_MACHINE_SAMPLES: Final = MachineSampleBlock.join(())
