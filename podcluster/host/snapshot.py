"""A host as bytes, and back: exactly the same host.

What        `pack` and `unpack`; `Snapshot`, a packed host.
Invariants  [SN-1] a host that was packed and unpacked, wherever its time is cut, reports what it would have reported,
                   byte for byte, and packs to the same host again.
Form        The objects of a `HostModel` as pickle writes them, the arrays of its machine as `packed.py` and functions
            made inside functions as `closures.py` say, compressed. What hosts have in common and never change, such as
            configurations and what machines ask for, is not in the bytes but kept beside them as it is.
Life        A snapshot is good for the very version of the program that made it, in whatever process. Snapshots that are
            pickled together share what they have in common.
"""

from __future__ import annotations

import io
import pickle
import zlib
from dataclasses import dataclass, is_dataclass
from types import CellType, FunctionType
from typing import Any, Final

from podcluster import config
from podcluster.errors import InvariantError
from podcluster.host import closures
from podcluster.host.integers import packed_sequence, unpacked_sequence
from podcluster.host.model import HostModel
from podcluster.records.demand import Demand
from podcluster.records.hosts import HostSpec
from podcluster.records.machines import MachineRequest

LEVEL: Final = 6  # of compression
SHARED: Final = frozenset(
    (Demand, HostSpec, MachineRequest, *(kind for kind in vars(config).values() if is_dataclass(kind)))
)
"""What never changes once it is there, and others have as well."""


@dataclass(frozen=True, slots=True)
class Snapshot:
    """A packed host. It can itself be pickled."""

    content: bytes
    shared: tuple[Any, ...]  # what the content refers to


def pack(model: HostModel) -> Snapshot:
    """All of a host as it is now; the host itself stays as it is."""
    written = io.BytesIO()
    pickler = _Pickler(written)
    pickler.dump(model)
    return Snapshot(zlib.compress(written.getbuffer(), LEVEL), tuple(pickler.shared))


def unpack(snapshot: Snapshot) -> HostModel:
    """The host again, in arrays of its own."""
    model = _Unpickler(snapshot).load()
    if not isinstance(model, HostModel):
        raise InvariantError(f"[SN-1] a snapshot holds a host violated: {type(model).__name__}")
    return model


class _Pickler(pickle.Pickler):
    """Writes a host; `shared` is what it refers to."""

    def __init__(self, file: io.BytesIO) -> None:
        super().__init__(file, protocol=pickle.HIGHEST_PROTOCOL)
        self.shared: list[Any] = []
        self._places: dict[int, int] = {}  # in `shared`, by id
        self._sequences: dict[int, int] = {}  # numbers of long sequences, by id

    def persistent_id(self, obj: Any) -> Any:
        """The place of what is shared; the number of a long sequence, and at first what is in it."""
        kind = type(obj)
        if kind in SHARED:
            place = self._places.setdefault(id(obj), len(self.shared))
            if place == len(self.shared):
                self.shared.append(obj)
            return place
        if kind is list or kind is tuple:
            known = self._sequences.get(id(obj))
            if known is not None:
                return known, None
            packed = packed_sequence(obj)
            if packed is not None:
                number = self._sequences[id(obj)] = len(self._sequences)
                return number, packed
        return None

    def reducer_override(self, obj: Any) -> Any:
        """What pickle cannot write by itself."""
        if isinstance(obj, FunctionType) and closures.is_inner(obj):
            return closures.reduced(obj)
        if isinstance(obj, CellType):
            return closures.reduced_cell(obj)
        return NotImplemented


class _Unpickler(pickle.Unpickler):
    """Reads a host."""

    def __init__(self, snapshot: Snapshot) -> None:
        super().__init__(io.BytesIO(zlib.decompress(snapshot.content)))
        self._shared = snapshot.shared
        self._sequences: dict[int, Any] = {}

    def persistent_load(self, pid: Any) -> Any:
        """What is shared, by its place; a long sequence, by its number."""
        if isinstance(pid, int):
            return self._shared[pid]
        number, packed = pid
        if packed is not None:
            self._sequences[number] = unpacked_sequence(packed)
        return self._sequences[number]
