"""Reward models in HuggingFace format as scorers of a search."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float

from mechreward.base.errors import MechRewardError, of_kind, require, whole
from mechreward.base.files import digest
from mechreward.models.identity import weights_of
from mechreward.models.jobs import context_of
from mechreward.models.load import DAMAGED, check_device, no_bars, tokenizer_of
from mechreward.models.plain import check_tensors
from mechreward.models.sources import Source, find
from mechreward.uses.search.scorers import Draft, Outside, Scorer

PROCESS = "ForTokenClassification"
OUTCOME = "ForSequenceClassification"
REMEMBERED = 4096  # beginnings whose score is kept (our choice)


class RewardModel:
    """A process reward model, or a reward model of whole texts, as `score(prompt, steps)`.

    A model for token classification reads prompt and steps once and scores every step at its last
    token, the separator, as TRL's PRMTrainer trains them: the beginning-of-sequence token if there
    is one, the prompt, then every step and the separator, each tokenised by itself. A model for
    sequence classification reads the text anew up to every step; of its steps those that it has
    just read are not read again.

    Parameters
    ----------
    name : str or Path
        A folder in HuggingFace format, or `owner/model` on the hub. Safetensors only, and no code
        that comes with a model is run.
    device : str, default "cpu"
        Where its parameters go.
    dtype : torch.dtype, default torch.float32
        Of its parameters.
    separator : str, default "\\n"
        What stands after every step; white space around steps is left out.
    label : int, default 1
        The class whose probability is the score (TRL: 1 is a correct step). Of a model with one
        logit it is that one's sigmoid.

    Attributes
    ----------
    name : str
        How results call it.
    bounded : bool
        True: scores are probabilities.
    process : bool
        Whether it scores every step of one pass.

    Raises
    ------
    MechRewardError
        No such folder, an adapter, a model of another kind, one without tokenizer, tensors that do
        not fit, a device that is not there, a class that it lacks, or a separator without tokens.
    """

    bounded = True

    def __init__(
        self,
        name: str | Path,
        *,
        device: str = "cpu",
        dtype: torch.dtype = torch.float32,
        separator: str = "\n",
        label: int = 1,
    ) -> None:
        of_kind("dtype", dtype, torch.dtype, "such as torch.bfloat16")
        of_kind("separator", separator, str)
        label = whole("label", label, 0)
        check_device(device)
        source = find(name)
        require(
            source.adapter is None,
            f"{name} is an adapter: merge it into its model and save that, it is read from there.",
        )
        self.name = source.name
        self.label = label
        self.separator = separator
        self.device = device
        try:
            with no_bars():
                self.model, self.words = _loaded(source, dtype)
                self.model.eval().to(device)
        except DAMAGED as error:
            what = source.what if isinstance(error, MechRewardError) else source.what_if_missing
            why = " ".join(str(error).split())
            raise MechRewardError(f"cannot load {what} as a reward model: {why}") from error
        self.process = type(self.model).__name__.endswith(PROCESS)
        classes = int(self.model.config.num_labels)
        require(
            classes == 1 or label < classes,
            f"{self.name} has classes 0 to {classes - 1}; label={label} was given.",
        )
        self.end = self._ids(separator)
        require(
            len(self.end) > 0,
            f"the separator {separator!r} has no token in the vocabulary of {self.name}.",
        )
        self.mark = digest(weights_of(self.model), repr((separator, label)))
        self.context = context_of(self.model)
        self._kept = lru_cache(REMEMBERED)(self._of_text)

    def __repr__(self) -> str:
        kind = "every step" if self.process else "whole texts"
        return f"RewardModel({self.name}, of {kind}, class {self.label})"

    def __call__(self, prompt: str, steps: Sequence[str]) -> list[float]:
        """The probability of `label` after every step.

        Parameters
        ----------
        prompt : str
            The question.
        steps : sequence of str
            [step] of the answer so far.

        Returns
        -------
        list of float
            [step] in [0, 1].

        Raises
        ------
        MechRewardError
            More tokens than the model's context holds.
        """
        beginnings = self._beginnings(prompt, steps)
        if not beginnings:
            return []
        longest = len(beginnings[-1])
        require(
            self.context is None or longest <= self.context,
            f"prompt and steps have {longest} tokens, more than the {self.context} that the "
            f"context of {self.name} holds.",
        )
        if not self.process:
            return [self._kept(tuple(ids)) for ids in beginnings]
        logits = self._logits(beginnings[-1])[0]
        ends = [len(ids) - 1 for ids in beginnings]
        return self._probability(logits[ends]).tolist()

    def tokens(self, prompt: str, steps: Sequence[str], new: int | None = None) -> int:
        """How many tokens it reads to score the last `new` steps; None: all of them."""
        beginnings = self._beginnings(prompt, steps)
        if not beginnings:
            return 0
        if self.process:
            return len(beginnings[-1])
        count = len(beginnings) if new is None else new
        return sum(len(ids) for ids in beginnings[len(beginnings) - count :])

    def scorer(self, timeout: float = 60.0) -> Scorer:
        """What `search` makes of it: its own tokens are the ledger's scored ones.

        Parameters
        ----------
        timeout : float, default 60.0
            Seconds that one call may take.
        """
        return _Rated(self.name, self, timeout, bounded=True, mark=self.mark)

    def _beginnings(self, prompt: str, steps: Sequence[str]) -> list[list[int]]:
        """Token ids up to the end of every step: with the separator where steps are scored at it,
        without where a text is scored."""
        start = getattr(self.words, "bos_token_id", None)
        ids = [] if start is None else [int(start)]
        ids += self._ids(prompt)
        beginnings = []
        for step in steps:
            said = ids + self._ids(step.strip())
            ids = said + self.end
            beginnings.append(ids if self.process else said)
        return beginnings

    def _ids(self, text: str) -> list[int]:
        return list(self.words(text, add_special_tokens=False).input_ids)

    @torch.no_grad()
    def _logits(self, ids: Sequence[int]) -> torch.Tensor:
        tokens = torch.tensor([list(ids)], device=self.device)
        return self.model(input_ids=tokens, attention_mask=torch.ones_like(tokens)).logits.cpu()

    def _of_text(self, ids: tuple[int, ...]) -> float:
        return float(self._probability(self._logits(ids))[0])

    def _probability(self, logits: Float[torch.Tensor, "row label"]) -> Float[torch.Tensor, " row"]:
        logits = logits.double()
        if logits.shape[-1] == 1:
            return logits[:, 0].sigmoid()
        return logits.softmax(-1)[:, self.label]


@dataclass(frozen=True, eq=False)
class _Rated(Outside):
    """A reward model, whose own tokens count."""

    def scored(self, draft: Draft) -> int:
        steps = list(draft.steps)
        return self.function.tokens(draft.problem.question, steps, len(draft.spans))


def _loaded(source: Source, dtype: torch.dtype) -> tuple[Any, Any]:
    """The model and its tokenizer.

    Raises
    ------
    MechRewardError
        A model of another kind, without tokenizer, or whose tensors are not those of its config.
    """
    from transformers import (
        AutoConfig,
        AutoModelForSequenceClassification,
        AutoModelForTokenClassification,
        AutoTokenizer,
    )

    config = AutoConfig.from_pretrained(source.weights, trust_remote_code=False)
    kind = (getattr(config, "architectures", None) or ["none that its config names"])[0]
    require(
        kind.endswith((PROCESS, OUTCOME)),
        f"its architecture is {kind}; a process reward model's ends in {PROCESS}, that of a reward "
        f"model of whole texts in {OUTCOME}",
    )
    try:
        words = tokenizer_of(source.weights) or AutoTokenizer.from_pretrained(
            source.weights, trust_remote_code=False
        )
        empty = len(words("a 1\n", add_special_tokens=False).input_ids) == 0
    except DAMAGED as error:
        raise MechRewardError("it has no tokenizer that can be read") from error
    require(not empty, "it has no tokenizer that can be read")
    auto = AutoModelForTokenClassification
    if kind.endswith(OUTCOME):
        auto = AutoModelForSequenceClassification
    model, report = auto.from_pretrained(
        source.weights,
        config=config,
        dtype=dtype,
        use_safetensors=True,
        trust_remote_code=False,
        output_loading_info=True,
        ignore_mismatched_sizes=True,
    )
    check_tensors(report)  # a head that is missing would be a random one
    # Of a single text the last token is scored, whatever it is: nothing is padding.
    model.config.get_text_config().pad_token_id = None
    return model, words
