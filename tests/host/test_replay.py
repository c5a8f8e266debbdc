"""The replay driver: what it says of a trace that differs, and of a file that is no trace."""

import gzip
import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from podcluster.errors import ConfigError
from podcluster.host.replay import main, replay_all, replay_file
from tests.reference.model import ReferenceMachine

TRACES = Path(__file__).resolve().parent.parent / "golden" / "xen"
EDGE_CASES = TRACES / "edge_cases.jsonl.gz"
Lines = list[dict[str, Any]]


def corrupted(tmp_path: Path, source: Path, change: Callable[[Lines], None]) -> Path:
    """A copy of a trace with one deliberate change to its parsed lines."""
    lines = [json.loads(line) for line in gzip.decompress(source.read_bytes()).splitlines()]
    change(lines)
    path = tmp_path / source.name
    path.write_bytes(gzip.compress("".join(json.dumps(line) + "\n" for line in lines).encode()))
    return path


def first(lines: Lines, holds: Callable[[dict[str, Any]], bool]) -> int:
    """Line number (from 1) of the first line for which `holds`."""
    return next(number for number, line in enumerate(lines, start=1) if holds(line))


def test_an_agreeing_trace_is_one_line_that_begins_ok() -> None:
    result = replay_file(EDGE_CASES, ReferenceMachine.from_header)
    assert (result.operations, result.records, result.mismatch) == (42, 42, None)
    assert result.line == f"ok {EDGE_CASES}: 42 operations, 42 state records"


def wrong_ret(lines: Lines) -> None:
    lines[first(lines, lambda line: line.get("op") == "query") - 1]["ret"] = [2, 18]


def wrong_must_match(lines: Lines) -> None:
    lines[3]["state"]["host_free_pages"] += 1


def wrong_diagnostic(lines: Lines) -> None:
    lines[3]["state"]["cache"] = "0" * 16


def wrong_later_because_unrecorded(lines: Lines) -> None:
    del lines[3]["state"]["tot_pages"]  # then the value of the record before it stands


def wrong_oom(lines: Lines) -> None:
    lines[first(lines, lambda line: "oom" in line) - 1]["oom"]["ents"] += 1


def absent_oom(lines: Lines) -> None:
    del lines[first(lines, lambda line: "oom" in line) - 1]["oom"]


def invented_assert(lines: Lines) -> None:
    lines[2]["assert"] = 1


OOM_LINE, OOM = 39, {"dom": 1, "tot": 1034, "ents": 1013, "curr": 1}


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (wrong_ret, ":9: operation query, field ret: expected [2, 18], found [2, 9]"),
        (wrong_must_match, ":4: operation set_pod_target, field state.host_free_pages: expected 65, found 64"),
        (
            wrong_diagnostic,
            ':4: operation set_pod_target, field state.cache: expected "0000000000000000", found "082b2307b4e1c277"',
        ),
        (wrong_later_because_unrecorded, ":4: operation set_pod_target, field state.tot_pages: expected 0, found 1024"),
        (
            wrong_oom,
            f":{OOM_LINE}: operation write, field oom: "
            f"expected {json.dumps(OOM | {'ents': 1014})}, found {json.dumps(OOM)}",
        ),
        (absent_oom, f':{OOM_LINE}: operation write, field oom: expected "absent", found {json.dumps(OOM)}'),
        (invented_assert, ':3: operation set_pod_target, field assert: expected 1, found "absent"'),
    ],
)
def test_a_changed_trace_is_a_mismatch_with_place_and_values(
    tmp_path: Path, change: Callable[[Lines], None], said: str
) -> None:
    """File, line, operation, field, expected and found: of the change that was made and of nothing else."""
    path = corrupted(tmp_path, EDGE_CASES, change)
    out, err = io.StringIO(), io.StringIO()
    status = replay_all([str(EDGE_CASES), str(path)], ReferenceMachine.from_header, out, err)
    lines = out.getvalue().splitlines()
    assert lines[1] == f"MISMATCH {path}{said}"
    assert lines[0].startswith("ok ")
    assert lines[2].endswith("1 ok, 1 mismatched, 0 unreadable")
    assert (status, err.getvalue()) == (1, "")


def test_an_absent_nomem_is_a_mismatch(tmp_path: Path) -> None:
    def change(lines: Lines) -> None:
        del lines[first(lines, lambda line: "nomem" in line) - 1]["nomem"]

    path = corrupted(tmp_path, TRACES / "host_short_enomem.jsonl.gz", change)
    mismatch = replay_file(path, ReferenceMachine.from_header).mismatch
    assert mismatch is not None
    assert (mismatch.field, mismatch.expected) == ("nomem", "absent")


def write(path: Path, lines: Lines | bytes) -> Path:
    data = lines if isinstance(lines, bytes) else "".join(json.dumps(line) + "\n" for line in lines).encode()
    path.write_bytes(data)
    return path


