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
from podcluster.host.model import HostModel
from podcluster.host.packed import packed_domain, packed_host
from podcluster.host.state import DomainState, HostState
from podcluster.records import Demand, HostSpec, MachineRequest

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

    def persistent_id(self, obj: Any) -> int | None:
        """The place of what is shared."""
        if type(obj) not in SHARED:
            return None
        place = self._places.setdefault(id(obj), len(self.shared))
        if place == len(self.shared):
            self.shared.append(obj)
        return place

    def reducer_override(self, obj: Any) -> Any:
        """What pickle cannot write by itself, or not as small."""
        if isinstance(obj, FunctionType) and closures.is_inner(obj):
            return closures.reduced(obj)
        if isinstance(obj, CellType):
            return closures.reduced_cell(obj)
        if isinstance(obj, HostState):
            return packed_host(obj)
        if isinstance(obj, DomainState):
            return packed_domain(obj)
        return NotImplemented


class _Unpickler(pickle.Unpickler):
    """Reads a host."""

    def __init__(self, snapshot: Snapshot) -> None:
        super().__init__(io.BytesIO(zlib.decompress(snapshot.content)))
        self._shared = snapshot.shared

    def persistent_load(self, pid: int) -> Any:
        """What is shared, by its place."""
        return self._shared[pid]
