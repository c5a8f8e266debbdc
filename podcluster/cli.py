"""The command line, and the only module that knows Hydra.

The first argument decides before anything heavy is imported: a verb (`replay`, `bench`, ...) has its own help and its
own options; everything else is a run or a sweep, composed by Hydra from `conf/` and the overrides. Composition ends
here: `Config` dataclasses go on, no DictConfig does.

A user's mistake is one line on stderr and status 2, before a folder is made or an actor started. A broken invariant is
status 70 with the command that replays it. Ctrl-C and SIGTERM are one line, with the command that goes on from there,
and status 130 or 143. Why Hydra's own runner is not used for runs: docs/adr/0003-hydra-at-the-edge.md.
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import shlex
import signal
import sys
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from copy import deepcopy
from dataclasses import dataclass, fields, is_dataclass
from difflib import get_close_matches
from hashlib import sha256
from importlib import import_module
from itertools import product
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any, get_args, get_type_hints

from podcluster import __version__
from podcluster.arguments import OneLineParser
from podcluster.cluster.deadline import left_behind
from podcluster.config import AxisValue, Cell, Config, GuestConfig
from podcluster.errors import ConfigError, InvariantError, PodclusterError

if TYPE_CHECKING:
    from hydra.core.override_parser.types import Override
    from omegaconf import DictConfig

OF_THE_MACHINE = ("video_mib", "stubdom", "passthrough", "vnuma", "altp2m")  # of guests: what no reboot changes

EXIT_OK = 0
EXIT_FAILED = 1  # neither the user's mistake nor ours: Ray did not start, a disk is full
EXIT_USAGE = 2
EXIT_INVARIANT = 70  # EX_SOFTWARE
EXIT_SIGNAL = 128  # + its number

STOPS: dict[int, str] = {signal.SIGINT: "interrupted", signal.SIGTERM: "terminated"}
AGAIN_S = 0.05  # until what a handler raised, and Python dropped, is raised again


@dataclass(frozen=True)
class Verb:
    """A command of its own: where its `main(argv) -> status` is, and what it does."""

    module: str
    function: str
    usage: str
    help: str


VERBS = {
    "replay": Verb(
        "podcluster.host.replay", "main", "FILE...", "golden traces of Xen against our host, a line per file"
    ),
    "bench": Verb("podcluster.bench.command", "main", "NAME", "a benchmark; one JSON object as the last line"),
    "inspect": Verb("podcluster.inspect", "main", "--at S [KEY=VALUE ...]", "what an operator would see on each host"),
    "compact": Verb("podcluster.compact", "main", "KEY=VALUE ...", "on how few hosts all machines could stand at once"),
    "digest": Verb("podcluster.io.digest", "main", "DIR", "one SHA-256 per table and one over all; --diff A B"),
    "figure": Verb("podcluster.report.figure", "main", "DIR", "draw the figure of a run again from its results"),
}

HELP = """\
podcluster {version}: how far can a cluster of Xen hosts be overcommitted?

  podcluster [KEY=VALUE ...]        one run: places guests, boots each page by page, follows their memory
  podcluster -m KEY=A,B [...]       a sweep: every combination, one dataset
  podcluster VERB ...               {verbs}

Keys that most runs want
  overcommit=1.5                    promise this much more than there is (1: none)
  workload=synthetic|bitbrains|one  who asks for memory; workload.path=DIR for a trace,
                                    workload.memory_mib=256 workload.maxmem_mib=512 for one guest
  guest=linux|windows|...           what the guests run
  cluster.hosts=16                  how many hosts (auto: as many as needed)
  cluster.host_mem_gib=128          how large
  study.duration_s=86400            simulated time; study.warmup_s=3600 of it is not counted
  study.replications=20             how often, with other random numbers
  seed=1                            same seed, same results
  engine=auto|inline|ray            where it is computed; never what comes out
  hydra.run.dir=DIR                 where results go (default runs/<hash of the configuration>)

