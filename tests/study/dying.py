"""podcluster in a process that kills itself just before it does something to a file:
`python -m tests.study.dying FOLDER KIND NUMBER [what podcluster is given]`.

KIND is `save` (of what is kept in FOLDER to go on from) or `write` (of all else in it: results, marks, the lock),
NUMBER which of these is never done, from 1. With 0 all are, and a last line on standard error says how many there were.
"""

from __future__ import annotations

import json
import os
import signal
import sys
from collections import Counter
from typing import Any, Final

from podcluster.cli import main
from podcluster.io.checkpoints import FOLDER as KEPT

CHANGES: Final = frozenset({"os.mkdir", "os.remove", "os.rename", "os.rmdir", "shutil.rmtree"})


def changes(event: str, arguments: tuple[Any, ...]) -> bool:
    """Whether what Python is about to do changes a folder or a file."""
    return event in CHANGES or (event == "open" and bool(arguments[2] & (os.O_CREAT | os.O_WRONLY)))


def live(folder: str, kind: str, number: int, arguments: list[str]) -> int:
    """Run it; whether it comes back is the question."""
    seen: Counter[str] = Counter()

    def look(event: str, given: tuple[Any, ...]) -> None:
        if given and str(given[0]).startswith(folder) and changes(event, given):
            what = "save" if f"/{KEPT}" in str(given[0]) else "write"
            seen[what] += 1
            if what == kind and seen[what] == number:
                os.kill(os.getpid(), signal.SIGKILL)

    sys.addaudithook(look)
    status = main(arguments)
    sys.stderr.write(json.dumps(seen) + "\n")
    return status


if __name__ == "__main__":
    sys.exit(live(sys.argv[1], sys.argv[2], int(sys.argv[3]), sys.argv[4:]))
