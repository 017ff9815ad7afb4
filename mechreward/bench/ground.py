"""What `mechreward bench` races on: a model in both forms, real rollouts, and what a contest is."""

from __future__ import annotations

import cProfile
import pstats
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from jaxtyping import Float, Int

from mechreward.models.capture import Capture
from mechreward.models.engine import Continuation, Job, Policy, generate
from mechreward.models.load import WEIGHTS, bundled, load
from mechreward.models.row_edits import Edit
from mechreward.models.site import Site
from mechreward.models.text import encode, eos_id
from mechreward.rollouts.sample import sample
from mechreward.tasks import TASKS, Countdown, get

ERROR, TOKENS = "max abs error", "equal tokens"
GREEDY = Policy(temperature=0.0)


@dataclass(frozen=True)
class Sizes:
    """How much work; the defaults finish in 3 minutes on 2 cores."""

    repeats: int = 3
    problems: int = 192
    batch: int = 48
    sites: int = 8
    k: int = 8
    trajectories: int = 8
    arms: int = 16
    texts: int = 4
    rows: int = 1500
    width: int = 192
    fits: int = 16
    megabytes: int = 64


@dataclass(frozen=True)
class Contest:
    """`arms` do the same work and return how much of it they did; `parity` compares the first with
    each other one.

    `target` is the least ratio of rates wanted (of times, at most, where `slowdown`), against the
    arms in `aimed`.
    """

    experiment: str
    work: str
    unit: str
    arms: dict[str, Callable[[], float]]
    parity: Callable[[], dict[str, tuple[str, float]]]
    target: float
    aimed: tuple[str, ...]
    slowdown: bool = False
    extras: Callable[[], dict[tuple[str, str], float]] = dict


