"""Procedural tasks of reasoning-gym."""

from __future__ import annotations

import random
from typing import Any, ClassVar

from mechreward.base.errors import MechRewardError, one_of, whole
from mechreward.base.streams import stream
from mechreward.tasks.answers import last_line
from mechreward.tasks.base import SILENT, UNFINISHED, Problem, Task, Verdict

RIGHT = 0.999  # score from which an answer counts as right: partial credit is none
# Data sets of 0.1.25 whose entries come back from their seed in another process, whose own answers
# are one line and score 1, and whose spoiled answers do not (37 others fail one of these, 5 the
# first).
DATA_SETS = tuple(
    """
    ab acre aiw arc_1d base_conversion basic_arithmetic bf binary_alternation
    bitwise_arithmetic caesar_cipher calendar_arithmetic chain_sum circuit_logic codeio
    color_cube_rotation complex_arithmetic count_bits count_primes countdown course_schedule
    cryptarithm decimal_chain_sum dice emoji_mystery family_relationships figlet_font
    game_of_life gcd group_anagrams gsm_symbolic jugs largest_island lcm leg_counting
    letter_counting letter_jumble mahjong_puzzle maze needle_haystack number_filtering
    number_sequence number_sorting palindrome_generation palindrome_partitioning path_star
    products puzzle24 rectangle_count rotten_oranges self_reference sentence_reordering
    shortest_path simple_equations simple_geometry spiral_matrix string_insertion
    string_manipulation string_splitting string_synthesis syllogism tsumego
    word_sequence_reversal word_sorting zebra_puzzles
    """.split()
)


class Gym(Task):
    """A data set of reasoning-gym: problems without end, scored by its own rule.

    In many of them any valid answer counts (a route, a set of numbers), and nothing tells which:
    there is no `answer` by which texts could be compared.

    Parameters
    ----------
    data_set : str
        One of `DATA_SETS`.
    max_tokens : int, default 512
        Limit of an answer.
    **config
        Of the data set, such as its difficulty.

    Raises
    ------
    MechRewardError
        reasoning-gym is not installed, another name, or a config that it does not take.
    """

    SYSTEM: ClassVar[str] = (
        "Reason step by step, and end with a line Answer: and your answer alone."
    )

    def __init__(self, data_set: str, max_tokens: int = 512, **config: Any) -> None:
        try:
            import reasoning_gym  # pyright: ignore[reportMissingImports]
        except ImportError as error:
            raise MechRewardError(
                "this task needs reasoning-gym: pip install reasoning-gym."
            ) from error
        one_of("data set of reasoning-gym", data_set, DATA_SETS)
        self.name = f"gym-{data_set}"
        self.max_tokens = whole("max_tokens", max_tokens, 1)
        self.config = config
        self.data_set = data_set
        self._create = reasoning_gym.create_dataset
        self._scorer = self._made(0)

    def _made(self, seed: int) -> Any:
        try:
            return self._create(self.data_set, seed=seed, size=1, **self.config)
        except (TypeError, ValueError, AssertionError) as error:
            raise MechRewardError(
                f"{self.data_set} does not take {self.config}: {error}"
            ) from error

    def draw(self, rng: random.Random) -> Problem | None:
        entry = self._made(stream("reasoning-gym", rng.getrandbits(62)) % 2**31)[0]
        question = str(entry["question"])
        messages = (
            {"role": "system", "content": self.SYSTEM},
            {"role": "user", "content": question},
        )
        info = {"entry": {"answer": entry["answer"], "metadata": entry["metadata"]}}
        return Problem(f"{self.name} {question}", messages, str(entry["answer"]), info)

    def solve(self, problem: Problem) -> str:
        return f"Answer: {problem.answer}"

    def verify(self, problem: Problem, text: str) -> Verdict:
        if not text.strip():
            return SILENT
        given = last_line(text)
        if not given:
            return UNFINISHED
        entry = {"question": problem.question, **problem.info["entry"]}
        score = float(self._scorer.score_answer(answer=given, entry=entry))
        return Verdict("correct") if score >= RIGHT else Verdict("incorrect", f"score {score:g}")
