"""Answers in other programs' files, as records: our own columns, vLLM's responses, verifiers'
traces."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mechreward.base.errors import MechRewardError, require, shown
from mechreward.tasks.table import rows_of


@dataclass(frozen=True)
class Record:
    """One answer, as its file has it; None for what the file does not say.

    Attributes
    ----------
    where : str
        Its place in the file, for messages.
    problem_id : str
        The question.
    prompt : list of int or None
        Token ids of the prompt.
    tokens : list of int or None
        Token ids of the answer.
    text : str or None
        The answer, where there are no tokens.
    logprobs : list of float or None
        Of each token of the answer.
    reward : float or None
        What the producer gave.
    ended : bool or None
        Whether it ended by itself.
    revision, tokenizer : str
        Of the producer; empty where they are not said.
    sampling : dict
        Its settings: temperature, top_p, top_k, stop, max_tokens.
    kind : str
        Whether the log-probabilities are before or after the temperature; empty where it is not
        said.
    """

    where: str
    problem_id: str
    prompt: list[int] | None = None
    tokens: list[int] | None = None
    text: str | None = None
    logprobs: list[float] | None = None
    reward: float | None = None
    ended: bool | None = None
    revision: str = ""
    tokenizer: str = ""
    sampling: Mapping[str, Any] = field(default_factory=dict)
    kind: str = ""


SAMPLING = ("temperature", "top_p", "top_k", "stop", "max_tokens")
# Settings that a policy does not have, and the values at which they change nothing.
OTHERS = {
    "min_p": (0,),
    "repetition_penalty": (1,),
    "presence_penalty": (0,),
    "frequency_penalty": (0,),
    "length_penalty": (1,),
}
ENDED = {"stop": True, "length": False, "max_tokens": False, "eos": True}


def read_records(path: Path) -> list[Record]:
    """Every answer of a file.

    Its rows are our own columns (`problem_id`, `prompt_token_ids`, `token_ids`, `logprobs`,
    `logprobs_are`, before or after the temperature, `reward`, `finish_reason`, `model_revision`,
    `tokenizer_hash`, and settings of the sampling), or
    responses of vLLM that were asked for with `return_token_ids` (with a `problem_id`, or in the
    batch format with its `custom_id`), or verifiers' episodes (`traces.jsonl`).

    Raises
    ------
    MechRewardError
        The file cannot be read, or a row is none of these.
    """
    records: list[Record] = []
    for number, (_, row) in enumerate(rows_of(path), start=1):
        where = f"{path.name}, row {number}"
        try:
            records += _of_row(row, where)
        except MechRewardError:
            raise
        # Files of other programs, which may hold anything anywhere.
        except (AttributeError, LookupError, TypeError, ValueError) as error:
            why = f"{type(error).__name__}: {error}"
            raise MechRewardError(f"{where} is damaged, or of another form: {why}.") from error
    return records


def _of_row(row: Mapping[str, Any], where: str) -> list[Record]:
    if "traces" in row:
        return list(_of_episode(row, where))
    if "choices" in row or "response" in row:
        return list(_of_response(row, where))
    return [_of_columns(row, where)]


def _of_columns(row: Mapping[str, Any], where: str) -> Record:
    if row.get("problem_id") is None:
        columns = ", ".join(map(str, row))
        raise MechRewardError(f"{where} has no problem_id; its columns are {columns}.")
    return Record(
        where=where,
        problem_id=str(row["problem_id"]),
        prompt=_tokens(row.get("prompt_token_ids"), "prompt_token_ids", where),
        tokens=_tokens(row.get("token_ids"), "token_ids", where),
        text=_text(row.get("text"), where),
        logprobs=_numbers(row.get("logprobs"), where),
        reward=_number(row.get("reward"), "reward", where),
        ended=_ended(row.get("finish_reason")),
        revision=str(row.get("model_revision") or ""),
        tokenizer=str(row.get("tokenizer_hash") or ""),
        sampling=_sampling(row, where),
        kind=_kind(row, where),
    )


def _of_response(row: Mapping[str, Any], where: str) -> Iterator[Record]:
    """A response of vLLM's server to a completion or a chat, by itself or in a batch's line."""
    name = row.get("problem_id", row.get("custom_id"))
    body: Any = row
    if "response" in row:
        response = row["response"]
        body = response.get("body") if isinstance(response, Mapping) else None
        if not isinstance(body, Mapping):
            raise MechRewardError(f"{where} holds no response: {shown(row.get('error'))}.")
    if "choices" not in body:
        raise MechRewardError(f"{where} holds no answer: {shown(body.get('error'))}.")
    if name is None:
        raise MechRewardError(
            f"{where} does not say which problem it answers: add a problem_id to the response."
        )
    for choice in body["choices"]:
        at = f"{where}, choice {choice.get('index', 0)}"
        prompt = choice.get("prompt_token_ids") or body.get("prompt_token_ids")
        message = choice.get("message") or {}
        yield Record(
            where=at,
            problem_id=str(name),
            prompt=_tokens(prompt, "prompt_token_ids", at),
            tokens=_tokens(choice.get("token_ids"), "token_ids", at),
            text=_text(choice.get("text", message.get("content")), at),
            logprobs=_of_choice(choice.get("logprobs"), at),
            ended=_ended(choice.get("finish_reason")),
            sampling=_sampling(row.get("sampling") or row, where),
            kind=_kind(row, where),
        )


def _of_choice(logprobs: Any, where: str) -> list[float] | None:
    """Log-probabilities as completions (`token_logprobs`) and chats (`content`) have them."""
    if not isinstance(logprobs, Mapping):
        return None
    if logprobs.get("token_logprobs") is not None:
        return _numbers(logprobs["token_logprobs"], where)
    content = logprobs.get("content")
    return None if content is None else _numbers([token["logprob"] for token in content], where)


def _of_episode(row: Mapping[str, Any], where: str) -> Iterator[Record]:
    """An episode of verifiers: a trace an agent, of which only single answers can be read."""
    for number, trace in enumerate(row["traces"]):
        at = f"{where}, trace {number}"
        task = trace.get("task") or row.get("task") or {}
        data = task.get("data") or {}
        name = next(
            (entry for entry in (data.get("id"), data.get("name"), task.get("key")) if entry), None
        )
        require(name is not None, f"{at} does not say which problem it answers.")
        nodes = trace.get("nodes") or []
        chain = [node.get("parent") for node in nodes] == [None, *range(len(nodes) - 1)]
        sampled = [index for index, node in enumerate(nodes) if node.get("sampled")]
        require(
            chain and sampled == [len(nodes) - 1],
            f"{at} is no single answer to a prompt: traces of several turns cannot be read.",
        )
        tokens: list[int] = []
        mask: list[bool] = []
        for node in nodes:
            tokens += node.get("token_ids") or []
            mask += node.get("mask") or []
        require(
            bool(tokens),
            f"{at} holds no token ids: plain evaluations do not keep them; a run with a renderer "
            "(as for training) does.",
        )
        require(len(mask) == len(tokens), f"{at}: its mask is of another length than its tokens.")
        begin = mask.index(True) if True in mask else len(mask)
        # Scaffold behind what was sampled (such as a line break) is no part of the answer.
        end = len(mask) - mask[::-1].index(True) if True in mask else len(mask)
        require(all(mask[begin:end]), f"{at}: what was sampled is not in one piece.")
        call = (trace.get("calls") or [{}])[-1]
        rewards = trace.get("rewards") or {}
        scores = [reward for reward in rewards.values() if reward is not None]
        total = 0.0
        for reward in scores:
            parts = reward if isinstance(reward, Mapping) else {"score": reward}
            total += parts["score"] * parts.get("weight", 1.0)
        yield Record(
            where=at,
            problem_id=str(name),
            prompt=tokens[:begin],
            tokens=tokens[begin:end],
            logprobs=_numbers(nodes[-1].get("logprobs") or None, at),
            reward=total if scores else None,
            ended=_ended(call.get("finish_reason")),
            sampling=_sampling(call.get("sampling") or {}, at),
        )


def _sampling(row: Mapping[str, Any], where: str) -> dict[str, Any]:
    """Settings of a policy.

    Raises
    ------
    MechRewardError
        Settings that no policy has: V is defined under how answers are drawn.
    """
    for name, neutral in OTHERS.items():
        value = row.get(name)
        require(
            value is None or value in neutral,
            f"{where} was drawn with {name}={shown(value)}, which no policy here has.",
        )
    found = {}
    for name in SAMPLING:
        value = row.get(name)
        if value in (None, "") or (isinstance(value, float) and math.isnan(value)):
            continue
        if name == "stop":
            if isinstance(value, str):
                value = _listed(value) if value.startswith("[") else (value,)
            found[name] = value
            continue
        number = _finite(value, name, where)
        # A column that is empty in places holds fractions.
        whole = name in ("top_k", "max_tokens") and number == int(number)
        found[name] = int(number) if whole else number
    return found


def _kind(row: Mapping[str, Any], where: str) -> str:
    kind = str(row.get("logprobs_are") or "")
    require(
        kind in ("", "before", "after"),
        f"{where}: logprobs_are is {kind!r}: before or after the temperature is possible.",
    )
    return kind


def _number(value: Any, what: str, where: str) -> float | None:
    return None if value is None or value == "" else _finite(value, what, where)


def _finite(value: Any, what: str, where: str) -> float:
    try:
        number = float(value)
    except (TypeError, ValueError):
        number = math.nan
    require(math.isfinite(number), f"{where}: its {what} is {shown(value)}, no number.")
    return number


def _listed(value: Any) -> Any:
    """A list, also where a CSV file has it as a text."""
    if isinstance(value, str) and value.startswith("["):
        try:
            return json.loads(value)
        except ValueError:
            return value
    return None if value == "" else value


def _ended(reason: Any) -> bool | None:
    return ENDED.get(str(reason)) if reason is not None else None


def _text(value: Any, where: str) -> str | None:
    require(
        value is None or isinstance(value, str), f"{where}: its text is {shown(value)}, no text."
    )
    return value


def _tokens(value: Any, what: str, where: str) -> list[int] | None:
    if value is None:
        return None
    value = _listed(value)
    if value is None:
        return None
    whole = isinstance(value, Sequence) and not isinstance(value, str)
    for token in value if whole else ():
        is_int = isinstance(token, int) and not isinstance(token, bool)
        whole = whole and is_int and 0 <= int(token) < 2**31
    require(whole, f"{where}: {what} are whole numbers from 0; {shown(value)} was read.")
    return list(value)


def _numbers(value: Any, where: str) -> list[float] | None:
    if value is None:
        return None
    numbers = []
    value = _listed(value)
    if value is None:
        return None
    listed = isinstance(value, Sequence) and not isinstance(value, str)
    require(listed, f"{where}: its log-probabilities are {shown(value)}, no list.")
    for entry in value:
        require(
            isinstance(entry, int | float) and math.isfinite(entry),
            f"{where}: a log-probability is {shown(entry)}.",
        )
        numbers.append(float(entry))
    return numbers
