"""Search algorithms: what to continue, and which answer to take.

None of them costs more than its purse: before every round it asks for no more continuations than
the purse pays for at their longest, so that the best beam can always be finished.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Generator, Hashable, Sequence

import numpy as np
from scipy.stats import beta

from mechreward.uses.search.tree import Ask, Node, Options, Plan, Purse

Algorithm = Callable[[Node, Options, Purse], Plan]
SURE = 0.95  # that the leading answer stays in front (Aggarwal et al., arXiv 2305.11860)
LEAST_VOTES = 3  # before adaptive self-consistency may stop (our choice)


def greedy(root: Node, options: Options, purse: Purse) -> Plan:
    """One answer at temperature 0."""
    ((answer,),) = yield [Ask(root, 1, whole=True, greedy=True)]
    return answer


def random_of_k(root: Node, options: Options, purse: Purse) -> Plan:
    """`k` answers, of which chance takes one: what the tokens of best-of-N buy without a scorer."""
    answers = yield from _answers(root, options.k, purse)
    return min(answers, key=lambda node: (node.tie, node.path))


def best_of_n(root: Node, options: Options, purse: Purse) -> Plan:
    """`k` answers, of which the scorer takes one."""
    answers = yield from _answers(root, options.k, purse)
    return options.ranked(answers)[0]


def weighted(root: Node, options: Options, purse: Purse) -> Plan:
    """`k` answers: those that agree pool their weights; the best of the heaviest group is taken.

    Weights are the scores where these are probabilities, clipped to [0, 1]; else a softmax of the
    scores (our choice: no sum of scores of either sign means anything).
    """
    answers = yield from _answers(root, options.k, purse)
    scores = np.array([options.score(node) for node in answers])
    weights = np.clip(scores, 0, 1) if options.bounded else np.exp(scores - scores.max())
    return _elected(answers, weights.tolist(), options)


def majority(root: Node, options: Options, purse: Purse) -> Plan:
    """`k` answers, one vote each (self-consistency, arXiv 2203.11171)."""
    answers = yield from _answers(root, options.k, purse)
    return _elected(answers, [1.0] * len(answers), options, scored=False)


def adaptive(root: Node, options: Options, purse: Purse) -> Plan:
    """Answers one by one, at most `k`, until the leading one is sure to stay in front.

    Adaptive self-consistency (arXiv 2305.11860): the probability, under a uniform prior, that the
    first answer is likelier than the second is at least .95.
    """
    answers: list[Node] = []
    while len(answers) < options.k and purse.affords(root.left):
        some = LEAST_VOTES if not answers else 1
        count = min(some, options.k - len(answers), purse.affords(root.left))
        (more,) = yield [Ask(root, count, first=len(answers), whole=True)]
        answers += more
        if len(answers) >= LEAST_VOTES and _settled(answers, options):
            break
    return _elected(answers, [1.0] * len(answers), options, scored=False)


def beam(root: Node, options: Options, purse: Purse) -> Plan:
    """`k` candidates of the next step of every beam, of all of which `width` are kept.

    With width 1 it is the paper's search. Candidates that say the same take one place. A finished
    beam keeps its place as long as its score does; in the end the best of all that were finished is
    taken, not the first.
    """
    beams, finished = [root], list[Node]()
    while any(not node.ended for node in beams):
        growing, count = _affordable(beams, options, purse)
        if beams == [root]:  # all beams begin here
            count = min(count * options.width, purse.affords(root.left))
        children = yield [Ask(node, count) for node in growing]
        candidates = [node for node in beams if node.ended]
        for some in children:
            candidates += some
            finished += [node for node in some if node.ended]
        beams = options.distinct(candidates)[: options.width]
    return options.ranked([*finished, *beams])[0]


def diverse(root: Node, options: Options, purse: Purse) -> Plan:
    """`width` trees that know nothing of each other, each with `k` candidates a step and one beam
    (diverse verifier tree search): more breadth than `beam` for the same tokens."""
    total = options.k * options.width
    count = max(1, min(total, purse.affords(root.left)))
    (first,) = yield [Ask(root, count)]
    trees = [first[start : start + options.k] for start in range(0, count, options.k)]
    beams = [options.ranked(tree)[0] for tree in trees]
    finished = [node for node in first if node.ended]
    while any(not node.ended for node in beams):
        growing, count = _affordable(beams, options, purse)
        children = yield [Ask(node, count) for node in growing]
        beams = [node for node in beams if node.ended]
        for some in children:
            beams.append(options.ranked(some)[0])
            finished += [node for node in some if node.ended]
    return options.ranked([*finished, *beams])[0]


def particles(root: Node, options: Options, purse: Purse) -> Plan:
    """`k` particles: after every step they are drawn anew, the better the likelier.

    Particle filtering (arXiv 2502.01618), systematic resampling. Weights are a softmax of the
    scores over their standard deviation, so that the scorer's unit does not matter (our choice).
    """
    count = max(1, min(options.k, purse.affords(root.left)))
    (cloud,) = yield [Ask(root, count)]
    round_ = 0
    while any(not node.ended for node in cloud):
        cloud = _resampled(cloud, options, round_)
        growing = [node for node in cloud if not node.ended]
        while growing and purse.left < sum(node.left for node in growing):
            growing.remove(options.ranked(growing)[-1])
        cloud = [node for node in cloud if node.ended]
        if growing:
            asks = _together(growing)
            for some in (yield asks):
                cloud += some
        round_ += 1
    return options.ranked(cloud)[0]


ALGORITHMS: dict[str, Algorithm] = {
    "greedy": greedy,
    "random": random_of_k,
    "best_of_n": best_of_n,
    "weighted": weighted,
    "majority": majority,
    "adaptive": adaptive,
    "beam": beam,
    "diverse": diverse,
    "particles": particles,
}
VOTES = ("weighted", "majority", "adaptive")  # need answers that can be compared
UNSCORED = ("greedy", "random", "majority", "adaptive")  # look at no score
WHOLE = ("greedy", "random", "best_of_n", "weighted", "majority", "adaptive")  # no steps


def _answers(
    root: Node, k: int, purse: Purse
) -> Generator[list[Ask], list[list[Node]], list[Node]]:
    """`k` whole answers, or as many as the purse pays for."""
    answers: list[Node] = []
    while len(answers) < k and purse.affords(root.left):
        count = min(k - len(answers), purse.affords(root.left))
        (more,) = yield [Ask(root, count, first=len(answers), whole=True)]
        answers += more
    return answers


def _affordable(beams: Sequence[Node], options: Options, purse: Purse) -> tuple[list[Node], int]:
    """The beams that can go on, best first, and how many candidates of each can be paid for."""
    growing = options.ranked([node for node in beams if not node.ended])
    while len(growing) > 1 and not purse.affords(sum(node.left for node in growing)):
        growing.pop()
    count = purse.affords(sum(node.left for node in growing))
    return growing, max(1, min(options.k, count))


def _elected(
    answers: Sequence[Node], weights: Sequence[float], options: Options, scored: bool = True
) -> Node:
    """The first of the heaviest group. What gives no answer has no vote, unless nothing does."""
    groups: dict[Hashable, list[Node]] = defaultdict(list)
    heavy: dict[Hashable, float] = defaultdict(float)
    for node, weight in zip(answers, weights, strict=True):
        answer = options.answer(node)
        groups[answer].append(node)
        heavy[answer] += weight
    if len(groups) > 1:
        groups.pop(None, None)

    def rank(answer: Hashable) -> tuple[float, float]:
        return -heavy[answer], min(node.tie for node in groups[answer])

    members = groups[min(groups, key=rank)]
    if scored:
        return options.ranked(members)[0]
    return min(members, key=lambda node: (node.tie, node.path))


def _settled(answers: Sequence[Node], options: Options) -> bool:
    """Whether the leading answer is sure to stay in front of the second."""
    votes: dict[Hashable, int] = defaultdict(int)
    for node in answers:
        answer = options.answer(node)
        if answer is not None:
            votes[answer] += 1
    first, second = (*sorted(votes.values(), reverse=True), 0, 0)[:2]
    return bool(beta.sf(0.5, first + 1, second + 1) >= SURE)


def _resampled(cloud: Sequence[Node], options: Options, round_: int) -> list[Node]:
    scores = np.array([options.score(node) for node in cloud])
    spread = scores.std()
    weights = np.exp((scores - scores.max()) / spread) if spread > 0 else np.ones(len(cloud))
    levels = (np.arange(len(cloud)) + options.uniform(round_)) / len(cloud)
    drawn = np.searchsorted(np.cumsum(weights / weights.sum()), levels, side="right")
    return [cloud[min(int(i), len(cloud) - 1)] for i in drawn]


def _together(nodes: Sequence[Node]) -> list[Ask]:
    """One ask for each node, however often it is there."""
    counts: dict[tuple[int, ...], int] = defaultdict(int)
    known: dict[tuple[int, ...], Node] = {}
    for node in nodes:
        counts[node.path] += 1
        known[node.path] = node
    return [Ask(node, counts[path]) for path, node in known.items()]
