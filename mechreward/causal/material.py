"""What a certificate is measured on: problems, and the states of answers to them."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from itertools import chain
from typing import Any, NamedTuple

from mechreward.base.files import digest
from mechreward.base.progress import under
from mechreward.base.streams import stream
from mechreward.models.engine import Policy
from mechreward.models.site import Site
from mechreward.probing.activations import Activations, record
from mechreward.rollouts.sample import sample
from mechreward.rollouts.trajectory import Rollouts, check_apart
from mechreward.rollouts.value import Values, estimate
from mechreward.tasks import Problem, Task

REPEATS = 5  # times that a set is looked for again


class Material(NamedTuple):
    """Problems by what is done with them; no two of the first three share one.

    Attributes
    ----------
    fit
        Of the training split: their states are fitted to.
    read
        Of the test split: their states are read and patched.
    steered
        Of the test split: they are answered under every steering.
    again
        Of the training split, one list for each time the set is looked for again: half as many as
        `fit`, drawn with another seed; lists may share problems where the task has few.
    passed_over
        How many problems were not taken because they were to be avoided.
    """

    fit: list[Problem]
    read: list[Problem]
    steered: list[Problem]
    again: list[list[Problem]]
    passed_over: int

    @property
    def all(self) -> list[Problem]:
        """Every problem."""
        return [*self.fit, *self.read, *self.steered, *chain.from_iterable(self.again)]


def deal(
    task: Task, sizes: dict[str, int], again: bool = False, avoid: Collection[str] = ()
) -> Material:
    """The problems of a certificate.

    Parameters
    ----------
    task : Task
        Where they come from.
    sizes : dict of str to int
        `train`, `test`, `n` and `seed` of `certify`.
    again : bool, default False
        Whether the set will be looked for again.
    avoid : collection of str, default ()
        `key_of` problems that are not to be taken.

    Raises
    ------
    MechRewardError
        The task has too few problems.
    """
    avoid, seed = set(avoid), sizes["seed"]
    passed = set()

    def fresh(split: str, n: int, seed: int) -> list[Problem]:
        asked = n
        while True:
            kept = []
            for problem in task.problems(split, asked, seed):
                if key_of(problem) in avoid:
                    passed.add(key_of(problem))
                else:
                    kept.append(problem)
            if len(kept) >= n:
                return kept[:n]
            asked += n - len(kept)

    fit = fresh("train", sizes["train"], seed)
    # A stream of their own: they overlap with a study's test problems by chance.
    tests = fresh("test", sizes["test"] + sizes["n"], stream("certificate", seed))
    read, steered = tests[: sizes["test"]], tests[sizes["test"] :]
    lists = []
    for repeat in range(REPEATS if again else 0):
        other = stream("certificate: again", seed, repeat)
        lists.append(fresh("train", -(-sizes["train"] // 2), other))
    check_apart(train=fit, test=read, steered=steered)
    return Material(fit, read, steered, lists, len(passed))


def key_of(problem: Problem) -> str:
    """A short name of a problem's prompt, the same on every machine."""
    return digest(problem.question)


def sample_states(
    model: Any,
    problems: Sequence[Problem],
    site: Site,
    k: int,
    seed: int,
    policy: Policy | None = None,
    progress: bool | str = False,
    rows: Any = "states",
) -> tuple[Rollouts, Values, Activations]:
    """Rollouts of problems, their values, and the activations of their states."""
    runs = sample(model, problems, seed=seed, policy=policy, progress=progress)
    values = estimate(model, runs, k=k, seed=seed, progress=under(progress, "values"))
    return runs, values, record(model, runs, site, rows=rows, progress=False)[site]
