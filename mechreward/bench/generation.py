"""P2, P3, P4, P9 and the generating half of P8: everything that samples."""

from __future__ import annotations

from collections.abc import Callable

import torch

from mechreward.bench.ground import (
    ERROR,
    GREEDY,
    TOKENS,
    Contest,
    Ground,
    apart,
    count,
    prefill_tokens,
    same,
    shares,
)
from mechreward.models.capture import Capture
from mechreward.models.engine import Job, generate
from mechreward.models.text import decode
from mechreward.probing.activations import forward
from mechreward.rollouts.value import estimate


def p2(ground: Ground) -> list[Contest]:
    capture = Capture(dict.fromkeys(ground.sites))

    def parity() -> dict[str, tuple[str, float]]:
        few = 16
        caught, plain = ground.decode(capture, few), ground.decode(None, few)
        errors, stop = [], ground.sites[-1].layer + 1
        for job, one in zip(ground.ragged[:few], caught, strict=True):
            again = forward(ground.model, [torch.cat([job.trunk, one.tokens])], ground.sites, stop)
            if one.caught:
                errors += [
                    apart(x, again[site][0][one.caught.position])
                    for site, x in one.caught.x.items()
                ]
        return {"plain_decode": (TOKENS, same(caught, plain)), "replay": (ERROR, max(errors))}

    arms = {
        "mechreward": lambda: count(ground.decode(capture)),
        "plain_decode": lambda: count(ground.decode()),
    }
    work = f"decoding with {len(ground.sites)} sites caught"
    return [
        Contest(
            "P2",
            work,
            "tokens/s",
            arms,
            parity,
            0.95,
            ("plain_decode",),
            extras=lambda: passes(ground),
        )
    ]


def p3(ground: Ground) -> list[Contest]:
    def arm(by: str) -> Callable[[], float]:
        return lambda: float(sum(map(len, ground.rollouts(by))))

    def parity() -> dict[str, tuple[str, float]]:
        ours = ground.decode(few=16, greedy=True)
        return {
            by: (TOKENS, same(ours, ground.rollouts(by, True, 16)))
            for by in ("generate", "huggingface_generate")
        }

    arms = {"mechreward": lambda: count(ground.decode())}
    arms |= {by: arm(by) for by in ("generate", "huggingface_generate")}

    def extras() -> dict[tuple[str, str], float]:
        return shares(arms["mechreward"], ground.device)

    return [
        Contest(
            "P3",
            "rollouts of ragged lengths",
            "tokens/s",
            arms,
            parity,
            3.0,
            ("generate",),
            extras=extras,
        )
    ]


def p4(ground: Ground) -> list[Contest]:
    runs = ground.runs.subset(range(min(ground.sizes.trajectories, len(ground.runs))))
    k, size, task = ground.sizes.k, ground.sizes.batch, ground.task
    states = [(n, run, end) for n, run in enumerate(runs) for end in run.step_ends[:-1]]

    def naive(by: str) -> float:
        rows = [(n, run, end) for n, run, end in states for _ in range(k)]
        for start in range(0, len(rows), size):
            part = rows[start : start + size]
            room = max(task.max_tokens - (end + 1 - run.prompt_len) for _, run, end in part)
            said = ground.continued(by, [run.tokens[: end + 1] for _, run, end in part], room)
            for (n, run, end), new in zip(part, said, strict=True):
                text = decode(ground.model, torch.cat([run.tokens[run.prompt_len : end + 1], new]))
                task.verify(runs.problems[n], text)
        return float(len(rows))

    def ours() -> float:
        estimate(ground.model, runs, k=k, batch=size, what=None)
        return float(len(states) * k)

    def parity() -> dict[str, tuple[str, float]]:
        """Forked log-probabilities against a fresh pass of each whole text by the plain model."""
        jobs = [Job(run.tokens, end + 1, 24, ("parity", n, end)) for n, run, end in states[:24]]
        errors = []
        for job, one in zip(
            jobs, generate(ground.model, jobs, eos=ground.eos, batch=size), strict=True
        ):
            whole = torch.cat([job.trunk[: job.length], one.tokens]).to(ground.device)
            fresh = ground.plain(whole[None]).logits[0, job.length - 1 : -1].log_softmax(-1).cpu()
            errors.append(apart(one.logprobs, fresh.gather(1, one.tokens[:, None])[:, 0]))
        return dict.fromkeys(loops, (ERROR, max(errors)))

    def extras() -> dict[tuple[str, str], float]:
        counted = {}
        for name, run in arms.items():
            with prefill_tokens(
                ground.plain if name == "huggingface_generate" else ground.model
            ) as count:
                run()
            counted[name, "prefill_tokens"] = float(sum(count))
        return counted | shares(ours, ground.device)

    loops = {by: lambda by=by: naive(by) for by in ("generate", "huggingface_generate")}
    arms = {"mechreward": ours} | loops
    work = f"values, {k} continuations from {len(states)} states"
    return [Contest("P4", work, "continuations/s", arms, parity, 4.0, ("generate",), extras=extras)]