Choices (a folder of {conf} each)
{groups}
Options
  -m, --multirun                    sweep over the values that commas separate, choice(), range(), glob(); an
                                    experiment that is a sweep is one with and without
  --force                           compute again what is already there
  -v, --verbose                     say more
  --cfg job [--resolve]             print the configuration that would run, and stop
  --config-dir DIR                  a folder with files of your own for these choices
  --info, --hydra-help, -sc         what Hydra adds: its search path, its help, shell completion
  --version, -h, --help

Verbs
{verb_lines}
Examples
  podcluster workload=one workload.memory_mib=256 workload.maxmem_mib=512
  podcluster workload=bitbrains workload.path=DIR overcommit=2
  podcluster -m overcommit=1,1.5,2 study.replications=5
  podcluster experiment=eras
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Run podcluster with `argv` (default: the command line) and return the exit status."""
    status = _status(list(sys.argv[1:] if argv is None else argv))
    if left_behind():
        # Python would wait for Ray once more at its end, and Ray for a head that does not answer.
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)
    return status


def _status(args: list[str]) -> int:
    try:
        status = _dispatch(args)
        sys.stdout.flush()
        return status
    except ConfigError as error:
        _say(str(error))
        return EXIT_USAGE
    except InvariantError as error:
        _say(f"a rule that must hold does not, please report it: {error}")
        _say(f"version {__version__}, commit {_commit()}; this command replays it: {_command(args)}")
        return EXIT_INVARIANT
    except PodclusterError as error:
        _say(str(error))
        return EXIT_FAILED
    except _Stop as stop:
        _say(f"{STOPS[stop.number]}; what is finished stays, and this goes on from there: {_command(args)}")
        return EXIT_SIGNAL + stop.number
    except KeyboardInterrupt:
        _say("interrupted")
        return EXIT_SIGNAL + signal.SIGINT
    except BrokenPipeError:
        # The reader of our output went away (`podcluster --help | head`): nothing to report, and nothing left to flush.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return EXIT_OK
    except OSError as error:
        # A full disk, a quota, a folder that cannot be made: what is finished was renamed into its place before.
        where = f" ({error.filename})" if error.filename else ""
        _say(
            f"files must be readable and writable, got {error.strerror or error}{where}: make room or change that, and "
            f"what is finished stays: {_command(args)}"
        )
        return EXIT_FAILED


class _Stop(KeyboardInterrupt):
    """A signal asked a run to end; caught by what catches Ctrl-C, and by nothing that catches errors."""

    def __init__(self, number: int) -> None:
        super().__init__()
        self.number = number


@contextmanager
def _stoppable() -> Iterator[None]:
    """Let the signals of STOPS end what is done here in an orderly way; a second one, at once.

    What a handler raises in a finaliser, or in a hook of a fork (Ray forks), Python reports and drops: it is raised
    again when that is over.
    """
    asked: list[int] = []
    report = sys.unraisablehook

    def stop(number: int, _: FrameType | None) -> None:
        if asked:
            os._exit(EXIT_SIGNAL + number)  # nothing is lost: a run can be killed at any moment
        asked.append(number)
        raise _Stop(number)

    def dropped(what: sys.UnraisableHookArgs) -> None:
        if isinstance(what.exc_value, _Stop):
            signal.setitimer(signal.ITIMER_REAL, AGAIN_S)
        else:
            report(what)

    def again(_: int, __: FrameType | None) -> None:
        raise _Stop(asked[0])

    if threading.current_thread() is not threading.main_thread():
        yield  # only there do signals arrive
        return
    before = {number: signal.signal(number, stop) for number in STOPS}
    before[signal.SIGALRM] = signal.signal(signal.SIGALRM, again)
    sys.unraisablehook = dropped
    try:
        yield
    except KeyboardInterrupt as error:
        # Ray raises one of its own in place of what a handler raised while it waited.
        raise _Stop(asked[0] if asked else signal.SIGINT) from error
    except SystemExit as error:
        # Of a handler of Ray's, which it puts in the place of ours while it starts.
        raise _Stop(signal.SIGTERM) from error
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        sys.unraisablehook = report
        for number, handler in before.items():
            signal.signal(number, handler)


def _dispatch(args: list[str]) -> int:
    first = args[0] if args else ""
    if first in VERBS:
        verb = VERBS[first]
        run: Callable[[list[str]], int | None] = getattr(import_module(verb.module), verb.function)
        return run(args[1:]) or EXIT_OK
    if first == "--version":
        sys.stdout.write(f"podcluster {__version__}\n")
        return EXIT_OK
    if first == "help" or not {"-h", "--help"}.isdisjoint(args):
        sys.stdout.write(_help())
        return EXIT_OK
    options = _parse(args)
    _log_to_stderr(logging.DEBUG if options.verbose else logging.INFO)
    if options.show:
        return _show(args)
    with _stoppable():
        return _run(options, args)


def _say(line: str) -> None:
    sys.stderr.write(f"podcluster: {_flat(line)}\n")


def _flat(text: str) -> str:
    return " ".join(text.split())


def _commit() -> str:
    from podcluster.io.provenance import commit

    return commit() or "not known"


def _command(args: Sequence[str]) -> str:
    return shlex.join(["podcluster", *args])


def _log_to_stderr(level: int) -> None:
    logger = logging.getLogger("podcluster")
    if not logger.handlers:
        handler = logging.StreamHandler()
        handler.setFormatter(logging.Formatter("%(message)s"))
        logger.addHandler(handler)
    logger.setLevel(level)


def conf_dir() -> Path:
    """The folder `conf/`: inside an installed package, beside the package in a source tree."""
    here = Path(__file__).resolve().parent
    for candidate in (here / "conf", here.parent / "conf"):
        if (candidate / "config.yaml").is_file():
            return candidate
    raise ConfigError(f"conf/ must lie in {here} or beside it, got neither: install podcluster again")


def groups() -> dict[str, list[str]]:
    """The choices that `conf/` offers, by group."""
    folders = sorted(path for path in conf_dir().iterdir() if path.is_dir())
    return {folder.name: sorted(path.stem for path in folder.glob("*.yaml")) for folder in folders}


def _help() -> str:
    return HELP.format(
        version=__version__,
        verbs=", ".join(VERBS),
        conf="conf/",
        groups="".join(f"  {name + '=':<33} {' | '.join(options)}\n" for name, options in groups().items()),
        verb_lines="".join(f"  {f'{name} {verb.usage}':<33} {verb.help}\n" for name, verb in VERBS.items()),
    )


def _parse(args: list[str]) -> argparse.Namespace:
    parser = OneLineParser(prog="podcluster", add_help=False, allow_abbrev=False)
    parser.add_argument("overrides", nargs="*")
    parser.add_argument("--multirun", "-m", action="store_true")
    parser.add_argument("--force", action="store_true")
    parser.add_argument("--verbose", "-v", action="store_true")
    parser.add_argument("--config-dir", "-cd")
    parser.add_argument("--config-path", "-cp")
    parser.add_argument("--config-name", "-cn", default="config")
    shown = [
        parser.add_argument("--cfg", "-c", choices=("job", "hydra", "all")),
        parser.add_argument("--info", "-i", nargs="?", const="all"),
        parser.add_argument("--package", "-p"),
        parser.add_argument("--resolve", action="store_true"),
        parser.add_argument("--hydra-help", action="store_true"),
        parser.add_argument("--shell-completion", "-sc", action="store_true"),
    ]
    options = parser.parse_intermixed_args(args)
    options.show = any(getattr(options, action.dest) for action in shown)
    return options


def _show(args: list[str]) -> int:
    """Let Hydra answer what only looks at a configuration: --cfg, --info, --hydra-help, shell completion."""
    import hydra

    def never_runs(_: DictConfig) -> None:
        raise AssertionError("a flag that shows something ran the job")

    app = hydra.main(version_base="1.3", config_path=str(conf_dir()), config_name="config")(never_runs)
    _register_schema()
    before = sys.argv, os.environ.get("HYDRA_FULL_ERROR")
    # What a sweep has in common is shown; Hydra would refuse -m beside these.
    sys.argv = ["podcluster", *(text for text in args if text not in ("-m", "--multirun"))]
    os.environ["HYDRA_FULL_ERROR"] = "1"  # makes Hydra raise, so that the error is told in one line like every other
    try:
        with _hydra_errors(args):
            app()
    finally:
        sys.argv = before[0]
        if before[1] is None:
            del os.environ["HYDRA_FULL_ERROR"]
        else:
            os.environ["HYDRA_FULL_ERROR"] = before[1]
    return EXIT_OK


def _run(options: argparse.Namespace, args: list[str]) -> int:
    cells, out_dir = plan(
        options.overrides,
        multirun=options.multirun,
        config_dir=options.config_dir,
        config_path=options.config_path,
        config_name=options.config_name,
    )
    from podcluster.report import terminal

    terminal.present(cells, out_dir=out_dir, force=options.force, command=_command(args))
    return EXIT_OK


def compose(overrides: Sequence[str] = ()) -> Config:
    """Compose one configuration from `conf/` and `overrides`, checked; raise ConfigError, also if it is a sweep."""
    cells, _ = plan(overrides)
    for key, value in cells[0].axes.items():
        values = list(dict.fromkeys(cell.axes[key] for cell in cells))
        if len(values) > 1:
            raise ConfigError(
                f"{key} must be one value here, got {', '.join(map(str, values))} of a sweep: try {key}={value}"
            )
    return cells[0].config


def plan(
    overrides: Sequence[str],
    *,
    multirun: bool = False,
    config_dir: str | None = None,
    config_path: str | None = None,
    config_name: str = "config",
) -> tuple[list[Cell], Path]:
    """Compose every cell that `overrides` ask for, checked, and name the folder for their results (not made yet)."""
    from hydra import initialize_config_dir

    _register_schema()
    if config_dir is not None and not Path(config_dir).is_dir():
        raise ConfigError(f"--config-dir must be a folder, got {config_dir}: make it, or correct the path")
    path = conf_dir() if config_path is None else Path(config_path).resolve()
    if not path.is_dir():
        raise ConfigError(f"--config-path must be a folder, got {config_path}: make it, or correct the path")
    if config_dir is not None:
        overrides = [*overrides, f"hydra.searchpath=['file://{Path(config_dir).resolve()}']"]
    with _hydra_errors(overrides), initialize_config_dir(config_dir=str(path), version_base="1.3"):
        return _cells(list(overrides), multirun, config_name)


def _cells(overrides: list[str], multirun: bool, config_name: str) -> tuple[list[Cell], Path]:
    from hydra import compose as hydra_compose
    from hydra.core.global_hydra import GlobalHydra
    from hydra.core.override_parser.overrides_parser import OverridesParser
    from hydra.core.override_parser.types import OverrideType
    from hydra.types import RunMode
    from omegaconf import OmegaConf

    parser = OverridesParser.create(config_loader=GlobalHydra.instance().config_loader())
    given = parser.parse_overrides(overrides)
    swept = [override for override in given if override.is_sweep_override()]
    base = hydra_compose(
        config_name, [str(override.input_line) for override in given if override not in swept], return_hydra_config=True
    )
    # A file may say that it is a sweep by itself, as Hydra's users know it.
    multirun = multirun or base.hydra.mode == RunMode.MULTIRUN
    if swept and not multirun:
        key, text = swept[0].key_or_group, swept[0].input_line
        raise ConfigError(f"{key} must be one value, got {text}: add -m for a sweep, or write a list as '{key}=[...]'")
    for plugin in ("launcher", "sweeper"):
        chosen = base.hydra.runtime.choices[f"hydra/{plugin}"]
        if chosen != "basic":
            raise ConfigError(
                f"hydra/{plugin} must be basic, got {chosen}: podcluster runs the cells itself, see engine=ray"
            )
    hydra_cfg = base.hydra
    known: dict[tuple[str, ...], GuestConfig] = {}
    if not multirun:
        config = _to_config(_without_hydra(base), overrides)
        _take_classes(config, overrides, config_name, known)
        _take_installed(config, overrides, config_name, known)
        return [Cell(config=config)], _folder(hydra_cfg.run.dir, config.digest())

    # A file of conf/experiment may bring the axes of its sweep; the command line goes on top.
    params = [f"{key}={value}" for key, value in (hydra_cfg.sweeper.params or {}).items()]
    swept_by_file = [override for override in parser.parse_overrides(params) if override.is_sweep_override()]
    named = {override.key_or_group for override in given}
    swept = [override for override in swept_by_file if override.key_or_group not in named] + swept
    fixed = [str(override.input_line) for override in given if not override.is_sweep_override()]
    fixed += [text for text in params if text.split("=")[0] not in named | {axis.key_or_group for axis in swept}]
    composed: dict[tuple[str, ...], tuple[DictConfig, dict[str, str]]] = {}
    cells = []
    for combination in product(*[_values(axis) for axis in swept]):
        # Hydra reads and merges every file anew (0.2 s): once for each choice of files is enough, values go on top.
        files: list[str] = []
        values: list[str] = []
        for axis, text in zip(swept, combination, strict=True):
            plain = axis.type == OverrideType.CHANGE and str(axis.key_or_group) not in base.hydra.runtime.choices
            (values if plain else files).append(text)
        if tuple(files) not in composed:
            whole = hydra_compose(config_name, [*fixed, *files], return_hydra_config=True)
            composed[tuple(files)] = _without_hydra(whole), dict(whole.hydra.runtime.choices)
        shared, choices = composed[tuple(files)]
        cell = deepcopy(shared)
        for override in parser.parse_overrides(values):
            OmegaConf.update(cell, str(override.key_or_group), override.value(), merge=True)
        config = _to_config(cell, [*fixed, *combination])
        _take_classes(config, [*fixed, *combination], config_name, known)
        _take_installed(config, [*fixed, *combination], config_name, known)
        cells.append(_cell(config, swept, choices))
    _level_types(cells)
    return cells, _folder(hydra_cfg.sweep.dir, _sweep_name(cells))


def _values(axis: Override) -> list[str]:
    """The overrides, one a value, that an axis stands for."""
    if not axis.is_discrete_sweep():
        raise ConfigError(
            f"{axis.key_or_group} must list its values, got {axis.input_line}: use a,b or choice() or range()"
        )
    key = axis.get_key_element()
    if str(axis.key_or_group).split(".")[0] == "hydra":
        raise ConfigError(f"{key} must be one value in a sweep, got {axis.input_line}: all cells share one dataset")
    values = [f"{key}={value}" for value in axis.sweep_string_iterator()]
    if len(set(values)) < len(values):
        raise ConfigError(f"{key} must list each value once, got {axis.input_line}: take out the second")
    return values


def _take_classes(
    config: Config, overrides: Sequence[str], config_name: str, known: dict[tuple[str, ...], GuestConfig]
) -> None:
    """Give a mix its classes: each as the same command line with guest=CLASS composes it.

    `known` keeps what was composed, over cells.
    """
    from hydra.core.override_parser.overrides_parser import OverridesParser

    if config.classes:
        raise ConfigError(f"classes must be left out, got {', '.join(config.classes)}: try guest=mix")
    for override in OverridesParser.create().parse_overrides([text for text in overrides if "guest.weights=" in text]):
        given = override.value()
        if isinstance(given, dict):
            # Hydra has merged them into those of the file; who writes them down wants these and no others.
            config.guest.weights = {str(name): float(share) for name, share in given.items()}
    config.guest.check()
    # What is not the guest's is left out: a class is composed once for all the cells that differ in it alone.
    shared = [text for text in overrides if _may_change_class(text.partition("=")[0].lstrip("+~"))]
    for name in [name for name, share in config.guest.weights.items() if share]:
        one = _guest_class((*shared, f"guest={name}"), config_name, known)
        if one.weights or one.os_class in config.classes:
            raise ConfigError(f"guest.weights must name different guests that are no mix, got {name}: take it out")
        config.classes[one.os_class] = one


def _take_installed(
    config: Config, overrides: Sequence[str], config_name: str, known: dict[tuple[str, ...], GuestConfig]
) -> None:
    """Give installers that reboot the classes they reboot into, composed like those of a mix."""
    if config.installed:
        raise ConfigError(
            f"installed must be left out, got {', '.join(config.installed)}: try guest.install.into=linux"
        )
    shared = [
        text
        for text in overrides
        if _may_change_class(key := text.partition("=")[0].lstrip("+~")) and not key.startswith("guest.install.")
    ]
    for installer in [one for one in config.guests.values() if one.install.reboots]:
        name = installer.install.into
        one = _guest_class((*shared, f"guest={name}"), config_name, known)
        if one.weights or one.install.installs:
            raise ConfigError(f"guest.install.into must be no mix and no installer, got {name}: try linux")
        differs = [key for key in OF_THE_MACHINE if getattr(one, key) != getattr(installer, key)]
        if differs:
            raise ConfigError(
                f"guest.{differs[0]} must be the same before and after a reboot, got {getattr(installer, differs[0])} "
                f"for {installer.os_class} and {getattr(one, differs[0])} for {name}: a machine keeps its configuration"
            )
        config.installed[name] = one


def _guest_class(chosen: tuple[str, ...], config_name: str, known: dict[tuple[str, ...], GuestConfig]) -> GuestConfig:
    """The guest that these overrides compose."""
    from hydra import compose as hydra_compose
    from omegaconf import OmegaConf

    if chosen not in known:
        # The rest may be incomplete without the overrides that are not the guest's, and is nobody's configuration.
        composed = hydra_compose(config_name, list(chosen)).guest
        _check_keys(composed, [key for key in SCHEMA if key.startswith("guest.")], chosen, "guest")
        guest = OmegaConf.to_object(composed)
        assert isinstance(guest, GuestConfig)
        known[chosen] = guest
    return known[chosen]


def _may_change_class(key: str) -> bool:
    section, dot, name = key.partition(".")
    if key in ("guest", "workload") or (section == "guest" and name.partition(".")[0] in ("weights", "os_class")):
        return False  # a workload may want keys of its own beside it
    return section == "guest" if dot else key in groups()


def _without_hydra(composed: DictConfig) -> DictConfig:
    """The configuration itself, of which Hydra's own part is none."""
    from omegaconf import open_dict

    composed = composed.copy()
    with open_dict(composed):
        del composed["hydra"]
    return composed


