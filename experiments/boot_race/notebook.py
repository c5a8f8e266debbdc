# ---
# jupyter:
#   jupytext:
#     formats: py:percent
#     text_representation:
#       extension: .py
#       format_name: percent
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %%
# When does a guest lose the race between what fills its memory and the balloon that hands it back?
from IPython.display import Image, Markdown

from podcluster.report import dataset
from podcluster.report.figure import sweep_note
from podcluster.report.hazards import hazard_figure, of_sweep, switched_off_in_words, tally_in_words
from podcluster.report.phase import phase_figure, race_in_words
from podcluster.report.style import png

folder = dataset.of_experiment("boot_race")
cells, origin = dataset.columns(folder, "cells"), dataset.provenance(folder)
as_is = cells["hazard"] == "as_is"
Markdown(race_in_words(cells, keep=as_is))

# %% [markdown]
# A field is one configuration: maxmem / memory along, the balloon's start upwards, its rate by rows, the class of guest
# by columns; memory is the least that the class is said to boot in. What decides is whether more data is written than
# is owned before the balloon has handed the difference back: a class that waits for its balloon cannot lose, whenever
# the balloon begins; one that does not loses more the later it begins and the slower it is.

# %%
note = sweep_note(folder, origin)
Image(png(phase_figure(cells, keep=as_is, note=note)))

# %% [markdown]
# Not every death is the guest's own doing. One whose data fits in what it owns should live, since Xen takes zero pages
# back; it dies where a sweep is cut off by pending work (`preempt`), ends at the bottom of memory with zero pages above
# where it began (`wrap`), or leaves zero pages that no sweep reaches and the recent list has forgotten (`ring`).

# %%
tally, off, confidence = of_sweep(folder)
Markdown(tally_in_words(tally))

# %% [markdown]
# And what each costs: the same boots with one of them switched off. A hazard may be named at a death and still cost
# nothing, where the guest would have died a moment later of another.

# %%
Image(png(hazard_figure(off, note=note)))

# %%
Markdown(switched_off_in_words(off, confidence))
