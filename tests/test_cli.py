"""The command line: what it plans, where results go, and how it answers mistakes (one line, a remedy, no folder)."""

import json
import os
import re
import signal
import subprocess
import sys
import time
import tomllib
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest

import podcluster
from podcluster import cli
from podcluster.cli import main, plan
from podcluster.errors import ConfigError, InvariantError, PodclusterError

REPOSITORY = Path(__file__).resolve().parent.parent

ONE = ["workload=one", "workload.memory_mib=256", "workload.maxmem_mib=512"]

WRONG = {
    "unknown key": (["seeed=3"], "seeed must be a key of the configuration, got seeed=3: did you mean seed?"),
    "unknown key, right word": (
        ["hosts=3"],
        "hosts must be a key of the configuration, got hosts=3: did you mean cluster.hosts?",
    ),
    "unknown key in a section": (
        ["cluster.host=3"],
        "cluster.host must be a key of the configuration, got cluster.host=3: did you mean cluster.hosts?",
    ),
    "added key": (["+foo=1"], "foo must be a key of the configuration, got +foo=1: "),
    "unknown group": (
        ["workloads=one"],
        "workloads must be a key of the configuration, got workloads=one: did you mean workload?",
    ),
    "unknown choice": (
        ["workload=bitbrain"],
        "workload must be one of alibaba_pods, alike, azure_v1, bitbrains, churn, one, synthetic, got bitbrain: "
        "did you mean workload=bitbrains?",
    ),
    "group set to a number": (["guest=3"], "guest must be one of installer, linux, "),
    "key taken out": (["~seed"], "seed must be given, got nothing: "),
    "section taken out": (["~guest"], "guest must be given, got nothing: "),
    "wrong type": (["seed=abc"], "seed must be a whole number, got abc: try seed=1"),
    "fraction of a whole": (
        ["study.duration_s=0.5"],
        "study.duration_s must be a whole number, got 0.5: try study.duration_s=",
    ),
    "nothing": (["seed="], "seed must be a whole number, got nothing: try seed=1"),
    "number for a pair": (
        ["guest.kernel_s=3"],
        "guest.kernel_s must be a pair [low,high], got 3: try guest.kernel_s=[",
    ),
    "out of range": (["overcommit=0.5"], "overcommit must be between 1 and 1000, got 0.5: try overcommit=1"),
    "target above maxmem": (
        ["workload=one", "workload.memory_mib=1024", "workload.maxmem_mib=512"],
        "workload.memory_mib must be <= workload.maxmem_mib, got 1024 > 512: lower memory_mib",
    ),
    "host too small for its dom0": (
        ["cluster.host_mem_gib=2"],
        "host.dom0_mib plus Xen's own memory must be < cluster.host_mem_gib, got 2048 + 80 >= 2048 MiB: lower",
    ),
    "no word of ours": (["frobnicate"], "frobnicate must be a command or KEY=VALUE: podcluster --help"),
    "nearly a verb": (["benhc", "pod"], "benhc must be a command or KEY=VALUE: did you mean bench?"),
    "key without value": (["overcommit"], "overcommit must be a command or KEY=VALUE: did you mean overcommit=...?"),
    "unreadable value": (["workload.path=a=b"], "workload.path=a=b must be written KEY=VALUE: quote"),
    "sweep without -m": (["overcommit=1,2"], "overcommit must be one value, got overcommit=1,2: add -m"),
    "sweep where one run is looked at": (
        ["inspect", "--at", "2", "experiment=evacuation", "controller=static", "overcommit=1,2"],
        "guest must be one value here, got linux, linux_no_driver of a sweep: try guest=linux",
    ),
    "sweep of a folder": (["-m", "hydra.run.dir=a,b"], "hydra.run.dir must be one value in a sweep"),
    "sweep with a value twice": (
        ["-m", "overcommit=1,1"],
        "overcommit must list each value once, got overcommit=1,1: ",
    ),
    "sweep with one cell wrong": (["-m", "overcommit=1,0.2"], "overcommit must be between 1 and 1000, got 0.2: "),
    "unknown option": (["--foo"], "unrecognized arguments: --foo: podcluster --help"),
    "unknown option of --cfg": (["--cfg", "foo"], "argument --cfg/-c: invalid choice: 'foo'"),
    "mistake beside --cfg": (["--cfg", "job", "seeed=3"], "seeed must be a key of the configuration"),
    "foreign launcher": (["hydra/launcher=joblib"], "hydra/launcher must be one of basic, got joblib: "),
    "no folder for --config-dir": (["--config-dir", "nowhere"], "--config-dir must be a folder, got nowhere: "),
}


