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
# Which memory controller does best on the same machines, and what does it move for it?
from IPython.display import Image, Markdown

from podcluster.report import dataset
from podcluster.report.controllers import controllers_table, standings
from podcluster.report.figure import experiment_figure, experiment_measures, sweep_note
from podcluster.report.paired import pooled, pooled_in_words
from podcluster.report.style import png

folder = dataset.of_experiment("controllers")
runs = dataset.rows(folder, "runs")
origin = dataset.provenance(folder)
found = standings(runs, origin["config"]["overcommit"])
replications = len({run["replication"] for run in runs})
Markdown(f"n = {replications} replications of {runs[0]['requests']:,} machines\n\n{controllers_table(found)}")

# %% [markdown]
# All controllers meet the same machines with the same draws, so each machine under a controller and under none is a
# pair. Below zero is better in every panel. Refusing a machine spares it the swap: read the panels together. Whatever
# guests died of has a panel if any did.

# %%
Image(png(experiment_figure(folder, origin, sweep_note(folder, origin))))

# %% [markdown]
# Ratio by ratio.

# %%
study = origin["config"]["study"]
lines = pooled(folder, study["baseline"], ["controller", "overcommit"], study["confidence"])
measures = experiment_measures(lines, "controllers")
Markdown(pooled_in_words(lines, measures, study["baseline"], study["confidence"]))

# %% [markdown]
# Why starts were refused, and how often guests were found not to co-operate.

# %%
causes: dict[tuple[str, str], int] = {}
for row in dataset.rows(folder, "domains"):
    if row["fate"] in ("build_failed", "rejected"):
        causes[row["controller"], row["cause"]] = causes.get((row["controller"], row["cause"]), 0) + 1
sorted(causes.items())
