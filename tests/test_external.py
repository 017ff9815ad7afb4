"""Rollouts from elsewhere: what was sampled here, written as others write it, comes back."""

from __future__ import annotations

import json
import warnings
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import tiny
import torch
from verifiers import v1

import mechreward as mr
from mechreward.base.errors import MechRewardError
from mechreward.data.external import RolloutsWarning, read_rollouts
from mechreward.models.policy import Policy
from mechreward.models.text import decode
from mechreward.rollouts.sample import sample
from mechreward.rollouts.trajectory import Rollouts
from mechreward.tasks.text_task import TextTask

PROBLEMS = tiny.Even().problems("train", 6)
POLICY = Policy(temperature=0.8)


@pytest.fixture(scope="module")
def runs(tiny_model) -> Rollouts:
    return sample(tiny_model, PROBLEMS, k=2, policy=POLICY, seed=4, progress=False)


def same(ours: Rollouts, theirs: Rollouts) -> None:
    assert ours.problems == theirs.problems and ours.policy == theirs.policy
    for a, b in zip(ours, theirs, strict=True):
        assert a.tokens.tolist() == b.tokens.tolist()
        assert (a.prompt_len, a.step_ends, a.verdict, a.ended, a.sample) == (
            b.prompt_len, b.step_ends, b.verdict, b.ended, b.sample,
        )  # fmt: skip
        torch.testing.assert_close(a.logprobs, b.logprobs, atol=1e-5, rtol=1e-5)


