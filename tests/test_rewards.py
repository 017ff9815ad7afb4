"""Rewards of TRL and tasks of verifiers, as the installed packages have them."""

from __future__ import annotations

import asyncio

import pytest
from trl.rewards import accuracy_reward
from verifiers import v1

from mechreward.base.errors import MechRewardError
from mechreward.tasks import TextTask, validate
from mechreward.tasks.rewards import taskset, trl_reward

ROWS = [{"question": f"What is {n} and {n}?", "solution": f"${2 * n}$"} for n in range(1, 40)]


def sums(check) -> TextTask:
    return TextTask(ROWS, answer="solution", verify=check, name="sums")


def test_a_reward_function_of_trl_verifies():
    task = sums(trl_reward(accuracy_reward, conversation=True))
    for problem in task.problems("test", 4):
        right = f"It is $\\boxed{{{problem.answer.strip('$')}}}$."
        assert task.verify(problem, right).reward == 1
        assert task.verify(problem, r"It is $\boxed{1000}$.").outcome == "incorrect"


def test_what_a_reward_function_is_given():
    given = []

    def reward(prompts, completions, solution, **columns):
        given.append((prompts, completions, solution, columns))
        return [float(completions[0] == solution[0])]

    task = sums(trl_reward(reward))
    (problem,) = task.problems("test", 1)
    assert task.verify(problem, problem.answer).reward == 1
    ((prompts, completions, solution, columns),) = given
    assert prompts == [problem.prompt] == columns["question"]
    assert completions == solution == [problem.answer]


@pytest.mark.parametrize(
    ("returned", "said"),
    [
        (1.0, "a list with a reward for each completion; 1.0 was returned"),
        ([1.0, 0.0], "for each completion"),
        ([None], "not its kind of problem"),
    ],
)
def test_reward_functions_that_return_something_else(returned, said: str):
    task = sums(trl_reward(lambda **_: returned))
    (problem,) = task.problems("test", 1)
    with pytest.raises(MechRewardError, match=said) as caught:
        task.verify(problem, "4")
    assert "\n" not in str(caught.value)


class Data(v1.TaskData):
    answer: str = ""


class Sum(v1.Task):
    """Add up; the last word is read."""

    @v1.reward
    async def right(self, task: Data, trace: v1.Trace) -> float:
        words = (trace.nodes[-1].message.content or "").split()
        return float(bool(words) and words[-1] == task.answer)


class Sums(v1.Taskset[Sum, v1.TasksetConfig]):
    """Tasks of two kinds of prompt."""

    def load(self):
        for n in range(1, 41):
            text = f"What is {n} and {n}?"
            prompt = text if n % 2 else [v1.UserMessage(content=text)]
            system = "Say a number." if n % 3 else None
            yield Sum(Data(prompt=prompt, answer=str(2 * n), system_prompt=system))


def test_a_taskset_of_verifiers_is_a_task():
    tasks = Sums(v1.TasksetConfig())
    task = taskset(tasks, name="sums")
    assert len(task.rows) == 40
    for problem in task.problems("test", 3):
        n = int(problem.prompt[-1]["content"].split()[2])
        assert problem.prompt[-1] == {"role": "user", "content": f"What is {n} and {n}?"}
        assert (problem.prompt[0]["role"] == "system") == bool(n % 3)
        assert task.verify(problem, f"it is {2 * n}").reward == 1
        assert task.verify(problem, f"it is {2 * n + 1}").outcome == "incorrect"
    told = validate(task)
    assert told.passed, str(told)


def test_problems_go_by_the_names_of_the_taskset():
    """So that its traces find them."""
    named = [Sum(Data(prompt=f"{n}?", answer=str(n), id=f"sum-{n}")) for n in range(30)]
    task = taskset(named)
    assert {problem.id for problem in task.rows} == {f"sum-{n}" for n in range(30)}
    alike = [Sum(Data(prompt=f"{n}?", answer=str(n), name="sum")) for n in range(30)]
    assert len({problem.id for problem in taskset(alike).rows}) == 30


def test_it_is_scored_where_an_event_loop_runs_already():
    """As in a notebook."""
    task = taskset([Sum(Data(prompt=f"{n}?", answer=str(n))) for n in range(30)])
    problem = task.rows[0]

    async def cell() -> int:
        return task.verify(problem, f"it is {problem.answer}").reward

    assert asyncio.run(cell()) == 1


class Boxed(Sum):
    NEEDS_CONTAINER = True


class Elsewhere(v1.Task):
    @v1.reward
    async def right(self, trace: v1.Trace, runtime) -> float:
        return 1.0


def test_tasks_that_need_more_than_a_text_are_refused():
    with pytest.raises(MechRewardError, match="task 0 needs a container"):
        taskset([Boxed(v1.TaskData(prompt="?"))])
    picture = v1.ImageUrlContentPart(image_url={"url": "data:image/png;base64,"})
    for prompt in (None, "", [v1.UserMessage(content=[picture])]):
        with pytest.raises(MechRewardError, match="task 0 has no prompt of text alone"):
            taskset([Sum(Data(prompt=prompt))])
    endless = Sums(v1.TasksetConfig())
    endless.INFINITE = True
    with pytest.raises(MechRewardError, match="the taskset has no end"):
        taskset(endless)
    task = taskset([Elsewhere(v1.TaskData(prompt=f"q {n}")) for n in range(40)])
    (problem,) = task.problems("test", 1)
    with pytest.raises(MechRewardError, match="cannot be had from the text alone"):
        task.verify(problem, "4")
