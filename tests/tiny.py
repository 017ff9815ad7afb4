"""A random two-layer Qwen2 that speaks the bundled vocabulary, and a task it gets right about every
second time."""

from __future__ import annotations

import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from mechreward.bundled.vocabulary import WORDS, tokenizer
from mechreward.tasks import Problem, Task, Verdict


def huggingface(seed: int = 0, words: Sequence[str] = WORDS) -> Any:
    """The plain HuggingFace model. Ends of lines and of the text are made likely, so that answers
    have both. `words` may be more than the bundled vocabulary, behind it."""
    from transformers import Qwen2Config, Qwen2ForCausalLM

    torch.manual_seed(seed)
    config = Qwen2Config(
        vocab_size=len(words),
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=256,
        tie_word_embeddings=False,
        initializer_range=0.3,
        bos_token_id=1,
        eos_token_id=2,
        pad_token_id=0,
    )
    model = Qwen2ForCausalLM(config).eval()
    with torch.no_grad():
        model.lm_head.weight[[WORDS.index("<eos>"), WORDS.index("\n")]] *= 2.5
    return model


def save(model: Any, folder: Path, words: Sequence[str] = WORDS) -> Path:
    """The model with our tokenizer, in HuggingFace format."""
    model.save_pretrained(folder)
    tokenizer(words).save_pretrained(folder)
    return folder


def no_hooks_left(model: Any) -> bool:
    return not any(point.fwd_hooks or point.bwd_hooks for point in model.hook_dict.values())


class Even(Task):
    """Right is an answer with an even number of words: a random model is sometimes right, and every
    token matters."""

    name = "even"
    max_tokens = 16

    def draw(self, rng: random.Random) -> Problem:
        a, b, c = (rng.randint(2, 60) for _ in range(3))
        text = f"countdown {a} from {b} {c}"
        return Problem(text, f"{text}\n", "even", {"difficulty": 2})

    def verify(self, problem: Problem, text: str) -> Verdict:
        words = len(text.split())
        return Verdict("correct" if words % 2 == 0 else "incorrect", f"{words} words")
