"""Processes as Linux lists them, and those that Ray would leave behind.

What        `descendants` of a process; `Watch`, which ends processes should this one die.
Why         Ray's server and node manager end with the process that started them, workers with their node manager. Its
            two agents first try for a minute to tell the server, which is gone.
"""

from __future__ import annotations

import os
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

PROC = Path("/proc")


class Process(NamedTuple):
    """One process: who started it, its group, and its command line."""

    parent: int
    group: int
    command: str


def descendants(pid: int) -> dict[int, Process]:
    """All that `pid` started, and they in turn, by process id; what has ended and nobody has waited for is left out."""
    found: dict[int, Process] = {}
    for folder in PROC.iterdir() if PROC.is_dir() else ():
        if folder.name.isdigit():
            try:
                state, parent, group = (folder / "stat").read_text().rpartition(")")[2].split()[:3]
                command = (folder / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace").strip()
            except OSError:
                continue  # it has just ended
            if state not in "ZX":
                found[int(folder.name)] = Process(int(parent), int(group), command)
    family = {pid}
    while more := {child for child, process in found.items() if process.parent in family} - family:
        family |= more
    return {child: found[child] for child in sorted(family - {pid})}


def agents_of_ray() -> list[int]:
    """The agents of the node manager that this process started: workers have groups of their own."""
    own, group = os.getpid(), os.getpgrp()
    return [pid for pid, process in descendants(own).items() if process.parent != own and process.group == group]


class Watch:
    """A shell that waits for the end of this process, however it comes, and then ends those of `pids`."""

    def __init__(self, pids: Sequence[int]) -> None:
        # Nothing is ever written to its input, which ends when we do. In a session of its own it survives a Ctrl-C.
        self._shell = subprocess.Popen(
            ["/bin/sh", "-c", 'read _; kill -9 "$@" 2>/dev/null', "sh", *map(str, pids)],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )

    def close(self) -> None:
        """Stop waiting: they have ended, and others may have got their numbers."""
        self._shell.kill()
        self._shell.wait()
        if self._shell.stdin is not None:
            self._shell.stdin.close()