def trace(tmp_path: Path, change: Callable[[Lines], None]) -> Path:
    return corrupted(tmp_path, EDGE_CASES, change)


def plain(tmp_path: Path) -> bytes:
    return gzip.decompress(EDGE_CASES.read_bytes())


def test_a_plain_trace_is_replayed_like_a_compressed_one(tmp_path: Path) -> None:
    path = write(tmp_path / "plain.jsonl", plain(tmp_path))
    assert replay_file(path, ReferenceMachine.from_header).mismatch is None


BAD_FILES: dict[str, tuple[Callable[[Path], Path], str]] = {
    "missing": (lambda d: d / "none.jsonl.gz", "no such file"),
    "folder": (lambda d: d, "a folder, not a trace"),
    "empty": (lambda d: write(d / "empty.jsonl.gz", b""), "empty; a golden trace begins with a header line"),
    "gzip truncated": (lambda d: write(d / "t.jsonl.gz", EDGE_CASES.read_bytes()[:-200]), "truncated"),
    "gzip damaged": (
        lambda d: write(d / "t.jsonl.gz", EDGE_CASES.read_bytes()[:300] + b"\0" * 9 + EDGE_CASES.read_bytes()[309:]),
        "damaged",
    ),
    "gzip of nothing": (lambda d: write(d / "t.jsonl.gz", gzip.compress(b"")), "empty"),
    "plain truncated between lines": (
        lambda d: write(d / "t.jsonl", b"\n".join(plain(d).splitlines()[:20]) + b"\n"),
        "truncated: the header says 42 operations, the file has 19",
    ),
    "plain truncated in the last line": (lambda d: write(d / "t.jsonl", plain(d)[:-40]), ":43: not an operation"),
    "operations too many": (lambda d: trace(d, lambda lines: lines.append(lines[-1])), "longer than its header says"),
    "not JSON": (lambda d: write(d / "t.csv", b"a,b,c\n1,2,3\n"), ":1: not the header of a golden trace"),
    "JSON of another kind": (lambda d: write(d / "t.json", b'{"a": 1}\n'), ":1: not the header of a golden trace"),
    "another format": (lambda d: trace(d, lambda lines: lines[0].update(format=2)), ":1: format must be 1, got 2"),
    "another era": (lambda d: trace(d, lambda lines: lines[0].update(era="xen1999")), ":1: era must be one of today"),
    "guest lacks a key": (lambda d: trace(d, lambda lines: lines[0]["guests"][0].pop("p2m")), "lacks p2m"),
    "unknown operation": (lambda d: trace(d, lambda lines: lines[5].update(op="sing")), ":6: unknown operation 'sing'"),
    "argument lacking": (
        lambda d: trace(d, lambda lines: lines[5]["args"].pop("order")),
        ":6: mark_pod takes dom, gfn",
    ),
    "guest not created": (
        lambda d: trace(d, lambda lines: lines.__setitem__(1, lines[2])),
        ":2: guest 1 is used before",
    ),
    "guest created twice": (
        lambda d: trace(d, lambda lines: lines.__setitem__(2, lines[1])),
        ":3: guest 1 is created tw",
    ),
    "unknown guest": (lambda d: trace(d, lambda lines: lines[5]["args"].update(dom=7)), ":6: guest 7 is not in"),
}


@pytest.mark.parametrize("case", BAD_FILES)
def test_a_bad_file_is_one_line_with_a_remedy(tmp_path: Path, capsys: pytest.CaptureFixture[str], case: str) -> None:
    """Status 2 and one line on standard error that names the file and the fault."""
    make, said = BAD_FILES[case]
    path = make(tmp_path)
    with pytest.raises(ConfigError) as caught:
        replay_file(path, ReferenceMachine.from_header)
    assert said in str(caught.value)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)
    assert replay_all([str(path)], ReferenceMachine.from_header, io.StringIO(), err := io.StringIO()) == 2
    assert err.getvalue() == f"error: {caught.value}\n"


@pytest.mark.parametrize("arguments", [[], ["--fast"], ["none.jsonl.gz"]])
def test_main_refuses_bad_arguments_with_status_2(capsys: pytest.CaptureFixture[str], arguments: list[str]) -> None:
    assert main(arguments) == 2
    assert capsys.readouterr().err.startswith("error: ")


def test_a_bad_file_does_not_hide_the_others(tmp_path: Path) -> None:
    out, err = io.StringIO(), io.StringIO()
    files = [str(tmp_path / "none.jsonl.gz"), str(EDGE_CASES)]
    assert replay_all(files, ReferenceMachine.from_header, out, err) == 2
    assert out.getvalue().startswith(f"ok {EDGE_CASES}")
    assert "1 ok, 0 mismatched, 1 unreadable" in out.getvalue()
