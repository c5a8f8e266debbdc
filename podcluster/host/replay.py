"""Golden traces against a host: read them, carry out their operations in order, compare everything that was recorded.

What        `replay_file` drives any `GoldenMachine`; `main` is `podcluster replay FILE...`, on the simulator's kernels.
Units       As in the traces: frame numbers, gfns and sizes are 4 KiB pages.
Compared    `ret` on every line; presence, absence and content of `oom`, `nomem`, `assert`, `conflict`; every field of
            every state record, must-match and diagnostic alike, after merging the differences guest by guest.
Source      docs/golden-traces.md. The header says which era's hypervisor; a trace of an unknown era or another format
            is refused, not half read.
"""

import gzip
import json
import sys
import time
import zlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, TextIO

from podcluster.config import ERAS
from podcluster.errors import ConfigError

FORMAT = 1
TODAY = "today"  # the era of a trace that names none
NOTES = ("oom", "nomem", "assert", "conflict")
ABSENT = "absent"
GZIP_MAGIC = b"\x1f\x8b"
USAGE = "usage: podcluster replay FILE...   golden traces (*.jsonl.gz) against this host; exit status 1 on any mismatch"

_SEQ = ("dom", "start", "count", "step")
ARGUMENTS: dict[str, frozenset[str]] = {
    name: frozenset(arguments)
    for name, arguments in {
        "create": ("dom",),
        "set_max_pages": ("dom", "pages"),
        "set_preempt": ("mode",),
        "set_pod_target": ("dom", "pages"),
        "mark_pod": ("dom", "gfn", "order"),
        "mark_pod_seq": ("dom", "start", "count", "order"),
        "populate": ("dom", "gfn", "order"),
        "populate_special": ("dom", "gfn"),
        "populate_seq": (*_SEQ, "order"),
        "populate_list": ("dom", "order", "gfns"),
        "decrease": ("dom", "gfn", "order"),
        "decrease_seq": (*_SEQ, "order"),
        "decrease_list": ("dom", "order", "gfns"),
        "read": ("dom", "gfn", "word"),
        "write": ("dom", "gfn", "word", "value"),
        "read_seq": (*_SEQ, "word"),
        "write_seq": (*_SEQ, "word", "value"),
        "read_list": ("dom", "word", "gfns"),
        "write_list": ("dom", "word", "value", "gfns"),
        "query": ("dom", "gfn"),
        "add_ref": ("dom", "gfn", "id"),
        "drop_ref": ("id", "dom"),
        "shadow_ref": ("dom", "gfn"),
        "set_flag": ("dom", "gfn", "flag", "on"),
        "offline": ("dom", "list", "index", "sub"),
        "destroy": ("dom",),
        "state": ("dom",),
    }.items()
}


class GoldenMachine(Protocol):
    """What a trace needs of a host, beside a method for each operation (name and keywords as in the trace)."""

    def take_notes(self) -> dict[str, Any]:
        """`oom`, `nomem`, `assert` and `conflict` since the last call, each only if it happened."""

    def state_record(self, dom: int) -> dict[str, Any]:
        """All fields of a state record."""


MakeMachine = Callable[[dict[str, Any]], GoldenMachine]


@dataclass(frozen=True, slots=True)
class Mismatch:
    """The first difference in a trace."""

    line: int
    op: str
    field: str
    expected: object
    found: object


@dataclass(frozen=True, slots=True)
class ReplayResult:
    """One trace replayed: how far it went, and where it went wrong if it did."""

    path: str
    operations: int
    records: int
    mismatch: Mismatch | None

    @property
    def line(self) -> str:
        """One line beginning `ok` or `MISMATCH`."""
        if self.mismatch is None:
            return f"ok {self.path}: {self.operations} operations, {self.records} state records"
        m = self.mismatch
        return (
            f"MISMATCH {self.path}:{m.line}: operation {m.op}, field {m.field}: "
            f"expected {json.dumps(m.expected)}, found {json.dumps(m.found, default=str)}"
        )


def kernel_machine(header: dict[str, Any]) -> GoldenMachine:
    """The host that the simulator uses, for the header of a trace."""
    from podcluster.host.traced import TracedMachine  # here, because the kernels take their time to load

    machine: GoldenMachine = TracedMachine.from_header(header)
    return machine


def replay_file(path: str | Path, make_machine: MakeMachine = kernel_machine) -> ReplayResult:
    """Replay one trace up to its first difference; ConfigError when the file is not a whole golden trace."""
    lines = _lines(Path(path))
    header = _header(path, lines)
    guests = {guest["id"] for guest in header["guests"]}
    machine = make_machine(header)
    created: set[int] = set()
    expected: dict[int, dict[str, Any]] = {}  # per guest, differences merged
    records = 0
    for number, text in enumerate(lines[1:], start=2):
        line = _operation(path, number, text, guests)
        op, dom = line["op"], line["args"].get("dom")
        if dom is not None and (dom in created) == (op == "create"):
            fault = "created twice" if op == "create" else "used before it is created"
            raise ConfigError(f"{path}:{number}: guest {dom!r} is {fault}; record the trace again")
        if op == "create":
            created.add(dom)
        found = getattr(machine, op)(**line["args"])
        notes = machine.take_notes()
        if found != line["ret"]:
            return ReplayResult(str(path), number - 1, records, Mismatch(number, op, "ret", line["ret"], found))
        if notes or len(line) > 3:
            for note in NOTES:
                if notes.get(note) != line.get(note):
                    difference = Mismatch(number, op, note, line.get(note, ABSENT), notes.get(note, ABSENT))
                    return ReplayResult(str(path), number - 1, records, difference)
        state = line.get("state")
        if state is not None:
            records += 1
            merged = expected.setdefault(state["dom"], {})
            merged.update(state)
            record = machine.state_record(state["dom"])
            if record != merged:
                field = _first_difference(merged, record)
                if field is not None:
                    difference = Mismatch(number, op, f"state.{field}", merged[field], record.get(field, ABSENT))
                    return ReplayResult(str(path), number - 1, records, difference)
    return ReplayResult(str(path), len(lines) - 1, records, None)


