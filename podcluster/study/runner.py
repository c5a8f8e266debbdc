"""Cells times replications, from configurations to a dataset; resumable at every replication.

What        `run_study` computes what is not there yet, and only that. A replication is a folder written aside and
            renamed; a cell is finished when its folder holds `results` and `DONE`; a sweep is one dataset of all its
            cells.
Layout      A run:   `<out>/results/<table>/`, `<out>/DONE`.
            A sweep: the same, made of `<out>/cells/<cell>/results/<table>/`, `<out>/cells/<cell>/DONE`.
            On the way: `.../.replications/0003/results/` for each finished replication of an unfinished cell, and in
            its folder (of a cell of one replication: the cell's) `.checkpoint/`, from which the one that was not
            finished goes on (`io.checkpoints`).
Invariants  [SY-1] a cell is named by the hash of its configuration and axes without `engine`: where it was computed is
                   no part of it.
            [SY-2] replication r draws its machines from streams (seed, "workload", "replication", r, ...) and its hosts
                   from a seed drawn from (seed, "replication", r): neither knows the cell, so all cells meet the same
                   machines and the same luck.
            [SY-3] nothing is lost that another configuration has made in a folder, or somebody else has put there.
Departs     nowhere.
"""

from __future__ import annotations

import json
import logging
import math
import os
import shlex
import shutil
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from hashlib import sha256
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Final, NamedTuple, Self

from podcluster import __version__, rng
from podcluster.cluster.progress import Progress, Silent
from podcluster.config import Cell, Config, EngineConfig, plain
from podcluster.errors import ConfigError, InvariantError, PodclusterError
from podcluster.io import checkpoints, load, provenance, results
from podcluster.io.lock import Lock
from podcluster.records.machines import LifeTable, MachineTable
from podcluster.records.summaries import PairRow, RunRow
from podcluster.records.tables import TABLES, Sink
from podcluster.study.pairs import machines_of, pair_rows, partners

if TYPE_CHECKING:
    from podcluster.cluster.plan import Plan
    from podcluster.cluster.pool import Packed, PackingPool, Pool
    from podcluster.cluster.ray_pool import RayEngine
    from podcluster.cluster.resume import Store
    from podcluster.records.machines import Workload

logger = logging.getLogger(__name__)

DONE: Final = "DONE"
CELLS: Final = "cells"
REPLICATIONS: Final = ".replications"


@dataclass(frozen=True, slots=True)
class StudyOutcome:
    """Where the results of a study lie, and what of it was computed now; `folders` are the cells' in order."""

    out_dir: Path
    cells: tuple[Cell, ...]
    folders: tuple[Path, ...]
    computed: int
    skipped: int

    @property
    def results(self) -> Path:
        """The dataset."""
        return self.out_dir / results.RESULTS


def run_study(
    cells: Sequence[Cell],
    *,
    out_dir: Path,
    force: bool = False,
    command: str = "podcluster",
    progress: Progress | None = None,
) -> StudyOutcome:
    """Compute every replication of every cell that is not there yet, and make one dataset in `out_dir`/results.

    `force` computes again what is there. `command` goes into the provenance. However the process ends, every finished
    replication stays, and the one that was not is gone on with from its last checkpoint.
    """
    if not cells:
        raise InvariantError("[SY-1] a study has at least one cell, got none")
    sweep = len(cells) > 1 or bool(cells[0].axes)
    names = [cell_name(cell) for cell in cells]
    baseline = cells[0].config.study.baseline if sweep else None
    compared = partners(cells) if baseline is not None else {}
    folders = [out_dir / CELLS / name if sweep else out_dir for name in names]
    for folder, its in {out_dir: names, **{at: [name] for at, name in zip(folders, names, strict=True)}}.items():
        _check_folder(folder, its, force=force)
    if force:
        _forget(out_dir, folders)
    missing = [index for index in range(len(cells)) if not _is_done(folders[index], names[index : index + 1])]
    for index in set(range(len(cells))) - set(missing):
        checkpoints.remove(folders[index])  # a process may have died between its last mark and this
    skipped = len(cells) - len(missing)
    if skipped:
        _say_skipped(out_dir, skipped, len(cells))
    with _Study(command, progress or Silent()) as study:
        study.check([cells[index].config for index in missing])
        for index in missing:
            title = f"cell {index + 1} of {len(cells)}: {describe(cells[index])}" if sweep else "run"
            with Lock(folders[index]):
                study.compute(cells[index], names[index], folders[index], title)
    if sweep and not _is_done(out_dir, names, baseline):
        results.compact(out_dir, folders, _paired(compared, folders, names, cells[0].config.study.confidence))
        _write_done(out_dir, names, baseline)
    return StudyOutcome(out_dir, tuple(cells), tuple(folders), len(missing), skipped)


