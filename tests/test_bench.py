"""The verb `bench`: its options and its figures' form; how fast anything is, no test says."""

from __future__ import annotations

import hashlib
import subprocess
import sys
from pathlib import Path

import pytest

from podcluster.bench import command, density, month, placement, storm, telemetry, trace
from podcluster.bench.pod import BOUNDS
from podcluster.bench.processes import warm
from podcluster.cli import conf_dir
from podcluster.cluster.plan import make_plan
from podcluster.errors import ConfigError
from podcluster.host.domain import need_memory_pages
from podcluster.placement.batch import Batch


@pytest.mark.parametrize(
    "argv",
    [
        [],
        ["nothing"],
        ["pod", "--repeat", "0"],
        ["pod", "--repeat", "x"],
        ["pod", "--out", "no/such/folder/f.json"],
        ["pod", "--hosts", "10"],
        ["storm", "--hosts", "0"],
    ],
)
def test_a_mistake_is_one_line(argv: list[str]) -> None:
    """Whatever is wrong with the command line is a ConfigError of one line that begins with the verb."""
    with pytest.raises(ConfigError) as caught:
        command.parse(argv)
    assert str(caught.value).startswith("bench")
    assert "\n" not in str(caught.value)


def test_options() -> None:
    """Options are read as they are meant."""
    options = command.parse(["pod", "--repeat", "3", "--quick", "--out", "figures.json"])
    assert (options.name, options.repeat, options.quick, options.out) == ("pod", 3, True, Path("figures.json"))


def test_a_bound_is_judged_both_ways() -> None:
    """The verdict beside a figure follows the relation of its bound, and figures without a bound have no line."""
    text = command.show({"start_s": 1.0, "compile_s": 50.0, "repeat": 3}, BOUNDS)
    kept, missed = [line for line in text.splitlines() if "start_s" in line or "compile_s" in line][::-1]
    assert kept.startswith("start_s") and kept.endswith("kept")
    assert missed.startswith("compile_s") and missed.endswith("MISSED")
    assert "repeat" not in text


@pytest.mark.parametrize("name", ["best_fit", "first_fit"])
def test_placements_are_held_against_the_plain_scan(name: str) -> None:
    """What `bench placement` reports as checked: all answers on 100 hosts, a sample on more, a wrong one is noticed."""
    asks = placement.machines(100)
    answers = placement.fill(name, 100, Batch.of(asks)).answers
    assert len(asks) == len(answers) == 1400 and set(answers) <= set(range(100))
    assert placement.equals_scan(name, 100, asks[:300], answers) == 300
    assert (
        placement.equals_scan(name, 101, asks, placement.fill(name, 101, Batch.of(asks)).answers) >= placement.SAMPLES
    )
    with pytest.raises(AssertionError, match="request 7 on 100 hosts"):
        placement.equals_scan(name, 100, asks[:10], [*answers[:7], 99, *answers[8:]])


@pytest.mark.parametrize("controller", ["static", "squeezed"])
def test_a_host_page_by_page_writes_the_same_rows(controller: str) -> None:
    """What `bench trace` reports as equal: few machines for a few hours, with scrubbed batches too."""
    config = month.configure(controller, machines=4, hosts=1, days=1)
    config.study.duration_s = 1800
    config.cluster.host_mem_gib = 32
    config.guest.balloon.scrub = controller == "static"
    workload, _ = month.draw(config)
    plan = make_plan(config, workload, config.seed)
    assert trace.equals_page_loop(config, plan, workload)


def test_a_storm_is_the_same_whoever_computes_it() -> None:
    """What `bench storm` prints of hosts in two processes is what this one finds of each of them alone."""
    config = storm.configure()
    here = storm.Storm(config)
    with warm(2, storm.begin, config) as pool:
        figures = storm.boot_all(pool, 2 * storm.HOSTS_PER_TASK)
    tallies = [here.tally([host_id]) for host_id in range(2 * storm.HOSTS_PER_TASK)]
    rows = hashlib.sha256(b"".join(tally.sha256[host_id] for host_id, tally in enumerate(tallies)))
    assert figures["rows_sha256"] == rows.hexdigest()
    assert figures["pages_populated"] == sum(tally.pages_populated for tally in tallies)
    assert figures["guests"] == 2 * storm.HOSTS_PER_TASK * storm.GUESTS_PER_HOST
    assert len({tally.sha256[host_id] for host_id, tally in enumerate(tallies)}) == len(tallies)


