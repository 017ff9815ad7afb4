"""How much every stage asks of the model, counted before it is run. Some stages stop by themselves:
they have a least and a most."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, fields
from math import ceil

from mechreward.causal.certificate import READERS
from mechreward.causal.effect import OPS
from mechreward.causal.material import REPEATS
from mechreward.causal.trials import STRONGER
from mechreward.experiments.ablation_beside import FEW
from mechreward.experiments.choice import KINDS
from mechreward.experiments.doses import DOSES, TEXTS
from mechreward.experiments.doses import OPS as DOSED
from mechreward.experiments.patching import PATCHED
from mechreward.experiments.search import ANSWERS, CANDIDATES, SEEDS
from mechreward.experiments.siblings import STATES as SIBLING_STATES
from mechreward.experiments.split import SHARES
from mechreward.experiments.steering import PLACES, STRENGTHS
from mechreward.experiments.steering_run import CURVE
from mechreward.probing.targets import TARGETS
from mechreward.studies.stages import STEERED
from mechreward.tasks import GAMES
from mechreward.uses.confidence.read_outs import FEW as FEW_READ

RANKINGS = 12  # sets of other rankings, their draws counted (`experiments.ablation_beside.rivals`)
RIVALS = 2  # in a certificate: next token and magnitude
CLEAN = 32  # texts of the damage meter
SEARCHES = 9  # at most, for the strength that has a wanted KL
MIDDLES = 24  # states in the middle of answers that are steered
ONWARD = 4  # continuations of each of these, and of a patched state
PAIRS = 30  # of patched states, in the paper's experiments
FIRST = 5  # matched sets that every certificate steers


@dataclass(frozen=True)
class Work:
    """What is asked of the model, and of the probes.

    Attributes
    ----------
    answers : int | float
        Whole answers that are written.
    prompts : int | float
        Prompts that are read for them.
    onward : int | float
        Continuations from states in the middle of answers.
    reads : int | float
        Prompts with their answers, that are read.
    fits : int | float
        Fits of the paper's probe.
    """

    answers: int | float = 0
    prompts: int | float = 0
    onward: int | float = 0
    reads: int | float = 0
    fits: int | float = 0

    def __add__(self, other: Work) -> Work:
        sums = {}
        for field in fields(self):
            sums[field.name] = getattr(self, field.name) + getattr(other, field.name)
        return Work(**sums)


Span = tuple[Work, Work]  # at least, at most


@dataclass(frozen=True)
class Sizes:
    """Counts of a plan, by its names; and `states`, those of an answer that are valued, `sites`,
    those looked at, and the task's name."""

    train: int
    validation: int
    test: int
    k: int
    ablated: int
    confidence: int
    searched: int
    draws: int
    random_draws: int
    curve_draws: int
    states: int | float
    sites: int
    task: str

    @property
    def steered(self) -> int:
        """Problems that sets are steered on."""
        return min(self.ablated, STEERED)


def total(spans: Iterable[Span]) -> Span:
    """The sum of all."""
    least = most = Work()
    for lower, upper in spans:
        least, most = least + lower, most + upper
    return least, most


def both(work: Work) -> Span:
    """What is known: the least is the most."""
    return work, work


def arms(count: int | float, problems: int) -> Work:
    """All problems answered under so many edits; every arm reads the prompts for itself."""
    return Work(
        answers=count * problems,
        prompts=count * problems,
    )


def valued(problems: int | float, k: int, states: int | float) -> Work:
    """Answers, V-hat of their states, and their activations."""
    return Work(
        answers=problems, prompts=problems, onward=problems * states * k, reads=2 * problems
    )


def splits(sizes: Sizes) -> Span:
    """Rollouts, values and activations of a study, and the choice of layers."""
    problems = sizes.train + sizes.validation + sizes.test
    return both(
        valued(
            problems,
            sizes.k,
            sizes.states,
        )
        + Work(fits=_grid(sizes))
    )


def ablation(problems: int, ops: int, draws: int, random_draws: int) -> Span:
    """`ablate`: the baseline, then a set and its controls under every operation; the damage meter
    reads a few clean answers under each."""
    count = ops * (1 + draws + 2 * random_draws)
    meter = Work(
        reads=problems + min(CLEAN, problems) * (1 + count),
    )
    return both(
        arms(
            1,
            problems,
        )
        + arms(
            count,
            problems,
        )
        + meter
    )


