"""The paper's data sets, at pinned revisions, as tasks."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mechreward.base.errors import MechRewardError, one_of, require
from mechreward.tasks.answers import Check
from mechreward.tasks.table import FILES, Row
from mechreward.tasks.text_task import Column, TextTask

STEP_BY_STEP = "Reason step by step, and put your final answer within \\boxed{}."


@dataclass(frozen=True)
class DataSet:
    """Where a data set is, and how its rows are asked and verified.

    Attributes
    ----------
    path, config : str
        On the hub.
    revision : str
        The commit that is read.
    prompt, answer : str or callable
        As for `TextTask`.
    verify : str
        As for `TextTask`; empty where only the user's own checker can: no generated code is run
        here.
    steps : str
        The paper's paragraphs, but for short answers.
    system : str
        What the model is told.
    max_tokens : int
        Limit of an answer.
    difficulty : str
        The column with it; empty if there is none.
    """

    path: str
    config: str | None
    revision: str
    prompt: Column
    answer: Column
    verify: str
    steps: str = "paragraphs"
    system: str = STEP_BY_STEP
    max_tokens: int = 2048
    difficulty: str = ""


def _choices(row: Row) -> str:
    """A question of ARC with its choices."""
    lines = [str(row["question"])]
    for label, text in zip(row["choices"]["label"], row["choices"]["text"], strict=True):
        lines.append(f"{label}. {text}")
    return "\n".join(lines)


def _behind_hashes(row: Row) -> str:
    """The number of a worked answer of GSM8K."""
    return str(row["answer"]).rpartition("####")[2].strip()


DATA_SETS: Mapping[str, DataSet] = {
    "gsm8k": DataSet(
        "openai/gsm8k",
        "main",
        "e53f048856ff4f594e959d75785d2c2d37b678ee",
        "question",
        _behind_hashes,
        "number",
        max_tokens=1024,
    ),
    "math500": DataSet(
        "HuggingFaceH4/MATH-500",
        None,
        "ff5b20257d8185524591543f8ff5993951537bb8",
        "problem",
        "answer",
        "math",
        difficulty="level",
    ),
    "arc": DataSet(
        "allenai/ai2_arc",
        "ARC-Challenge",
        "210d026faf9955653af8916fad021475a3f00453",
        _choices,
        "answerKey",
        "choice",
        system="Reason step by step, and end with a line Answer: and the letter of your choice.",
        max_tokens=1024,
    ),
    "minerva": DataSet("math-ai/minervamath", None, "main", "question", "answer", "math"),
    "mbpp+": DataSet("evalplus/mbppplus", None, "main", "prompt", "code", "", "lines", "", 1024),
    "ifeval": DataSet(
        "google/IFEval",
        None,
        "966cd89545d6b6acfd7638bc708b98261ca58e84",
        "prompt",
        lambda row: " ".join(row["instruction_id_list"]),
        "",
        system="",
        max_tokens=1024,
    ),
}


def data_set(
    name: str,
    *,
    copy: str | Path | None = None,
    verify: str | Check | None = None,
    **options: Any,
) -> TextTask:
    """One of the paper's data sets as a task.

    Where the data has a single split, splits are by the prompt's hash; else they are its own, and a
    tenth of the training rows is held out where it has no validation rows.

    Parameters
    ----------
    name : str
        One of `DATA_SETS`.
    copy : str, Path or None, default None
        A file or folder with a local copy, for machines without the hub. None: the hub, through
        `datasets` and its cache, at the pinned revision.
    verify : str, callable or None, default None
        Another verifier than the data set's. "mbpp+" and "ifeval" need one: answers to the former
        are programs, which are not run here, and the latter has a checker of its own.
    **options
        Further options of `TextTask`, instead of the data set's.

    Returns
    -------
    TextTask

    Raises
    ------
    MechRewardError
        Another name, no verifier, or data that cannot be had.
    """
    one_of("data set", name, DATA_SETS)
    source = DATA_SETS[name]
    check = verify or source.verify
    require(
        bool(check),
        f"{name} needs your own checker, as verify=function of problem and text: "
        "no generated code is run here.",
    )
    given: dict[str, Any] = {
        "prompt": source.prompt,
        "answer": source.answer,
        "steps": source.steps,
        "system": source.system or None,
        "chat": True,
        "max_tokens": source.max_tokens,
        "difficulty": source.difficulty or None,
        "name": name,
    }
    return TextTask(_rows(source, name, copy), verify=check, **(given | options))


def _rows(source: DataSet, name: str, copy: str | Path | None) -> Any:
    if copy is not None and Path(copy).suffix.lower() in FILES:
        return copy
    import datasets

    try:
        if copy is not None:
            rows = datasets.load_dataset(str(copy))
        else:
            rows = datasets.load_dataset(source.path, source.config, revision=source.revision)
    # `datasets` raises whatever its file systems and parsers do.
    except (OSError, ValueError, RuntimeError, LookupError) as error:
        why = " ".join(str(error).split())[:200]
        where = copy or f"{source.path} on the hub"
        raise MechRewardError(
            f"cannot read {name} from {where}: {why}. Without the hub, give a local copy of its "
            "rows: copy='FILE.jsonl'."
        ) from error
    # A single split, whatever its name, is dealt anew.
    return next(iter(rows.values())) if len(rows) == 1 else rows
