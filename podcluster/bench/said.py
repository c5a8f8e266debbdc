"""How far a benchmark is: a line on standard error every `LINE_EVERY_S` seconds, none of what is over sooner."""

from __future__ import annotations

import sys
import time

from podcluster.report.progress import LINE_EVERY_S

_next_s = time.monotonic() + LINE_EVERY_S  # a process runs one benchmark


def say(text: str) -> None:
    """What is done, or begins; said if it is time to."""
    global _next_s
    now_s = time.monotonic()
    if now_s >= _next_s:
        _next_s = now_s + LINE_EVERY_S
        sys.stderr.write(f"{text}\n")
