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
# # Confidence
#
# The paper reads from value neurons how likely an answer is to be right, before it is written. Here
# the same is done on a small bundled model, beside what anybody can see without neurons. A read-out
# counts for something only where it beats the baselines that see as much. The sizes are small, so
# that this notebook takes about two minutes; `mechreward paper confidence early-exit` does it with
# more problems and draws.

# %%
import mechreward as mr
from mechreward.uses.early_exit import fit_exit

model = mr.load("countdown-rl")
task = mr.tasks.Countdown()

# %% [markdown]
# ## Value neurons
#
# Chosen on training problems, by a probe of V-hat.

# %%
runs = mr.sample(model, task.problems("train", 80), progress=False)
values = mr.estimate(model, runs, k=16, progress=False)
states = mr.record(model, runs, "3.resid_post", progress=False)["3.resid_post"]
probe = mr.ValueProbe().fit(states, values)
value = mr.select(probe, top=0.05)
print(value)

# %% [markdown]
# ## How sure, at which stage
#
# Two answers to each of 150 other problems. A third of the problems calibrates, and chooses the
# best baseline of every stage; the rest is measured. "adds" is what the value neurons add to all
# surface columns together: near 0, they know nothing that the text does not show.

# %%
answers = mr.sample(model, task.problems("test", 150), k=2, progress=False)
sure = mr.confidence(model, answers, value, fit=runs, values=values, progress=False)
print(sure)

# %% [markdown]
# Every arm that sees no more than the prompt. "matched" and "random" are sets of as many neurons,
# the former of the same magnitude.

# %%
table = sure.metrics()
table[table["stage"] == "prompt"].round(3)

# %% [markdown]
# ## Is 70 percent 70 percent?
#
# Calibrated scores against the share of right answers. The calibration error stands beside the one
# that a perfect predictor would show with so few answers: it is not 0.

# %%
mr.show.calibration(sure)

# %% [markdown]
# Answer only where the confidence is high: how many answers are wrong then? An oracle and a random
# order are beside it.

# %%
mr.show.risk(sure)

# %% [markdown]
# ## Early exit
#
# Stop a rollout when its value falls. The threshold is set on validation problems, so that at most
# a tenth of the answers that would have ended correct is lost; then the rule is held to that on
# test problems.

# %%
validation = mr.early_exit(model, task.problems("validation", 80), value=probe, progress=False)
rule = fit_exit(validation, "value", alpha=0.1)
stopped = mr.early_exit(model, task.problems("test", 80), rule, value=probe, progress=False)
print(rule)
print(stopped)

# %% [markdown]
# The same without a promise: the accuracy that is left where every signal saves the same share of
# the tokens, value beside entropy, length and chance.

# %%
mr.show.exits(stopped)
