"""What is studied: a model, a task, and how answers are drawn."""

from __future__ import annotations

import re
from dataclasses import dataclass, fields
from typing import Any

import torch

from mechreward.base.errors import MechRewardError, one_of, require
from mechreward.base.options import option
from mechreward.models.load import load
from mechreward.models.policy import Policy
from mechreward.tasks import Task
from mechreward.tasks.named import task_of

PLANTED = "planted-"
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
AUTO = "auto"  # the device of a model that needs several
OF_FILE = ("verify", "prompt", "answer", "steps", "system", "chat")


@dataclass(frozen=True)
class Subject:
    """A model, a task and a policy, by what commands are told of them. Every field but the model
    and the task is an option with the help it carries.

    Attributes
    ----------
    model : str
        As `load` takes it, or `planted-NAME`.
    task : str
        As `tasks.named.task_of` takes it.
    """

    model: str = "countdown-rl"
    task: str = "countdown"
    adapter: str | None = option(None, "A LoRA adapter (folder or owner/name), merged at load.")
    revision: str | None = option(None, "Branch, tag or commit of a model on the hub.")
    dtype: str = option("float32", "Of the model: float32, bfloat16 or float16.")
    device: str = option("cpu", "cpu, cuda, cuda:1, or auto for a model that needs several.")
    layers: str | None = option(None, "Layers to look at, as in 2-5 or 0,3,8-11; all if not given.")
    verify: str = option("number", "Answers to a file's questions: number, exact, choice or math.")
    prompt: str = option("question", "A file's column of questions, or a text with {columns}.")
    answer: str = option("answer", "A file's column of gold answers.")
    steps: str = option("lines", "Steps of such answers: lines, paragraphs, sentences, blocks:64.")
    system: str | None = option(None, "A system message before a file's questions; means --chat.")
    chat: bool = option(False, "Put a file's questions into the model's chat template.")
    temperature: float = option(1.0, "Of the sampling; 0 is greedy.")
    top_p: float = option(1.0, "Of the sampling.")
    top_k: int | None = option(None, "Of the sampling; all tokens if not given.")
    max_tokens: int | None = option(None, "Limit of an answer; the task's if not given.")
    stop: list[str] = option(  # noqa: RUF009 a field of its own for every object
        [], "A text that ends an answer; may be given several times."
    )

    @property
    def policy(self) -> Policy:
        """How answers are drawn."""
        return Policy(self.temperature, self.top_p, self.top_k, tuple(self.stop), self.max_tokens)

    def open(self, seed: int = 0) -> tuple[Any, Task]:
        """Model and task.

        Parameters
        ----------
        seed : int, default 0
            Of a planted model, which has a task of its own.

        Raises
        ------
        MechRewardError
            No such model or task, or what does not go together.
        """
        if self.model.startswith(PLANTED):
            return self._planted(seed)
        one_of("dtype", self.dtype, DTYPES)
        task = task_of(self.task, **self._of_file())
        place: dict[str, Any] = (
            {"device_map": AUTO} if self.device == AUTO else {"device": self.device}
        )
        model = load(
            self.model,
            adapter=self.adapter,
            revision=self.revision,
            dtype=DTYPES[self.dtype],
            **place,
        )
        return model, task

    def _of_file(self) -> dict[str, Any]:
        """What is said of a file of questions."""
        said = {}
        for field in fields(Subject):
            value = getattr(self, field.name)
            if field.name in OF_FILE and value != field.default:
                said[field.name] = value
        return said

    def _planted(self, seed: int) -> tuple[Any, Task]:
        from mechreward.testbed import planted

        require(
            self.task == "planted",
            f"a planted model has a task of its own; leave out --task {self.task}.",
        )
        for name in ("adapter", "revision"):
            given = getattr(self, name)
            require(given is None, f"a planted model has no {name}; leave out --{name} {given}.")
        made = planted(self.model.removeprefix(PLANTED), seed)
        return made.model, made.task

    def layer_numbers(self, model: Any) -> list[int]:
        """The layers that are looked at.

        Raises
        ------
        MechRewardError
            No list of layers, or one that the model lacks.
        """
        count = int(model.cfg.n_layers)
        if self.layers is None:
            return list(range(count))
        numbers: list[int] = []
        for part in self.layers.split(","):
            match = re.fullmatch(r"\s*(\d+)\s*(?:-\s*(\d+)\s*)?", part)
            if match is None:
                raise MechRewardError(
                    f"layers are numbers and spans, as in 2-5 or 0,3,8-11; {self.layers!r} was "
                    "given."
                )
            first, last = int(match[1]), int(match[2] or match[1])
            require(
                first <= last < count,
                f"the model has layers 0 to {count - 1}; {part.strip()} was asked for.",
            )
            numbers += range(first, last + 1)
        return sorted(set(numbers))


def home_of(model: str) -> str:
    """The task that a model is put to if none is named: a planted model's own, word problems for
    models that were taught them, Countdown for all others."""
    if model.startswith(PLANTED):
        return "planted"
    return "words" if model.startswith("words-") else "countdown"
