"""Rollouts from elsewhere: token ids in, token ids out, and what was sampled is checked against the
model."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from difflib import get_close_matches
from pathlib import Path
from typing import Any, Literal

import torch
from jaxtyping import Float

from mechreward.base.errors import MechRewardError, of_kind, one_of, require, whole
from mechreward.base.progress import bar, tell
from mechreward.data.records import Record, read_records
from mechreward.models.ability import evaluation
from mechreward.models.bins import length_bins
from mechreward.models.fast_pass import LeanPass
from mechreward.models.finite import check_logits, row_name
from mechreward.models.identity import ModelId, model_id
from mechreward.models.load import device_of
from mechreward.models.policy import Policy
from mechreward.models.text import decode, encode, eos_ids
from mechreward.rollouts.steps import step_ends, warn_of
from mechreward.rollouts.trajectory import Rollouts, Trajectory, task_of
from mechreward.tasks import Problem, Task
from mechreward.tasks.judge import judge

FAR = 0.1  # mean difference of log-probabilities, in nats, from which a warning speaks (our choice)


class RolloutsWarning(UserWarning):
    """What was read is not quite what this model and task would have made."""


@dataclass(frozen=True)
class Distance:
    """How far the producer's log-probabilities are from this model's, over all tokens.

    Attributes
    ----------
    mean : float
        Mean absolute difference, in nats.
    largest : float
        The largest.
    drift : float
        Mean of the producer's minus this model's: an estimate of the Kullback-Leibler divergence
        of the producer from this model, a token.
    tokens : int
        How many were compared.
    """

    mean: float
    largest: float
    drift: float
    tokens: int

    def __str__(self) -> str:
        return (
            f"log-probabilities of {self.tokens} tokens differ from this model's by "
            f"{self.mean:.4f} nats on average, {self.largest:.3f} at most "
            f"(divergence {self.drift:.4f} a token)"
        )


def read_rollouts(
    path: Path | str,
    model: Any,
    task: Task | Sequence[Problem],
    *,
    policy: Policy | None = None,
    logprobs: Literal["before", "after"] | None = None,
    text: bool = False,
    batch: int = 64,
    progress: bool | str = True,
) -> Rollouts:
    """Read answers that another program sampled, as rollouts of this model.

    Formats are told by their columns (`data.records.read_records`): JSONL or parquet with token
    ids, vLLM's responses, verifiers' traces. Answers are verified by the task, steps are cut by it,
    and log-probabilities are this model's own; what the file says of these is compared.

    Parameters
    ----------
    path : Path or str
        The file.
    model : TransformerBridge or HookedTransformer
        The one that is studied: it should be the one that answered.
    task : Task or sequence of Problem
        The problems by their ids; a task is enough where it has fixed rows (`TextTask`).
    policy : Policy or None, default None
        How the answers were drawn, since V is defined under it; None if the file states it.
    logprobs : {"before", "after"} or None, default None
        Whether the file's log-probabilities are before or after the temperature; needed where it
        has some, does not say that itself (`logprobs_are`), and the temperature is not 1.
    text : bool, default False
        Whether answers without token ids are read too. They are tokenised again, and dropped with
        a count where that gives another text.
    batch : int, default 64
        Answers replayed at once.
    progress : bool or str, default True
        Whether a bar is shown, or its title.

    Returns
    -------
    Rollouts
        In the order of the file, problem by problem.

    Raises
    ------
    MechRewardError
        The file cannot be read; an unknown problem; another tokenizer; no policy; answers that are
        not of it.

    Warns
    -----
    RolloutsWarning
        Prompts that differ from this model's, rewards that differ from the task's, answers that
        were dropped, and a model that is far from the producer.
    """
    identity = model_id(model)
    batch = whole("batch", batch, 1, "answers replayed at once")
    of_kind("path", path, (str, Path))
    path = Path(path).expanduser()
    records = read_records(path)
    known = _problems(task)
    _check_tokenizer(records, identity)
    policy = _policy_of(records, policy)
    notes: list[str] = []
    _note_revision(records, identity, notes)
    if text:
        records = _tokenised(model, records, known, notes)
    for record in records:
        require(
            record.tokens is not None,
            f"{record.where} holds no token ids; text=True tokenises texts again, and drops those "
            "that do not survive it.",
        )
    kinds = {record.kind for record in records if record.kind}
    if logprobs is not None:
        one_of("kind of log-probability", logprobs, ("before", "after"))
        require(
            kinds <= {logprobs},
            f"the file says that its log-probabilities are {' and '.join(sorted(kinds))} the "
            f"temperature; {logprobs} was given.",
        )
    else:
        require(len(kinds) < 2, "the file has log-probabilities before and after the temperature.")
        logprobs = "before" if "before" in kinds else "after" if kinds else None
    rollouts, records = _rollouts(model, records, known, policy, identity, notes)
    rollouts, tempered = _replayed(model, rollouts, batch, progress)
    distance = _compare(records, rollouts, tempered, logprobs)
    if distance is not None:
        tell(progress, "replay", str(distance))
        if distance.mean > FAR:
            notes.append(f"{distance}: another model, or another policy, made them")
    for note in notes:
        warnings.warn(f"{path.name}: {note}.", RolloutsWarning, stacklevel=2)
    return rollouts


def _problems(task: Task | Sequence[Problem]) -> dict[str, Problem]:
    """Problems by id."""
    if isinstance(task, Task):
        rows = getattr(task, "rows", None)
        require(
            rows is not None,
            f"{task.name} draws its problems: give those that were answered, as "
            "task.problems('test', 100), instead of the task.",
        )
        task = list(rows or ())
    task_of(task)
    return {problem.id: problem for problem in task}


def _check_tokenizer(records: Sequence[Record], identity: ModelId) -> None:
    for record in records:
        require(
            not record.tokenizer or record.tokenizer == identity.tokenizer,
            f"{record.where}: its tokens are of another tokenizer ({record.tokenizer}); that of "
            f"{identity.name} is {identity.tokenizer}.",
        )


def _note_revision(records: Sequence[Record], identity: ModelId, notes: list[str]) -> None:
    """Say where the file names another revision than the model's, or one that cannot be told."""
    named = sorted({record.revision for record in records if record.revision})
    if not named or named == [identity.revision]:
        return
    said = ", ".join(named[:3])
    if identity.revision:
        notes.append(f"its answers are of revision {said}, the model is of {identity.revision}")
    elif all(record.logprobs is None for record in records):
        notes.append(
            f"its answers are of revision {said}, and nothing tells whether the model is: neither "
            "does the model name one, nor the file log-probabilities"
        )


