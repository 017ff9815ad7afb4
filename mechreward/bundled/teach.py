"""How the `words` models were made: `python -m mechreward.bundled.teach`.

`words-base` imitates right solutions of word problems (supervised, the answer alone);
`words-rl` goes on from there on verified reward, by expert iteration: it imitates its own right
answers (see `LESSONS` for what else was tried). Both are LoRA adapters of SmolLM2-135M-Instruct
(`make real`). Seeded, resumable, on CPU or CUDA.
"""

from __future__ import annotations

import random
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
import typer
from tqdm.auto import trange

from mechreward.base.errors import one_of
from mechreward.base.files import read_json, write_json
from mechreward.base.streams import stream
from mechreward.bundled.checkpoint import go_on, keep
from mechreward.bundled.packed import Tokens, log_probabilities, packed
from mechreward.bundled.train import autocast
from mechreward.models.engine import Job, generate
from mechreward.models.real import NAME, fetch
from mechreward.models.sources import WEIGHTS
from mechreward.models.text import decode, encode
from mechreward.tasks.base import Problem, split_of
from mechreward.tasks.words import Words

TASK = Words()
VALIDATED = 150  # validation problems that a checkpoint is tried on
# Answers that the gradient is taken of at once: memory, not the result.
AT_ONCE = 32

# What an update learns from: prompt and answers of every problem, and what the log-probability of
# each answer is worth.
Batch = list[tuple[Tokens, list[Tokens], list[float]]]


@dataclass(frozen=True)
class Lesson:
    """Everything that decides an adapter.

    Attributes
    ----------
    name : str
        Of the model.
    parent : str
        Where training begins: "smollm2", or the name of a lesson.
    method : "supervised", "policy gradient" or "expert iteration"
        `imitate`, `reinforce` or `repeat_right`.
    steps : int
        Updates.
    learning_rate : float
        The largest; it falls to 0.
    batch : int
        Problems of an update.
    samples : int, default 0
        Answers of its own to every problem; none where it is supervised.
    rounds : int, default 1
        Of expert iteration: how often new answers are sampled.
    pool : int, default 0
        Problems that are answered in a round.
    rank : int, default 8
        Of the adapter, which is on all linear layers.
    save_every : int, default 10
        Updates between checkpoints.
    seed : int, default 0
        Of weights, problems and answers.
    """

    name: str
    parent: str
    method: Literal["supervised", "policy gradient", "expert iteration"]
    steps: int
    learning_rate: float
    batch: int
    samples: int = 0
    rounds: int = 1
    pool: int = 0
    rank: int = 8
    save_every: int = 10
    seed: int = 0


LESSONS = {
    lesson.name: lesson
    for lesson in (
        Lesson("words-base", NAME, "supervised", 320, 1e-3, 16, save_every=40),
        # Policy gradient was tried before, 32 problems of 8 answers an update, 20 updates each. At
        # a rate of 5e-4 reward fell, .53 in the first ten and .40 in the next; at 1.5e-4 nothing
        # moved, .58 and .57 (validation .53 and .49). Expert iteration lifts it, by little:
        # `docs/models.md` has the paired difference.
        Lesson(
            "words-rl",
            "words-base",
            "expert iteration",
            48,
            5e-4,
            20,
            samples=8,
            rounds=2,
            pool=400,
            save_every=12,
        ),
    )
}