def _cell(config: Config, swept: Sequence[Override], choices: Mapping[str, str]) -> Cell:
    axes: dict[str, AxisValue] = {}
    for axis in swept:
        key = str(axis.key_or_group)
        axes[key] = str(choices[key]) if key in choices else _value_at(config, key)
    return Cell(config=config, axes=axes)


def _value_at(config: Config, key: str) -> AxisValue:
    value: Any = config
    for name in key.split("."):
        value = value[name] if isinstance(value, dict) else getattr(value, name)
    return value if isinstance(value, bool | int | float | str) else json.dumps(value)


def _level_types(cells: Sequence[Cell]) -> None:
    """Give each axis one type, since it becomes one column: where `null` stands beside numbers, all become text."""
    for key in cells[0].axes:
        if len({type(cell.axes[key]) for cell in cells}) > 1:
            for cell in cells:
                value = cell.axes[key]
                cell.axes[key] = value if isinstance(value, str) else json.dumps(value)


def _sweep_name(cells: Sequence[Cell]) -> str:
    text = json.dumps([[cell.axes, cell.config.digest()] for cell in cells], sort_keys=True)
    digest = sha256(text.encode()).hexdigest()[:12]
    experiments = {cell.config.experiment for cell in cells}
    name = experiments.pop() if len(experiments) == 1 else None
    return digest if name is None else f"{name}-{digest}"


