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
# Which starts fail or wait when many machines boot at once, and how far must boots be spread to avoid it?
from IPython.display import Image, Markdown

from podcluster.report import dataset
from podcluster.report.figure import axes_of_starts, start_figure
from podcluster.report.starts import in_words, starts_of
from podcluster.report.style import png

folder = dataset.of_experiment("boot_storm")
origin = dataset.provenance(folder)
confidence = origin["config"]["study"]["confidence"]
by, how = axes_of_starts(origin)
starts = starts_of(dataset.columns(folder, "domains"), by, confidence, origin=how)
Markdown(in_words(starts, by, confidence))

# %% [markdown]
# Left the starts that never came up, right how long the others took from when they were asked for: half of them, and
# 95 of 100 (dashed).

# %%
Image(png(start_figure(folder, origin)))

# %% [markdown]
# What became of all boot attempts.

# %%
fates = dataset.columns(folder, "domains")["fate"]
Markdown("\n".join(f"- {fate}: {(fates == fate).sum():,}" for fate in sorted(set(fates))))