def describe(cell: Cell) -> str:
    """What sets a cell apart, in words."""
    return ", ".join(f"{name}={value}" for name, value in cell.axes.items()) or "one cell"


def cell_name(cell: Cell) -> str:
    """Name a cell by what its results are a function of [SY-1]; 12 hex digits. What it is compared with is no part."""
    study = replace(cell.config.study, figure=True, baseline=None)
    config = replace(cell.config, engine=EngineConfig(), study=study)
    text = json.dumps([config.to_dict(), plain(cell.axes)], sort_keys=True, separators=(",", ":"), allow_nan=False)
    return sha256(text.encode()).hexdigest()[:12]


def host_seed(seed: int, replication: int) -> int:
    """The seed of a replication's hosts and guests [SY-2]."""
    return int(rng.stream(seed, "replication", replication).integers(2**63 - 1))


def _paired(
    compared: Mapping[int, int], folders: Sequence[Path], names: Sequence[str], confidence: float
) -> dict[Path, list[PairRow]]:
    """The rows of `pairs`, by the folder of the cell that is compared."""
    machines = {
        at: machines_of(load.read_columns(folders[at] / results.RESULTS, "domains"))
        for at in sorted({*compared, *compared.values()})
    }
    return {
        folders[at]: pair_rows(names[other], machines[at], machines[other], confidence)
        for at, other in compared.items()
    }


def _check_folder(folder: Path, names: Sequence[str], *, force: bool) -> None:
    """That results of these cells can and may be written there [SY-3]; with `force`, in the place of others'."""
    there = next(path for path in (folder, *folder.parents) if path.exists())
    if not (there.is_dir() and os.access(there, os.W_OK | os.X_OK)):
        reason = "is not writable" if there.is_dir() else "is no folder"
        raise ConfigError(
            f"hydra.run.dir must be a folder that can be written, got {folder} ({there} {reason}): choose another"
        )
    held, parts = folder / results.RESULTS, folder / REPLICATIONS
    strange = [path.name for path in held.iterdir() if path.name not in TABLES] if held.is_dir() else []
    if strange:
        raise ConfigError(
            f"{held} must hold tables of podcluster and nothing else, got {strange[0]}: move that away, or choose "
            "another folder with hydra.run.dir (of a sweep: hydra.sweep.dir)"
        )
    if force:
        return
    begun = [_cell_of(part / results.RESULTS) for part in parts.glob("[0-9]*")]
    others = {*_cells_in(folder), *begun} - {*names, None}
    # What a sweep has made of its cells can be made again of them.
    if any(not (folder / CELLS / str(name) / DONE).is_file() for name in others):
        raise ConfigError(
            f"{folder} must hold results of this configuration or none, got those of another: choose another folder "
            "with hydra.run.dir (of a sweep: hydra.sweep.dir), or replace them with --force"
        )


def _cells_in(folder: Path) -> list[str | None]:
    """The cells whose results a folder holds: as its mark says, or where a process died before that, its tables."""
    if (folder / DONE).is_file():
        return list(_mark(folder)["cells"])
    return [_cell_of(folder / results.RESULTS)]


def _cell_of(held: Path) -> str | None:
    """The cell of which these are the results; None: there are none."""
    if not (held / "runs").is_dir():
        return None
    names = load.read_table(held, "runs").column("cell").to_pylist()
    return str(names[0]) if names else None


def _mark(folder: Path) -> dict[str, Any]:
    """What the mark of a finished folder says."""
    mark = folder / DONE
    try:
        made = json.loads(mark.read_text())
        return {"cells": [str(name) for name in made["cells"]], "baseline": made.get("baseline")}
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise PodclusterError(
            f"{mark} must be what podcluster wrote, got something else ({error}): remove it, or use --force"
        ) from error


def _is_done(folder: Path, names: Sequence[str], baseline: str | None = None) -> bool:
    """Whether `folder` holds the finished results of exactly these cells, compared with this baseline."""
    if not (folder / DONE).is_file() or not (folder / results.RESULTS).is_dir():
        return False
    return _mark(folder) == {"cells": list(names), "baseline": baseline}