def wrong(
    arguments: Sequence[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> str:
    """Run `arguments` in an empty folder; they must fail as a user's mistake does. Return the line."""
    monkeypatch.chdir(tmp_path)
    before = sorted(tmp_path.rglob("*"))
    assert main(arguments) == 2
    said = capsys.readouterr()
    assert said.out == ""
    assert re.fullmatch(r"podcluster: [^\n]+\n", said.err), said.err
    assert sorted(tmp_path.rglob("*")) == before, "a mistake left something behind"
    return said.err.removeprefix("podcluster: ").rstrip("\n")


@pytest.mark.parametrize("name", WRONG)
def test_a_mistake_is_one_line_with_a_remedy(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Each kind of mistake on the command line: one line on stderr, status 2, nothing made."""
    arguments, answer = WRONG[name]
    line = wrong(arguments, tmp_path, monkeypatch, capsys)
    assert line.startswith(answer)
    assert len(line) > len(answer) or ": " in answer


def test_a_trace_that_is_not_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The folder is named, and what to do."""
    line = wrong(["workload=bitbrains", "workload.path=nowhere"], tmp_path, monkeypatch, capsys)
    assert "workload.path" in line
    assert "nowhere" in line


def test_a_trace_cut_short(
    shared_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A Parquet file without its end is named."""
    trace = tmp_path / "trace"
    trace.mkdir()
    for source in (shared_dir / "traces" / "bitbrains_rnd").glob("*.parquet"):
        (trace / source.name).write_bytes(
            source.read_bytes()[:100_000] if "usage" in source.name else source.read_bytes()
        )
    line = wrong(["workload=bitbrains", f"workload.path={trace}"], tmp_path, monkeypatch, capsys)
    assert "usage_2013-8.parquet" in line


def test_a_trace_of_another_format(
    shared_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A folder with Parquet files of another kind of trace is refused, and so is one with none."""
    other = shared_dir / "traces" / "google2011_jobs_pct"
    line = wrong(["workload=bitbrains", f"workload.path={other}"], tmp_path, monkeypatch, capsys)
    assert "google2011_jobs_pct" in line
    (tmp_path / "empty").mkdir()
    line = wrong(["workload=bitbrains", "workload.path=empty"], tmp_path, monkeypatch, capsys)
    assert "empty" in line


def test_a_mistake_as_a_whole_process(tmp_path: Path) -> None:
    """The same from outside: nothing but the line, no traceback, status 2, no folder."""
    done = subprocess.run(
        [sys.executable, "-m", "podcluster", "seeed=3"],
        cwd=tmp_path, env={**os.environ, "PYTHONPATH": str(REPOSITORY)}, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == "podcluster: seeed must be a key of the configuration, got seeed=3: did you mean seed?\n"
    assert list(tmp_path.iterdir()) == []


def test_a_run_is_one_cell_named_by_its_configuration() -> None:
    """The folder is the hash of the resolved configuration, however it was written; hydra.run.dir= replaces it."""
    [cell], folder = plan(["overcommit=2"])
    assert cell.axes == {}
    assert folder == Path("runs").resolve() / cell.config.digest()
    assert plan(["overcommit=2.0", "guest=linux"])[1] == folder
    assert plan(["overcommit=2.5"])[1] != folder
    assert plan(['hydra.run.dir="here/{name}"'])[1].parent == Path("here").resolve()
    assert plan(["hydra.run.dir=here"])[1] == Path("here").resolve()


def test_a_sweep_is_every_combination_in_order() -> None:
    """Values keep the type of their key, groups give their choice, `null` beside numbers makes an axis text."""
    cells, folder = plan(
        ["overcommit=1,1.5", "guest=linux,windows", "host.xen_mib=null,512", "seed=range(1,3)"], multirun=True
    )
    assert len(cells) == 16
    assert cells[0].axes == {"overcommit": 1.0, "guest": "linux", "host.xen_mib": "null", "seed": 1}
    assert cells[-1].axes == {"overcommit": 1.5, "guest": "windows", "host.xen_mib": "512", "seed": 2}
    assert {type(cell.axes["overcommit"]) for cell in cells} == {float}
    for cell in cells:
        assert cell.config.overcommit == cell.axes["overcommit"]
        assert cell.config.guest.os_class == cell.axes["guest"]
        assert cell.config.host.xen_mib == json.loads(str(cell.axes["host.xen_mib"]))
        assert cell.config.seed == cell.axes["seed"]
    assert folder.parent == Path("sweeps").resolve()
    assert plan(["overcommit=1,2", "hydra.sweep.dir=there"], multirun=True)[1] == Path("there").resolve()


def test_a_cell_of_a_sweep_is_the_run_of_its_values() -> None:
    """Files are read once a choice and values laid over them: each cell is what the same values give by themselves."""
    axes = (["guest=linux", "guest=windows"], ["guest.balloon.start_s=[1,1]", "guest.balloon.start_s=[2,30]"])
    texts = [axes[0][0] + ",windows", axes[1][0] + ",[2,30]", "guest.target_fraction=null,0.5"]
    cells, _ = plan([*texts, "study.baseline='guest=linux'"], multirun=True)
    assert len(cells) == 8
    for at, cell in enumerate(cells):
        values = [
            axes[0][at // 4],
            axes[1][at // 2 % 2],
            ("guest.target_fraction=null", "guest.target_fraction=0.5")[at % 2],
        ]
        assert cell.config == plan([*values, "study.baseline='guest=linux'"])[0][0].config


def test_a_mistake_in_the_second_value_of_an_axis_is_told() -> None:
    """Laid over a composed file or not, a value of the wrong type, and one out of range, are one line each."""
    with pytest.raises(ConfigError, match=r"overcommit must be a number, got much: try overcommit=1\.5"):
        plan(["overcommit=1,much"], multirun=True)
    with pytest.raises(ConfigError, match=r"guest\.vcpus must be between 1 and 512, got 0"):
        plan(["guest.vcpus=1,0"], multirun=True)


def test_a_sweep_is_named_by_its_experiment_and_its_cells() -> None:
    """Equal sweeps have equal names, and an experiment's name is part of it."""
    name = plan(["experiment=smoke", "overcommit=1,2"], multirun=True)[1].name
    assert re.fullmatch(r"smoke-[0-9a-f]{12}", name)
    assert plan(["overcommit=1.0,2", "experiment=smoke"], multirun=True)[1].name == name
    assert plan(["overcommit=1,3", "experiment=smoke"], multirun=True)[1].name != name


def test_glob_and_choice_sweep_over_options() -> None:
    """Hydra's grammar of sweeps works on groups."""
    cells, _ = plan(["guest=glob(linux*,exclude=*_old)", "placement=choice(first_fit,best_fit)"], multirun=True)
    assert [cell.axes["guest"] for cell in cells[::2]] == ["linux", "linux_hardened", "linux_no_driver"]
    assert [cell.config.placement.policy for cell in cells[:2]] == ["first_fit", "best_fit"]


def test_an_experiment_may_bring_its_own_axes(tmp_path: Path) -> None:
    """Axes under hydra.sweeper.params are swept; the command line replaces them one by one."""
    (tmp_path / "experiment").mkdir()
    (tmp_path / "experiment" / "mine.yaml").write_text(
        "# @package _global_\nexperiment: mine\n"
        "hydra:\n  sweeper:\n    params:\n      overcommit: 1,2\n      guest.vcpus: 2,4\n"
    )
    cells, _ = plan(["experiment=mine", "overcommit=3"], multirun=True, config_dir=str(tmp_path))
    assert [cell.axes for cell in cells] == [{"guest.vcpus": 2}, {"guest.vcpus": 4}]
    assert {cell.config.overcommit for cell in cells} == {3.0}
    cells, _ = plan(["experiment=mine", "overcommit=3,4"], multirun=True, config_dir=str(tmp_path))
    assert cells[0].axes == {"guest.vcpus": 2, "overcommit": 3.0}


def test_an_experiment_that_is_a_sweep_needs_no_m(capfd: pytest.CaptureFixture[str]) -> None:
    """Plain and -m are the same cells in the same folder; fixed to one run it is that run; looks at it still work."""
    asked = ["experiment=eras", "guest=linux,windows", "overcommit=2"]
    cells, folder = plan(asked)
    assert (cells, folder) == plan(asked, multirun=True)
    assert [tuple(cell.axes) for cell in cells] == [("host.era", "guest")] * 8
    assert len(plan(["experiment=eras", "hydra.mode=RUN"])[0]) == 1
    for look in (["--cfg", "job"], ["-m", "--cfg", "job"], ["--help"]):
        assert main(["experiment=eras", *look]) == 0
        assert "experiment" in capfd.readouterr().out


def test_a_file_of_ones_own_with_a_mistake(tmp_path: Path) -> None:
    """Mistakes in a file are told like those on the command line."""
    (tmp_path / "guest").mkdir()
    for text, answer in [
        ("defaults: [linux]\nvcpu: 2\n", "guest.vcpu must be a key of the configuration"),
        ("defaults: [linux]\nvcpus: two\n", "guest.vcpus must be a whole number, got two"),
        ("defaults: [linux]\nvcpus: 0\n", "guest.vcpus must be between 1 and 512, got 0"),
        ("vcpus: [2\n", "a configuration file must be YAML, got: "),
        ("os_class: mine\n", "guest.firmware_s must be given"),
    ]:
        (tmp_path / "guest" / "mine.yaml").write_text(text)
        with pytest.raises(ConfigError) as caught:
            plan(["guest=mine"], config_dir=str(tmp_path))
        assert str(caught.value).startswith(answer)


def test_what_runs_gets_the_plan(monkeypatch: pytest.MonkeyPatch) -> None:
    """The runner is handed the cells, the folder, --force and the command as it can be typed again."""
    from podcluster.report import terminal

    calls: list[dict[str, Any]] = []
    monkeypatch.setattr(terminal, "present", lambda cells, **kwargs: calls.append({"cells": cells, **kwargs}))
    assert main(["-m", "overcommit=1,2", "--force", "guest.kernel_s=[1,2]"]) == 0
    assert [cell.config.overcommit for cell in calls[0]["cells"]] == [1.0, 2.0]
    assert calls[0]["force"] is True
    assert calls[0]["command"] == "podcluster -m overcommit=1,2 --force 'guest.kernel_s=[1,2]'"


@pytest.mark.parametrize(("number", "word"), [(signal.SIGINT, "interrupted"), (signal.SIGTERM, "terminated")])
def test_a_signal_ends_a_run_in_one_line(
    number: int, word: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Ctrl-C and SIGTERM: status 128 + number, the command that goes on, and the handlers as they were."""
    from podcluster.report import terminal

    def stopped(*_: object, **__: object) -> None:
        try:
            os.kill(os.getpid(), number)
            time.sleep(10)
        except KeyboardInterrupt:
            raise KeyboardInterrupt from None  # as Ray does, if it was waiting

    monkeypatch.setattr(terminal, "present", stopped)
    before = signal.getsignal(number)
    assert main(["seed=7", "guest.kernel_s=[1,2]"]) == 128 + number
    command = "podcluster seed=7 'guest.kernel_s=[1,2]'"
    said = capsys.readouterr().err
    assert said == f"podcluster: {word}; what is finished stays, and this goes on from there: {command}\n"
    assert signal.getsignal(number) == before


class SignalledAtItsEnd:
    """Whose finaliser a signal arrives in."""

    def __del__(self) -> None:
        os.kill(os.getpid(), signal.SIGINT)
        time.sleep(0.1)


def test_a_signal_that_python_drops_ends_a_run_all_the_same(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """What a handler raises in a finaliser is reported and forgotten; so it is in a hook of a fork, and Ray forks."""
    from podcluster.report import terminal

    def goes_on(*_: object, **__: object) -> None:
        SignalledAtItsEnd()
        time.sleep(10)

    monkeypatch.setattr(terminal, "present", goes_on)
    hook, alarm = sys.unraisablehook, signal.getsignal(signal.SIGALRM)
    began_s = time.monotonic()
    assert main(["seed=7"]) == 128 + signal.SIGINT
    assert time.monotonic() - began_s < 5
    assert capsys.readouterr().err.startswith("podcluster: interrupted; what is finished stays")
    assert (sys.unraisablehook, signal.getsignal(signal.SIGALRM)) == (hook, alarm)


@pytest.mark.parametrize(
    ("error", "status", "lines"),
    [
        (
            KeyboardInterrupt(),
            130,
            ["podcluster: interrupted; what is finished stays, and this goes on from there: podc"],
        ),
        (SystemExit(15), 143, ["podcluster: terminated; what is finished stays"]),  # Ray's, while it starts
        (PodclusterError("Ray at local must answer, got nothing"), 1, ["podcluster: Ray at local must answer"]),
        (OSError(28, "No space left on device"), 1, ["podcluster: files must be readable and writable, got No space"]),
        (ConfigError("a must be b,\n got c: d"), 2, ["podcluster: a must be b, got c: d"]),
        (
            InvariantError("[POD-2] E == B - P violated: E=512, B - P=511 (host 3, domain 7, t=120.5 s, seed 7)"),
            70,
            ["podcluster: a rule that must hold does not", f"podcluster: version {podcluster.__version__}, commit "],
        ),
    ],
)
def test_how_a_run_ends_badly(
    error: BaseException,
    status: int,
    lines: list[str],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Ctrl-C, a user's mistake found late, a broken invariant: each its status and its lines, no traceback."""
    from podcluster.report import terminal

    def fail(*_: object, **__: object) -> None:
        raise error

    monkeypatch.setattr(terminal, "present", fail)
    assert main(["seed=7", "overcommit=2"]) == status
    said = capsys.readouterr().err.splitlines()
    assert len(said) == len(lines)
    assert all(line.startswith(start) for line, start in zip(said, lines, strict=True))
    if isinstance(error, InvariantError):
        assert str(error) in said[0]
        assert said[1].endswith("podcluster seed=7 overcommit=2")


def test_cfg_prints_what_would_run(capfd: pytest.CaptureFixture[str]) -> None:
    """`--cfg job` shows the composed configuration and runs nothing."""
    assert main(["--cfg", "job", "overcommit=2", "-p", "guest.balloon"]) == 0
    assert "driver: linux" in capfd.readouterr().out
    assert main(["--cfg", "job", "overcommit=2"]) == 0
    assert "overcommit: 2.0" in capfd.readouterr().out


def test_help_names_every_verb_and_choice(capsys: pytest.CaptureFixture[str]) -> None:
    """The help is made from what there is."""
    assert main(["--help"]) == 0
    text = capsys.readouterr().out
    for name in [*cli.VERBS, *cli.groups(), *cli.groups()["guest"]]:
        assert re.search(rf"\b{name}\b", text), name


@pytest.mark.parametrize("name", cli.VERBS)
def test_every_verb_leads_somewhere(name: str) -> None:
    """No verb of the help is a promise."""
    verb = cli.VERBS[name]
    assert callable(getattr(import_module(verb.module), verb.function))


@pytest.mark.parametrize("words", ["digest --diff A", "figure", "inspect", "-m --cfg"])
def test_arguments_that_lack_something_are_one_line(words: str, capsys: pytest.CaptureFixture[str]) -> None:
    """What a parser says of them is told like any other mistake."""
    assert main(words.split()) == 2
    error = capsys.readouterr().err
    assert error.startswith("podcluster: ") and error.endswith(" --help lists what there is\n")
    assert error.count("\n") == 1


def test_version_is_that_of_the_project(capsys: pytest.CaptureFixture[str]) -> None:
    """One version, in two places that agree."""
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]
    assert project["version"] == podcluster.__version__
    assert main(["--version"]) == 0
    assert capsys.readouterr().out == f"podcluster {podcluster.__version__}\n"


def test_looking_at_help_loads_nothing_heavy() -> None:
    """Help answers at once, and planning a run loads Hydra but no engine, table or plot."""
    script = (
        "import sys; from podcluster import cli\n"
        "heavy = {'ray', 'pandas', 'pyarrow', 'matplotlib', 'scipy', 'numba', 'hydra', 'omegaconf', 'numpy', 'rich'}\n"
        "cli.main(['--help']); first = heavy & set(sys.modules)\n"
        "cli.plan(['seed=2']); print(sorted(first), sorted(heavy & set(sys.modules)))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script],
        env={**os.environ, "PYTHONPATH": str(REPOSITORY)}, capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert done.stdout.splitlines()[-1] == "[] ['hydra', 'omegaconf']"
