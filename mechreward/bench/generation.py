"""P2, P3, P4, P9 and the generating half of P8: everything that samples."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from mechreward.bench.counts import apart, count, prefill_tokens, same, shares
from mechreward.bench.ground import (
    ERROR,
    GREEDY,
    TOKENS,
    Contest,
    Extras,
    Ground,
    Parity,
    batches,
)
from mechreward.models.capture import Capture, Caught
from mechreward.models.engine import Job, generate
from mechreward.models.text import decode
from mechreward.probing.activations import forward
from mechreward.rollouts.value import estimate

FEW = 16  # answers that parity is checked on
GENERATES = ("generate", "huggingface_generate")


def p2(ground: Ground) -> list[Contest]:
    """Decoding with activations caught on the way, against decoding alone."""
    capture = Capture(dict.fromkeys(ground.sites))

    def error(tokens: Tensor, caught: Caught) -> float:
        """What was caught, against a fresh pass over the same tokens."""
        stop = ground.sites[-1].layer + 1
        again = forward(ground.model, [tokens], ground.sites, stop)
        return max(apart(x, again[site][0][caught.position]) for site, x in caught.x.items())

    def parity() -> Parity:
        caught = ground.decode(capture, FEW)
        plain = ground.decode(None, FEW)
        errors = []
        for job, answer in zip(ground.ragged[:FEW], caught, strict=True):
            if answer.caught:
                tokens = torch.cat([job.trunk, answer.tokens])
                errors.append(error(tokens, answer.caught))
        return {"plain_decode": (TOKENS, same(caught, plain)), "replay": (ERROR, max(errors))}

    contest = Contest(
        "P2",
        work=f"decoding with {len(ground.sites)} sites caught",
        unit="tokens/s",
        arms={
            "mechreward": lambda: count(ground.decode(capture)),
            "plain_decode": lambda: count(ground.decode()),
        },
        parity=parity,
        target=0.95,
        aimed=("plain_decode",),
        extras=lambda: row_passes(ground),
    )
    return [contest]


def p3(ground: Ground) -> list[Contest]:
    """Rollouts of ragged lengths, against batches that wait for their longest answer."""

    def ours() -> float:
        return count(ground.decode())

    def theirs(by: str) -> Callable[[], float]:
        def arm() -> float:
            return float(sum(len(tokens) for tokens in ground.rollouts(by)))

        return arm

    def parity() -> Parity:
        greedy = ground.decode(few=FEW, greedy=True)
        equal = {}
        for by in GENERATES:
            equal[by] = (TOKENS, same(greedy, ground.rollouts(by, True, FEW)))
        return equal

    def extras() -> Extras:
        return shares(ours, ground.device)

    contest = Contest(
        "P3",
        work="rollouts of ragged lengths",
        unit="tokens/s",
        arms={
            "mechreward": ours,
            "generate": theirs("generate"),
            "huggingface_generate": theirs("huggingface_generate"),
        },
        parity=parity,
        target=3.0,
        aimed=("generate",),
        extras=extras,
    )
    return [contest]


def p4(ground: Ground) -> list[Contest]:
    """Values of states: continuations forked from one prefix, against a batch of `generate` for
    every few of them."""
    model = ground.model
    task = ground.task
    k = ground.sizes.k
    size = ground.sizes.batch
    runs = ground.runs.subset(range(min(ground.sizes.trajectories, len(ground.runs))))
    states = []
    for number, run in enumerate(runs):
        for end in run.step_ends[:-1]:
            states.append((number, run, end))

    def naive(by: str) -> float:
        rows = []
        for state in states:
            rows += [state] * k
        for part in batches(rows, size):
            room = max(task.max_tokens - (end + 1 - run.prompt_len) for _, run, end in part)
            prefixes = [run.tokens[: end + 1] for _, run, end in part]
            answers = ground.continued(by, prefixes, room)
            for (number, run, end), tokens in zip(part, answers, strict=True):
                before = run.tokens[run.prompt_len : end + 1]
                text = decode(model, torch.cat([before, tokens]))
                task.verify(runs.problems[number], text)
        return float(len(rows))

    def ours() -> float:
        estimate(model, runs, k=k, batch=size, progress=False)
        return float(len(states) * k)

    def parity() -> Parity:
        """Forked log-probabilities against a fresh pass of each whole text by the plain model."""
        jobs = []
        for number, run, end in states[:24]:
            jobs.append(Job(run.tokens, end + 1, 24, ("parity", number, end)))
        answers = generate(model, jobs, eos=ground.eos, batch=size)
        errors = []
        for job, answer in zip(jobs, answers, strict=True):
            whole = torch.cat([job.trunk[: job.length], answer.tokens])
            whole = whole.to(ground.device)
            logits = ground.plain(whole[None]).logits[0, job.length - 1 : -1]
            logprobs = logits.log_softmax(-1).cpu()
            fresh = logprobs.gather(1, answer.tokens[:, None])
            errors.append(apart(answer.logprobs, fresh[:, 0]))
        return dict.fromkeys(GENERATES, (ERROR, max(errors)))

    def extras() -> Extras:
        numbers: Extras = {}
        for name, arm in arms.items():
            passed = ground.plain if name == "huggingface_generate" else model
            with prefill_tokens(passed) as counted:
                arm()
            numbers[name, "prefill_tokens"] = float(sum(counted))
        return numbers | shares(ours, ground.device)

    arms: dict[str, Callable[[], float]] = {
        "mechreward": ours,
        "generate": lambda: naive("generate"),
        "huggingface_generate": lambda: naive("huggingface_generate"),
    }
    contest = Contest(
        "P4",
        work=f"values, {k} continuations from {len(states)} states",
        unit="continuations/s",
        arms=arms,
        parity=parity,
        target=4.0,
        aimed=("generate",),
        extras=extras,
    )
    return [contest]


def p8(ground: Ground) -> list[Contest]:
    """Generating under many interventions: all arms in one batch against a loop of `generate` under
    hooks."""
    model = ground.model
    sizes = ground.sizes
    edits = ground.edits(sizes.arms)
    prompts = ground.prompts[: sizes.texts]
    room = ground.task.max_tokens

    def ours(greedy: bool = False) -> list[list[Tensor]]:
        jobs = []
        for edit in edits:
            jobs += ground.jobs((edit,), sizes.texts)
        answers = generate(
            model,
            jobs,
            eos=ground.eos,
            policy=GREEDY if greedy else None,
            batch=sizes.arms * sizes.texts,
        )
        tokens = [answer.tokens for answer in answers]
        return batches(tokens, len(prompts))

    def loop(greedy: bool = False) -> list[list[Tensor]]:
        arms = []
        for edit in edits:
            keep = edit.keep.to(ground.device)
            add = edit.add.to(ground.device)
            hook = (edit.site.hook, lambda x, hook, k=keep, a=add: x * k + a)
            with model.hooks(fwd_hooks=[hook]):
                answers = ground.continued("generate", prompts, room, greedy)
            arms.append(answers)
        return arms

    def tokens(arms: list[list[Tensor]]) -> float:
        return float(sum(len(answer) for arm in arms for answer in arm))

    def parity() -> Parity:
        equal = []
        for arm, other in zip(ours(greedy=True), loop(greedy=True), strict=True):
            equal.append(same(arm, other))
        return {"generate": (TOKENS, sum(equal) / len(equal))}

    contest = Contest(
        "P8",
        work=f"generating under {len(edits)} interventions, {len(prompts)} prompts each",
        unit="tokens/s",
        arms={
            "mechreward": lambda: tokens(ours()),
            "generate": lambda: tokens(loop()),
        },
        parity=parity,
        target=6.0,
        aimed=("generate",),
    )
    return [contest]


def p9(ground: Ground) -> list[Contest]:
    """Sampling with a probe read at every token, against sampling alone."""
    site = ground.sites[-1]
    generator = torch.Generator().manual_seed(0)
    weights = torch.randn(site.width(ground.model), 1, generator=generator)
    weights = weights.to(ground.device)
    capture = Capture({site: lambda x: x @ weights})
    raw = Capture({site: None})

    def parity() -> Parity:
        scored = ground.decode(capture, FEW)
        errors = []
        for answer, bare in zip(scored, ground.decode(raw, FEW), strict=True):
            if answer.caught and bare.caught:
                read = bare.caught.x[site] @ weights.cpu()
                errors.append(apart(answer.caught.x[site], read))
        return {
            "plain_decode": (TOKENS, same(scored, ground.decode(None, FEW))),
            "replay": (ERROR, max(errors)),
        }

    contest = Contest(
        "P9",
        work="sampling with a probe read at every token",
        unit="tokens/s",
        arms={
            "mechreward": lambda: count(ground.decode(capture)),
            "plain_decode": lambda: count(ground.decode()),
        },
        parity=parity,
        target=1.05,
        aimed=("plain_decode",),
        slowdown=True,
        extras=lambda: row_passes(ground),
    )
    return [contest]


def row_passes(ground: Ground) -> Extras:
    """Passes of a row that each arm cannot do without: what is caught at the last token takes one
    more an answer."""
    answers = ground.decode()
    tokens = count(answers)
    return {
        ("mechreward", "row_passes"): tokens + len(answers),
        ("plain_decode", "row_passes"): tokens,
    }