class Pupil:
    """A model under an adapter that learns, and the merged model that answers meanwhile.

    Attributes
    ----------
    learner : PeftModel
        Its adapter alone has gradients.
    actor : PreTrainedModel
        The same weights merged, as `merge` left them: it can be sampled from fast.
    tokenizer : PreTrainedTokenizerBase
        Of both.
    """

    def __init__(self, lesson: Lesson, device: str) -> None:
        from peft import LoraConfig, PeftModel, get_peft_model
        from transformers import AutoModelForCausalLM, AutoTokenizer

        folder = fetch()
        torch.manual_seed(stream("adapter", lesson.seed))
        base: Any = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
        self.tokenizer: Any = AutoTokenizer.from_pretrained(folder)
        if lesson.parent == NAME:
            config = LoraConfig(
                task_type="CAUSAL_LM",
                r=lesson.rank,
                lora_alpha=2 * lesson.rank,
                target_modules="all-linear",
            )
            learner = get_peft_model(base, config)
        else:
            learner = PeftModel.from_pretrained(
                base, str(WEIGHTS / lesson.parent), is_trainable=True, torch_device="cpu"
            )
        self.learner: Any = learner.float().to(device)
        actor: Any = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
        self.actor = actor.to(device).eval()
        self.actor.requires_grad_(False)

    @property
    def parameters(self) -> dict[str, torch.nn.Parameter]:
        """What learns, by name."""
        named = self.learner.named_parameters()
        return {name: parameter for name, parameter in named if parameter.requires_grad}

    @torch.no_grad()
    def merge(self) -> None:
        """Let the actor answer with the learner's present weights."""
        inner = self.learner.get_base_model()
        for name, module in inner.named_modules():
            if hasattr(module, "get_delta_weight"):
                change = module.get_delta_weight("default")
                weight = module.get_base_layer().weight
                self.actor.get_submodule(name).weight.copy_(weight + change)

    def prompt(self, problem: Problem) -> torch.Tensor:
        """Tokens of a problem."""
        return encode(self, problem.prompt)

    def answers(
        self, problems: Sequence[Problem], samples: int, key: tuple[str | int, ...]
    ) -> tuple[list[torch.Tensor], list[int]]:
        """What the actor says to every problem `samples` times, and the rewards."""
        jobs = []
        for problem in problems:
            prompt = self.prompt(problem)
            for number in range(samples):
                own = (*key, problem.id, number)
                jobs.append(Job(prompt, len(prompt), TASK.max_tokens, own))
        eos = int(self.tokenizer.eos_token_id)
        said = [row.tokens for row in generate(self.actor, jobs, eos=eos)]
        rewards = []
        for number, tokens in enumerate(said):
            text = decode(self, tokens)
            rewards.append(TASK.verify(problems[number // samples], text).reward)
        return said, rewards

    @property
    def original_model(self) -> Any:
        """What `models.text` asks for the tokens that end an answer."""
        return self.actor


def train(lesson: Lesson, work: Path, device: str) -> Path:
    """Train or resume one adapter.

    Returns the folder that holds the checkpoint with optimiser state and log.
    """
    folder = work / lesson.name
    pupil = Pupil(lesson, device)
    parameters = pupil.parameters
    optimizer = torch.optim.AdamW(
        parameters.values(), lr=lesson.learning_rate, betas=(0.9, 0.95), weight_decay=0.0
    )
    done, spent = go_on(folder, parameters, optimizer, lesson)
    methods = {
        "supervised": imitate,
        "policy gradient": reinforce,
        "expert iteration": repeat_right,
    }
    batch_of = methods[lesson.method]
    bar = trange(
        done, lesson.steps, initial=done, total=lesson.steps, desc=lesson.name, mininterval=5
    )
    reports: list[dict[str, float]] = []
    began = time.perf_counter()
    for step in bar:
        for group in optimizer.param_groups:
            group["lr"] = _schedule(lesson, step)
        batch, report = batch_of(pupil, lesson, step, folder)
        reports.append(report | learn(pupil, optimizer, batch))
        if (step + 1) % lesson.save_every == 0 or step + 1 == lesson.steps:
            mean = {}
            for name in reports[0]:
                mean[name] = sum(report[name] for report in reports) / len(reports)
            mean["validation"] = validate(pupil)
            seconds = spent + time.perf_counter() - began
            bar.set_postfix({name: f"{value:.3f}" for name, value in mean.items()})
            keep(folder, parameters, optimizer, lesson, step + 1, seconds, mean)
            reports = []
    return folder


def imitate(
    pupil: Pupil, lesson: Lesson, step: int, folder: Path
) -> tuple[Batch, dict[str, float]]:
    """Right solutions of new problems."""
    batch: Batch = []
    for problem in draw_problems(lesson.batch, f"{lesson.name}/{lesson.seed}/{step}"):
        answer = pupil.tokenizer(TASK.solve(problem), add_special_tokens=False).input_ids
        eos = int(pupil.tokenizer.eos_token_id)
        batch.append((pupil.prompt(problem).tolist(), [[*answer, eos]], [1.0]))
    return batch, {}


def reinforce(
    pupil: Pupil, lesson: Lesson, step: int, folder: Path
) -> tuple[Batch, dict[str, float]]:
    """Answers of its own to new problems, worth what they earned.

    Advantage is reward against the mean of the problem's own samples, over their sd. On-policy (one
    update for fresh rollouts), no ratio to clip, no KL term. Problems whose answers are all right,
    or all wrong, teach nothing.
    """
    problems = draw_problems(lesson.batch, f"{lesson.name}/{lesson.seed}/{step}")
    pupil.merge()
    key = (f"reinforce {lesson.name}", lesson.seed, step)
    said, rewards = pupil.answers(problems, lesson.samples, key)
    groups = torch.tensor(rewards, dtype=torch.float32).view(-1, lesson.samples)
    advantage = groups - groups.mean(1, keepdim=True)
    advantage /= groups.std(1, keepdim=True) + 1e-4
    batch: Batch = []
    for number, problem in enumerate(problems):
        if groups[number].std() > 0:
            answers = said[number * lesson.samples : (number + 1) * lesson.samples]
            own = [row.tolist() for row in answers]
            batch.append((pupil.prompt(problem).tolist(), own, advantage[number].tolist()))
    report = {
        "reward": float(groups.mean()),
        "mixed_groups": len(batch) / len(problems),
        "tokens": sum(map(len, said)) / len(said),
    }
    return batch, report


def repeat_right(
    pupil: Pupil, lesson: Lesson, step: int, folder: Path
) -> tuple[Batch, dict[str, float]]:
    """Right answers of its own, sampled when the round began.

    Problems whose answers are all right are left out, as in `reinforce`: to repeat what it always
    says pulls nowhere in the mean. Answers that are equal stay, since they are what it says most.
    """
    updates = lesson.steps // lesson.rounds
    number, place = divmod(step, updates)
    right, report = _right_answers(pupil, lesson, number, folder / f"round-{number}.json")
    in_epoch = max(1, len(right) // lesson.batch)
    epoch, place = divmod(place, in_epoch)
    random.Random(f"{lesson.name}/{lesson.seed}/{number}/{epoch}").shuffle(right)
    some = right[place * lesson.batch : (place + 1) * lesson.batch]
    batch: Batch = []
    for prompt, answers in some:
        batch.append((prompt, answers, [1.0] * len(answers)))
    return batch, report


def _right_answers(
    pupil: Pupil, lesson: Lesson, number: int, path: Path
) -> tuple[list[tuple[Tokens, list[Tokens]]], dict[str, float]]:
    """What a round learns from, and the mean reward and share of mixed problems of all its answers;
    sampled once, and kept."""
    if not path.exists():
        problems = draw_problems(lesson.pool, f"{lesson.name}/{lesson.seed}/round {number}")
        pupil.merge()
        key = (f"round {lesson.name}", lesson.seed, number)
        said, rewards = pupil.answers(problems, lesson.samples, key)
        rows = []
        for start, problem in enumerate(problems):
            own = range(start * lesson.samples, (start + 1) * lesson.samples)
            good = [said[place].tolist() for place in own if rewards[place]]
            if 0 < len(good) < lesson.samples:
                rows.append([pupil.prompt(problem).tolist(), good])
        mean = {"reward": sum(rewards) / len(rewards), "mixed_groups": len(rows) / len(problems)}
        write_json(path, {"rows": rows, "mean": mean})
    kept = read_json(path, "right answers")
    return kept["rows"], kept["mean"]


def learn(pupil: Pupil, optimizer: torch.optim.Optimizer, batch: Batch) -> dict[str, float]:
    """One update: the log-probability of each answer's tokens goes up as much as it is worth.

    Returns the loss a token and the norm of the gradient before it is clipped. An empty batch
    changes nothing.
    """
    total = max(1, sum(len(answer) for _, answers, _ in batch for answer in answers))
    loss = 0.0
    optimizer.zero_grad()
    for some in _parts(batch):
        rows = packed([(prompt, answers) for prompt, answers, _ in some])
        with autocast(pupil.learner.device):
            scores = log_probabilities(pupil.learner.get_base_model(), rows)
        worth = torch.tensor([weight for *_, weights in some for weight in weights])
        part = -(worth[rows.answer].to(scores) * scores).sum() / total
        part.backward()
        loss += float(part.detach())
    norm = torch.nn.utils.clip_grad_norm_(pupil.parameters.values(), 1.0)
    optimizer.step()
    return {"loss": loss, "gradient_norm": float(norm)}


def _parts(batch: Batch) -> Iterator[Batch]:
    """Problems in turn, about `AT_ONCE` answers at a time."""
    part: Batch = []
    for row in batch:
        if part and sum(len(own[1]) for own in part) + len(row[1]) > AT_ONCE:
            yield part
            part = []
        part.append(row)
    if part:
        yield part


def validate(pupil: Pupil, n: int = VALIDATED) -> float:
    """Accuracy at temperature 1 on `n` validation problems."""
    pupil.merge()
    _, rewards = pupil.answers(TASK.problems("validation", n), 1, ("validate",))
    return sum(rewards) / n


def draw_problems(n: int, seed: str) -> list[Problem]:
    """Random training problems."""
    rng = random.Random(seed)
    problems: list[Problem] = []
    while len(problems) < n:
        problem = TASK.draw(rng)
        if problem is not None and split_of(problem.id) == "train":
            problems.append(problem)
    return problems


def _schedule(lesson: Lesson, step: int) -> float:
    """Linear warm-up over a twentieth of the updates, then linear to 0."""
    warm = min(1.0, (step + 1) / (0.05 * lesson.steps))
    return lesson.learning_rate * warm * (1 - step / lesson.steps)


app = typer.Typer(add_completion=False)


@app.command()
def main(
    names: list[str] = typer.Argument(
        None, help="Models to train, parents first; all if none is named."
    ),
    work: Path = typer.Option(Path("runs/train"), help="Folder for checkpoints and logs."),
    device: str = typer.Option("cuda" if torch.cuda.is_available() else "cpu"),
) -> None:
    """Train the adapters of the words models."""
    for name in names or LESSONS:
        one_of("lesson", name, LESSONS)
        train(LESSONS[name], work, device)


if __name__ == "__main__":
    app()
