"""How the bundled models were made: `python -m mechreward.bundled.train`.

`pretrained` imitates traces of a careful solver (`traces.py`) on all three tasks, `countdown-base`
goes on with those of a hasty one; `countdown-rl` and `mixed-rl` go on from there by group-relative
policy gradient on verified reward. Seeded, resumable, on CPU or CUDA.
"""

from __future__ import annotations

import random
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
import typer
from torch.nn.functional import cross_entropy
from tqdm.auto import trange
from transformers import PreTrainedTokenizerFast, Qwen2Config, Qwen2ForCausalLM

from mechreward import tasks
from mechreward.base.errors import one_of
from mechreward.base.files import read_tensors
from mechreward.bundled.checkpoint import FILE, go_on, keep
from mechreward.bundled.traces import SOLVERS, trace
from mechreward.bundled.vocabulary import WORDS, tokenizer
from mechreward.models.engine import Job, generate
from mechreward.tasks.base import Problem, split_of
from mechreward.tasks.lines import LineTask


@dataclass(frozen=True)
class Recipe:
    """Everything that decides a bundled model.

    Attributes
    ----------
    name : str
        Of the model.
    parent : str or None
        Where training begins; None means random weights.
    tasks : tuple of (str, float)
        Names of `GAMES` with their shares.
    steps : int
        Updates.
    learning_rate : float
        The largest.
    batch : int
        Problems of an update.
    solver : str or None, default None
        Whose traces are imitated (see `SOLVERS`); None means policy gradient.
    samples : int, default 1
        Answers to every problem, for policy gradient.
    save_every : int, default 10
        Updates between checkpoints.
    seed : int, default 0
        Seed of weights, problems and answers.
    """

    name: str
    parent: str | None
    tasks: tuple[tuple[str, float], ...]
    steps: int
    learning_rate: float
    batch: int
    solver: str | None = None
    samples: int = 1
    save_every: int = 10
    seed: int = 0


GAMES = {name: game() for name, game in tasks.GAMES.items()}
GAMES |= {"small countdown": tasks.Countdown(largest=13), "countdown of 4": tasks.Countdown((4,))}
GAMES |= {"long chain": tasks.Chain((4, 7)), "easy paths": tasks.Paths((0, 0, 1, 2, 2, 3))}
FIRST_MIXTURE = (("small countdown", 0.6), ("easy paths", 0.25), ("long chain", 0.15))
MIXTURE = (("countdown", 0.6), ("easy paths", 0.25), ("chain", 0.15))
# Chain is learned fast: a twelfth of the problems took it from .6 to .85 in 50 updates.
EVEN = (("countdown", 0.5), ("countdown of 4", 0.5))
RL_MIXTURE = (("countdown", 0.34), ("countdown of 4", 0.25), ("paths", 0.4), ("chain", 0.01))
RECIPES = {
    recipe.name: recipe
    for recipe in (
        Recipe("pretrained", None, FIRST_MIXTURE, 3600, 2e-3, 128, "careful", save_every=40),
        Recipe("countdown-base", "pretrained", MIXTURE, 1600, 1.5e-3, 128, "hasty", save_every=40),
        Recipe("countdown-rl", "countdown-base", EVEN, 40, 3e-4, 48, samples=8),
        Recipe("mixed-rl", "countdown-base", RL_MIXTURE, 60, 3e-4, 48, samples=8),
    )
}
ARCHITECTURE = {
    "vocab_size": len(WORDS),
    "hidden_size": 256,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "num_key_value_heads": 4,
    "intermediate_size": 768,
    "max_position_embeddings": 256,
    "tie_word_embeddings": True,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "pad_token_id": 0,
}
BLOCK, MICRO, CEILING = 8, 96, 0.5