def lines(path: Path, rows: list[dict[str, Any]]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def quietly(*args: Any, **options: Any) -> Rollouts:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        return read_rollouts(*args, progress=False, **options)


def test_our_own_table_comes_back(runs: Rollouts, tiny_model, tmp_path: Path):
    frame = runs.frame()
    frame.to_json(tmp_path / "r.jsonl", orient="records", lines=True)
    runs.to_parquet(tmp_path / "r.parquet")
    runs.to_csv(tmp_path / "r.csv")
    for name in ("r.jsonl", "r.parquet", "r.csv"):
        again = quietly(tmp_path / name, tiny_model, PROBLEMS)
        same(again, runs)
        values = mr.estimate(tiny_model, again, k=2, progress=False)
        assert len(values.step) > len(runs)


def response(runs: Rollouts, number: int) -> dict[str, Any]:
    """As vLLM answers a chat with return_token_ids."""
    run = runs[number]
    tokens = run.tokens[run.prompt_len :].tolist()
    content = [{"logprob": float(score)} for score in run.logprobs]
    choice = {
        "index": 0,
        "message": {"role": "assistant", "content": "..."},
        "token_ids": tokens,
        "finish_reason": "stop" if run.ended else "length",
        "logprobs": {"content": content},
    }
    return {
        "id": "chatcmpl-1",
        "object": "chat.completion",
        "prompt_token_ids": run.tokens[: run.prompt_len].tolist(),
        "choices": [choice],
    }


def test_responses_of_vllm(runs: Rollouts, tiny_model, tmp_path: Path):
    plain, batch = [], []
    for number, run in enumerate(runs):
        body = response(runs, number)
        plain.append({"problem_id": run.problem_id, **body})
        batch.append({"custom_id": run.problem_id, "response": {"status_code": 200, "body": body}})
    for rows in (plain, batch):
        path = lines(tmp_path / "v.jsonl", rows)
        same(quietly(path, tiny_model, PROBLEMS, policy=POLICY, logprobs="before"), runs)
    with pytest.raises(MechRewardError, match="does not say which problem it answers"):
        quietly(lines(tmp_path / "v.jsonl", [response(runs, 0)]), tiny_model, PROBLEMS)


def episode(runs: Rollouts, number: int) -> dict[str, Any]:
    """As verifiers keeps a run with a renderer: a node a message, tokens and mask of each."""
    run = runs[number]
    prompt = run.tokens[: run.prompt_len].tolist()
    answer = run.tokens[run.prompt_len :].tolist()
    user = {"parent": None, "message": {"role": "user", "content": "?"}, "sampled": False}
    said = {"parent": 0, "message": {"role": "assistant", "content": "!"}, "sampled": True}
    trace = {
        "nodes": [
            user | {"token_ids": prompt[:-1], "mask": [False] * (len(prompt) - 1)},
            said
            | {
                "token_ids": [prompt[-1], *answer, 4],
                "mask": [False] + [True] * len(answer) + [False],
                "logprobs": run.logprobs.tolist(),
            },
        ],
        "calls": [
            {"finish_reason": "stop" if run.ended else "length", "sampling": {"temperature": 0.8}}
        ],
        "rewards": {"right": {"score": float(run.reward), "weight": 1.0}},
    }
    return {"task": {"type": "T", "data": {"id": run.problem_id}}, "traces": [trace]}


def test_traces_of_verifiers(runs: Rollouts, tiny_model, tmp_path: Path):
    rows = [episode(runs, number) for number in range(len(runs))]
    same(quietly(lines(tmp_path / "t.jsonl", rows), tiny_model, PROBLEMS, logprobs="before"), runs)
    # The same as the installed package writes it.
    for row in rows:
        (trace,) = row["traces"]
        trace |= {"task": row["task"], "agent": {"config": {}}}
    kept = [json.loads(v1.WireEpisode.model_validate(row).model_dump_json()) for row in rows]
    same(quietly(lines(tmp_path / "t.jsonl", kept), tiny_model, PROBLEMS, logprobs="before"), runs)
    plain = episode(runs, 0)
    for node in plain["traces"][0]["nodes"]:
        node["token_ids"], node["mask"] = [], []
    with pytest.raises(MechRewardError, match="holds no token ids: plain evaluations do not keep"):
        quietly(lines(tmp_path / "t.jsonl", [plain]), tiny_model, PROBLEMS)
    several = episode(runs, 0)
    several["traces"][0]["nodes"].append(dict(several["traces"][0]["nodes"][1], parent=1))
    with pytest.raises(MechRewardError, match="traces of several turns"):
        quietly(lines(tmp_path / "t.jsonl", [several]), tiny_model, PROBLEMS)


def rows_of(runs: Rollouts) -> list[dict[str, Any]]:
    return json.loads(runs.frame().to_json(orient="records"))


def test_log_probabilities_after_the_temperature(runs: Rollouts, tiny_model, tmp_path: Path):
    rows = rows_of(runs)
    for row in rows:
        tokens = torch.tensor([row["prompt_token_ids"] + row["token_ids"]])
        logits = tiny_model(tokens)[0, len(row["prompt_token_ids"]) - 1 : -1] / 0.8
        scores = logits.log_softmax(-1).gather(1, torch.tensor(row["token_ids"])[:, None])
        row["logprobs"] = scores[:, 0].tolist()
        row["logprobs_are"] = "after"
    path = lines(tmp_path / "r.jsonl", rows)
    same(quietly(path, tiny_model, PROBLEMS), runs)
    with pytest.raises(MechRewardError, match="are after the temperature; before was given"):
        quietly(path, tiny_model, PROBLEMS, logprobs="before")
    for row in rows:
        del row["logprobs_are"]
    path = lines(tmp_path / "r.jsonl", rows)
    same(quietly(path, tiny_model, PROBLEMS, logprobs="after"), runs)
    with pytest.raises(
        MechRewardError, match=r"temperature 0\.8: say whether they are before it or"
    ):
        quietly(path, tiny_model, PROBLEMS)
    shifted = [{**row, "logprobs": [p - 0.3 for p in row["logprobs"]]} for row in rows]
    with pytest.warns(RolloutsWarning, match=r"differ from this model's by .* another model"):
        read_rollouts(lines(path, shifted), tiny_model, PROBLEMS, logprobs="after", progress=False)


def test_how_far_the_producer_is_is_said(runs, tiny_model, tmp_path: Path, capsys):
    path = lines(tmp_path / "r.jsonl", rows_of(runs))
    read_rollouts(path, tiny_model, PROBLEMS, logprobs="before", progress=True)
    assert "differ from this model's by 0.0000 nats on average" in capsys.readouterr().err


def test_other_rewards_and_prompts_are_said(runs: Rollouts, tiny_model, tmp_path: Path):
    rows = rows_of(runs)
    wrong = [{**row, "reward": 1 - row["reward"]} for row in rows]
    with pytest.warns(RolloutsWarning, match="12 of 12 rewards are not those of the task's"):
        again = read_rollouts(
            lines(tmp_path / "r.jsonl", wrong),
            tiny_model,
            PROBLEMS,
            logprobs="before",
            progress=False,
        )
    same(again, runs)
    other = [{**row, "prompt_token_ids": [*row["prompt_token_ids"], 4]} for row in rows]
    for row in other:
        del row["logprobs"]
    with pytest.warns(RolloutsWarning, match="the prompts of 6 of 6 problems are not those"):
        again = read_rollouts(
            lines(tmp_path / "r.jsonl", other), tiny_model, PROBLEMS, progress=False
        )
    assert again.problems[0].prompt == tuple(other[0]["prompt_token_ids"])
    assert sample(tiny_model, [again.problems[0]], progress=False)[0].tokens[-1] >= 0


def test_texts_alone_are_read_where_asked_and_survive(runs: Rollouts, tiny_model, tmp_path: Path):
    rows = []
    for run in runs:
        text = decode(tiny_model, run.tokens[run.prompt_len :])
        finish = "stop" if run.ended else "length"
        rows.append({"problem_id": run.problem_id, "text": text, "finish_reason": finish})
    rows.append({"problem_id": PROBLEMS[0].id, "text": "not in the vocabulary", "temperature": 0.8})
    path = lines(tmp_path / "r.jsonl", rows)
    with pytest.raises(MechRewardError, match="holds no token ids; text=True tokenises"):
        quietly(path, tiny_model, PROBLEMS, policy=POLICY)
    with pytest.warns(RolloutsWarning, match="of 13 answers were dropped, for their text does not"):
        again = read_rollouts(path, tiny_model, PROBLEMS, policy=POLICY, text=True, progress=False)
    assert 0 < len(again) <= 12
    known = {(run.problem_id, tuple(run.tokens.tolist())) for run in runs}
    assert {(run.problem_id, tuple(run.tokens.tolist())) for run in again} <= known


def test_a_task_with_rows_knows_its_problems(tiny_model, tmp_path: Path):
    table = [{"question": problem.prompt, "answer": "3"} for problem in PROBLEMS]
    task = TextTask(table, max_tokens=16)
    ours = sample(tiny_model, task.rows, progress=False)
    ours.to_parquet(tmp_path / "r.parquet")
    again = quietly(tmp_path / "r.parquet", tiny_model, task)
    assert [run.tokens.tolist() for run in again] == [run.tokens.tolist() for run in ours]
    with pytest.raises(MechRewardError, match="even draws its problems: give those that were"):
        quietly(tmp_path / "r.parquet", tiny_model, tiny.Even())


def change(**columns: Any):
    return lambda rows: [{**row, **columns} for row in rows]


@pytest.mark.parametrize(
    ("damage", "options", "words"),
    [
        (change(problem_id=None), {}, "has no problem_id; its columns are"),
        (change(problem_id="countdown 3"), {}, "no problem has the id 'countdown 3'; did you mean"),
        (change(token_ids=[]), {}, "its answer is empty"),
        (change(token_ids=[3, -1]), {}, "token_ids are whole numbers from 0"),
        (change(token_ids="3 4"), {}, "token_ids are whole numbers from 0"),
        (change(token_ids=[3, 999_999]), {}, "999999"),
        (change(logprobs=[-1.0]), {}, "log-probabilities for"),
        (change(logprobs=["x"]), {}, "a log-probability is 'x'"),
        (change(tokenizer_hash="0" * 16), {}, "its tokens are of another tokenizer (0000"),
        (change(temperature=None), {}, "the file states no temperature: say how the answers"),
        (
            change(),
            {"policy": Policy()},
            "the file says temperature=0.8, the policy that was given 1.0",
        ),
        (change(max_tokens=2), {}, "more than the policy's limit of 2"),
        (lambda rows: [{**rows[0], "temperature": 1.0}, *rows], {}, "states 2 different policies"),
        (lambda rows: [*rows, {**rows[0], "prompt_token_ids": [1, 7]}], {}, "another prompt than"),
        (lambda rows: [], {}, "the data has no rows"),
    ],
)
def test_one_line_says_what_is_wrong(
    runs: Rollouts, tiny_model, tmp_path: Path, damage: Any, options: Any, words: str
):
    path = lines(tmp_path / "r.jsonl", damage(rows_of(runs)))
    with pytest.raises(MechRewardError) as caught:
        quietly(path, tiny_model, PROBLEMS, logprobs="before", **options)
    assert words in str(caught.value) and "\n" not in str(caught.value)


# Tables


def test_tables_of_nouns(runs: Rollouts, tiny_model, tmp_path: Path):
    values = mr.estimate(tiny_model, runs, k=4, progress=False)
    frame = values.frame()
    assert len(frame) == len(values.step) and frame.value.tolist() == values.mean.tolist()
    np.testing.assert_array_equal(frame.delta, values.delta)
    acts = mr.record(tiny_model, runs, "1.mlp", progress=False)["1.mlp"]
    neurons = mr.NeuronSet.of(acts, [5, 2, 9], "by hand", scores=np.arange(48.0))
    assert neurons.frame().neuron.tolist() == [2, 5, 9]
    assert neurons.frame().score.tolist() == [2, 5, 9] and neurons.frame().direction.isna().all()
    for noun in (runs, values, neurons):
        again = pd.read_parquet(noun.to_parquet(tmp_path / "noun.parquet"))
        assert list(again.columns) == list(noun.frame().columns) and len(again) == len(noun.frame())
        assert len(pd.read_csv(noun.to_csv(tmp_path / "noun.csv"))) == len(again)
    assert replace(runs, seed=9).frame().equals(runs.frame())


DAMAGED = [
    {"choices": None},
    {"choices": "text"},
    {"choices": ["text"]},
    {"choices": [{"token_ids": [7, 2], "logprobs": {"content": [{}]}}]},
    {"response": {"body": {"error": {"message": "too long"}}}},
    {"traces": None},
    {"traces": ["text"]},
    {"traces": [{"task": 5}]},
    {"reward": "yes"},
    {"reward": [1]},
    {"logprobs": 0.5},
    {"logprobs": ["a", "b"]},
    {"token_ids": [2**40]},
    {"token_ids": "7 2"},
    {"stop": 5},
    {"temperature": "hot"},
    {"logprobs_are": "raw"},
    {"min_p": 0.1},
    {"repetition_penalty": 1.2},
]


@pytest.mark.parametrize("given", DAMAGED, ids=str)
def test_a_row_that_holds_something_else_is_named(tiny_model, tmp_path: Path, given):
    row = {
        "problem_id": PROBLEMS[0].id,
        "prompt_token_ids": [1, 5],
        "token_ids": [7, 2],
        "temperature": 1.0,
    }
    path = lines(tmp_path / "r.jsonl", [row | given])
    with pytest.raises(MechRewardError, match=r"row 1|temperature") as told:
        quietly(path, tiny_model, PROBLEMS)
    assert "\n" not in str(told.value)


def test_every_answer_has_to_say_how_it_was_drawn(runs, tiny_model, tmp_path: Path):
    rows = rows_of(runs)
    for row in rows[1:]:
        for name in ("temperature", "top_p", "top_k", "stop", "max_tokens"):
            row.pop(name)
    path = lines(tmp_path / "r.jsonl", rows)
    with pytest.raises(MechRewardError, match="states no temperature in 11 answers"):
        quietly(path, tiny_model, PROBLEMS)
    same(quietly(path, tiny_model, PROBLEMS, policy=POLICY), runs)


def test_a_revision_that_cannot_be_told_is_said(runs, tiny_model, tmp_path: Path):
    rows = [row | {"model_revision": "deadbeef"} for row in rows_of(runs)]
    quietly(lines(tmp_path / "r.jsonl", rows), tiny_model, PROBLEMS)  # log-probabilities tell
    for row in rows:
        del row["logprobs"]
    path = lines(tmp_path / "r.jsonl", rows)
    with pytest.warns(RolloutsWarning, match="of revision deadbeef, and nothing tells whether"):
        read_rollouts(path, tiny_model, PROBLEMS, progress=False)
