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
# A host is to be emptied for maintenance: who gets away, how soon, and who cannot?
from IPython.display import Image, Markdown

from podcluster.report import dataset
from podcluster.report.evacuated import evacuation_figure, evacuations, in_words
from podcluster.report.figure import axes_of, sweep_note
from podcluster.report.style import png

folder = dataset.of_experiment("evacuation")
origin = dataset.provenance(folder)
by = list(axes_of(origin))
cells = evacuations(dataset.columns(folder, "events"), dataset.columns(folder, "domains"), by)
Markdown(in_words(cells, by))

# %% [markdown]
# A bar for each cell: the domains that were on the host, by what became of them, and how long after the order the last
# of those that left was gone.

# %%
Image(png(evacuation_figure(cells, by, note=sweep_note(folder, origin))))

# %% [markdown]
# What became of all boot attempts; a domain that moved has one here and one there.

# %%
fates = dataset.columns(folder, "domains")["fate"]
Markdown("\n".join(f"- {fate}: {(fates == fate).sum():,}" for fate in sorted(set(fates))))
