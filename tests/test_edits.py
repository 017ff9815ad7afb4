"""Row-indexed interventions against `run_with_hooks`, one row at a time."""

from __future__ import annotations

from typing import Any

import pytest
import tiny
import torch
from test_engine import EOS, JOBS, assert_same, slowly

from mechreward.base.errors import MechRewardError
from mechreward.models.engine import Job, Policy, generate
from mechreward.models.row_edits import Edit, RowEdits, forward_arms
from mechreward.models.site import Site

SITES = [Site(0, "resid_pre"), Site(0, "mlp"), Site(1, "resid_mid"), Site(1, "resid_post")]


def make(model: Any, site: Site, seed: int, at: tuple[int, ...] | None = None) -> Edit:
    """A few neurons scaled, zeroed and shifted."""
    width, rng = site.width(model), torch.Generator().manual_seed(seed)
    keep, add = torch.ones(width), torch.zeros(width)
    chosen = torch.randperm(width, generator=rng)[:5]
    keep[chosen] = torch.tensor([0.0, 0.0, 2.0, 1.0, -1.0])
    add[chosen] = torch.tensor([0.0, 1.5, 0.0, -3.0, 0.5])
    return Edit(site, keep, add, at)


def plain_hooks(edits: tuple[Edit, ...]) -> list[tuple[str, Any]]:
    """The same edits as ordinary hooks on one unpadded row."""

    def hook(edit: Edit) -> Any:
        def fn(tensor: torch.Tensor, hook: Any) -> torch.Tensor:
            out = tensor.clone()
            for position in range(tensor.shape[1]):
                if edit.at is None or position in edit.at:
                    out[:, position] = tensor[:, position] * edit.keep + edit.add
            return out

        return fn

    return [(edit.site.hook, hook(edit)) for edit in edits]


@pytest.mark.parametrize("batch", [1, 3, 256])
def test_each_row_is_changed_as_run_with_hooks_changes_it_alone(tiny_model, batch: int):
    a, b, c, d = (make(tiny_model, site, seed) for seed, site in enumerate(SITES))
    late, early = make(tiny_model, SITES[3], 9, (6, 7, 24)), make(tiny_model, SITES[2], 10, (0, 2))
    kinds = [
        (),
        (a,),
        (b,),
        (c, d),
        (d, make(tiny_model, SITES[3], 7)),
        (late,),
        (early, b),
        (a, b, c, d),
    ]
    jobs = [
        Job(j.trunk, j.length, j.max_new, j.key, kinds[i % len(kinds)])
        for i, j in enumerate(JOBS * 2)
    ]
    jobs = [j for j in jobs if late not in j.edits or j.length > 7]

    def alone(job: Job) -> Any:
        @torch.no_grad()
        def forward(tokens: torch.Tensor) -> torch.Tensor:
            return tiny_model.run_with_hooks(tokens[None], fwd_hooks=plain_hooks(job.edits))[0]

        return slowly(forward, job, Policy())

    assert_same(generate(tiny_model, jobs, eos=EOS, batch=batch), [alone(job) for job in jobs])
    assert tiny.no_hooks_left(tiny_model)


def test_an_edit_that_changes_nothing_changes_no_bit(tiny_model):
    idle = [
        Edit(site, torch.ones(site.width(tiny_model)), torch.zeros(site.width(tiny_model)))
        for site in SITES
    ]
    ours = generate(
        tiny_model, [Job(j.trunk, j.length, j.max_new, j.key, tuple(idle)) for j in JOBS], eos=EOS
    )
    for one, other in zip(ours, generate(tiny_model, JOBS, eos=EOS), strict=True):
        assert torch.equal(one.tokens, other.tokens)
        torch.testing.assert_close(one.logprobs, other.logprobs, atol=1e-6, rtol=0)


def test_an_edit_that_never_fires_is_told(tiny_model):
    never = make(tiny_model, SITES[0], 0, (90, 91))
    job = Job(JOBS[-1].trunk, 5, 4, ("n",), (never,))
    with pytest.raises(MechRewardError, match=r"0.resid_pre \(positions 90, 91\) never fired"):
        generate(tiny_model, [*JOBS, job], eos=-1)
    assert tiny.no_hooks_left(tiny_model)


