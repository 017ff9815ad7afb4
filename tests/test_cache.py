"""The row cache alone, against lists of numbers; with the model it is tested in test_engine."""

from __future__ import annotations

import random

import pytest
import torch

from mechreward.bundled.vocabulary import WORDS
from mechreward.models.cache import RowCache
from mechreward.models.engine import Job, generate


@pytest.mark.parametrize("room", [1, 3, 50])
def test_rows_that_enter_grow_move_and_leave_keep_their_columns(
    monkeypatch: pytest.MonkeyPatch, room: int
):
    monkeypatch.setattr(RowCache, "ROOM", room)
    rng, fresh = random.Random(room), iter(range(1, 10_000))
    prefill = [
        (torch.tensor([float(next(fresh)) for _ in range(14)]).view(2, 1, 7, 1),) * 2
        for _ in range(2)
    ]
    cache, rows = RowCache(5, 6, prefill), []

    def enter(places: list[int]) -> None:
        lengths, sources = [rng.randint(0, 6) for _ in places], [rng.randrange(2) for _ in places]
        cache.enter(places, prefill, sources, lengths)
        for place, source, length in zip(places, sources, lengths, strict=True):
            rows[place : place + 1] = [prefill[0][0][source, 0, :length, 0].tolist()]
        cache.window.rows = len(rows)

    for place in range(4):
        enter([place])
    for turn in range(60):
        mask = cache.open(torch.ones(len(rows), dtype=torch.bool))
        new = torch.tensor([float(next(fresh)) for _ in rows]).view(-1, 1, 1, 1)
        before = cache.layers[0].get_seq_length()
        keys, values = cache.layers[0].update(new, -new)
        assert before + 1 == keys.shape[2] == mask.shape[1]
        cache.close()
        for row, seen in enumerate(rows):
            seen.append(float(new[row]))
            assert keys[row, 0, mask[row].bool(), 0].tolist() == seen
            assert values[row, 0, -1, 0] == -seen[-1] and not mask[row, : -len(seen)].any()
        if turn % 7 == 3:
            enter(rng.sample(range(len(rows)), 2))
        if turn == 30:
            cache.move([3], [0], 3)
            rows[:] = [rows[3], *rows[1:3]]


def test_a_small_buffer_gives_the_same_answers(tiny_model, monkeypatch: pytest.MonkeyPatch):
    rng = random.Random(0)
    trunks = [
        torch.tensor([1, *(rng.randrange(4, len(WORDS)) for _ in range(n))]) for n in (3, 17, 9)
    ]
    jobs = [
        Job(trunks[i % 3], len(trunks[i % 3]), 5 + 9 * (i % 4), ("small", i)) for i in range(14)
    ]
    wanted = generate(tiny_model, jobs, eos=2, batch=5)
    monkeypatch.setattr(RowCache, "ROOM", 4)
    for ours, theirs in zip(generate(tiny_model, jobs, eos=2, batch=5), wanted, strict=True):
        assert torch.equal(ours.tokens, theirs.tokens)
        torch.testing.assert_close(ours.logprobs, theirs.logprobs, atol=1e-5, rtol=1e-5)


def test_memory_goes_with_the_cache():
    """No cycle keeps the buffers until the garbage collector comes round."""
    import gc
    import weakref

    gc.disable()
    try:
        cache = RowCache(2, 3, [(torch.zeros(1, 1, 3, 1),) * 2])
        buffer = weakref.ref(cache.layers[0].buffers[0])
        del cache
        assert buffer() is None
    finally:
        gc.enable()
