"""Are samples the same whatever stretches a host is looked at in?"""

from __future__ import annotations

from podcluster.records.commands import Close, Command, SetTarget
from podcluster.records.samples import SampleBlock
from podcluster.units import PAGES_PER_MIB, s_to_ns
from tests.host.lives import curve, guest_config, host_model, request, start

END_S = 120


def samples(steps_s: list[float]) -> SampleBlock:
    """Of a host with two guests, a look each second, that advances in these steps."""
    model = host_model(guest_config("linux"), ram_mib=512, telemetry_s=1)
    demand = curve((0, 20), (50, 20), (90, 60), (110, 30))
    commands: list[Command] = [
        start(request(0, "linux", 64, 96, demand)),
        start(request(1, "linux", 64, 128, 30), 7.5),
        SetTarget(s_to_ns(60.25), 1, 96 * PAGES_PER_MIB),
        Close(s_to_ns(END_S)),
    ]
    blocks, now_ns = [], 0
    for until_s in [*steps_s, END_S]:
        until_ns = s_to_ns(until_s)
        due = [command for command in commands if now_ns < command.at_ns <= until_ns]
        blocks.append(model.advance(until_ns, due).samples)
        now_ns = until_ns
    return SampleBlock.join(blocks)


def test_samples_do_not_depend_on_how_far_a_host_advances_at_once() -> None:
    """One step, and steps that end between looks, on them, and thrice within a second."""
    whole = samples([])
    assert whole.column("t_ns").tolist() == [s_to_ns(k) for k in range(1, END_S + 1)]
    assert len(set(whole.column("demanded_pages").tolist())) > 40
    assert whole.column("domains_running").max() == 2
    parts = samples([0.4, 1, 1.2, 1.4, 1.6, 8, 33.5, 60.25, 61, 100])
    assert (parts.columns == whole.columns).all()
