"""Samples of hosts and of machines at instants: their rows, and many of them as one block.

What        `SampleRow` and `MachineSampleRow`; `SampleBlock` and `MachineSampleBlock`, the same by column;
            `RowBlock.by_instant`, those of many hosts as one.
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


class RowBlock(Sequence[Any]):
    """Many rows of numbers by column: a long run has millions, which never are objects on their way.

    As a sequence it is the rows one by one, for who looks at a few.
    """

    __slots__ = ("_columns", "_hosts", "_rows")
    ROW: ClassVar[type[Any]]
    NAMES: ClassVar[tuple[str, ...]]  # of its fields, in order

    def __init__(self, columns: Int64Array) -> None:
        self._columns: Int64Array | None = columns
        self._hosts: Sequence[Self] = ()  # whose rows it is, while nobody has looked
        self._rows = int(columns.shape[1])

    @property
    def columns(self) -> Int64Array:
        """int64[column, row], a line for each field of ROW."""
        if self._columns is None:
            self._columns, self._hosts = _in_time(self._hosts), ()
        return self._columns

    @classmethod
    def by_instant(cls, hosts: Sequence[Self]) -> Self:
        """The samples of hosts or their machines, given in host_id order, in order of time and host: put so once
        somebody looks, who may be a thread that writes.
        """
        block = cls(hosts[0].columns)
        block._columns, block._hosts, block._rows = None, hosts, sum(len(one) for one in hosts)
        return block

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

    def __repr__(self) -> str:
        return f"{type(self).__name__}(columns={self.columns!r})"

    def __eq__(self, other: object) -> bool:
        return type(other) is type(self) and np.array_equal(self.columns, other.columns)

    def __hash__(self) -> int:
        return hash(self.columns.tobytes())

    def __len__(self) -> int:
        return self._rows

    @overload
    def __getitem__(self, index: int) -> Any: ...
    @overload
    def __getitem__(self, index: slice) -> Self: ...
    def __getitem__(self, index: int | slice) -> Any:
        if isinstance(index, slice):
            return type(self)(self.columns[:, index])
        return self.ROW(*self.columns[:, index].tolist())


def _in_time(hosts: Sequence[RowBlock]) -> Int64Array:
    """The columns of all, in order of time and host."""
    kind = type(hosts[0])
    at = kind.NAMES.index("t_ns")
    apart = [piece for piece in map(_instants_apart, hosts) if piece is not None]
    times = [piece[at, :, 0] for piece in apart]
    if len(apart) == len(hosts) and all(np.array_equal(one, times[0]) for one in times[1:]):
        return np.concatenate(apart, axis=2).reshape(len(kind.NAMES), -1)
    joined = kind.join(hosts).columns
    # `take` leaves each column in one piece, as it is written; an index of the second axis would put rows together.
    return np.take(joined, np.argsort(joined[at], kind="stable"), axis=1)


def _instants_apart(block: RowBlock) -> Int64Array | None:
    """[column, instant, row] a block in order of time, if it has as many rows at each instant."""
    if not len(block):
        return None
    t_ns = block.column("t_ns")
    rows = int(np.searchsorted(t_ns, t_ns[0], side="right"))
    if len(t_ns) % rows:
        return None
    apart = block.columns.reshape(len(block.NAMES), -1, rows)
    t_ns = t_ns.reshape(-1, rows)
    return apart if bool((t_ns == t_ns[:, :1]).all() and (t_ns[1:, 0] > t_ns[:-1, 0]).all()) else None


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
