"""What telemetry sees of each machine: at the instants of the grid, whoever it is, whatever it does in between."""

from __future__ import annotations

import numpy as np
import pytest

from podcluster.records.commands import Close, Command, SetTarget, StopDomain
from podcluster.records.samples import MachineSampleBlock
from podcluster.units import NS_PER_S, PAGES_PER_MIB, s_to_ns
from tests.host.lives import curve, guest_config, host_config, host_model, live, request, start

MIB = PAGES_PER_MIB


def looked(*, coalesce: bool = True, cuts: tuple[float, ...] = ()) -> MachineSampleBlock:
    """Two guests on one host, looked at every 5 s: one is told a lower target and leaves, one comes later."""
    commands: list[Command] = [
        start(request(7, "linux", 64, 64, curve((0, 20), (20, 40), (60, 30)))),
        SetTarget(s_to_ns(22), 7, 50 * MIB),
        start(request(3, "linux", 64, 64, 24), at_s=31),
        StopDomain(s_to_ns(41), 7),
        Close(s_to_ns(60)),
    ]
    model = host_model(
        guest_config("linux"), telemetry_s=5, machine_samples=True, coalesce=coalesce, host=host_config()
    )
    reports = []
    for until_s in (*cuts, 60):
        until_ns = s_to_ns(until_s)
        reports.append(model.advance(until_ns, [one for one in commands if one.at_ns <= until_ns]))
        commands = [one for one in commands if one.at_ns > until_ns]
    return MachineSampleBlock.join([report.machine_samples for report in reports])


def test_each_machine_is_seen_while_it_is_there() -> None:
    """By instant, then by domain_id; what it owns and wants is its own, its target that of then."""
    block = looked()
    seen = [(row.t_ns // NS_PER_S, row.domain_id) for row in block]
    first = [(t, 7) for t in range(5, 35, 5)]
    assert seen == [*first, (35, 3), (35, 7), (40, 3), (40, 7), *((t, 3) for t in range(45, 60, 5)), (60, 3)]
    rows = {(row.t_ns // NS_PER_S, row.domain_id): row for row in block}
    assert rows[20, 7].target_pages == 64 * MIB and rows[25, 7].target_pages == 50 * MIB
    assert rows[20, 7].owned_pages > rows[40, 7].owned_pages
    assert rows[20, 7].demanded_pages == 40 * MIB and rows[40, 7].demanded_pages == 35 * MIB
    assert rows[60, 3].demanded_pages == 24 * MIB
    assert 0 < rows[35, 3].demanded_pages < 24 * MIB  # it boots, and has taken so much


@pytest.mark.parametrize("cuts", [(4.9,), (5, 10, 33.3), (22, 22.5, 40)])
def test_how_its_time_is_cut_changes_nothing(cuts: tuple[float, ...]) -> None:
    """Nor does an act at a time."""
    assert looked(cuts=cuts) == looked()
    assert looked(coalesce=False) == looked()


def test_machines_add_up_to_their_host() -> None:
    """At each instant their targets, what they own and what they want are what the host's sample says."""
    guest = guest_config("windows")
    model = host_model(guest, telemetry_s=2, machine_samples=True)
    report = live(model, 50, *(start(request(k, "windows", 40, 64, 30), at_s=1 + 3 * k) for k in range(3)))
    machines, hosts = report.machine_samples, report.samples
    for name in ("target_pages", "owned_pages", "demanded_pages"):
        sums = [int(machines.column(name)[machines.column("t_ns") == t_ns].sum()) for t_ns in hosts.column("t_ns")]
        assert np.array_equal(sums, hosts.column(name)), name


def test_nobody_asked() -> None:
    """Then there are none."""
    report = live(host_model(guest_config("linux"), telemetry_s=5), 20, start(request(1, "linux", 64, 64, 20)))
    assert len(report.samples) and not report.machine_samples