def _policy_of(records: Sequence[Record], policy: Policy | None) -> Policy:
    """What was given, or what the file says."""
    said = {}
    silent = 0
    for record in records:
        if "temperature" not in record.sampling:
            silent += 1
            continue
        settings = dict(record.sampling)
        stop = settings.get("stop") or ()
        of_kind(f"{record.where}: stop", stop, (list, tuple))
        settings["stop"] = tuple(stop)
        top_k = settings.get("top_k")
        if isinstance(top_k, int) and top_k <= 0:  # how vLLM says that all can be drawn
            del settings["top_k"]
        said[str(sorted(settings.items()))] = settings
    if policy is not None:
        of_kind("policy", policy, Policy)
        for settings in said.values():
            own = asdict(policy)
            for name, value in settings.items():
                require(
                    own[name] == value or (name == "max_tokens" and own[name] is None),
                    f"the file says {name}={value!r}, the policy that was given {own[name]!r}.",
                )
        return policy
    stated = f"{len(said)} different policies"
    if silent:
        stated = "no temperature" if not said else f"no temperature in {silent} answers"
    require(
        len(said) == 1 and not silent,
        f"the file states {stated}"
        + ": say how the answers were drawn, as policy=mr.Policy(temperature=1.0), since V is "
        "defined under it.",
    )
    return Policy(**next(iter(said.values())))


