"""What `mechreward bench` races on: a model in both forms, real rollouts, and what a contest is."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from math import ceil
from typing import Any

import torch
from jaxtyping import Int
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from mechreward.base.options import option
from mechreward.models.capture import Capture
from mechreward.models.engine import Continuation, Job, Policy, generate
from mechreward.models.load import load
from mechreward.models.plain import Plain
from mechreward.models.row_edits import Edit
from mechreward.models.site import Site
from mechreward.models.sources import find
from mechreward.models.text import encode, eos_ids
from mechreward.rollouts.sample import sample
from mechreward.tasks import GAMES, Countdown

ERROR, TOKENS = "max abs error", "equal tokens"
GREEDY = Policy(temperature=0.0)

# What an arm is found to have, or what a parity check says of it.
Extras = dict[tuple[str, str], float]
Parity = dict[str, tuple[str, float]]


@dataclass(frozen=True)
class BenchSizes:
    """How much work; the defaults finish in 3 minutes on 2 cores. Each field is an option of
    `mechreward bench` with the help it carries."""

    repeats: int = option(3, "Interleaved rounds of every contest.")
    problems: int = option(192, "Prompts and texts.")
    batch: int = option(48, "Rows at once, for us and for what we are compared to.")
    sites: int = option(8, "Residual layers captured, at most.")
    k: int = option(8, "Continuations for each state's value.")
    trajectories: int = option(8, "Rollouts whose states are valued.")
    arms: int = option(16, "Interventions.")
    texts: int = option(4, "Texts or prompts under each intervention.")
    rows: int = option(1500, "Rows that probes are fitted to.")
    width: int = option(192, "Neurons that probes read.")
    fits: int = option(16, "MLP probes; a quarter as many targets of linear ones.")
    megabytes: int = option(64, "Activations written and read, at least.")


@dataclass(frozen=True)
class Contest:
    """The same work done in several ways.

    Attributes
    ----------
    experiment
        `P1` to `P9`.
    work, unit
        What is done, and what its rate counts.
    arms
        Ways to do it; each returns how much it did. `mechreward` is the first.
    parity
        Compares the first arm with each other one: by arm, what is compared and the number.
    target
        The least ratio of rates wanted (of times, at most, where `slowdown`).
    aimed
        The arms that the target is against.
    slowdown
        Whether ratios are of times, theirs = 1.
    extras
        Further numbers, by arm and metric, asked for after the last round.
    """

    experiment: str
    work: str
    unit: str
    arms: dict[str, Callable[[], float]]
    parity: Callable[[], Parity]
    target: float
    aimed: tuple[str, ...]
    slowdown: bool = False
    extras: Callable[[], Extras] = dict


@dataclass
class Ground:
    """A model in both forms, its task, and rollouts whose lengths are ragged.

    Attributes
    ----------
    model, plain
        The wrapped model, and the same weights as HuggingFace loads them.
    problems, prompts
        Problems of Countdown, and their tokens.
    ragged
        One job for each of as many problems of all tasks.
    runs
        Rollouts of `problems`.
    sites
        Residual sites of the first layers.
    """

    name: str
    sizes: BenchSizes
    device: str
    seed: int = 0
    model: Any = field(init=False)
    plain: Any = field(init=False)

    def __post_init__(self) -> None:
        self.model = load(self.name, device=self.device)
        source = find(self.name)
        plain = Plain(reads=False, adapter=source.adapter)
        bare = plain.from_pretrained(source.weights, dtype=torch.float32)
        self.plain = bare.to(self.device).eval()
        self.eos = eos_ids(self.model)
        self.task = Countdown()
        self.problems = self.task.problems("test", self.sizes.problems, self.seed)
        self.prompts = [encode(self.model, problem.prompt) for problem in self.problems]
        self.ragged = self._ragged()
        self.runs = sample(self.model, self.problems, seed=self.seed, progress=False)
        layers = range(min(self.model.cfg.n_layers, self.sizes.sites))
        self.sites = [Site(layer, "resid_post") for layer in layers]

    def jobs(self, edits: tuple[Edit, ...] = (), few: int | None = None) -> list[Job]:
        """One rollout of each prompt."""
        jobs = []
        for number, prompt in enumerate(self.prompts[:few]):
            key = ("bench", self.seed, number)
            jobs.append(Job(prompt, len(prompt), self.task.max_tokens, key, edits))
        return jobs

    def _ragged(self) -> list[Job]:
        """One rollout of each of as many problems, of every task in turn: answers of very different
        lengths."""
        share = ceil(self.sizes.problems / len(GAMES))
        drawn = [game().problems("test", share, self.seed) for game in GAMES.values()]
        problems: list[Any] = []
        for turn in zip(*drawn, strict=True):
            problems += turn
        jobs = []
        for number, problem in enumerate(problems[: self.sizes.problems]):
            prompt = encode(self.model, problem.prompt)
            key = ("bench: ragged", self.seed, number)
            jobs.append(Job(prompt, len(prompt), problem.task.max_tokens, key))
        return jobs

    def edits(self, count: int) -> list[Edit]:
        """Zero ablations of different neurons at the middle layer."""
        site = Site(self.model.cfg.n_layers // 2, "mlp")
        edits = []
        for number in range(count):
            keep = torch.ones(site.width(self.model))
            keep[number :: max(count, 16)] = 0
            edits.append(Edit(site, keep, torch.zeros_like(keep)))
        return edits

    def pad(self, rows: list[Tensor], left: bool = False) -> tuple[Tensor, Tensor]:
        """Tokens and mask, on the device."""
        side = "left" if left else "right"
        ones = [torch.ones_like(row) for row in rows]
        tokens = pad_sequence(rows, batch_first=True, padding_side=side)
        mask = pad_sequence(ones, batch_first=True, padding_side=side)
        return tokens.to(self.device), mask.to(self.device)

    def continued(
        self, by: str, rows: list[Tensor], room: int, greedy: bool = False
    ) -> list[Tensor]:
        """New tokens of one batch by TransformerLens' or HuggingFace's `generate`, cut at the end
        of each answer."""
        tokens, mask = self.pad(rows, left=True)
        options: dict[str, Any] = {
            "max_new_tokens": room,
            "do_sample": not greedy,
            "attention_mask": mask,
        }
        if by == "generate":
            whole = self.model.generate(
                tokens,
                return_type="tokens",
                eos_token_id=list(self.eos),
                verbose=False,
                **options,
            )
        else:
            if not greedy:
                options |= {"temperature": 1.0, "top_p": 1.0, "top_k": 0}
            whole = self.plain.generate(tokens, pad_token_id=0, **options)
        answers = whole[:, tokens.shape[1] :].cpu()
        return [cut(answer, self.eos) for answer in answers]

    def rollouts(self, by: str, greedy: bool = False, few: int | None = None) -> list[Tensor]:
        """New tokens of the ragged jobs, in batches that wait for their longest answer."""
        cut_off = []
        for part in batches(self.ragged[:few], self.sizes.batch):
            room = max(job.max_new for job in part)
            prompts = [job.trunk for job in part]
            answers = self.continued(by, prompts, room, greedy)
            for job, tokens in zip(part, answers, strict=True):
                cut_off.append(tokens[: job.max_new])
        return cut_off

    def decode(
        self, capture: Capture | None = None, few: int | None = None, greedy: bool = False
    ) -> list[Continuation]:
        """The ragged jobs, by our own loop."""
        return generate(
            self.model,
            self.ragged[:few],
            eos=self.eos,
            policy=GREEDY if greedy else Policy(),
            batch=self.sizes.batch,
            capture=capture,
        )


def cut(tokens: Int[Tensor, " pos"], eos: tuple[int, ...]) -> Int[Tensor, " answer"]:
    """Tokens up to the first end-of-sequence token, that included."""
    ends = torch.nonzero(torch.isin(tokens, torch.tensor(eos)))
    return tokens[: int(ends[0]) + 1] if len(ends) else tokens


def batches(items: list[Any], size: int) -> list[list[Any]]:
    """Items in their order, `size` at once."""
    return [items[start : start + size] for start in range(0, len(items), size)]
