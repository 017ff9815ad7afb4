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
# # Find the reward subsystem of a small model
#
# The model is bundled: it plays Countdown (reach a target from a few numbers, one operation a
# line), may write `back`, and was trained with reinforcement learning on verified answers. We ask
# which neurons carry the *state value*, the chance of still ending correct, and which the *TD
# error*, how much the last line changed it. Then we ask whether to believe it.
#
# Sizes are small so that this notebook runs in about a minute; `mechreward demo` does the same with
# more data and chooses its layer on a validation split instead of taking one as we do here.

# %%
import numpy as np
from IPython.display import SVG

import mechreward as mr
from mechreward.models.text import pieces
from mechreward.probing.pruning import measures
from mechreward.show.charts import pruning_curve
from mechreward.show.histogram import histogram
from mechreward.show.tokens import colored_tokens

model = mr.load("countdown-rl")
task = mr.tasks.Countdown()
print(task.problems("train", 1)[0].prompt)

# %% [markdown]
# ## Rollouts, values, TD errors
#
# `sample` lets the model answer, the task verifies every line. `estimate` continues from every step
# boundary `k` times under the same policy: V-hat is the share that ends correct.

# %%
runs = mr.sample(model, task.problems("train", 80), seed=0, progress=False)
values = mr.estimate(model, runs, k=16, progress=False)
test_runs = mr.sample(model, task.problems("test", 60), seed=0, progress=False)
test_values = mr.estimate(model, test_runs, k=16, progress=False)
print(runs)
print(values, values.reliability())
delta = values.delta[values.is_step]
print(f"steps with delta > .3: {np.mean(delta > 0.3):.2f}, below -.3: {np.mean(delta < -0.3):.2f}")
assert 0 < np.mean(runs.rewards) < 1
assert values.mean[values.live].std() > 0.1
SVG(histogram(values.mean[values.live], "V-hat"))

# %% [markdown]
# One rollout, coloured by V-hat of the state each line leads to. Nothing is loaded from the
# network, and token text is escaped.

# %%
shown = int(np.argmax([run.steps for run in test_runs]))
run, mine = test_runs[shown], test_values.trajectory == shown
colour = np.repeat(test_values.mean[mine], np.diff([-1, *run.step_ends]))
colour[: run.prompt_len - 1] = np.nan
colored_tokens([f"{piece} " for piece in pieces(model, run.tokens)], 2 * colour - 1)

# %% [markdown]
# ## Value neurons
#
# A probe reads V-hat from the residual stream; the neurons with the largest weights (inputs
# standardised) are the candidates. The experiments of the paper are functions of `mr.paper`, under
# its numbers; they take two splits.

# %%
site = "2.resid_post"
sites = [mr.Site.parse(written) for written in (site, "2.mlp")]
train = mr.paper.observe(model, runs, values, sites)
test = mr.paper.observe(model, test_runs, test_values, sites)
probe = mr.ValueProbe(target="mc").fit(train.at_states[site], values)
value = mr.select(probe, top=0.01)
print(value)
for name, score in measures(probe, test.states(site)).items():
    print(f"{name:>12}  {score}")

# %% [markdown]
# Sparse? Only where the selected few leave *random* subsets of the same size behind. *Shuffled* is
# the same recipe on targets moved between problems.

# %%
curve = mr.paper.R2(
    train, test, site, mr.paper.shared("R2", "countdown-rl", "countdown", site, 0), draws=2
)
net = [
    row
    for row in curve
    if row.detail.get("shape") == "mlp" and row.detail.get("fit") == "retrained"
]
SVG(pruning_curve(net, "spearman"))

# %% [markdown]
# ## Ablation, always beside its controls
#
# Nineteen activation-magnitude-matched sets, random sets with and without sinks, the same problems,
# the same random numbers, the damage meter.

# %%
effect = mr.ablate(model, task.problems("test", 60, seed=2), value, random_draws=2, progress=False)
print(effect)
summary = effect.summary("zero")
assert summary["draws"] == 19
assert 1 <= summary["rank"] <= 20

# %%
rows = mr.paper.R4(effect, mr.paper.shared("R4", "countdown-rl", "countdown", site, 0))
mr.show.ablation(rows)

# %% [markdown]
# ## Dopamine neurons
#
# The same idea for the TD error, read from the mean activation over a line. Without the |delta| >
# .3 cut first: at a finite number of continuations the cut selects noise.

# %%
dopamine_probe = mr.DopamineProbe().fit(train.over_steps["2.mlp"], values)
print(mr.select(dopamine_probe))
print("Spearman with delta, all steps:", measures(dopamine_probe, test.steps("2.mlp"))["spearman"])

# %% [markdown]
# ## In your own experiment
#
# A saved set is JSON, and an intervention is a pair of hook name and function for any
# TransformerLens call.

# %%
value.save("value.json")
again = mr.NeuronSet.load("value.json")
logits = model.run_with_hooks(run.tokens[None], fwd_hooks=mr.zero(again).fwd_hooks())
print(logits.shape, (logits - model(run.tokens[None])).abs().max())