def _folder(template: str, name: str) -> Path:
    if not template.strip():
        raise ConfigError("hydra.run.dir must name a folder, got nothing: leave it out, or give it a path")
    return Path(template.replace("{name}", name)).resolve()


def _register_schema() -> None:
    from hydra.core.config_store import ConfigStore

    ConfigStore.instance().store(name="schema", node=Config, provider="podcluster")


def _to_config(composed: DictConfig, overrides: Sequence[str]) -> Config:
    from omegaconf import OmegaConf

    _check_keys(composed, SCHEMA, overrides)
    config = OmegaConf.to_object(composed)
    assert isinstance(config, Config)
    return config


def _check_keys(composed: DictConfig, wanted: Iterable[str], overrides: Sequence[str], path: str = "") -> None:
    """All keys of the schema are there, and no others: `+key=value` adds keys that no code reads, a typing error, so it
    is refused like one.
    """
    from omegaconf import MISSING, OmegaConf

    given = dict(_leaves(OmegaConf.to_container(composed, resolve=False), path))
    for key in [*given, *wanted]:
        if given.get(key, MISSING) == MISSING:
            raise ConfigError(_not_given(key))
        if key not in SCHEMA:
            raise ConfigError(_unknown_key(key, overrides))


def _leaves(tree: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    if not isinstance(tree, dict) or path in SCHEMA:
        yield path, tree
        return
    for name, branch in tree.items():
        yield from _leaves(branch, f"{path}.{name}" if path else str(name))


def _schema(cls: type, prefix: str = "") -> dict[str, Any]:
    """Every key of the configuration with the type of its value."""
    found: dict[str, Any] = {}
    hints = get_type_hints(cls)
    for item in fields(cls):
        if is_dataclass(hints[item.name]):
            found |= _schema(hints[item.name], f"{prefix}{item.name}.")
        else:
            found[f"{prefix}{item.name}"] = hints[item.name]
    return found


SCHEMA = _schema(Config)


# What Hydra and OmegaConf say about a mistake, in one line with a remedy.


@contextmanager
def _hydra_errors(overrides: Sequence[str]) -> Iterator[None]:
    """Turn what Hydra and OmegaConf raise about a user's mistake into a ConfigError."""
    from hydra.errors import HydraException, MissingConfigException, OverrideParseException
    from omegaconf.errors import OmegaConfBaseException
    from yaml import YAMLError

    try:
        yield
    except OverrideParseException as error:
        raise ConfigError(_unreadable(error.override)) from error
    except MissingConfigException as error:
        raise ConfigError(_unknown_choice(error.missing_cfg_file or "", error.options, str(error))) from error
    except OmegaConfBaseException as error:
        raise ConfigError(_bad_value(error, overrides)) from error
    except HydraException as error:
        reason = error.__cause__ or error.__context__
        if isinstance(reason, OmegaConfBaseException):
            raise ConfigError(_bad_value(reason, overrides, str(error))) from error
        raise ConfigError(f"{error}: podcluster --help shows how to write it") from error
    except YAMLError as error:
        raise ConfigError(f"a configuration file must be YAML, got: {error}: correct that line") from error
    except ValueError as error:
        # Hydra checks the value of a group, and its own flags, this way.
        for override in overrides:
            group, _, value = override.partition("=")
            if group in groups():
                raise ConfigError(_unknown_choice(f"{group}/{value}", None, str(error))) from error
        raise ConfigError(f"{error}: podcluster --help lists the options") from error


def _unreadable(override: str) -> str:
    if "=" in override:
        return f"{override} must be written KEY=VALUE: quote a value that holds = , : or spaces, as in 'KEY=\"a=b\"'"
    near = get_close_matches(override, [*VERBS, *groups(), *SCHEMA], n=1)
    hint = "podcluster --help lists both"
    if near:
        hint = f"did you mean {near[0]}{'' if near[0] in VERBS else '=...'}?"
    return f"{override} must be a command or KEY=VALUE: {hint}"


def _unknown_choice(missing: str, options: Sequence[str] | None, text: str) -> str:
    group, _, choice = missing.rpartition("/")
    if options is None:
        options = groups().get(group)
    if not group or not options:
        return f"no such configuration, {text.partition('Config search path')[0]}: podcluster --help lists the choices"
    near = get_close_matches(choice, options, n=1)
    hint = f"did you mean {group}={near[0]}?" if near else f"try {group}={options[0]}"
    return f"{group} must be one of {', '.join(options)}, got {choice}: {hint}"


def _unknown_key(key: str, overrides: Sequence[str]) -> str:
    given = next((text for text in overrides if text.lstrip("+~").startswith(key)), key)
    last = key.rpartition(".")[2]
    same_end = [known for known in SCHEMA if known.rpartition(".")[2] == last]
    near_end = get_close_matches(last, [known.rpartition(".")[2] for known in SCHEMA], n=1)
    near = (
        same_end
        or get_close_matches(key, [*SCHEMA, *groups()], n=1)
        or [known for known in SCHEMA if near_end and known.rpartition(".")[2] == near_end[0]]
    )
    hint = f"did you mean {near[0]}?" if near else "podcluster --cfg job lists them all"
    return f"{key} must be a key of the configuration, got {given}: {hint}"


KINDS = {int: "a whole number", float: "a number", bool: "true or false", str: "text"}


def _not_given(key: str) -> str:
    group = key.partition(".")[0]
    options = groups().get(group)
    remedy = f"set it, or start from another file with 'defaults: [{options[0]}]'" if options else f"try {key}=..."
    return f"{key} must be given, got nothing: {remedy}"


def _bad_value(error: Any, overrides: Sequence[str], context: str = "") -> str:
    """Word an error of OmegaConf: unknown key, wrong type, missing value, unknown interpolation."""
    if context.startswith("In '"):
        # The mistake is in a file, not on the command line: name it.
        return f"{_bad_value(error, ())} (in {context.split(chr(39))[1]}.yaml)"
    key = str(error.full_key or "")
    text = str(error.msg or error).splitlines()[0]
    if key.startswith("hydra"):
        return f"{key}: {text}: podcluster --cfg hydra lists Hydra's keys"
    if key.startswith("guest.weights."):
        name = key.rpartition(".")[2]
        likely = get_close_matches(name, set(groups()["guest"]) - {"mix"}, n=1)
        remedy = f"did you mean {likely[0]}?" if likely else "podcluster --help lists them"
        return f"guest.weights must name guests of conf/guest that are no mix, got {name}: {remedy}"
    if "not in '" in text:
        return _unknown_key(key, overrides)
    key = key.partition("[")[0]
    hint = SCHEMA.get(key)
    kinds = [kind for kind in (get_args(hint) if hint not in KINDS else (hint,)) if kind is not type(None)]
    if hint is None or "nterpolation" in text:
        return f"{key or 'the configuration'} must have a value of its own, got: {text}: set it on the command line"
    kind = KINDS.get(kinds[0], "a value") if hint != list[float] else "a pair [low,high]"
    value = "nothing" if error.value in (None, "") else error.value
    return f"{key} must be {kind}, got {value}: {_example(key)}"


def _example(key: str) -> str:
    """Show how the key is written, with the value that it has when nobody sets it."""
    from hydra import compose as hydra_compose
    from hydra import initialize_config_dir
    from hydra.core.global_hydra import GlobalHydra
    from omegaconf import OmegaConf

    GlobalHydra.instance().clear()
    with initialize_config_dir(config_dir=str(conf_dir()), version_base="1.3"):
        values: Any = OmegaConf.to_container(hydra_compose("config"))
    for name in key.split("."):
        values = values[name]
    if values is None:
        return "leave it out, or write null"
    text = json.dumps(values).replace(" ", "") if isinstance(values, list) else OmegaConf.to_yaml([values])[2:].strip()
    return f"try {key}={text}"


if __name__ == "__main__":
    sys.exit(main())
