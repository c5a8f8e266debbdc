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
# A host of ten dies: who of its guests is started again, how soon, and what does overcommit change?
from IPython.display import Image, Markdown

from podcluster.report import dataset
from podcluster.report.figure import axes_of_starts, start_figure
from podcluster.report.starts import in_words, starts_of
from podcluster.report.style import png

folder = dataset.of_experiment("host_failure")
origin = dataset.provenance(folder)
confidence = origin["config"]["study"]["confidence"]
by, how = axes_of_starts(origin)
starts = starts_of(dataset.columns(folder, "domains"), by, confidence, origin=how)
Markdown(in_words(starts, by, confidence))

# %% [markdown]
# How long the domains of the dead host were away, from its failure until they were up again: half of them, and from the
# 5th to the 95th of 100; at the right how many came back.

# %%
Image(png(start_figure(folder, origin)))

# %% [markdown]
# What became of all boot attempts.

# %%
fates = dataset.columns(folder, "domains")["fate"]
Markdown("\n".join(f"- {fate}: {(fates == fate).sum():,}" for fate in sorted(set(fates))))
