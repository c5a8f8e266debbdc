"""Calls that may never return, and how long they are waited for.

What        `within` gives what a call returns. One that is too late is left behind, in a thread of its own, and
            `left_behind` says so.
Why         What asks a head of Ray that has stopped waits inside C++, for minutes or for ever, where no signal reaches
            it. Python cannot end such a thread, only a process.
Units       Seconds of wall time.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")

_threads: list[threading.Thread] = []  # for whose calls nobody waits any more


def within(timeout_s: float, call: Callable[[], T], late: Exception) -> T:
    """What `call` returns or raises; `late` is raised where it has done neither in time."""
    returned: list[T] = []
    raised: list[BaseException] = []

    def run() -> None:
        try:
            returned.append(call())
        except BaseException as error:  # whatever it is, it is for who waits
            raised.append(error)

    # A daemon: the interpreter does not wait for it at its end.
    thread = threading.Thread(target=run, name="podcluster-deadline", daemon=True)
    thread.start()
    try:
        thread.join(timeout_s)
    finally:  # a signal may end the wait, too
        if thread.is_alive():
            _threads.append(thread)
    if not raised and not returned:
        raise late
    if raised:
        raise raised[0]
    return returned[0]


def left_behind() -> bool:
    """Whether a call that nobody waits for any more has not returned to this day."""
    return any(thread.is_alive() for thread in _threads)
