"""Whom a test started, and whom it may therefore kill."""

from __future__ import annotations

import contextlib
import os
import signal
import time
from collections.abc import Callable, Collection, Iterator
from pathlib import Path

from podcluster.cluster.processes import descendants

GONE_S = 20
ACTOR = "ray::ShardServer"  # how Ray calls the process of an actor


def actors(pid: int) -> list[int]:
    """The process ids of the actors that hold hosts, of a Ray that `pid` started."""
    return [child for child, process in descendants(pid).items() if process.command.startswith(ACTOR)]


def is_alive(pid: int) -> bool:
    """Whether there is such a process, and it has not ended."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except OSError:
        return False


def of_folder(folder: str) -> dict[int, str]:
    """The living processes that have to do with a folder, but for this one, with their command lines.

    They were told of it when they were started, or have files of it open: that stays so when whoever started them ends.
    (Ray's workers overwrite what they were started with; their output goes to files.)
    """
    found: dict[int, str] = {}
    for process in Path("/proc").iterdir():
        if process.name.isdigit() and int(process.name) != os.getpid() and is_alive(int(process.name)):
            command = _read(process / "cmdline")
            if folder in command + _read(process / "environ") or any(folder in name for name in _open_files(process)):
                found[int(process.name)] = command
    return found


def _read(file: Path) -> str:
    try:
        return file.read_bytes().replace(b"\0", b" ").decode(errors="replace").strip()
    except OSError:  # it has just ended, or is somebody else's
        return ""


def _open_files(process: Path) -> Iterator[str]:
    try:
        files = list((process / "fd").iterdir())
    except OSError:
        return
    for file in files:
        with contextlib.suppress(OSError):  # it has just been closed
            yield os.readlink(file)


def wait_until_none(look: Callable[[], Collection[int]], within_s: float = GONE_S) -> Collection[int]:
    """Look again and again until nobody is left; who is after this long."""
    deadline_s = time.monotonic() + within_s
    while (left := look()) and time.monotonic() < deadline_s:
        time.sleep(0.1)
    return left


def assert_all_gone(pids: Collection[int], within_s: float = GONE_S) -> None:
    """None of these is left after a while."""
    left = wait_until_none(lambda: {pid for pid in pids if is_alive(pid)}, within_s)
    assert not left, f"still there after {within_s} s: {left}"


def assert_nobody_of(folder: str, within_s: float = GONE_S) -> None:
    """No process that has to do with this folder is left after a while; who is nevertheless, is ended."""
    left = wait_until_none(lambda: of_folder(folder), within_s)
    end(left)
    assert not left, f"still there after {within_s} s: {left}"


def end(pids: Collection[int]) -> None:
    """Kill those of these that are there."""
    for pid in pids:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