def test_a_storm_is_of_every_class_and_every_machine_is_built() -> None:
    """Weights name every class that a machine can have, and 40 machines of any classes fit on a host."""
    config = storm.configure()
    host = storm.Storm(config)
    drawn = {machine.os_class for host_id in range(20) for machine in host.machines(host_id)}
    classes = {file.stem for file in (Path(conf_dir()) / "guest").glob("*.yaml")} - {"mix"}
    assert drawn == classes
    for machine in host.one_of_each():
        need_pages = need_memory_pages(machine, config.host, config.guests[machine.os_class])
        assert need_pages * storm.GUESTS_PER_HOST <= config.usable_pages
    assert host.tally([0]).fates["build_failed"] == 0


def test_a_storm_page_by_page_writes_the_same_rows() -> None:
    """What `bench storm` reports as equal: a machine of each class on one host."""
    assert storm.equals_page_loop(storm.configure())


def test_placement_gives_the_figures_that_it_promises(monkeypatch: pytest.MonkeyPatch) -> None:
    """Placements a second by number of hosts, and every figure that has a bound; of few machines."""
    monkeypatch.setattr(placement, "MACHINES_PER_HOST", 1)
    monkeypatch.setattr(placement, "SAMPLES", 2)
    figures = placement.measure(1, quick=True)
    for name in ("best_fit_per_s", "first_fit_per_s"):
        assert set(figures[name]) == {"100", "1000", "10000"}
        assert all(rate > 0 for rate in figures[name].values())
    assert set(placement.BOUNDS) <= set(figures)


def test_storm_gives_the_figures_that_it_promises(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of one host, and with the curve's where it is asked for; what is compared elsewhere is left out."""
    monkeypatch.setattr(storm, "WORKERS", 1)
    monkeypatch.setattr(storm, "equals_page_loop", lambda config: True)
    figures = storm.measure(1, quick=True, hosts=1, curve=True)
    assert figures["guests"] == storm.GUESTS_PER_HOST
    assert all(figures[name] > 0 for name in ("seconds", "pages_populated", "peak_rss_mib"))
    assert 0 <= figures["crash_rate"] <= 1
    assert set(storm.BOUNDS) <= set(figures)


def test_density_gives_the_figures_that_it_promises(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of two hosts, one of which is checked; so few take no more memory than there was, so that is said here."""
    monkeypatch.setattr(density, "SAMPLE", 1)
    held = iter(range(100 * density.MIB, 200 * density.MIB, density.MIB))
    monkeypatch.setattr(density, "held_bytes", lambda: next(held))
    figures = density.measure(1, quick=True, hosts=2)
    assert (figures["hosts"], figures["checked_equal"]) == (2, 1)
    assert figures["hosts_per_gib"] > 0
    assert set(density.BOUNDS) <= set(figures)


def test_telemetry_is_of_every_host_and_of_all() -> None:
    """What `bench trace` counts as rows: one for each host, for the cluster, and for each machine from its arrival on,
    each 300 s, all written.
    """
    config = month.configure("static", machines=4, hosts=2, days=1)
    config.study.duration_s = 3600
    workload, _ = month.draw(config)
    figures = telemetry.telemetry(config, workload, 1)
    machines = sum(sum(300e9 * k > one.arrival_ns for k in range(1, 13)) for one in workload.requests)
    assert figures["telemetry_rows"] == 12 * 3 + machines
    assert figures["telemetry_rows_per_s"] > 0 and figures["telemetry_ratio"] > 0
    assert config.study.telemetry_s == 0


def test_a_packed_host_is_small_and_lives_as_never_packed() -> None:
    """What `bench density` reports: hosts of several classes, all packed, of which each is what it would have been; and
    one that reports something else is noticed.
    """
    host_ids = range(3)
    here = density.Density()
    shard, reports = here.boot(host_ids, 0)
    assert shard.residents == []
    classes = {one.request.os_class for host_id in host_ids for one in here.commands(host_id)}
    assert {"windows", "linux"} <= classes
    for host_id, packed in shard.pack(host_ids).items():
        assert len(packed) < 80_000
        assert density.lives_as_never_packed(here, host_id, density.digest([reports[host_id]]), packed)
        assert not density.lives_as_never_packed(here, host_id, density.digest([]), packed)


def own_bytes() -> int:
    """What is held without what files take here: that is less whenever another process, a stranger, opens the same."""
    rollup = dict(line.split()[:2] for line in Path("/proc/self/smaps_rollup").read_text().splitlines()[1:])
    return density.held_bytes() - int(rollup["Pss_File:"]) * 1024


def test_memory_is_counted_with_that_of_children() -> None:
    """PSS of this process grows by what it holds, and by a child's."""
    before = own_bytes()
    ballast = bytes(64 * 2**20 + 1).replace(b"\0", b"x")
    assert own_bytes() - before > 60 * 2**20
    del ballast
    code = "import sys; held = b'x' * 2**26; print('held', flush=True); sys.stdin.read()"
    with subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as child:
        assert child.stdout is not None and child.stdout.readline() == b"held\n"
        assert own_bytes() - before > 60 * 2**20
        child.communicate()
