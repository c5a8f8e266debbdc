"""Samples of hosts and of machines at instants: their rows, and many of them as one block.

What        `SampleRow` and `MachineSampleRow`; `SampleBlock` and `MachineSampleBlock`, the same by column;
            `RowBlock.by_instant`, those of many hosts as one; `Stretch`, looks at a host between which little changes.
Units       Those of each column.
Symbols     W(t) the demand
Invariants  A block has a line of int64 for each field of its row, in order: one is as good as the other. Every field
            has a non-blank unit and doc.
Departs     A sample that sums over all hosts has host_id -1.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, fields
from typing import Any, ClassVar, Final, NamedTuple, Protocol, Self, overload

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


class Source(Protocol):
    """Where rows come from that nobody has looked at yet: as many at each of some instants, alike but for the time and
    the last column.
    """

    @property
    def t_ns(self) -> Int64Array:
        """int64[instants], ascending."""

    @property
    def rows(self) -> int:
        """How many at each instant."""

    @property
    def steady(self) -> Int64Array:
        """int64[column, row], anything for the two that change."""

    def changing(self, found: Int64Array) -> None:
        """Put the last column into int64[row, instant]."""


class RowBlock(Sequence[Any]):
    """Many rows of numbers by column: a long run has millions, which never are objects on their way.

    As a sequence it is the rows one by one, for who looks at a few. Columns are made once somebody looks, who may be a
    thread that writes: put together from those of hosts, or filled where they are to be.
    """

    __slots__ = ("_apart", "_columns", "_hosts", "_rows", "_source", "in_order")
    ROW: ClassVar[type[Any]]
    NAMES: ClassVar[tuple[str, ...]]  # of its fields, in order
    _columns: Int64Array | None
    _apart: Sequence[Int64Array]  # the columns one by one, as `pieces` makes them, some for many pieces
    _hosts: Sequence[Self]  # whose rows it is, or
    _source: Source | None  # where they come from, while nobody has looked
    _rows: int
    in_order: bool
    """Known to ascend by time, host and what comes after that in the table's key, without a look at the rows."""

    def __init__(self, columns: Int64Array) -> None:
        self._set(columns, (), None, int(columns.shape[1]))

    def _set(self, columns: Int64Array | None, hosts: Sequence[Self], source: Source | None, rows: int) -> None:
        self._columns, self._hosts, self._source, self._rows = columns, hosts, source, rows
        self._apart = ()
        self.in_order = False

    @property
    def columns(self) -> Int64Array:
        """int64[column, row], a line for each field of ROW."""
        if self._columns is None:
            if self._apart:
                self._columns = np.stack(self._apart)
                return self._columns
            source = self._source
            columns = _in_time(self._hosts) if source is None else _filled(self.NAMES, [source], source.steady)
            self._set(columns, (), None, self._rows)
            return columns
        return self._columns

    @property
    def is_made(self) -> bool:
        """Whether its columns, or some of them, are in memory."""
        return self._columns is not None or bool(self._apart) or any(one.is_made for one in self._hosts)

    @classmethod
    def by_instant(cls, hosts: Sequence[Self]) -> Self:
        """The samples of hosts or their machines, given in host_id order, in order of time and host."""
        block = cls.__new__(cls)
        block._set(None, hosts, None, sum(len(one) for one in hosts))
        return block

    @classmethod
    def from_source(cls, source: Source) -> Self:
        """These rows, in order of time."""
        block = cls.__new__(cls)
        block._set(None, (), source, len(source.t_ns) * source.rows)
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

    def pieces(self, rows: int) -> Iterator[Self]:
        """The same rows in blocks of about so many, each made when it is asked for."""
        sources = _alike(self._hosts) if self._columns is None else []
        if not sources:
            for first in range(0, len(self), rows):
                yield self[first : first + rows]
            return
        instants, width = len(sources[0].t_ns), sum(one.rows for one in sources)
        step = max(1, rows // width)
        steady = _steady(sources)
        ascend = _ascend(self.NAMES, sources[0].t_ns, steady)
        alike = [np.tile(column, min(step, instants)) for column in steady]  # what changes aside, those of each piece
        changing = _changing(sources)
        for first in range(0, instants, step):
            t_ns = sources[0].t_ns[first : first + step]
            piece = type(self).__new__(type(self))
            piece._set(None, (), None, len(t_ns) * width)
            apart = [column[: len(piece)] for column in alike]
            apart[self.NAMES.index("t_ns")] = t_ns.repeat(width)
            apart[-1] = changing[:, first : first + step].T.reshape(-1)
            piece._apart, piece.in_order = apart, ascend
            yield piece

    def column(self, name: str) -> Int64Array:
        """One column, int64[rows]."""
        at = self.NAMES.index(name)
        found: Int64Array = self._apart[at] if self._apart else self.columns[at]
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
    if sources := _alike(hosts):
        return _filled(kind.NAMES, sources, _steady(sources))
    at = kind.NAMES.index("t_ns")
    apart = [piece for piece in map(_instants_apart, hosts) if piece is not None]
    times = [piece[at, :, 0] for piece in apart]
    if len(apart) == len(hosts) and all(np.array_equal(one, times[0]) for one in times[1:]):
        return np.concatenate(apart, axis=2).reshape(len(kind.NAMES), -1)
    joined = kind.join(hosts).columns
    # `take` leaves each column in one piece, as it is written; an index of the second axis would put rows together.
    return np.take(joined, np.argsort(joined[at], kind="stable"), axis=1)


def _alike(hosts: Sequence[RowBlock]) -> list[Source]:
    """Where the rows of all come from, if nobody has looked at any and all have them at the same instants."""
    sources = [one._source for one in hosts if one._source is not None]
    if len(sources) < len(hosts) or not sources:
        return []
    t_ns = sources[0].t_ns
    return sources if all(np.array_equal(one.t_ns, t_ns) for one in sources[1:]) else []


def _steady(sources: Sequence[Source]) -> Int64Array:
    """int64[column, row] what is the same at each instant, of all."""
    return np.concatenate([one.steady for one in sources], axis=1)


def _filled(names: Sequence[str], sources: Sequence[Source], steady: Int64Array) -> Int64Array:
    """The rows of all, which have them at the same instants, in order of time and source; `steady` as of all."""
    t_ns, rows = sources[0].t_ns, sum(one.rows for one in sources)
    filled = np.empty((len(names), len(t_ns), rows), dtype=np.int64)
    filled[:] = steady.reshape(len(names), 1, -1)
    filled[names.index("t_ns")] = t_ns.reshape(-1, 1)
    filled[-1] = _changing(sources).T
    return filled.reshape(len(names), -1)


def _changing(sources: Sequence[Source]) -> Int64Array:
    """int64[row, instant] the last column of all."""
    found = np.empty((sum(one.rows for one in sources), len(sources[0].t_ns)), dtype=np.int64)
    upto = 0
    for one in sources:
        first, upto = upto, upto + one.rows
        one.changing(found[first:upto])
    return found


def _ascend(names: Sequence[str], t_ns: Int64Array, steady: Int64Array) -> bool:
    """Whether each instant is after the one before, and the rows of one ascend by host and then by machine."""
    host, machine = steady[names.index("host_id")], steady[names.index("domain_id")]
    apart = (host[1:] > host[:-1]) | ((host[1:] == host[:-1]) & (machine[1:] > machine[:-1]))
    return bool((np.diff(t_ns) > 0).all() and apart.all())


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


class Stretch(NamedTuple):
    """Looks at a host at instants of a grid."""

    row: tuple[int, ...]  # of the first, as in SampleRow, nothing demanded; of the others but for what follows
    demanded: Int64Array  # at each
    fewer: Int64Array | None  # by how many the entries left, and what is cached for them, were fewer at each


class SampleBlock(RowBlock):
    """Samples of hosts. Those of one host are on their way as the stretches that they were taken in: a twelfth of what
    their columns are.
    """

    __slots__ = ("_seen",)
    ROW = SampleRow
    NAMES = _names(SampleRow)
    _seen: tuple[int, Sequence[Stretch]] | None  # as `seen` was given it, while nobody has looked

    @classmethod
    def seen(cls, grid_ns: int, stretches: Sequence[Stretch]) -> Self:
        """What one host saw of itself at instants `grid_ns` apart, in order of time."""
        block = cls.__new__(cls)
        block._set(None, (), None, sum(len(one.demanded) for one in stretches))
        block._seen = grid_ns, stretches
        return block

    def _set(self, *made: Any) -> None:
        super()._set(*made)
        self._seen = None  # only now: another thread may be about to look

    @property
    def columns(self) -> Int64Array:
        """int64[column, row], a line for each field of SampleRow."""
        if self._columns is None and (seen := self._seen):
            self._set(_as_seen(*seen), (), None, self._rows)
        return super().columns

    @property
    def t_ns(self) -> Int64Array:
        """When, int64[rows]."""
        seen = self._seen
        return self.column("t_ns") if seen is None else _instants(*seen)

    def add_to(self, sums: Int64Array, steps: Int64Array) -> None:
        """Add these rows to int64[column, row] `sums`, one to each, or to what these are to be more than
        int64[column, row + 1] `steps` added up.
        """
        seen = self._seen
        if seen is None:
            sums += self.columns
            return
        upto = 0
        for one in seen[1]:
            first, upto = upto, upto + len(one.demanded)
            row = np.array(one.row, dtype=np.int64)
            steps[:, first] += row
            steps[:, upto] -= row
            _add_changing(sums[:, first:upto], one)

    def __reduce__(self) -> tuple[Any, ...]:
        seen = self._seen
        return super().__reduce__() if seen is None else (type(self).seen, seen)


T_NS: Final = SampleBlock.NAMES.index("t_ns")
DEMANDED: Final = SampleBlock.NAMES.index("demanded_pages")
POPULATED: Final = SampleBlock.NAMES.index("populated_pages")
LEFT: Final = [SampleBlock.NAMES.index(name) for name in ("cache_pages", "entry_pages")]


def _instants(grid_ns: int, stretches: Sequence[Stretch]) -> Int64Array:
    """When the looks of all stretches were, int64[looks]."""
    each = [one.row[T_NS] + grid_ns * np.arange(len(one.demanded), dtype=np.int64) for one in stretches]
    return np.concatenate(each)


def _as_seen(grid_ns: int, stretches: Sequence[Stretch]) -> Int64Array:
    """The columns of these looks."""
    t_ns = _instants(grid_ns, stretches)
    columns = np.empty((len(SampleBlock.NAMES), len(t_ns)), dtype=np.int64)
    upto = 0
    for one in stretches:
        first, upto = upto, upto + len(one.demanded)
        here = columns[:, first:upto]
        here[:] = np.array(one.row, dtype=np.int64).reshape(-1, 1)
        _add_changing(here, one)
    columns[T_NS] = t_ns
    return columns


def _add_changing(columns: Int64Array, stretch: Stretch) -> None:
    """What is other at some looks of a stretch than at its first, on top of that."""
    columns[DEMANDED] += stretch.demanded
    if stretch.fewer is not None:
        columns[POPULATED] += stretch.fewer
        columns[LEFT] -= stretch.fewer


class MachineSampleBlock(RowBlock):
    """Samples of machines."""

    __slots__ = ()
    ROW = MachineSampleRow
    NAMES = _names(MachineSampleRow)


NO_SAMPLES: Final = SampleBlock.join(())
NO_MACHINE_SAMPLES: Final = MachineSampleBlock.join(())
