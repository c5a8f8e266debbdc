"""The memory controllers, one a file, and the one place that knows them all."""

from __future__ import annotations

from podcluster.config import ControllerConfig
from podcluster.host.controllers.esx import Esx
from podcluster.host.controllers.hyperv import Hyperv
from podcluster.host.controllers.mom import Mom
from podcluster.host.controllers.proxmox import Proxmox
from podcluster.host.controllers.qmemman import Qmemman
from podcluster.host.controllers.selfballoon import Selfballoon
from podcluster.host.controllers.squeezed import Squeezed
from podcluster.host.controllers.static import Static
from podcluster.host.controllers.view import Controller


def make_controller(config: ControllerConfig) -> Controller:
    """The controller of this name with its parameters; the configuration was checked when it was read."""
    made: dict[str, Controller] = {
        "static": Static(),
        "squeezed": Squeezed(config.squeezed),
        "qmemman": Qmemman(config.qmemman),
        "mom": Mom(config.mom),
        "proxmox": Proxmox(config.proxmox),
        "esx": Esx(config.esx),
        "selfballoon": Selfballoon(config.selfballoon),
        "hyperv": Hyperv(config.hyperv),
    }
    return made[config.name]