def _known(known: Mapping[str, Problem], record: Record) -> Problem:
    if record.problem_id in known:
        return known[record.problem_id]
    near = get_close_matches(record.problem_id, list(known), 1, 0.3)
    hint = f"; did you mean {near[0]!r}?" if near else ""
    raise MechRewardError(
        f"{record.where}: no problem has the id {record.problem_id!r}{hint} ({len(known)} known)."
    )


def _tokenised(
    model: Any, records: Sequence[Record], known: Mapping[str, Problem], notes: list[str]
) -> list[Record]:
    """Texts as tokens, where they survive it."""
    kept = []
    dropped = 0
    for record in records:
        if record.tokens is None and record.text is not None:
            prompt = record.prompt
            if prompt is None:
                prompt = encode(model, _known(known, record).prompt).tolist()
            tokens = model.tokenizer(record.text, add_special_tokens=False).input_ids
            if not tokens or model.tokenizer.decode(tokens) != record.text:
                dropped += 1
                continue
            if record.ended is not False:
                tokens = [*tokens, eos_ids(model)[0]]
            record = replace(record, prompt=prompt, tokens=tokens, logprobs=None)
        kept.append(record)
    if dropped:
        notes.append(
            f"{dropped} of {len(records)} answers were dropped, for their text does not survive "
            "being tokenised again"
        )
    require(bool(kept), "no answer survives being tokenised again.")
    return kept


def _rollouts(
    model: Any,
    records: Sequence[Record],
    known: Mapping[str, Problem],
    policy: Policy,
    identity: ModelId,
    notes: list[str],
) -> tuple[Rollouts, list[Record]]:
    """Verified, and cut into steps, with the record of each; log-probabilities are still 0."""
    ordered: dict[str, list[Record]] = {}
    for record in records:
        ordered.setdefault(record.problem_id, []).append(record)
    prompts: dict[str, tuple[int, ...]] = {}
    others = 0
    problems, texts, ended, kept = [], [], [], []
    eos = set(eos_ids(model))
    for name, group in ordered.items():
        problem = _known(known, group[0])
        own = tuple(encode(model, problem.prompt).tolist())
        prompts[name] = tuple(group[0].prompt or own)
        if prompts[name] != own:
            others += 1
            # What is asked of the model from now on is what the producer asked.
            problem = replace(problem, prompt=prompts[name])
        for record in group:
            tokens = record.tokens or []
            require(bool(tokens), f"{record.where}: its answer is empty.")
            require(
                tuple(record.prompt or own) == prompts[name],
                f"{record.where}: another prompt than {group[0].where}, under one problem_id.",
            )
            problems.append(problem)
            texts.append(decode(model, tokens))
            by_itself = record.ended if record.ended is not None else tokens[-1] in eos
            ended.append(by_itself)
            kept.append(record)
    if others:
        notes.append(
            f"the prompts of {others} of {len(ordered)} problems are not those that this model's "
            "template makes; the file's are taken, for all that follows"
        )
    task = task_of(problems)
    verdicts = judge(task, problems, texts, ended)
    limit = policy.limit(task)
    runs = []
    faults: dict[str, str] = {}
    numbers: dict[str, int] = {}
    different = 0
    for record, problem, verdict, by_itself in zip(kept, problems, verdicts, ended, strict=True):
        prompt = prompts[record.problem_id]
        answer = record.tokens or []
        require(
            len(answer) <= limit,
            f"{record.where}: {len(answer)} tokens are more than the policy's limit of {limit}; "
            "give it as policy=mr.Policy(max_tokens=...).",
        )
        tokens = torch.tensor([*prompt, *answer], dtype=torch.long)
        ends, fault = step_ends(model, task, tokens, len(prompt))
        if fault:
            faults.setdefault(problem.id, fault)
        if record.reward is not None and (record.reward >= 1) != bool(verdict.reward):
            different += 1
        number = numbers.get(problem.id, 0)
        numbers[problem.id] = number + 1
        run = Trajectory(
            problem_id=problem.id,
            tokens=tokens,
            prompt_len=len(prompt),
            step_ends=ends,
            verdict=verdict,
            logprobs=torch.zeros(len(answer)),
            ended=by_itself,
            sample=number,
        )
        runs.append(run)
    warn_of(task, faults, len(runs))
    if different:
        notes.append(
            f"{different} of {len(runs)} rewards are not those of the task's verifier, which count"
        )
    return Rollouts(tuple(runs), tuple(problems), policy, identity), kept