def certificate(sizes: Mapping[str, int], states: int | float, again: bool) -> dict[str, Span]:
    """The stages of `certify`; `again` says whether the set is looked for again."""
    train, test, k, n = (sizes[name] for name in ("train", "test", "k", "n"))
    parts = {
        "states": both(
            valued(
                train + test,
                k,
                states,
            )
        )
    }
    # The model as it is, the set, its rivals, two ablations, and matched sets, some of them twice.
    few = min(FIRST, sizes["draws"])
    least = 1 + 2 + 2 * RIVALS + 2 + 2 * few
    most = least + 2 * (RIVALS + STRONGER) + 2 * (sizes["draws"] - few) + 2 * READERS
    meters = 2 * (1 + RIVALS + STRONGER)
    texts = min(CLEAN, train)
    parts["steering"] = (
        arms(
            least,
            n,
        )
        + Work(reads=texts * (1 + meters) + train),
        arms(
            most,
            n,
        )
        + Work(reads=texts * (1 + meters + 2 * SEARCHES * (RIVALS + STRONGER)) + train),
    )
    # States as they are, with the set, the whole site and matched sets; and like states, twice.
    pairs = min(sizes["pairs"], test)
    parts["patching"] = (
        Work(),
        Work(
            onward=pairs * k * (3 + FIRST + 2),
            reads=2 * pairs,
        ),
    )
    if again:
        half = ceil(train / 2)
        found = valued(
            REPEATS * half,
            k,
            states,
        ) + Work(fits=REPEATS)
        parts["found again"] = both(found)
    return parts


def finding(train: int, validation: int, k: int, states: int | float, sites: int) -> Span:
    """A set is chosen: layer and share on validation."""
    fits = Work(fits=sites * (1 + len(SHARES)) + 1)
    return both(
        valued(
            train + validation,
            k,
            states,
        )
        + fits
    )


def _value_probe(sizes: Sizes) -> Span:
    kinds = len(KINDS)
    several = Work(
        answers=4 * sizes.test,
        prompts=sizes.test,
        reads=kinds * 4 * sizes.test,
    )
    others = Work(
        reads=kinds * (2 * sizes.train + sizes.test),
        fits=kinds * 8,
    )
    return both(several + others)


def _pruning(sizes: Sizes) -> Span:
    """Of both shapes of probe."""
    fits = 2 * len(KINDS) * _curve(sizes)
    return both(
        Work(
            reads=len(KINDS) * sizes.train,
            fits=fits,
        )
    )


def _curve(sizes: Sizes) -> int:
    """Fits of a pruning curve: at every ratio a ranking, and draws of its controls."""
    return 14 * (1 + 4 * sizes.curve_draws)


def _layers(sizes: Sizes) -> Span:
    """On test; that on validation, where layers are chosen, is not counted again."""
    return both(Work(fits=_grid(sizes)))


def _grid(sizes: Sizes) -> int:
    """Fits of the probe at every site, to all neurons and to those of every share."""
    return sizes.sites * (1 + len(SHARES))


def _ablation(sizes: Sizes) -> Span:
    _, own = ablation(sizes.ablated, len(OPS), sizes.draws, sizes.random_draws)
    kinds = len(KINDS)
    every = [(own, own)] * kinds
    every += [
        both(
            arms(
                1 + RANKINGS,
                sizes.ablated,
            )
            + Work(fits=1)
        )
    ] * kinds
    if sizes.task in GAMES:
        few = arms(
            2 + min(FEW, sizes.draws),
            sizes.ablated,
        )
        most = arms(
            2 + sizes.draws,
            sizes.ablated,
        )
        every += [(few, most)] * (kinds * (len(GAMES) - 1))
    layers = sizes.sites / kinds - 1
    repair = []
    for controls in (min(FEW, sizes.draws), sizes.draws):
        reads = layers * ((1 + controls) * sizes.test + sizes.train)
        repair.append(
            Work(
                reads=reads,
                fits=2 * layers,
            )
        )
    every += [(repair[0], repair[1])] * kinds
    return total(every)


def _targets(sizes: Sizes) -> Span:
    count = 1 + len(TARGETS) + 1
    one = arms(
        count,
        sizes.ablated,
    ) + Work(
        fits=count - 1,
        reads=sizes.train,
    )
    return total([both(one)] * len(KINDS))


def _next_token(sizes: Sizes) -> Span:
    return both(
        Work(
            reads=len(KINDS) * sizes.train,
            fits=len(KINDS),
        )
    )


def _confidence(sizes: Sizes) -> Span:
    """The set, and as many matched and random ones, each read in the middle and at the end of
    answers; and the whole site."""
    sets = 1 + 2 * sizes.draws
    return both(
        arms(
            1,
            sizes.confidence,
        )
        + Work(
            reads=3 * (sizes.confidence + sizes.train) + min(FEW_READ, sizes.train),
            fits=2 * (sets + 1),
        )
    )


def _td_error(sizes: Sizes) -> Span:
    refits = _curve(sizes) + sizes.sites / len(KINDS)
    reads = len(KINDS) * (sizes.train + sizes.test)
    return both(
        Work(
            reads=reads,
            fits=len(KINDS) * refits,
        )
    )


