"""Answers packed behind one prompt: the same log-probabilities as each text by itself."""

from __future__ import annotations

import tiny
import torch

from mechreward.bundled.packed import log_probabilities, packed

PROBLEMS = [
    ([1, 7, 30, 4], [[20, 21, 2], [9], [33, 34, 35, 36, 2]]),
    ([1, 8], [[10, 2]]),
    ([1, 9, 11, 12, 13, 4], [[5, 6], [5, 6]]),
]


def one_by_one(model) -> list[float]:
    found = []
    for prompt, answers in PROBLEMS:
        for answer in answers:
            logits = model(torch.tensor([prompt + answer])).logits[0].log_softmax(-1)
            for place, token in enumerate(answer, start=len(prompt)):
                found.append(float(logits[place - 1, token]))
    return found


def test_packed_answers_have_the_log_probabilities_of_each_by_itself():
    model = tiny.huggingface()
    with torch.no_grad():
        wanted = one_by_one(model)
        scores = log_probabilities(model, packed(PROBLEMS))
    torch.testing.assert_close(scores, torch.tensor(wanted), atol=1e-5, rtol=1e-5)


def test_and_the_gradients():
    model = tiny.huggingface()
    log_probabilities(model, packed(PROBLEMS)).sum().backward()
    packed_gradients = [parameter.grad.clone() for parameter in model.parameters()]
    model.zero_grad()
    for prompt, answers in PROBLEMS:
        for answer in answers:
            logits = model(torch.tensor([prompt + answer])).logits[0].log_softmax(-1)
            places = torch.arange(len(prompt), len(prompt) + len(answer))
            logits[places - 1, torch.tensor(answer)].sum().backward()
    for parameter, wanted in zip(model.parameters(), packed_gradients, strict=True):
        torch.testing.assert_close(parameter.grad, wanted, atol=1e-4, rtol=1e-4)


def test_every_token_knows_its_answer():
    rows = packed(PROBLEMS)
    assert rows.answer.tolist() == [0] * 3 + [1] + [2] * 5 + [3] * 2 + [4] * 2 + [5] * 2
    assert rows.target.tolist() == [t for _, answers in PROBLEMS for a in answers for t in a]
    assert rows.source[:5].tolist() == [3, 4, 5, 3, 3], "an answer's first token follows the prompt"
    assert rows.places[0].tolist() == [0, 1, 2, 3, 4, 5, 6, 4, 4, 5, 6, 7, 8]