def _write_done(folder: Path, names: Sequence[str], baseline: str | None = None) -> None:
    """Mark a folder as finished, last of all."""
    mark = {"cells": list(names), "baseline": baseline, "version": __version__, "commit": provenance.commit()}
    partial = folder / f".{DONE}.tmp"
    partial.write_text(json.dumps(mark, indent=1) + "\n")
    partial.replace(folder / DONE)


def _forget(out_dir: Path, folders: Sequence[Path]) -> None:
    """Take the marks away first, so that an interrupt finds nothing finished that is not."""
    for folder in {out_dir, *folders}:
        (folder / DONE).unlink(missing_ok=True)
        checkpoints.remove(folder)
        shutil.rmtree(folder / REPLICATIONS, ignore_errors=True)


def _say_skipped(out_dir: Path, skipped: int, cells: int) -> None:
    if cells == 1:
        logger.info("already computed: %s (--force computes it again)", out_dir)
    else:
        logger.info("%d of %d cells are already computed in %s (--force computes them again)", skipped, cells, out_dir)


class _Ready(NamedTuple):
    """One replication, settled and not yet run."""

    workload: Workload
    plan: Plan
    kind: str
    room_bytes: int | None  # for the hosts of one shard that are not packed; None: for all of them


class _Study:
    """What cells of one study share: the trace read once, Ray started once."""

    def __init__(self, command: str, progress: Progress) -> None:
        self._command = shlex.split(command)
        self._progress = progress
        self._tables: dict[str, MachineTable | LifeTable | None] = {}
        self._ray: RayEngine | None = None
        self._said: set[str] = set()
        self._compiled = False
        self._first: tuple[Config, _Ready] | None = None  # that will be computed first

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._ray is not None:
            self._ray.close()

    def compute(self, cell: Cell, name: str, folder: Path, title: str) -> None:
        """Compute the replications of a cell that are missing, then the cell's own row, and mark it done."""
        from podcluster.study.statistics import cell_row

        config = cell.config
        count = config.study.replications
        for stale in folder.glob(f".{results.RESULTS}.*"):
            # What a study that was killed here had not finished writing.
            shutil.rmtree(stale, ignore_errors=True)
        origin = provenance.collect(config, self._command)

        def sink(part: Path) -> results.ParquetSink:
            return results.ParquetSink(part, name, cell.axes, origin)

        if count == 1:
            ready = self._prepared(config, 0)
            with sink(folder) as whole:
                with checkpoints.CheckpointFolder(folder, f"{name}/0") as store:
                    row = self._replicate(config, 0, ready, whole.replication(0), store, title)
                whole.write("cells", [cell_row([row], config.study.confidence)])
        else:
            parts = folder / REPLICATIONS
            rows = []
            for replication in range(count):
                part = parts / f"{replication:04d}"
                stored = _stored_run(part, name)
                if stored is None:
                    ready = self._prepared(config, replication)
                    place = f"{title}, replication {replication + 1} of {count}"
                    with sink(part) as one, checkpoints.CheckpointFolder(part, f"{name}/{replication}") as store:
                        kept = one.replication(replication)
                        stored = self._replicate(config, replication, ready, kept, store, place)
                    checkpoints.remove(part)
                rows.append(stored)
            with sink(parts / "cell") as one:
                one.write("cells", [cell_row(rows, config.study.confidence)])
            results.compact(folder, [*(parts / f"{replication:04d}" for replication in range(count)), parts / "cell"])
            shutil.rmtree(parts)
        _write_done(folder, [name])
        checkpoints.remove(folder)

    def check(self, configs: Iterable[Config]) -> None:
        """Prepare each, so that a mistake in the last is told before the first has run; keep the first."""
        for config in configs:
            ready = self._prepare(config, 0)
            if self._first is None:
                self._first = config, ready

    def _prepared(self, config: Config, replication: int) -> _Ready:
        """The same of one replication; what was kept is kept no longer."""
        first, self._first = self._first, None
        return first[1] if first and first[0] is config and not replication else self._prepare(config, replication)

    def _prepare(self, config: Config, replication: int) -> _Ready:
        """Settle everything that can be wrong with one replication, and say what there is to say of it."""
        from podcluster.cluster.memory import budget, estimate_memory
        from podcluster.cluster.plan import choose_engine, make_plan
        from podcluster.placement import kernel

        if not kernel.is_compiled():
            logger.info("compiling the kernels of placement, once per installation (some ten seconds)")
            kernel.compile_all()
        workload = self._workload(config, replication)
        plan = make_plan(config, workload, host_seed(config.seed, replication))
        choice = choose_engine(config, plan, workload)
        room_bytes, memory = budget(config.engine, estimate_memory(plan, workload, choice.actors), choice.actors)
        left_out = [f"left out: {machines} machines, {reason}" for reason, machines in workload.left_out.items()]
        self._say(*workload.notes, *left_out, *plan.notes, f"engine: {choice.kind} ({choice.why})", memory)
        return _Ready(workload, plan, choice.kind, room_bytes)

    def _replicate(
        self, config: Config, replication: int, ready: _Ready, sink: Sink, store: Store, title: str
    ) -> RunRow:
        """Simulate one replication, or the rest of it."""
        from podcluster.cluster.run import run
        from podcluster.placement.policy import make_policy

        plan, workload = ready.plan, ready.workload
        self._compile()
        pool = self._pool(config, ready, store)
        self._progress.begin(title, len(plan.specs), len(workload.requests), plan.duration_ns)
        try:
            policy = make_policy(config.placement, plan.hosts.seed)
            outcome = run(plan, workload, policy, pool, sink, self._progress)
        except InvariantError as error:
            raise InvariantError(f"{error} (replication {replication} of seed {config.seed})") from error
        finally:
            self._progress.end()
            pool.close()
        return outcome.row

    def _say(self, *notes: str) -> None:
        """Log what this study has not said before: cells and replications repeat each other."""
        for note in notes:
            logger.log(logging.DEBUG if note in self._said else logging.INFO, "%s", note)
            self._said.add(note)

    def _workload(self, config: Config, replication: int) -> Workload:
        """The machines of one replication; a trace is read once a study."""
        from podcluster.io.traces import read_machines
        from podcluster.workloads import requests

        key = json.dumps([config.workload.family, config.workload.path])
        if key not in self._tables:
            self._tables[key] = read_machines(config.workload)
        return requests(
            config.workload,
            config.guest,
            config.overcommit,
            self._tables[key],
            config.seed,
            config.study.duration_s,
            classes=config.classes,
            usable_pages=config.usable_pages,
            replication=replication,
            replications=config.study.replications,
        )

    def _compile(self) -> None:
        """Compile the kernels here, once: actors that start together would each do it."""
        from podcluster.host import kernel

        if not self._compiled and not kernel.is_compiled():
            logger.info("compiling the kernels, once per installation (about half a minute)")
            logger.info("compiled in %.0f s", kernel.compile_all())
        self._compiled = True

    def _pool(self, config: Config, ready: _Ready, store: Store) -> Pool:
        """The hosts of one run, kept in `store` if they are to be."""
        from podcluster.cluster.resume import KeptPool

        host_ids = [spec.host_id for spec in ready.plan.specs]
        every_s = config.engine.checkpoint_s or math.inf
        return KeptPool(lambda packed: self._hosts(config, ready, packed), host_ids, ready.kind, store, every_s)

    def _hosts(self, config: Config, ready: _Ready, packed: Packed) -> PackingPool:
        """The hosts themselves."""
        from podcluster.cluster.pool import PACKING, InlinePool

        plan = ready.plan
        packing = PACKING._replace(room_bytes=ready.room_bytes)
        if ready.kind == "inline":
            return InlinePool(plan.specs, plan.hosts, packing=packing, packed=packed)
        from podcluster.cluster.ray_pool import RayEngine

        if self._ray is None:
            self._ray = RayEngine(config.engine.address)
        return self._ray.pool(config.engine, plan.specs, plan.hosts, packing=packing, packed=packed)


def _stored_run(part: Path, name: str) -> RunRow | None:
    """The `runs` row of a replication that an earlier, interrupted study finished."""
    if not (part / results.RESULTS).is_dir():
        return None
    (stored,) = load.read_table(part / results.RESULTS, "runs").to_pylist()
    if stored["cell"] != name:
        raise InvariantError(f"[SY-1] {part} holds a replication of cell {name} violated: it is of {stored['cell']}")
    return RunRow(**{field.name: stored[field.name] for field in fields(RunRow)})
