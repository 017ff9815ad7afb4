"""What is infinite or no number is told with its problem, row, site and position; the position is
known beforehand by where it was put."""

from __future__ import annotations

import copy
import re
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import tiny
import torch

from mechreward.base.errors import MechRewardError
from mechreward.bundled.vocabulary import WORDS
from mechreward.causal.effect import CleanText
from mechreward.causal.intervene import zero
from mechreward.models.capture import Capture
from mechreward.models.engine import Job, Policy, generate
from mechreward.models.identity import model_id
from mechreward.models.load import load
from mechreward.models.row_edits import Edit, forward_arms
from mechreward.models.site import Site
from mechreward.probing.activations import record
from mechreward.probing.neurons import NeuronSet
from mechreward.probing.surface import surface
from mechreward.rollouts.sample import sample
from mechreward.rollouts.value import estimate

EOS = WORDS.index("<eos>")
TASK = tiny.Even()
TRUNK = torch.tensor([1, 9, 8, 7, 6])


def jobs_of(*edits: tuple[Edit, ...], room: int = 6) -> list[Job]:
    jobs = []
    for number, carried in enumerate(edits):
        jobs.append(Job(TRUNK, 5, room, ("finite", number), carried, f"p{number}"))
    return jobs


def blow_up(site: Site, at: int, by: float = torch.inf) -> Edit:
    keep, add = torch.ones(site_width(site)), torch.zeros(site_width(site))
    add[3] = by
    return Edit(site, keep, add, (at,))


def site_width(site: Site) -> int:
    return 48 if site.kind == "mlp" else 32


@pytest.mark.parametrize("policy", [Policy(), Policy(0.0), Policy(top_p=0.5)], ids=repr)
@pytest.mark.parametrize("by", [torch.inf, torch.nan, -torch.inf])
@pytest.mark.parametrize(
    ("site", "at"), [("0.resid_pre", 0), ("0.mlp", 4), ("1.resid_post", 4), ("1.mlp", 7)]
)
def test_the_row_the_site_and_the_position_are_told(
    tiny_model, site: str, at: int, by: float, policy: Policy
):
    edit = blow_up(Site.parse(site), at, by)
    jobs = jobs_of((), (), (edit,), ())
    with pytest.raises(
        MechRewardError,
        match=rf"problem 'p2' \(row 2\): {site} is not finite at position {at}",
    ):
        generate(tiny_model, jobs, eos=-1, policy=policy)
    assert tiny.no_hooks_left(tiny_model)


def test_a_hook_that_divides_by_zero_is_told(tiny_model):
    def divide(tensor: torch.Tensor, hook: Any) -> torch.Tensor:
        return tensor / 0

    hooks = [(Site(1, "resid_mid").hook, divide)]
    with pytest.raises(MechRewardError, match=r"row 0.*1\.resid_mid is not finite at position 0"):
        sample(tiny_model, TASK.problems("test", 2), hooks=hooks, progress=False)


def break_word(model: Any, word: int) -> None:
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if "embed_tokens" in name:
                weight[word] = torch.nan


def test_one_broken_word_is_told_with_the_first_problem_that_has_it(tiny_folder):
    model = load(tiny_folder)
    problems = TASK.problems("test", 8)
    runs = sample(model, problems, progress=False)
    # A number that some prompts hold, and no answer.
    said = {int(token) for run in runs for token in run.tokens[run.prompt_len :]}
    word = next(i for i in runs[3].tokens[: runs[3].prompt_len].tolist() if i not in {1, *said})
    holds = [run.problem_id for run in runs if word in run.tokens[: run.prompt_len]]
    break_word(model, word)
    with pytest.raises(MechRewardError, match=r"0\.resid_pre is not finite at position") as caught:
        sample(model, problems, progress=False)
    assert any(f"problem {name!r}" in str(caught.value) for name in holds)
    with pytest.raises(MechRewardError, match=r"0\.resid_pre is not finite at position"):
        estimate(model, replace(runs, model_id=model_id(model)), progress=False)


def test_logits_alone_are_told_as_logits(tiny_plain):
    model = copy.deepcopy(tiny_plain)
    with torch.no_grad():
        model.lm_head.weight[7] = torch.inf
    with pytest.raises(MechRewardError, match=r"'p0' \(row 0\): logits is not"):
        generate(model, jobs_of(()), eos=EOS)


