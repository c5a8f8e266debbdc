"""Do README, docs and experiments tell the truth: links, commands, keys, columns, rules, tests, the output shown?"""

import ast
import io
import re
import shlex
import subprocess
import sys
import tokenize
from collections.abc import Iterator
from dataclasses import fields
from importlib.util import find_spec
from pathlib import Path

import pytest

from podcluster.bench.command import BENCHMARKS
from podcluster.cli import SCHEMA, VERBS, conf_dir, plan
from podcluster.records.fates import CAUSES, FATES
from podcluster.records.tables import TABLES

REPOSITORY = Path(__file__).resolve().parent.parent
PAGES = [
    REPOSITORY / "README.md",
    *sorted((REPOSITORY / "docs").rglob("*.md")),
    *sorted((REPOSITORY / "experiments").rglob("*.md")),
    *sorted((REPOSITORY / "tests").rglob("*.md")),
]
MODEL = REPOSITORY / "docs" / "model.md"
README = REPOSITORY / "README.md"

LINK = re.compile(r"!?\[[^\]]*\]\(([^)\s]+)\)")
SPAN = re.compile(r"`([^`\n]+)`")
PLACEHOLDERS = {"...", "[overrides]"}
GROUPS = "cluster|host|guest|workload|placement|controller|failure|migration|engine|study"

# Tags as docstrings and comments cite them: P11, B2.10, POD-2. The steps of a rule (P12.7) are the rule's.
OURS = "CT|POD|GS|GM|GD|GT|LK|BA|HM|PLACE|WL|BB|AZ|PD|AG|HF|EP|CL|CK|SY|ST|IO"
TAG = re.compile(rf"(?<![\w.-])((?:{OURS})-\d+|[A-HOPSTZ]\d{{1,2}}(?:\.\d{{1,2}})?)(?![\w-])")
LISTED = re.compile(r"^\| \*\*([A-Z]+-?[\d.]+)\*\* \| (.+?) \|(?: `([^`]+)` \|)?$", re.MULTILINE)


def name(page: Path) -> str:
    return str(page.relative_to(REPOSITORY))