@torch.no_grad()
def _replayed(
    model: Any, runs: Rollouts, batch: int, progress: bool | str
) -> tuple[Rollouts, list[Float[torch.Tensor, " gen"]]]:
    """The rollouts with this model's log-probabilities, and those at the policy's temperature."""
    lean = LeanPass(model, exact=True) if LeanPass.fits(model) else None
    words = int(model.cfg.d_vocab)
    trajectories: list[Trajectory] = list(runs)
    tempered: list[torch.Tensor] = [torch.empty(0)] * len(runs)
    for number, run in enumerate(runs):
        largest = int(run.tokens.max())
        require(
            largest < words,
            f"{row_name(number, run.problem_id)} holds token {largest}; "
            f"the model has tokens 0 to {words - 1}.",
        )
    with bar(progress, "replay", "answer", total=len(runs)) as counter:
        for numbers in length_bins([len(run.tokens) for run in runs], batch):
            rows = [runs[number].tokens for number in numbers]
            tokens = torch.nn.utils.rnn.pad_sequence(rows, batch_first=True).to(device_of(model))
            with evaluation(model, tokens.shape[1]):
                if lean:
                    logits = lean.read(lean.streams(tokens)[0])
                else:
                    mask = torch.ones_like(tokens)
                    logits = model(tokens, return_type="logits", attention_mask=mask)
            for row, number in enumerate(numbers):
                run = runs[number]
                own = logits[row, run.prompt_len - 1 : len(run.tokens) - 1].float().cpu()
                check_logits(own, row_name(number, run.problem_id))
                answer = run.tokens[run.prompt_len :, None]
                scores = own.log_softmax(-1).gather(1, answer)[:, 0]
                trajectories[number] = replace(run, logprobs=scores)
                scaled = own / (runs.policy.temperature or 1.0)
                tempered[number] = scaled.log_softmax(-1).gather(1, answer)[:, 0]
            counter.update(len(numbers))
    return replace(runs, trajectories=tuple(trajectories)), tempered


def _compare(
    records: Sequence[Record],
    runs: Rollouts,
    tempered: Sequence[torch.Tensor],
    logprobs: str | None,
) -> Distance | None:
    """The producer's log-probabilities beside this model's; None where the file has none."""
    own, given = [], []
    for record, run, hot in zip(records, runs, tempered, strict=True):
        if record.logprobs is None:
            continue
        require(
            len(record.logprobs) == run.length,
            f"{record.where}: {len(record.logprobs)} log-probabilities for {run.length} tokens.",
        )
        own.append(hot if logprobs == "after" else run.logprobs)
        given.append(torch.tensor(record.logprobs))
    if not given:
        return None
    temperature = runs.policy.temperature
    require(
        logprobs is not None or temperature == 1,
        f"the file has log-probabilities at temperature {temperature:g}: say whether they are "
        "before it or after it, as logprobs='before'.",
    )
    apart = torch.cat(given) - torch.cat(own)
    return Distance(
        float(apart.abs().mean()), float(apart.abs().max()), float(apart.mean()), len(apart)
    )