def test_padding_and_ended_rows_count_for_nothing():
    site = Site(0, "resid_pre")
    edit = Edit(site, torch.zeros(3), torch.ones(3))
    rows = RowEdits([(edit,), ()], torch.device("cpu"))
    rows.set(
        torch.tensor([rows.code((edit,)), rows.code(())]), torch.tensor([[0, 1, -1], [0, 1, 2]])
    )
    ((name, hook),) = rows.hooks()
    x = torch.arange(18.0).view(2, 3, 3)
    out = hook(x, None)
    assert name == site.hook
    assert torch.equal(out[0, :2], torch.ones(2, 3)) and torch.equal(out[0, 2], x[0, 2])
    assert torch.equal(out[1], x[1]) and torch.equal(x, torch.arange(18.0).view(2, 3, 3))
    assert [table.fired.tolist() for table in rows.tables.values()] == [[4, 2]]
    assert hook(x.bfloat16(), None).dtype == torch.bfloat16


def test_a_pass_of_other_rows_is_refused():
    edit = Edit(Site(0, "resid_pre"), torch.zeros(3), torch.ones(3))
    rows = RowEdits([(edit,)], torch.device("cpu"))
    rows.set(torch.ones(2, 1).long(), torch.zeros(2, 1).long())
    ((_, hook),) = rows.hooks()
    with pytest.raises(MechRewardError, match=r"\(3, 1\); the pass holds \(2, 1\)"):
        hook(torch.zeros(3, 1, 3), None)


def test_edits_of_one_site_need_one_width():
    edits = [(Edit(Site(0, "mlp"), torch.ones(n), torch.ones(n)),) for n in (3, 4)]
    with pytest.raises(MechRewardError, match="different widths"):
        RowEdits(edits, torch.device("cpu"))


@pytest.mark.parametrize(
    "first", ["0.resid_pre", "0.mlp", "1.resid_pre", "1.resid_mid", "1.mlp", "1.resid_post"]
)
def test_arms_that_branch_at_a_layer_equal_run_with_hooks(tiny_model, first: str):
    """Arms: none, one edit, another there, one more downstream as well, and one at chosen
    positions."""
    site, tokens = Site.parse(first), torch.arange(3, 20)
    width = site.width(tiny_model)
    a = Edit(site, torch.linspace(0, 1, width), torch.full((width,), 0.3))
    b = Edit(site, torch.zeros(width), torch.linspace(-2, 2, width))
    after = Edit(Site(1, "resid_post"), torch.full((32,), 0.5), torch.ones(32))
    here = Edit(site, torch.zeros(width), torch.ones(width), at=(2, 16))
    arms = [(), (a,), (b,), (a, after), (here,)]
    logits = forward_arms(tiny_model, tokens, arms)

    def hook(edit: Edit):
        at = slice(None) if edit.at is None else list(edit.at)

        def change(tensor: torch.Tensor, hook: Any) -> torch.Tensor:
            changed = tensor.clone()
            changed[:, at] = changed[:, at] * edit.keep + edit.add
            return changed

        return edit.site.hook, change

    for edits, found in zip(arms, logits, strict=True):
        with torch.no_grad():
            alone = tiny_model.run_with_hooks(
                tokens[None], fwd_hooks=[hook(edit) for edit in edits]
            )[0]
        torch.testing.assert_close(found, alone, atol=1e-5, rtol=1e-5)
    assert tiny.no_hooks_left(tiny_model)


def test_arms_that_cannot_be(tiny_model):
    edit = Edit(Site(0, "mlp"), torch.ones(48), torch.zeros(48), at=(9,))
    with pytest.raises(MechRewardError, match="no arms were given"):
        forward_arms(tiny_model, torch.arange(3, 8), [])
    with pytest.raises(MechRewardError, match=r"0\.mlp \(positions 9\) never fired"):
        forward_arms(tiny_model, torch.arange(3, 8), [(edit,)])
