"""A beginning that prompts share is run once; what follows is as if every prompt were run whole."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from mechreward.models import prefill
from mechreward.models.engine import Capture, Continuation, Job, Policy, generate
from mechreward.models.fast_pass import LeanPass
from mechreward.models.row_edits import Edit
from mechreward.models.site import Site

EOS = 2
SITE = Site(1, "resid_post")
AT = torch.Generator().manual_seed(0)
EXAMPLES = torch.randint(4, 90, (60,), generator=AT)


def prompts(count: int = 8) -> list[torch.Tensor]:
    """The examples, then 1 to 12 tokens of their own."""
    asked = []
    for number in range(count):
        own = torch.randint(4, 90, (1 + (5 * number) % 12,), generator=AT)
        own[0] = 4 + number
        asked.append(torch.cat([EXAMPLES, own]))
    return asked


PROMPTS = prompts()


def jobs_of(*edits: Edit) -> list[Job]:
    jobs = []
    for number, prompt in enumerate(PROMPTS):
        jobs += [Job(prompt, len(prompt), 8, ("shared", number, n), edits) for n in range(2)]
    return jobs


def edit_of(at: tuple[int, ...] | None) -> Edit:
    width = 32
    return Edit(SITE, torch.ones(width), torch.linspace(-1, 1, width), at)


def alone(model: Any, jobs: list[Job], **more: Any) -> list[Continuation]:
    """Each by itself: nothing is shared."""
    return [generate(model, [job], eos=EOS, **more)[0] for job in jobs]


def assert_same(ours: list[Continuation], theirs: list[Continuation]) -> None:
    for a, b in zip(ours, theirs, strict=True):
        assert a.tokens.tolist() == b.tokens.tolist()
        torch.testing.assert_close(a.logprobs, b.logprobs, atol=1e-5, rtol=1e-5)


@pytest.fixture
def passes(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, int]]:
    """Rows and tokens of every prefill."""
    shapes: list[tuple[int, int]] = []
    first, step = LeanPass.prefill, prefill.forward_step

    def lean(self: LeanPass, tokens: torch.Tensor, *past: Any) -> Any:
        shapes.append(tuple(tokens.shape))
        return first(self, tokens, *past)

    def whole(model: Any, tokens: torch.Tensor, *rest: Any) -> Any:
        shapes.append(tuple(tokens.shape))
        return step(model, tokens, *rest)

    monkeypatch.setattr(LeanPass, "prefill", lean)
    monkeypatch.setattr(prefill, "forward_step", whole)
    return shapes


ways = pytest.mark.parametrize("lean", [True, False], ids=["lean", "the model's own pass"])


@ways
@pytest.mark.parametrize("batch", [3, 256])
def test_answers_are_those_of_whole_prompts(
    tiny_model, lean: bool, batch: int, passes, monkeypatch: pytest.MonkeyPatch
):
    wanted = alone(tiny_model, jobs_of())
    if not lean:
        monkeypatch.setattr(LeanPass, "fits", staticmethod(lambda model: False))
    passes.clear()
    assert_same(generate(tiny_model, jobs_of(), eos=EOS, batch=batch), wanted)
    assert passes[0] == (1, 59), "one token of the shortest prompt is left for the next pass"
    assert sum(rows * tokens for rows, tokens in passes) < 3 * len(EXAMPLES)


@ways
@pytest.mark.parametrize("at", [None, (3, 59, 60, 61)])
def test_edits_change_the_beginning_too(
    tiny_model, lean: bool, at: tuple[int, ...] | None, monkeypatch: pytest.MonkeyPatch
):
    jobs = [*jobs_of(), *jobs_of(edit_of(at))]
    wanted = alone(tiny_model, jobs)
    if not lean:
        monkeypatch.setattr(LeanPass, "fits", staticmethod(lambda model: False))
    ours = generate(tiny_model, jobs, eos=EOS)
    assert_same(ours, wanted)
    assert any(
        a.tokens.tolist() != b.tokens.tolist() for a, b in zip(ours[:16], ours[16:], strict=True)
    )


def test_kinds_of_edits_keep_their_own_beginnings_up_to_a_number(tiny_model, passes, monkeypatch):
    arms = [edit_of(None) for _ in range(3)]
    jobs = [job for arm in arms for job in jobs_of(arm)]
    wanted = alone(tiny_model, jobs)
    passes.clear()
    assert_same(generate(tiny_model, jobs, eos=EOS), wanted)
    assert [shape for shape in passes if shape[1] == 59] == [(1, 59)] * 3
    monkeypatch.setattr(prefill, "MOST_KEPT", 2)
    passes.clear()
    assert_same(generate(tiny_model, jobs, eos=EOS), wanted)
    assert min(tokens for _, tokens in passes) > 59


def test_capture_behind_a_shared_beginning(tiny_model):
    capture = Capture({SITE: None})
    wanted = alone(tiny_model, jobs_of(), capture=capture)
    for a, b in zip(generate(tiny_model, jobs_of(), eos=EOS, capture=capture), wanted, strict=True):
        assert a.caught is not None and b.caught is not None
        assert a.caught.position.tolist() == b.caught.position.tolist()
        torch.testing.assert_close(a.caught.x[SITE], b.caught.x[SITE], atol=1e-5, rtol=1e-4)


def test_hooks_of_others_see_whole_prompts(tiny_model):
    seen = []

    def look(tensor: torch.Tensor, hook: Any) -> None:
        seen.append(tensor.shape[1])

    generate(tiny_model, jobs_of(), eos=EOS, hooks=[(SITE.hook, look)])
    assert {length for length in seen if length > 1}.isdisjoint({59}) and max(seen) > 59


@pytest.mark.parametrize(
    ("shared", "count"), [(20, 8), (40, 2)], ids=["a short beginning", "two prompts"]
)
def test_what_would_not_pay_is_not_cut(tiny_model, passes, shared: int, count: int):
    """20 tokens are too few; 40 that are run twice cost less than another pass."""
    jobs = []
    for number in range(count):
        prompt = torch.cat([EXAMPLES[:shared], torch.tensor([4 + number, 7, 8])])
        jobs.append(Job(prompt, len(prompt), 4, ("short", number)))
    generate(tiny_model, jobs, eos=EOS, policy=Policy(temperature=0.0))
    assert passes == [(count, shared + 2)]