def p8(ground: Ground) -> list[Contest]:
    """Generating under many interventions: all arms in one batch against a loop of `generate` under
    hooks."""
    edits, size = ground.edits(ground.sizes.arms), ground.sizes
    prompts, room = ground.prompts[: size.texts], ground.task.max_tokens

    def ours(greedy: bool = False) -> list[list[torch.Tensor]]:
        jobs = [job for edit in edits for job in ground.jobs((edit,), size.texts)]
        policy = GREEDY if greedy else None
        said = generate(
            ground.model, jobs, eos=ground.eos, policy=policy, batch=size.arms * size.texts
        )
        return [
            [one.tokens for one in said[n : n + len(prompts)]]
            for n in range(0, len(said), len(prompts))
        ]

    def loop(greedy: bool = False) -> list[list[torch.Tensor]]:
        said = []
        for edit in edits:
            keep, add = edit.keep.to(ground.device), edit.add.to(ground.device)
            with ground.model.hooks(
                fwd_hooks=[(edit.site.hook, lambda x, hook, k=keep, a=add: x * k + a)]
            ):
                said.append(ground.continued("generate", prompts, room, greedy))
        return said

    def work(said: list[list[torch.Tensor]]) -> float:
        return float(sum(len(one) for arm in said for one in arm))

    def parity() -> dict[str, tuple[str, float]]:
        pairs = list(zip(ours(True), loop(True), strict=True))
        equal = sum(same(a, b) for a, b in pairs) / len(pairs)
        return {"generate": (TOKENS, equal)}

    arms = {"mechreward": lambda: work(ours()), "generate": lambda: work(loop())}
    name = f"generating under {len(edits)} interventions, {len(prompts)} prompts each"
    return [Contest("P8", name, "tokens/s", arms, parity, 6.0, ("generate",))]


def p9(ground: Ground) -> list[Contest]:
    site = ground.sites[-1]
    weights = torch.randn(
        site.width(ground.model), 1, generator=torch.Generator().manual_seed(0)
    ).to(ground.device)
    capture, raw = Capture({site: lambda x: x @ weights}), Capture({site: None})

    def parity() -> dict[str, tuple[str, float]]:
        scored, caught = ground.decode(capture, 16), ground.decode(raw, 16)
        errors = [
            apart(a.caught.x[site], b.caught.x[site] @ weights.cpu())
            for a, b in zip(scored, caught, strict=True)
            if a.caught and b.caught
        ]
        return {
            "plain_decode": (TOKENS, same(scored, ground.decode(None, 16))),
            "replay": (ERROR, max(errors)),
        }

    arms = {
        "mechreward": lambda: count(ground.decode(capture)),
        "plain_decode": lambda: count(ground.decode()),
    }
    work = "sampling with a probe read at every token"
    return [
        Contest(
            "P9",
            work,
            "tokens/s",
            arms,
            parity,
            1.05,
            ("plain_decode",),
            slowdown=True,
            extras=lambda: passes(ground),
        )
    ]


def passes(ground: Ground) -> dict[tuple[str, str], float]:
    """Passes of a row that each arm cannot do without: what is caught at the last token takes one
    more an answer."""
    said = ground.decode()
    return {
        ("mechreward", "row_passes"): count(said) + len(said),
        ("plain_decode", "row_passes"): count(said),
    }
