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
# # Your model, your task
#
# A real language model, a file of questions, and what this package makes of them: forecast,
# rollouts, values, neurons, an ablation beside its controls, a certificate. The model is
# SmolLM2-135M-Instruct, taught to solve word problems (`words-base`; `make real` fetches the model
# once, without a hub). Put your own folder, GGUF file or hub name into `mr.load`, and your own
# questions into `TextTask`.
#
# The sizes are small, so that this takes ten minutes on one core. They are too small to believe
# what comes out; the certificate says so, claim by claim.

# %%
import json

import numpy as np
from IPython.display import SVG

import mechreward as mr
from mechreward.models.text import pieces
from mechreward.show.histogram import histogram
from mechreward.show.tokens import colored_tokens

model = mr.load("words-base")

# %% [markdown]
# ## A task from a file
#
# Here the questions are word problems; `validate` holds gold answers and spoiled ones against the
# verifier before the model is asked anything.

# %%
with open("questions.jsonl", "w") as file:
    for problem in mr.tasks.get("words").problems("train", 400):
        question = problem.prompt[1]["content"]
        file.write(json.dumps({"question": question, "answer": problem.answer}) + "\n")

task = mr.tasks.TextTask(
    "questions.jsonl",
    verify="number",
    system="Solve the problem step by step. End with a line Answer: and the number.",
    max_tokens=96,
)
print(mr.tasks.validate(task))
print(task.problems("train", 1)[0].prompt[1]["content"])

# %% [markdown]
# ## What will it cost?
#
# A short trial, and nothing else.

# %%
problems = task.problems("train", 24)
print(mr.forecast(mr.sample, model, problems))

# %% [markdown]
# ## Rollouts and values
#
# With `out=` what is generated is kept: stopped and called again, a verb goes on where it was.

# %%
runs = mr.sample(model, problems, out="kept", progress=False)
values = mr.estimate(model, runs, k=4, out="kept", progress=False)
print(runs, values)
print(runs.frame()[["problem_id", "reward", "outcome", "steps", "length"]].head(4))
SVG(histogram(values.mean[values.live], "V-hat"))

# %% [markdown]
# An answer, coloured by V-hat of the state that each line leads to: red is lost, blue is won. A
# wrong line is not undone here, so V falls at it and stays low.

# %%
spread = [float(np.ptp(values.mean[values.trajectory == n])) for n in range(len(runs))]
shown = int(np.argmax(spread))
run, mine = runs[shown], values.trajectory == shown
colour = np.repeat(values.mean[mine], np.diff([-1, *run.step_ends]))
colour[: run.prompt_len - 1] = np.nan
colored_tokens(pieces(model, run.tokens), 2 * colour - 1)

# %% [markdown]
# ## Neurons, and whether to believe them
#
# A probe on one layer, its top 1%, zeroed beside sets of equal magnitude. A layer is chosen on
# validation problems by `mechreward demo`; here we take one as it comes.

# %%
site = "14.resid_post"
acts = mr.record(model, runs, site, progress=False)[site]
neurons = mr.select(mr.ValueProbe(target="mc").fit(acts, values), top=0.01)
effect = mr.ablate(
    model,
    task.problems("test", 8),
    neurons,
    ops="zero",
    draws=3,
    random_draws=1,
    progress=False,
)
print(effect)
rows = mr.paper.R4(effect, mr.paper.shared("R4", "words-base", task.name, site, 0))
mr.show.ablation(rows)

# %% [markdown]
# The certificate asks six questions, and says what to run where it cannot answer.

# %%
certificate = mr.certify(
    model, task, neurons, train=12, test=8, k=2, n=4, draws=3, pairs=4, progress=False
)
print(certificate)
assert not certificate.passed  # so few problems settle nothing