def train(recipe: Recipe, work: Path, device: str) -> Path:
    """Train or resume one model.

    Returns the folder that holds the checkpoint with optimiser state and log.
    """
    folder = work / recipe.name
    words = tokenizer()
    torch.manual_seed(recipe.seed)
    model = Qwen2ForCausalLM(Qwen2Config(**ARCHITECTURE))
    model.set_attn_implementation("eager")  # faster than fused kernels at this size
    model.to(torch.device(device))  # pyright: ignore[reportArgumentType]
    if recipe.parent:
        parent, _ = read_tensors(work / recipe.parent / FILE, "checkpoint")
        model.load_state_dict(_part(parent, "model."), strict=False)
    optimizer = torch.optim.AdamW(
        model.parameters(),
        lr=recipe.learning_rate,
        betas=(0.9, 0.95),
        weight_decay=0.05,
        fused=True,
    )
    parameters = dict(model.named_parameters())
    done, spent = go_on(folder, parameters, optimizer, recipe)
    bar = trange(
        done, recipe.steps, initial=done, total=recipe.steps, desc=recipe.name, mininterval=5
    )
    losses, began = list[dict[str, float]](), time.perf_counter()
    for step in bar:
        for group in optimizer.param_groups:
            group["lr"] = _schedule(recipe, step)
        update = imitate if recipe.solver else reinforce
        losses.append(update(model, words, optimizer, recipe, step))
        if (step + 1) % recipe.save_every == 0 or step + 1 == recipe.steps:
            mean = {key: sum(row[key] for row in losses) / len(losses) for key in losses[0]}
            if recipe.solver is None:
                mean |= validate(model, words, recipe)
            seconds = spent + time.perf_counter() - began
            bar.set_postfix({key: f"{value:.3f}" for key, value in mean.items()})
            keep(folder, parameters, optimizer, recipe, step + 1, seconds, mean)
            losses = []
    return folder