@dataclass
class Ground:
    """A model in both forms, its task, and rollouts whose lengths are ragged."""

    name: str
    sizes: Sizes
    device: str
    seed: int = 0
    model: Any = field(init=False)
    plain: Any = field(init=False)

    def __post_init__(self) -> None:
        from transformers import AutoModelForCausalLM

        self.model = load(self.name, device=self.device)
        folder = WEIGHTS / self.name if self.name in bundled() else self.name
        plain: Any = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
        self.plain = plain.to(self.device).eval()
        self.eos = eos_id(self.model)
        self.task = Countdown()
        self.problems = self.task.problems("test", self.sizes.problems, self.seed)
        self.prompts = [encode(self.model, problem.prompt) for problem in self.problems]
        self.ragged = self._ragged()
        self.runs = sample(self.model, self.problems, seed=self.seed, what=None)
        self.sites = [Site(layer, "resid_post") for layer in range(self.model.cfg.n_layers)][
            : self.sizes.sites
        ]

    def jobs(self, edits: tuple[Edit, ...] = (), few: int | None = None) -> list[Job]:
        """One rollout of each prompt."""
        return [
            Job(prompt, len(prompt), self.task.max_tokens, (self.seed, "bench", n), edits)
            for n, prompt in enumerate(self.prompts[:few])
        ]

    def _ragged(self) -> list[Job]:
        """One rollout of each of as many problems, of every task in turn: answers of very different
        lengths."""
        share = -(-self.sizes.problems // len(TASKS))
        drawn = zip(*(get(name).problems("test", share, self.seed) for name in TASKS), strict=True)
        jobs = []
        for n, problem in enumerate(problem for turn in drawn for problem in turn):
            prompt = encode(self.model, problem.prompt)
            jobs.append(Job(prompt, len(prompt), problem.task.max_tokens, (self.seed, "ragged", n)))
        return jobs[: self.sizes.problems]

    def edits(self, count: int) -> list[Edit]:
        """Zero ablations of different neurons at the middle layer."""
        site = Site(self.model.cfg.n_layers // 2, "mlp")
        edits = []
        for number in range(count):
            keep = torch.ones(site.width(self.model))
            keep[number :: max(count, 16)] = 0
            edits.append(Edit(site, keep, torch.zeros_like(keep)))
        return edits

    def pad(
        self, rows: list[torch.Tensor], left: bool = False
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Tokens and mask, on the device."""
        side = "left" if left else "right"
        tokens = torch.nn.utils.rnn.pad_sequence(rows, batch_first=True, padding_side=side)
        ones = [torch.ones_like(row) for row in rows]
        mask = torch.nn.utils.rnn.pad_sequence(ones, batch_first=True, padding_side=side)
        return tokens.to(self.device), mask.to(self.device)

    def continued(
        self, by: str, rows: list[torch.Tensor], room: int, greedy: bool = False
    ) -> list[torch.Tensor]:
        """What one batch of TransformerLens' or HuggingFace's `generate` says, cut at the end of
        each answer."""
        tokens, mask = self.pad(rows, left=True)
        if by == "generate":
            whole = self.model.generate(
                tokens, max_new_tokens=room, do_sample=not greedy, attention_mask=mask, return_type="tokens",
                eos_token_id=self.eos, verbose=False,
            )  # fmt: skip
        else:
            drawing: dict[str, Any] = (
                {} if greedy else {"temperature": 1.0, "top_p": 1.0, "top_k": 0}
            )
            whole = self.plain.generate(
                tokens,
                attention_mask=mask,
                max_new_tokens=room,
                do_sample=not greedy,
                pad_token_id=0,
                **drawing,
            )
        return [cut(row, self.eos) for row in whole[:, tokens.shape[1] :].cpu()]

    def rollouts(self, by: str, greedy: bool = False, few: int | None = None) -> list[torch.Tensor]:
        """The ragged jobs, in batches that wait for their longest answer."""
        jobs, size, said = self.ragged[:few], self.sizes.batch, []
        for start in range(0, len(jobs), size):
            part = jobs[start : start + size]
            room = max(job.max_new for job in part)
            new = self.continued(by, [job.trunk for job in part], room, greedy)
            said += [row[: job.max_new] for row, job in zip(new, part, strict=True)]
        return said

    def decode(
        self, capture: Capture | None = None, few: int | None = None, greedy: bool = False
    ) -> list[Continuation]:
        """The ragged jobs, by our own loop."""
        policy = GREEDY if greedy else Policy()
        return generate(
            self.model,
            self.ragged[:few],
            eos=self.eos,
            policy=policy,
            batch=self.sizes.batch,
            capture=capture,
        )


def cut(said: Int[torch.Tensor, " pos"], eos: int) -> Int[torch.Tensor, " said"]:
    """What is said up to the end-of-sequence token, that included."""
    ends = torch.nonzero(said == eos)
    return said[: int(ends[0]) + 1] if len(ends) else said


def count(said: list[Continuation]) -> float:
    """Tokens generated."""
    return float(sum(len(one.tokens) for one in said))


def apart(a: Float[torch.Tensor, "*any"], b: Float[torch.Tensor, "*any"]) -> float:
    """Largest absolute difference."""
    return float((a.cpu() - b.cpu()).abs().max())


def same(ours: Sequence[Any], theirs: Sequence[Any]) -> float:
    """Share of our tokens that the other side says in the same place."""
    pairs = zip(ours, theirs, strict=True)
    rows = [(getattr(one, "tokens", one), getattr(other, "tokens", other)) for one, other in pairs]
    equal = sum(int((a[: len(b)] == b[: len(a)]).sum()) for a, b in rows)
    return equal / sum(max(len(a), len(b)) for a, b in rows)


def shares(run: Callable[[], Any], device: str) -> dict[tuple[str, str], float]:
    """Of the time of a run on a CPU, what goes into products with weights, into products of
    attention, and elsewhere; nothing on a GPU, where a call says only when its work was started."""
    if device != "cpu":
        return {}
    kinds = {
        "weights": ("linear_pointwise>", "linear>"),
        "attention": ("bmm>", "scaled_dot_product_attention>"),
    }
    profile = cProfile.Profile()
    profile.runcall(run)
    spent = dict.fromkeys((*kinds, "elsewhere"), 0.0)
    for (_, _, name), (_, _, inside, _, _) in pstats.Stats(profile).stats.items():  # pyright: ignore[reportAttributeAccessIssue]
        kind = next(
            (kind for kind, ends in kinds.items() if any(end in name for end in ends)), "elsewhere"
        )
        spent[kind] += inside
    return {
        ("mechreward", f"share_{kind}"): time / sum(spent.values()) for kind, time in spent.items()
    }


@contextmanager
def prefill_tokens(model: Any) -> Iterator[list[int]]:
    """Counts tokens, padding included, of all passes over more than one token a row."""
    counted: list[int] = []

    def look(module: Any, args: Any, kwargs: dict[str, Any]) -> None:
        tokens = kwargs["input_ids"] if "input_ids" in kwargs else args[0]
        if tokens.shape[1] > 1:
            counted.append(tokens.numel())

    handle = getattr(model, "original_model", model).register_forward_pre_hook(
        look, with_kwargs=True
    )
    try:
        yield counted
    finally:
        handle.remove()
