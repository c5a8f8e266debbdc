"""One process at a time in a folder of results.

What        `Lock`, a context manager. A process that dies lets go of its lock, however it dies.
"""

from __future__ import annotations

import fcntl
import os
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Final, Self

from podcluster.errors import PodclusterError

NAME: Final = ".lock"


class Lock:
    """Holds `folder`, which is made if need be; without anything in it, it is gone again afterwards."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._file = -1
        self._made = [path for path in (folder, *folder.parents) if not path.exists()]

    def __enter__(self) -> Self:
        self._folder.mkdir(parents=True, exist_ok=True)
        while self._file < 0:
            file = os.open(self._folder / NAME, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                # Whoever held it before may just have taken the file away that we opened: then it locks nobody out.
                if _is_there(file, self._folder / NAME):
                    self._file = file
            except OSError as error:
                raise PodclusterError(
                    f"{self._folder} must be computed by one process at a time, got a second ({error.strerror}): wait "
                    "for the other, or choose another folder with hydra.run.dir"
                ) from error
            finally:
                if self._file < 0:
                    os.close(file)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        (self._folder / NAME).unlink()
        os.close(self._file)
        with suppress(OSError):
            for path in self._made:
                path.rmdir()


def _is_there(file: int, path: Path) -> bool:
    """Whether this open file has that name."""
    try:
        return os.path.samestat(os.fstat(file), path.stat())
    except FileNotFoundError:
        return False
