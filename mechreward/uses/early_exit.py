"""Early exit: rollouts are stopped where a signal says how they will end.

validation = early_exit(model, problems, value=probe)
rule = fit_exit(validation, "value", alpha=0.1)
made = early_exit(model, others, rule, value=probe)
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from mechreward.base.errors import finite, of_kind, one_of, require, whole
from mechreward.models.checks import check_model
from mechreward.models.identity import model_id
from mechreward.models.policy import Policy
from mechreward.rollouts.trajectory import check_distinct, task_of
from mechreward.tasks import Problem
from mechreward.tasks.judge import check_problems
from mechreward.uses.exit_record import EarlyExit
from mechreward.uses.exit_rules import (
    ASKED,
    DIRECTIONS,
    Exit,
    ExitWarning,
    Points,
    check_alpha,
    check_rule,
    conformal_scores,
    conformal_threshold,
)
from mechreward.uses.exit_signals import FREE, Asker, Readers
from mechreward.uses.exit_watch import Watcher
from mechreward.uses.search.readouts import check_place
from mechreward.uses.search.search import Given


def early_exit(
    model: Any,
    problems: Sequence[Problem],
    rules: Exit | Sequence[Exit] = (),
    *,
    value: Given | Mapping[str, Given] | None = None,
    answers: bool = False,
    live: bool = False,
    block: int | None = None,
    seed: int = 0,
    policy: Policy | None = None,
    answer_tokens: int = 32,
    batch: int = 256,
    progress: bool | str = True,
) -> EarlyExit:
    """Answer every problem once, and stop where a rule says so.

    The rollouts are those of `sample` with the same seed. By default they are generated to their
    ends, and what stopping would have saved is counted: a stopped rollout is a prefix of the whole
    one. Live they are stopped indeed, with the same tokens and decisions. Signals are read in the
    generating pass. They are `value` (or the names given), `entropy`, `self_certainty` and
    `logprob` (means over all tokens so far), `length`, `random`, and of answers that are asked for
    early `confidence` (mean probability of the greedy answer's tokens, as DEER, arXiv 2504.15895)
    and `stability` (points in a row with one answer). All are turned so that more is better.

    Parameters
    ----------
    model : TransformerBridge or HookedTransformer
        The model that answers.
    problems : sequence of Problem
        Of one task, each once.
    rules : Exit or sequence of Exit, default none
        When to stop; of several, the first that is crossed does. Without any, all signals are
        kept, to set one with `fit_exit`.
    value : ValueProbe, NeuronSet or Readout, a mapping of names to such, or None, default None
        What reads a state. One alone is the signal `value`.
    answers : bool, default False
        Whether an answer is asked for at every point, which costs its tokens where a rule looks at
        it; implied by a rule on `confidence` or `stability`.
    live : bool, default False
        Whether to stop indeed. How a stopped rollout would have ended is then not known. Every step
        begins a batch of its own, which reads what there is anew.
    block : int or None, default None
        Tokens between points; None: points are ends of steps, as the task cuts them; 1: all tokens.
    seed : int, default 0
        Of the answers.
    policy : Policy or None, default None
        How tokens are drawn; the model's own distribution if None.
    answer_tokens : int, default 32
        Limit of an answer that is asked for.
    batch : int, default 256
        Rows decoded at once.
    progress : bool or str, default True
        Whether a bar is shown, or its title.

    Returns
    -------
    EarlyExit
        A rollout a problem.

    Raises
    ------
    MechRewardError
        Before any work: no problems, several tasks, a problem twice; a rule of another model,
        policy, block or read-out, or on a signal that is not read; a read-out that reads no states;
        a task without an answer prefix where answers are asked for.
    """
    check_model(model)
    identity = model_id(model)
    task = task_of(problems)
    check_distinct(problems)
    policy = Policy() if policy is None else policy
    of_kind("policy", policy, Policy)
    seed = whole("seed", seed)
    batch = whole("batch", batch, 1, "rows decoded at once")
    room = whole("answer_tokens", answer_tokens, 1, "tokens of an early answer")
    if block is not None:
        block = whole("block", block, 1, "tokens between points")
    readers = Readers(value)
    for readout in readers.by_name.values():
        check_place(readout, identity, model)
    of_kind("rules", rules, (Exit, list, tuple), "set one with fit_exit")
    given = (rules,) if isinstance(rules, Exit) else tuple(rules)
    for rule in given:
        of_kind("every rule", rule, Exit, "set one with fit_exit")
        known = [*readers.names, *FREE, *ASKED]
        require(
            rule.signal in known or bool(readers.names),
            f"the rule looks at {rule.signal!r}: give value= what reads it.",
        )
        one_of("signal (value= gives what reads states)", rule.signal, known)
        check_rule(rule, identity, policy, block, readers.marks)
    if task.verifies:
        check_problems(task, problems)
    every = answers or any(rule.asks for rule in given)
    asker = None
    if every or any(rule.direction == "above" for rule in given):
        asker = Asker(model, task, room, batch)
    watcher = Watcher(
        model,
        problems,
        task,
        readers,
        asker,
        policy=policy,
        block=block,
        seed=seed,
        batch=batch,
    )
    if live:
        watcher.live(given, every, progress)
    else:
        watcher.whole(given, every, progress)
    points = watcher.points()
    stopped = [False] * len(problems)
    if live:
        stopped = watcher.stopped(given)
    rollouts = watcher.rollouts(stopped, identity)
    return EarlyExit(given, rollouts, points, live, block, readers.marks, task.verifies)


def fit_exit(
    validation: EarlyExit,
    signal: str = "value",
    *,
    direction: str = "below",
    alpha: float | None = None,
    tolerance: float = 0.02,
) -> Exit:
    """Set the threshold of a rule on validation rollouts.

    With `alpha` the threshold is conformal: a rollout's score is the extremum of the signal over
    all points at which stopping would lose a correct answer (below: all; above: those whose forced
    answer is wrong), and the threshold their floor(alpha (n + 1))-th smallest among the n rollouts
    that ended correct. For exchangeable problems P(answer lost | would have ended correct) <= alpha
    (split conformal; LYNX, arXiv 2512.05325, bounds its exits so).

    Without, the threshold saves the most tokens among those (at most 200 quantiles) at which
    accuracy on validation, abandoned rollouts counted as wrong, falls by `tolerance` at most. This
    is our choice: a tolerance says what may be paid, which accuracy a token does not: it is best
    where nearly all is given up. It promises nothing about other problems.

    Parameters
    ----------
    validation : EarlyExit
        Whole rollouts, one a problem; for `direction="above"` with answers.
    signal : str, default "value"
        What the rule looks at.
    direction : {"below", "above"}, default "below"
        Which side stops.
    alpha : float or None, default None
        The rate of lost answers to promise, in (0, 1).
    tolerance : float, default 0.02
        How far accuracy may fall, where no `alpha` is given.

    Returns
    -------
    Exit
        For rollouts of the same model, policy, block and read-out.

    Raises
    ------
    MechRewardError
        Live rollouts, no verifier, no correct rollout, an unknown signal, answers that were not
        asked for, alpha outside (0, 1), or a tolerance that is negative.

    Warns
    -----
    ExitWarning
        So few rollouts ended correct that alpha can only be promised by stopping none.
    """
    of_kind("validation", validation, EarlyExit, "what early_exit gives without rules")
    one_of("direction", direction, DIRECTIONS)
    if alpha is not None:
        check_alpha(alpha)
    require(finite("tolerance", tolerance) >= 0, f"tolerance is 0 or more; {tolerance} was given.")
    validation.need_whole("a threshold")
    validation.need_answers(direction)
    validation.points.signal(signal)
    runs = validation.rollouts
    right = validation.full_reward == 1
    require(
        bool(right.any()),
        f"none of {len(runs)} validation rollouts ended correct: nothing says what may be stopped.",
    )
    place = {
        "block": validation.block,
        "policy": runs.policy,
        "model_id": runs.model_id,
        "mark": validation.marks.get(signal, ""),
    }
    if alpha is None:
        curve = validation.curve(signal, direction)
        enough = (curve["accuracy"] >= right.mean() - tolerance - 1e-12).to_numpy()
        saved = curve["saved"].to_numpy()[enough]
        # The first of the best: of those that save the same, the one that stops the least.
        threshold = float(curve["threshold"].to_numpy()[enough][int(np.argmax(saved))])
        n = len(runs)
        return Exit(
            signal, threshold, direction, "validation", tolerance=float(tolerance), n=n, **place
        )
    scores = conformal_scores(validation.points, signal, direction, len(runs))[right]
    threshold = conformal_threshold(scores, alpha)
    if direction == "above":
        threshold = -threshold
    n = len(scores)
    rule = Exit(signal, threshold, direction, "conformal", alpha=float(alpha), n=n, **place)
    if rule.idle:
        warnings.warn(
            f"{n} correct rollouts promise no rate of {alpha:g}, for which "
            f"{math.ceil(1 / alpha - 1 - 1e-9)} are needed: the rule stops nothing.",
            ExitWarning,
            stacklevel=2,
        )
    return rule


__all__ = ["EarlyExit", "Exit", "ExitWarning", "Points", "early_exit", "fit_exit"]