def slugs(page: Path) -> set[str]:
    """Anchors of a page's headings, as GitHub makes them."""
    heads = re.findall(r"^#+ (.+)$", page.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", re.sub(r"[`*]", "", head)).strip().lower().replace(" ", "-") for head in heads}


def spans(page: Path) -> list[str]:
    """What stands in backquotes, outside code blocks."""
    return SPAN.findall(re.sub(r"^```.*?^```", "", page.read_text(), flags=re.MULTILINE | re.DOTALL))


def command_lines(page: Path) -> list[str]:
    """Lines of code blocks, and spans in backquotes, that begin with a command a reader would type."""
    text = page.read_text().replace("\\\n", " ")
    blocks = re.findall(r"^```\w*\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
    lines = [line for block in blocks for line in block.splitlines()]
    lines += [line for line in text.splitlines() if line.startswith("    ")]
    lines = [line.strip().removeprefix("$ ") for line in lines] + spans(page)
    return [line for line in lines if re.match(r"(\.venv/bin/)?(podcluster|make|python|jupytext)( |$)", line)]


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_links_lead_somewhere(page: Path) -> None:
    """Every relative link names a file there is, and a heading there is; a folder is named as one."""
    for target in LINK.findall(page.read_text()):
        if re.match(r"[a-z]+:", target):
            continue
        file, _, anchor = target.partition("#")
        path = (page.parent / file).resolve() if file else page
        assert path.exists(), f"{name(page)}: {target} is not there"
        assert path.is_relative_to(REPOSITORY), f"{name(page)}: {target} leads out of the project"
        if anchor:
            assert anchor in slugs(path), f"{name(page)}: no heading for {target}, there are {sorted(slugs(path))}"


# Planned in tests/test_config.py, where it is also checked what comes out: some are thousands of cells.
OF_EXPERIMENTS = {
    path.read_text().splitlines()[1].removeprefix("# ") for path in (conf_dir() / "experiment").glob("*.yaml")
}
COMMANDS = sorted({(name(page), line) for page in PAGES for line in command_lines(page)})


@pytest.mark.parametrize(("page", "line"), COMMANDS)
def test_commands_are_ones(page: str, line: str) -> None:
    """Each command of a page parses: a verb there is, overrides that compose, a make target, a module, a script."""
    words = [word for word in shlex.split(line, comments=True) if word not in PLACEHOLDERS]
    program, arguments = words[0].rpartition("/")[2], words[1:]
    if program == "make":
        targets = re.findall(r"^(\w+):", (REPOSITORY / "Makefile").read_text(), re.MULTILINE)
        assert arguments and set(arguments) <= set(targets)
    elif program == "python":
        check_python(arguments)
    elif program == "jupytext":
        assert (REPOSITORY / arguments[-1]).is_file()
    elif arguments and arguments[0] in VERBS:
        check_verb(arguments[0], arguments[1:])
    elif arguments and arguments[0] not in ("--help", "--version", "--cfg") and line not in OF_EXPERIMENTS:
        cells, _ = plan([word for word in arguments if word != "-m"], multirun="-m" in arguments)
        assert cells


def check_python(arguments: list[str]) -> None:
    if arguments[0] == "-m":
        assert find_spec(arguments[1]) is not None, f"no module {arguments[1]}"
        arguments = [word for word in arguments[2:] if word.startswith("tests/")]
    for file in [word for word in arguments if word.endswith(".py")]:
        assert (REPOSITORY / file).is_file(), f"no file {file}"


def check_verb(verb: str, arguments: list[str]) -> None:
    """A verb's files exist where the page names them; `DIR` and `FILE` stand for the reader's own."""
    if verb == "bench":
        assert arguments[0] in BENCHMARKS
    for word in arguments:
        if word.startswith("tests/"):
            assert list(REPOSITORY.glob(word)), f"no file {word}"


def test_the_pages_show_commands() -> None:
    """The list above is not empty by accident: the commands that a reader needs are on the pages."""
    shown = " ".join(line for _, line in COMMANDS)
    for needed in ("make run", "make test", "workload=one", "workload.path=DIR overcommit=1.5", "podcluster replay"):
        assert needed in shown


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_what_is_named_is_there(page: Path) -> None:
    """Files of the project, test functions, configuration keys and columns that a page names in backquotes exist."""
    for span in spans(page):
        if re.match(r"(podcluster|conf|tests|docs|experiments|\.ci)/", span):
            path, _, function = span.partition("::")
            path = path.split(" ")[0]
            assert list(REPOSITORY.glob(path.rstrip("/"))), f"{name(page)}: no {path}"
            if function:
                assert f"def {function}(" in (REPOSITORY / path).read_text(), f"{name(page)}: no test {span}"
        key = re.fullmatch(rf"((?:{GROUPS})\.[a-z0-9_.]+)(=.*)?", span)
        if key and not span.endswith(".md"):
            known = any(other == key[1] or other.startswith(f"{key[1]}.") for other in SCHEMA)
            assert known, f"{name(page)}: no key {key[1]}"
        column = re.fullmatch(r"(cells|runs|hosts|domains|samples|machine_samples|events)\.(\w+)", span)
        if column:
            columns = {item.name for item in fields(TABLES[column[1]].row)} | {"cell", "replication"}
            assert column[2] in columns, f"{name(page)}: no column {span}"


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_pages_know_no_machine(page: Path) -> None:
    """No absolute path: a page is true on every machine."""
    text = re.sub(r"\w+://\S+", "", page.read_text())
    assert re.findall(r"(?<![\w)\]}>*.:/~-])(?:/[A-Za-z]|~/)[\w./-]*", text) == []


def test_fates_and_causes_are_those_of_the_tables() -> None:
    """The glossary lists every fate and every cause, and no other."""
    text = (REPOSITORY / "docs" / "glossary.md").read_text().partition("## Fates")[2]
    rows = [line.split("|") for line in text.splitlines() if line.startswith("| `")]
    assert [row[1].strip(" `") for row in rows] == list(FATES)
    found = [cause for row in rows for cause in SPAN.findall(row[3])]
    assert sorted(found) == sorted(set(CAUSES) - {""})


def test_pages_that_code_names_are_there() -> None:
    """A docstring, comment or configuration file that names a page of docs/ names one there is."""
    named: set[str] = set()
    for folder, kind in (("podcluster", "*.py"), ("tests", "*.py"), ("conf", "*.yaml")):
        for path in (REPOSITORY / folder).rglob(kind):
            named |= set(re.findall(r"docs/[\w/-]+\.md", path.read_text()))
    assert "docs/model.md" in named
    assert [page for page in sorted(named) if not (REPOSITORY / page).is_file()] == []


# -- rules


def prose(source: str) -> Iterator[str]:
    """Docstrings, comments and messages of errors: where code cites rules."""
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type == tokenize.COMMENT:
            yield token.string
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and (" " in node.value or "[" in node.value):
            yield node.value


def cited() -> dict[str, set[str]]:
    """Every tag that the package cites, with the modules that do."""
    found: dict[str, set[str]] = {}
    for path in sorted((REPOSITORY / "podcluster").rglob("*.py")):
        for text in prose(path.read_text()):
            for tag in TAG.findall(text):
                found.setdefault(tag, set()).add(name(path))
    return found


def test_every_rule_that_is_cited_is_listed() -> None:
    """docs/model.md lists each tag that a docstring, comment or error cites (a step such as P12.7: its rule)."""
    listed = {tag for tag, _, _ in LISTED.findall(MODEL.read_text())}
    assert {"P12", "T3", "B2.10", "POD-2", "HM-1", "Z1"} <= listed
    tags = cited()
    assert {"P12", "T3", "B2.10", "POD-2", "HM-1", "Z1"} <= set(tags)
    missing = {tag: where for tag, where in tags.items() if tag not in listed and tag.split(".")[0] not in listed}
    assert missing == {}, f"cited and not in docs/model.md: {missing}"


def test_no_rule_is_listed_twice() -> None:
    """One tag, one meaning."""
    tags = [tag for tag, _, _ in LISTED.findall(MODEL.read_text())]
    assert sorted(tags) == sorted(set(tags))


def test_invariants_are_cited_where_the_list_says() -> None:
    """Each of our own invariants is in the module that its row names."""
    for tag, _, module in LISTED.findall(MODEL.read_text()):
        if module:
            assert tag in (REPOSITORY / module).read_text(), f"{module} does not mention {tag}"


def test_assumptions_are_numbered_without_gaps() -> None:
    """AS-1, AS-2, ... each with what would show it wrong."""
    rows = re.findall(r"^\| AS-(\d+) \| (.+?) \| (.+?) \| (.+?) \|$", MODEL.read_text(), re.MULTILINE)
    assert [int(row[0]) for row in rows] == list(range(1, len(rows) + 1))
    assert len(rows) > 20


# -- output


def test_the_readme_shows_what_the_command_prints(tmp_path: Path) -> None:
    """The block after the two commands is the second command's output, but for the heading and where results are."""
    text = README.read_text()
    command = re.search(r"^    (podcluster workload=one guest=linux_no_driver .*)$", text, re.MULTILINE)
    shown = re.search(r"^```\n(fate .*?)\n```$", text, re.MULTILINE | re.DOTALL)
    assert command is not None and shown is not None
    run = [sys.executable, "-m", *shlex.split(command[1]), f"hydra.run.dir={tmp_path}/run"]
    printed = subprocess.run(run, cwd=REPOSITORY, check=True, capture_output=True, text=True).stdout.splitlines()
    card = [line for line in printed if line.split(" ")[0] in ("fate", "margin", "boot", "work", "Xen")]
    assert shown[1].splitlines() == card, "README.md shows another output than the command gives: copy it there"