def imitate(
    model: Qwen2ForCausalLM,
    words: PreTrainedTokenizerFast,
    optimizer: torch.optim.Optimizer,
    recipe: Recipe,
    step: int,
) -> dict[str, float]:
    """One supervised step: next-token loss on the traces (not on the prompts)."""
    tokens, targets = _batches(words, recipe, step // BLOCK)[step % BLOCK]
    device = model.device
    with autocast(device):
        logits = model(input_ids=tokens.to(device), use_cache=False).logits[:, :-1]
    loss = cross_entropy(
        logits.float().flatten(0, 1), targets[:, 1:].flatten().to(device), ignore_index=-100
    )
    optimizer.zero_grad()
    loss.backward()
    norm = torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    optimizer.step()
    return {"loss": float(loss.detach()), "gradient_norm": float(norm)}


def reinforce(
    model: Qwen2ForCausalLM,
    words: PreTrainedTokenizerFast,
    optimizer: torch.optim.Optimizer,
    recipe: Recipe,
    step: int,
) -> dict[str, float]:
    """One policy-gradient step.

    Advantage is reward against the mean of the problem's own samples, over their sd. On-policy (one
    update for fresh rollouts), no ratio to clip, no KL term. Problems solved more often than not
    teach nothing: to make easy ones certain would take the TD errors away (our choice).
    """
    drawn = list(
        draw_problems(
            recipe.tasks, recipe.batch, random.Random(f"{recipe.name}/{recipe.seed}/{step}")
        )
    )
    jobs = []
    # Keys without a purpose, here and in `validate`: those that the bundled weights were made with.
    for i, (task, problem) in enumerate(drawn):
        prompt = torch.tensor(words(problem.question).input_ids)
        jobs += [
            Job(prompt, len(prompt), task.max_tokens, (recipe.seed, step, i, j))
            for j in range(recipe.samples)
        ]
    said = generate(model, jobs, eos=ARCHITECTURE["eos_token_id"], batch=256)
    texts = [str(words.decode(row.tokens, skip_special_tokens=True)) for row in said]
    owners = [drawn[i // recipe.samples] for i in range(len(jobs))]
    rewards = torch.tensor(
        [float(t.verify(p, text).reward) for (t, p), text in zip(owners, texts, strict=True)]
    )
    groups = rewards.view(-1, recipe.samples)
    advantage = (
        (groups - groups.mean(1, keepdim=True)) / (groups.std(1, keepdim=True) + 1e-4)
    ).flatten()
    advantage *= (groups.mean(1, keepdim=True) <= CEILING).expand_as(groups).flatten()
    rows = [
        (torch.cat([job.trunk, row.tokens]).tolist(), job.length)
        for job, row in zip(jobs, said, strict=True)
    ]
    order = sorted(
        (i for i in range(len(rows)) if advantage[i] != 0), key=lambda i: len(rows[i][0])
    )
    optimizer.zero_grad()
    total = max(1, sum(len(rows[i][0]) - rows[i][1] for i in order))
    for start in range(0, len(order), MICRO):
        chosen = order[start : start + MICRO]
        tokens, targets = (t.to(model.device) for t in _pad([rows[i] for i in chosen]))
        with autocast(model.device):
            logits = model(input_ids=tokens, use_cache=False).logits[:, :-1]
        nll = cross_entropy(
            logits.float().transpose(1, 2), targets[:, 1:], ignore_index=-100, reduction="none"
        )
        ((advantage[chosen].to(nll)[:, None] * nll).sum() / total).backward()
    norm = float(torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0))
    optimizer.step()
    report = {
        "reward": float(rewards.mean()),
        "mixed_groups": float((groups.std(1) > 0).float().mean()),
    }
    backs, words_said = sum("back" in text for text in texts), sum(len(row.tokens) for row in said)
    return report | {
        "back": backs / len(texts),
        "gradient_norm": norm,
        "tokens": words_said / len(said),
    }


def validate(
    model: Qwen2ForCausalLM, words: PreTrainedTokenizerFast, recipe: Recipe, n: int = 150
) -> dict[str, float]:
    """Accuracy at temperature 1 on `n` validation problems of each of the recipe's tasks."""
    found = {}
    for name, _ in recipe.tasks:
        task = GAMES[name]
        problems = task.problems("validation", n)
        prompts = [torch.tensor(words(problem.question).input_ids) for problem in problems]
        jobs = [Job(p, len(p), task.max_tokens, ("validate", i)) for i, p in enumerate(prompts)]
        said = generate(model, jobs, eos=ARCHITECTURE["eos_token_id"])
        texts = [str(words.decode(row.tokens, skip_special_tokens=True)) for row in said]
        right = [
            task.verify(problem, text).reward for problem, text in zip(problems, texts, strict=True)
        ]
        found[f"validation_{name}"] = sum(right) / n
    return found


_cache: dict[tuple[Recipe, int], list[tuple[torch.Tensor, torch.Tensor]]] = {}


def _batches(
    words: PreTrainedTokenizerFast, recipe: Recipe, block: int
) -> list[tuple[torch.Tensor, torch.Tensor]]:
    """`BLOCK` batches of fresh traces, sorted by length into batches so that little is padding."""
    if (recipe, block) not in _cache:
        rng = random.Random(f"{recipe.name}/{recipe.seed}/{block}")
        habits, rows = SOLVERS[str(recipe.solver)], []
        for task, problem in draw_problems(recipe.tasks, recipe.batch * BLOCK, rng):
            text = problem.question + trace(task, problem, rng, habits[task.name])
            start = len(words(problem.question).input_ids)
            rows.append(([*words(text).input_ids, words.eos_token_id], start))
        rows.sort(key=lambda row: len(row[0]))
        batches = [_pad(rows[i : i + recipe.batch]) for i in range(0, len(rows), recipe.batch)]
        rng.shuffle(batches)
        _cache.clear()
        _cache[recipe, block] = batches
    return _cache[recipe, block]


def _pad(rows: list[tuple[list[int], int]]) -> tuple[torch.Tensor, torch.Tensor]:
    width = max(len(tokens) for tokens, _ in rows)
    tokens = torch.zeros(len(rows), width, dtype=torch.long)
    targets = torch.full_like(tokens, -100)
    for i, (row, start) in enumerate(rows):
        tokens[i, : len(row)] = torch.tensor(row)
        targets[i, start : len(row)] = tokens[i, start : len(row)]
    return tokens, targets


def draw_problems(
    shares: tuple[tuple[str, float], ...], n: int, rng: random.Random
) -> Iterator[tuple[LineTask, Problem]]:
    """`n` random training problems, of each task about its share."""
    names, weights = zip(*shares, strict=True)
    for name in rng.choices(names, weights, k=n):
        game, problem = GAMES[name], None
        while problem is None or split_of(problem.id) != "train":
            problem = game.draw(rng)
        yield game, problem


def _schedule(recipe: Recipe, step: int) -> float:
    """Linear warm-up, then linear decay to a twentieth."""
    warm = min(1.0, (step + 1) / (0.04 * recipe.steps))
    return recipe.learning_rate * warm * (1 - 0.95 * step / recipe.steps)


def autocast(device: torch.device) -> torch.autocast:
    """Products in bfloat16 where the device has them."""
    fast = device.type == "cuda" or torch.ops.mkldnn._is_mkldnn_bf16_supported()
    return torch.autocast(device.type, dtype=torch.bfloat16, enabled=fast)


def _part(tensors: dict[str, torch.Tensor], prefix: str) -> dict[str, torch.Tensor]:
    return {
        name.removeprefix(prefix): tensor
        for name, tensor in tensors.items()
        if name.startswith(prefix)
    }


app = typer.Typer(add_completion=False)


@app.command()
def main(
    names: list[str] = typer.Argument(
        None, help="Models to train, parents first; all if none is named."
    ),
    work: Path = typer.Option(Path("runs/train"), help="Folder for checkpoints and logs."),
    device: str = typer.Option("cuda" if torch.cuda.is_available() else "cpu"),
) -> None:
    """Train the bundled models."""
    for name in names or RECIPES:
        one_of("recipe", name, RECIPES)
        train(RECIPES[name], work, device)


if __name__ == "__main__":
    app()
