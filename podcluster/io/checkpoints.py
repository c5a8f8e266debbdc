"""What a run needs to go on after its process has died, in files: `cluster.resume.Store` in a folder.

Layout      `<folder>/.checkpoint/`: `told-000001`, `told-000002`, ... with what the hosts said, in order; and
            `hosts-000002`, the hosts as they were after the last of these.
Form        A file is its content, then a line of JSON that says of which run it is and what is in it, the length of
            that line (8 bytes), the SHA-256 of all this, and MAGIC.
Invariants  [CK-2] the reports of all steps up to one, and the hosts as a pool packs them after it.
            [CK-3] a file is written aside, brought to the disk and renamed: under its name it is whole. Which run it is
                   of is looked at before anything else in it.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

from podcluster import __version__
from podcluster.cluster.pool import NOTHING_PACKED, Packed, of_bytes, to_bytes
from podcluster.cluster.resume import Told
from podcluster.errors import InvariantError, PodclusterError
from podcluster.fingerprint import fingerprint

FOLDER: Final = ".checkpoint"
FORMAT: Final = 1
MAGIC: Final = b"podckpt\n"
TOLD: Final = "told"
HOSTS: Final = "hosts"
TAIL_BYTES: Final = 8 + hashlib.sha256().digest_size + len(MAGIC)
READ_BYTES: Final = 1 << 20


class CheckpointFolder:
    """Where one run is kept; a context manager.

    Leaving it keeps what was saved, unless by an InvariantError: what our own mistake led to is not to be gone on with.
    """

    def __init__(self, folder: Path, run: str) -> None:
        """`run` is a name that no other run has."""
        self._folder = folder / FOLDER
        self._run = run
        self._files: list[tuple[Path, Mapping[str, Any]]] = []  # `told` in order
        self._packed: Packed = NOTHING_PACKED

    def __enter__(self) -> Self:
        self._find()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if isinstance(error, InvariantError):
            remove(self._folder.parent)

    # -- what is kept ------------------------------------------------------------------------------------------------

    @property
    def steps(self) -> int:
        """How many steps are kept."""
        return sum(header["steps"] for _, header in self._files)

    def told(self) -> Iterator[Told]:
        """What the hosts said in them."""
        for path, header in list(self._files):
            with path.open("rb") as file:
                yield from of_bytes(file.read(header["bytes"]))

    def packed(self) -> Packed:
        """The hosts after them."""
        return self._packed

    def save(self, told: Sequence[Told], packed: Iterable[tuple[int, bytes]]) -> None:
        """Keep these further steps, and the hosts in place of what was kept of them [CK-2]."""
        self._folder.mkdir(parents=True, exist_ok=True)
        number = len(self._files) + 1
        before = self.steps
        # The hosts last: without them, what was told is of a save that did not come to its end.
        header = self._write(f"{TOLD}-{number:06d}", [(0, to_bytes(list(told)))], first=before, steps=len(told))
        path = self._folder / f"{HOSTS}-{number:06d}"
        hosts = self._write(path.name, packed, first=0, steps=before + len(told))
        self._files.append((self._folder / f"{TOLD}-{number:06d}", header))
        self._packed = PackedFile(path, hosts["parts"])
        (self._folder / f"{HOSTS}-{number - 1:06d}").unlink(missing_ok=True)

    # -- files -------------------------------------------------------------------------------------------------------

    def _find(self) -> None:
        """Take in what an earlier process kept, and take away what it had not finished."""
        for partial in self._folder.glob(".*.tmp"):
            partial.unlink()
        hosts = sorted(self._folder.glob(f"{HOSTS}-*"))
        last = _number(hosts[-1]) if hosts else 0
        for path in [*hosts[:-1], *self._folder.glob(f"{TOLD}-*")]:
            if path in hosts or _number(path) > last:
                path.unlink()
        for number in range(1, last + 1):
            path = self._folder / f"{TOLD}-{number:06d}"
            header = self._read(path)
            if header["first"] != self.steps:
                raise _damaged(path, f"it begins at step {header['first']}, {self.steps} are kept before it")
            self._files.append((path, header))
        if hosts:
            header = self._read(hosts[-1])
            if header["steps"] != self.steps:
                raise _damaged(hosts[-1], f"it is of step {header['steps']}, {self.steps} are kept")
            self._packed = PackedFile(hosts[-1], header["parts"])

    def _write(self, name: str, parts: Iterable[tuple[int, bytes]], **about: int) -> dict[str, Any]:
        """Write a file [CK-3]; its header."""
        partial = self._folder / f".{name}.tmp"
        digest = hashlib.sha256()
        places: dict[str, tuple[int, int]] = {}
        size = 0
        with partial.open("wb") as file:

            def put(data: bytes) -> None:
                digest.update(data)
                file.write(data)

            for key, data in parts:
                places[str(key)] = size, len(data)
                size += len(data)
                put(data)
            header = {**self._origin(), **about, "bytes": size, "parts": places}
            line = json.dumps(header).encode()
            put(line)
            put(len(line).to_bytes(8, "little"))
            file.write(digest.digest() + MAGIC)
            file.flush()
            os.fsync(file.fileno())
        partial.replace(self._folder / name)
        folder = os.open(self._folder, os.O_RDONLY)
        try:
            os.fsync(folder)  # the name as well
        finally:
            os.close(folder)
        return header

    def _read(self, path: Path) -> dict[str, Any]:
        """The header of a file that is of this run, and whole."""
        if not path.is_file():
            raise _damaged(path, "it is not there")
        with path.open("rb") as file:
            size = file.seek(0, os.SEEK_END)
            file.seek(max(0, size - TAIL_BYTES))
            tail = file.read()
            line_bytes = int.from_bytes(tail[:8], "little")
            if not tail.endswith(MAGIC) or line_bytes + TAIL_BYTES > size:
                raise _damaged(path, "its end is not there")
            file.seek(size - TAIL_BYTES - line_bytes)
            try:
                header: dict[str, Any] = json.loads(file.read(line_bytes))
            except ValueError as error:
                raise _damaged(path, str(error)) from error
            self._check_origin(header)
            file.seek(0)
            digest = hashlib.sha256()
            left = size - TAIL_BYTES + 8
            while left:
                block = file.read(min(READ_BYTES, left))
                if not block:
                    raise _damaged(path, "it became shorter")
                digest.update(block)
                left -= len(block)
            if digest.digest() != tail[8 : 8 + digest.digest_size]:
                raise _damaged(path, "its checksum is another")
        return header

    def _origin(self) -> dict[str, Any]:
        return {"format": FORMAT, "version": __version__, "sources": fingerprint(), "run": self._run}

    def _check_origin(self, header: Mapping[str, Any]) -> None:
        ours = self._origin()
        if any(header.get(key) != ours[key] for key in ("format", "version", "sources")):
            raise PodclusterError(
                f"{self._folder} must be of podcluster {__version__} (sources {ours['sources']}), got a run of "
                f"{header.get('version')} (sources {header.get('sources')}): finish it with that one, or begin "
                "anew with --force"
            )
        if header.get("run") != self._run:
            raise PodclusterError(
                f"{self._folder} must be of this configuration ({self._run}), got that of another run "
                f"({header.get('run')}): finish that one, choose another folder, or begin anew with --force"
            )


class PackedFile(Mapping[int, bytes]):
    """The hosts in a file, each read when it is asked for."""

    def __init__(self, path: Path, places: Mapping[str, Sequence[int]]) -> None:
        self._path = path
        self._places = {int(host_id): place for host_id, place in places.items()}

    def __getitem__(self, host_id: int) -> bytes:
        start, size = self._places[host_id]
        with self._path.open("rb") as file:
            file.seek(start)
            return file.read(size)

    def __iter__(self) -> Iterator[int]:
        return iter(self._places)

    def __len__(self) -> int:
        return len(self._places)


def remove(folder: Path) -> None:
    """Take away what is kept of the run in `folder`."""
    shutil.rmtree(folder / FOLDER, ignore_errors=True)


def _number(path: Path) -> int:
    return int(path.name.rpartition("-")[2])


def _damaged(path: Path, why: str) -> PodclusterError:
    return PodclusterError(
        f"{path} must be as podcluster wrote it, got something else ({why}): remove its folder, or begin "
        "anew with --force"
    )