def test_what_is_caught_is_looked_at(tiny_model):
    def broken(x: torch.Tensor) -> torch.Tensor:
        return x.new_full((len(x), 1), torch.nan)

    capture = Capture({Site(0, "mlp"): broken})
    with pytest.raises(MechRewardError, match=r"'p0' \(row 0\): 0.mlp is not finite at position 4"):
        generate(tiny_model, jobs_of((), ()), eos=EOS, capture=capture)


def test_it_is_looked_at_once_an_answer(tiny_model, monkeypatch: pytest.MonkeyPatch):
    looked, real = [], torch.Tensor.isfinite
    monkeypatch.setattr(torch.Tensor, "isfinite", lambda x: looked.append(x.shape) or real(x))
    answers = generate(tiny_model, jobs_of((), (), (), room=12), eos=EOS)
    assert [len(said.tokens) for said in answers] == sorted(
        (shape[0] for shape in looked), key=[len(said.tokens) for said in answers].index
    )
    assert len(looked) == len(answers) == 3


@pytest.mark.parametrize("temperature", [1e-310, 1e-7, float("inf")])
def test_temperatures_that_leave_the_range_of_numbers_are_refused(temperature: float):
    with pytest.raises(MechRewardError, match="temperature must be"):
        Policy(temperature=temperature)


@pytest.mark.parametrize(
    ("rows", "site"),
    [("tokens", "0.resid_pre"), ("steps", "0.resid_pre"), ("states", "1.resid_post")],
)
def test_a_recording_is_looked_at(tiny_folder, rows: Any, site: str):
    """One word of the third text is broken."""
    model = load(tiny_folder)
    runs = sample(model, TASK.problems("test", 6), progress=False)
    others = {int(token) for i in (0, 1, 3, 4, 5) for token in runs[i].tokens}
    run = runs[2]
    place = next(i for i, token in enumerate(run.tokens.tolist()) if token not in others)
    break_word(model, int(run.tokens[place]))
    end = next(end for end in run.step_ends[1:] if end >= place)
    # Behind attention all positions are broken: what a masked token says is weighed with 0.
    at = {"tokens": place, "steps": end, "states": run.step_ends[0]}[rows]
    runs = replace(runs, model_id=model_id(model))
    told = f"problem {run.problem_id!r} (row 2): {site} is not finite at position {at}:"
    with pytest.raises(MechRewardError, match=re.escape(told)):
        record(model, runs, site, rows=rows, progress=False)


def broken_head(folder: Any, word: int) -> Any:
    """A model whose logits of one word are no numbers."""
    model = load(folder)
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if "unembed" in name or "lm_head" in name:
                weight[word] = torch.nan
    return model


def test_logits_of_texts_that_are_read_again_are_looked_at(tiny_folder):
    """The damage meter, the surface of answers, and patches read logits without sampling."""
    whole = load(tiny_folder)
    runs = sample(whole, TASK.problems("test", 3), progress=False)
    model = broken_head(tiny_folder, 7)
    runs = replace(runs, model_id=model_id(model))
    first = runs[0]
    told = rf"problem {first.problem_id!r} \(row 0\): logits is not finite at position "
    with pytest.raises(MechRewardError, match=told + str(first.prompt_len - 1)):
        CleanText(model, runs)
    with pytest.raises(MechRewardError, match=r"\(row \d\): logits is not finite at position 0"):
        surface(model, runs)
    with pytest.raises(MechRewardError, match="row 0: logits is not finite at position 0"):
        forward_arms(model, first.tokens, [(), ()])


def test_a_token_that_is_ruled_out_is_no_error(tiny_folder):
    """Minus infinity: it never comes, and adds nothing to entropy or KL."""
    model = load(tiny_folder)
    runs = sample(model, TASK.problems("test", 3), progress=False)
    word = next(w for w in range(3, len(WORDS)) if all(w not in run.tokens for run in runs))

    def rule_out(logits: torch.Tensor, hook: Any) -> torch.Tensor:
        logits = logits.clone()
        logits[..., word] = -torch.inf
        return logits

    with model.hooks(fwd_hooks=[("unembed.hook_out", rule_out)]):
        assert np.isfinite(surface(model, runs)).all()
        text = CleanText(model, runs)
        acts = record(model, runs, "1.mlp", rows="tokens", progress=False)["1.mlp"]
        meter = text.compare(zero(NeuronSet.of(acts, [1], "one")), acts)
    assert np.isneginf(text.logprobs[:, word].numpy()).all()
    assert np.isfinite(meter["kl"]) and meter["kl"] > 0