def _first_difference(expected: Mapping[str, Any], found: Mapping[str, Any]) -> str | None:
    return next((field for field, value in expected.items() if found.get(field, ABSENT) != value), None)


def _lines(path: Path) -> list[bytes]:
    """The lines of a trace, gzipped or plain, or a ConfigError that says what is wrong with the file."""
    if path.is_dir():
        raise ConfigError(f"{path}: a folder, not a trace; give its files, such as {path}/*.jsonl.gz")
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        raise ConfigError(f"{path}: no such file; give the path of a golden trace (*.jsonl.gz)") from None
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read ({error.strerror}); give a readable golden trace") from None
    if data.startswith(GZIP_MAGIC):
        try:
            data = gzip.decompress(data)
        except EOFError:
            raise ConfigError(f"{path}: gzip data ends early, the file is truncated; fetch it again") from None
        except (gzip.BadGzipFile, zlib.error) as error:
            raise ConfigError(f"{path}: gzip data is damaged ({error}); fetch it again") from None
    lines = data.splitlines()
    if not lines:
        raise ConfigError(f"{path}: empty; a golden trace begins with a header line")
    return lines


def _header(path: str | Path, lines: list[bytes]) -> dict[str, Any]:
    try:
        header = json.loads(lines[0])
    except ValueError:
        header = None
    needed = {"format", "host_pages", "scrub_on_free", "guests", "ops"}
    if not isinstance(header, dict) or not needed <= header.keys():
        raise ConfigError(f"{path}:1: not the header of a golden trace (JSON with {', '.join(sorted(needed))})")
    if header["format"] != FORMAT:
        raise ConfigError(f"{path}:1: format must be {FORMAT}, got {header['format']!r}; record the trace again")
    era = header.get("era", TODAY)
    if era not in ERAS:
        raise ConfigError(f"{path}:1: era must be one of {', '.join(ERAS)} or absent, got {era!r}; record it again")
    guest_keys = {"id", "maxmem_pages", "max_pages", "paging", "p2m", "sp_1g", "sp_2m"}
    for guest in header["guests"]:
        if not guest_keys <= guest.keys():
            missing = ", ".join(sorted(guest_keys - guest.keys()))
            raise ConfigError(f"{path}:1: a guest of the header lacks {missing}; record the trace again")
    if len(lines) - 1 != header["ops"]:
        what = "truncated" if len(lines) - 1 < header["ops"] else "longer than its header says"
        raise ConfigError(
            f"{path}: {what}: the header says {header['ops']} operations, the file has {len(lines) - 1}; fetch it again"
        )
    return header


def _operation(path: str | Path, number: int, text: bytes, guests: set[int]) -> dict[str, Any]:
    try:
        line: dict[str, Any] = json.loads(text)
        op, arguments = line["op"], line["args"]
        line["ret"]
    except (ValueError, KeyError, TypeError):
        raise ConfigError(f"{path}:{number}: not an operation (JSON with op, args, ret); fetch it again") from None
    wanted = ARGUMENTS.get(op)
    if wanted is None:
        raise ConfigError(f"{path}:{number}: unknown operation {op!r}; known: {', '.join(sorted(ARGUMENTS))}")
    if arguments.keys() != wanted and {*arguments, "sub"} != wanted:
        listed = ", ".join(sorted(arguments))
        raise ConfigError(f"{path}:{number}: {op} takes {', '.join(sorted(wanted))}, got {listed}; record it again")
    if "dom" in arguments and arguments["dom"] not in guests:
        raise ConfigError(f"{path}:{number}: guest {arguments['dom']!r} is not in the header; record the trace again")
    return line


def replay_all(paths: Sequence[str], make_machine: MakeMachine, out: TextIO, err: TextIO) -> int:
    """Replay every file, a line each and a closing line; 0 all ok, 1 some mismatch, 2 some file is no trace."""
    started = time.perf_counter()
    ok = mismatched = unreadable = operations = 0
    for path in paths:
        try:
            result = replay_file(path, make_machine)
        except ConfigError as error:
            err.write(f"error: {error}\n")
            unreadable += 1
            continue
        operations += result.operations
        if result.mismatch is None:
            ok += 1
        else:
            mismatched += 1
        out.write(result.line + "\n")
        out.flush()
    seconds = time.perf_counter() - started
    out.write(
        f"{len(paths)} trace{'' if len(paths) == 1 else 's'}, {operations} operations in {seconds:.1f} s: "
        f"{ok} ok, {mismatched} mismatched, {unreadable} unreadable\n"
    )
    return 1 if mismatched else 2 if unreadable else 0


def main(argv: Sequence[str]) -> int:
    """`podcluster replay FILE...`."""
    if "-h" in argv or "--help" in argv:
        sys.stdout.write(USAGE + "\n")
        return 0
    options = [argument for argument in argv if argument.startswith("-")]
    if options:
        sys.stderr.write(f"error: unknown option {options[0]}; {USAGE}\n")
        return 2
    if not argv:
        sys.stderr.write(f"error: no trace given; {USAGE}\n")
        return 2
    return replay_all(argv, kernel_machine, sys.stdout, sys.stderr)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
