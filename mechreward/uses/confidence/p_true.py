"""P(True): the model is asked whether its answer is right (Kadavath et al. 2022)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from jaxtyping import Float

from mechreward.base.errors import MechRewardError
from mechreward.models.jobs import context_of
from mechreward.models.text import decode, encode, eos_ids
from mechreward.probing.measures import last_logits
from mechreward.rollouts.trajectory import Rollouts, Trajectory
from mechreward.tasks import Problem

# Our choice of words. The first is a message of the user; the second follows the answer in a plain
# text, up to where the model replies.
QUESTION = "Is the answer above right? Reply with one word, Yes or No."
BEHIND = "\n\nIs the answer above right? Reply with one word, Yes or No.\nReply:"
YES = ("Yes", "yes", " Yes", " yes", "YES", " YES")
NO = ("No", "no", " No", " no", "NO", " NO")
NO_WORDS = "the tokenizer has no tokens of their own for yes and no"


def p_true(
    model: Any, runs: Rollouts, batch: int = 64
) -> tuple[Float[np.ndarray, " trajectory"] | None, str]:
    """Probability that the model says yes where it is asked whether its answer is right, of yes
    and no together.

    The question takes the form of the prompt: another turn of the chat after chat messages, a line
    behind the answer after a text or token ids.

    Parameters
    ----------
    model : TransformerBridge or HookedTransformer
        The one that answered.
    runs : Rollouts
        Its answers.
    batch : int, default 64
        Texts run at once.

    Returns
    -------
    column
        [trajectory], or None where it is not defined.
    why
        Why not; empty where it is.
    """
    yes, no = _tokens(model, YES), _tokens(model, NO)
    if not yes or not no:
        return None, NO_WORDS
    context = context_of(model)
    texts = []
    for run, problem in zip(runs, runs.problems, strict=True):
        try:
            text = _asked(model, run, problem)
        except MechRewardError as error:
            return None, str(error).rstrip(".")
        if context is not None and len(text) > context:
            return None, f"an answer with the question behind it has more than {context} tokens"
        texts.append(text)
    read = []
    for logits in last_logits(model, texts, batch=batch):
        sums = torch.stack([logits[yes].logsumexp(0), logits[no].logsumexp(0)])
        read.append(float(sums.softmax(0)[0]))
    return np.array(read), ""


def _tokens(model: Any, words: tuple[str, ...]) -> list[int]:
    """Tokens that are one of the words by themselves."""
    tokenizer = model.tokenizer
    tokens = set()
    for word in words:
        ids = tokenizer(word, add_special_tokens=False).input_ids
        if len(ids) == 1 and ids[0] != tokenizer.unk_token_id:
            tokens.add(int(ids[0]))
    return sorted(tokens)


def _asked(model: Any, run: Trajectory, problem: Problem) -> torch.Tensor:
    """The prompt, the answer and the question, [pos]."""
    answer = run.tokens[run.prompt_len :]
    prompt: Any = problem.prompt
    if not isinstance(prompt, str) and prompt and isinstance(prompt[0], Mapping):
        *before, last = [dict(message) for message in prompt]
        text = decode(model, answer)
        if last["role"] == "assistant":  # the answer goes on with it
            turns = [*before, {**last, "content": str(last["content"]) + text}]
        else:
            turns = [*before, last, {"role": "assistant", "content": text}]
        return encode(model, (*turns, {"role": "user", "content": QUESTION}))
    tokens = run.tokens
    if len(answer) and int(tokens[-1]) in eos_ids(model):
        tokens = tokens[:-1]
    behind = model.tokenizer(BEHIND, add_special_tokens=False).input_ids
    return torch.cat([tokens, torch.tensor(behind, dtype=torch.long)])
