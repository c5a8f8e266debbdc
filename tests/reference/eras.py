"""What the hypervisor of other eras did otherwise: "Eras" of docs/model.md, on top of today's rules."""

from tests.reference.pod import RING_SUPERPAGE_BIT, PodManager
from tests.reference.pod2009 import Pod2009


class Pod2015(PodManager):
    """October 2015 to May 2016: the recent list is looked at before every populate."""

    def before_populate(self) -> None:
        self.eager_reclaim()


class Pod2012(PodManager):
    """June 2012 to October 2015: a ring of 128 superpages, looked at after a populate of one."""

    sweep_yields = False
    ring_slots = 128
    ring_start = RING_SUPERPAGE_BIT  # gfn 0

    def before_populate(self) -> None:
        """Nothing."""

    def after_populate(self, gfn: int, order: int) -> None:
        if order == 9 and self.domain.entry_count > self.domain.count:
            replaced = self.remember(gfn | RING_SUPERPAGE_BIT)
            checked = replaced & ~RING_SUPERPAGE_BIT
            if checked or gfn:  # Xen would populate and reclaim gfn 0 for ever
                self.check_superpage(checked)


MANAGERS: dict[str, type[PodManager]] = {
    "today": PodManager,
    "xen2015": Pod2015,
    "xen2012": Pod2012,
    "rfc2009": Pod2009,
}
