# ---
# jupyter:
#   jupytext:
#     formats: ipynb,py:percent
#     text_representation:
#       extension: .py
#       format_name: percent
#       format_version: '1.3'
#       jupytext_version: 1.19.6
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # Guided search
#
# The paper lets dopamine neurons choose among four candidates of every step, and reports 77.8
# instead of 72.2 percent of MATH-500. Here the same search runs on a small bundled model, beside
# what anybody can do with as many tokens: the same search by chance, by log-probability, by matched
# neurons, and best-of-n. The sizes are small, so that this notebook takes about two minutes;
# `mechreward paper search` does it with more problems and three seeds.

# %%
import pandas as pd

import mechreward as mr
from mechreward.experiments.rows import Results, Setting
from mechreward.uses.search.readouts import of_neurons, of_probe

model = mr.load("countdown-rl")
task = mr.tasks.Countdown()

# %% [markdown]
# ## Neurons
#
# Value neurons come from states, dopamine neurons from means over steps, both on training problems.

# %%
runs = mr.sample(model, task.problems("train", 80), progress=False)
values = mr.estimate(model, runs, k=16, progress=False)
site = "3.resid_post"
states = mr.record(model, runs, site, progress=False)[site]
steps = mr.record(model, runs, site, rows="steps", progress=False)[site]
value_probe = mr.ValueProbe().fit(states, values)
value = mr.select(value_probe, top=0.05)
dopamine = mr.select(mr.DopamineProbe().fit(steps, values), top=0.05)
print(value)
print(dopamine)

# %% [markdown]
# ## One search
#
# `mr.search` reads the neurons in the pass that generates the candidates. The ledger counts every
# token, those of dropped candidates too.

# %%
problems = task.problems("test", 60)
found = mr.search(model, problems, dopamine, progress=False)
print(found)
found.frame().head()

# %% [markdown]
# A name, a fitted probe or any function of the prompt and the steps may choose as well.


# %%
def few_backs(prompt, steps):
    """Steps that turn back are worse."""
    return [-float(step.startswith("back")) for step in steps]


lines = []
for scorer in (dopamine, value, "random", "logprob", few_backs):
    made = mr.search(model, problems, scorer, progress=False)
    tokens = made.ledger.generated / len(problems)
    lines.append({"scorer": made.scorer, "accuracy": made.rewards.mean(), "tokens": tokens})
pd.DataFrame(lines).round(3)

# %% [markdown]
# ## Is it more than chance?
#
# `mr.paper.guided_search` runs all of it on shared problems and random numbers: beams, best-of-n on
# shared samples, and the gains with intervals. Every gain is paired; its p-value is that of sign
# flips of problems, after Holm over the beams.

# %%
setting = Setting(experiment="R11", model="countdown-rl", task="countdown", site=site, seed=0)
scorers = [of_neurons(dopamine), of_neurons(value), of_probe(value_probe)]
rows = mr.paper.guided_search(model, problems, scorers, setting, seeds=(0, 1))
gains = [row for row in rows if row.metric == "gain"]
pd.DataFrame(
    {
        "beam by": [row.arm for row in gains],
        "over": [row.detail["beyond"] for row in gains],
        "gain": [str(row.interval) for row in gains],
        "p, Holm": [round(row.detail["p_holm"], 3) for row in gains],
    }
)

# %%
mr.show.search(rows)

# %% [markdown]
# What so few problems could show at all is part of the result: a change smaller than this is not
# told apart from none.

# %%
detectable = Results({}, tuple(rows)).where(metric="detectable")[0]
print(f"with {detectable.n} problems and one seed: {detectable.estimate:.2f}")
assert 0 < detectable.estimate < 1