def _single_neuron(sizes: Sizes) -> Span:
    return both(Work(reads=len(KINDS) * sizes.train))


def _dependence(sizes: Sizes) -> Span:
    layers = sizes.sites / len(KINDS)
    reads = len(KINDS) * sizes.test * (1 + sizes.draws)
    return both(
        Work(
            reads=reads,
            fits=len(KINDS) * (2 * layers - 1),
        )
    )


def _search(sizes: Sizes) -> Span:
    """Beams by eight scorers, chance and log-probability, three seeds each; answers that all choose
    among; the greedy one; and continuations of sibling steps. A beam reads the prompt, and what it
    has so far, at every step."""
    arms_, seeds = 10, len(SEEDS)
    steps = Work(
        answers=seeds * arms_ * CANDIDATES * sizes.searched,
        prompts=seeds * arms_ * sizes.states * sizes.searched,
    )
    whole = Work(answers=(seeds * ANSWERS + 1) * sizes.searched, prompts=seeds * sizes.searched)
    reads = Work(reads=3 * sizes.train, fits=2)
    states = min(SIBLING_STATES, sizes.searched)
    siblings = Work(answers=states, prompts=states, onward=states * CANDIDATES * sizes.k)
    return both(steps + whole + reads + siblings)


def _early_exit(sizes: Sizes) -> Span:
    """Where the task says how an answer begins, one is asked for at every state besides."""
    problems = sizes.validation + sizes.confidence
    few = arms(1, problems) + Work(fits=1, reads=sizes.train)
    return few, few + Work(onward=problems * sizes.states)


def _transfer(sizes: Sizes) -> Span:
    return both(
        Work(
            reads=3 * len(KINDS) * (sizes.train + sizes.test),
            fits=2 * len(KINDS),
        )
    )


def _steering(sizes: Sizes) -> Span:
    """Value and dopamine neurons with their matched sets, and random ones."""
    places, strengths = len(PLACES), len(STRENGTHS)
    tried = min(CURVE, sizes.draws)
    few = 1 + 2 * (places * strengths + tried * strengths) + 2 * 2 * sizes.random_draws
    most = few + 2 * places * strengths * sizes.draws
    middles = min(MIDDLES, sizes.train)
    onward = ONWARD * middles * (1 + 2 * strengths + 4 * tried + 4 * sizes.random_draws)
    meters = 2 * strengths + 4 * tried + 4 * sizes.random_draws
    steering = Work(
        onward=onward,
        reads=min(CLEAN, sizes.train) * (1 + meters) + 3 * sizes.train,
    )
    damage = (2 * 2 * (1 + tried), 2 * 2 * (1 + sizes.draws))
    searches = Work(reads=TEXTS * 2 * SEARCHES * 4 * tried)
    doses = len(DOSES) * len(DOSED)
    share = (1 + doses * (1 + tried), 1 + doses * (1 + sizes.draws))
    least = (
        arms(
            few + damage[0] + share[0],
            sizes.steered,
        )
        + steering
    )
    upper = (
        arms(
            most + damage[1] + share[1],
            sizes.steered,
        )
        + steering
        + searches
    )
    pairs = min(PAIRS, sizes.test)
    # Two sets both ways: states as they are, with the set, the whole site and matched sets; and
    # like states, twice. How many pairs there are, the values say.
    rows = 2 * 2 * ONWARD * pairs
    few_pairs = Work(
        onward=rows / 2 * (5 + min(PATCHED, sizes.draws)),
        reads=2 * pairs,
    )
    patching = Work(
        onward=rows * (5 + sizes.draws),
        reads=4 * pairs,
    )
    return total([(least + few_pairs, upper + patching)] * len(KINDS))


def _by_layer(sizes: Sizes) -> Span:
    one = ablation(sizes.ablated, 1, sizes.draws, sizes.random_draws)
    fit = both(Work(fits=1))
    return total([one, fit] * sizes.sites)


def _certificate(sizes: Sizes) -> Span:
    """With the sizes of `certify` itself."""
    own = {"train": 80, "test": 80, "k": 16, "n": 200, "draws": 99, "pairs": 60}
    one = total(certificate(own, sizes.states, again=True).values())
    return total([one] * len(KINDS))


EXPERIMENTS: Mapping[str, Callable[[Sizes], Span]] = {
    "R1": _value_probe,
    "R2": _pruning,
    "R3": _layers,
    "R4": _ablation,
    "R5": _targets,
    "R6": _next_token,
    "R7": _confidence,
    "R8": _td_error,
    "R9": _single_neuron,
    "R10": _dependence,
    "R11": _search,
    "R12": _transfer,
    "R13": lambda sizes: both(Work()),
    "R14": _steering,
    "early_exit": _early_exit,
    "ablation_by_layer": _by_layer,
    "certificate": _certificate,
}
