"""What an ablation does, beside every control: paired accuracies, ranks among matched draws, the
damage meter."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int

from mechreward import stats
from mechreward.base.errors import MechRewardError, of_kind, one_of, require, whole
from mechreward.base.files import read_json, write_json
from mechreward.base.progress import bar, tell, under
from mechreward.causal.controls import MATCHED, Control, matched, random, sinks
from mechreward.causal.intervene import OPS, Intervention, mean, resample, zero
from mechreward.models.ability import evaluation
from mechreward.models.bins import length_bins
from mechreward.models.engine import Policy
from mechreward.models.fast_pass import LeanPass
from mechreward.models.finite import check_logits, row_name
from mechreward.models.identity import ModelId
from mechreward.models.load import device_of
from mechreward.models.shards import kept_in
from mechreward.models.site import Site
from mechreward.probing.activations import Activations, record
from mechreward.probing.neurons import NeuronSet
from mechreward.rollouts.continuations import answer_arms, outcomes
from mechreward.rollouts.sample import sample
from mechreward.rollouts.trajectory import Rollouts
from mechreward.tasks import Problem

ABLATIONS: dict[str, Callable[[NeuronSet, Activations, int], Intervention]] = {
    "zero": lambda neurons, acts, seed: zero(neurons),
    "mean": lambda neurons, acts, seed: mean(neurons, acts),
    "resample": lambda neurons, acts, seed: resample(neurons, acts, seed=seed),
}


@dataclass(frozen=True)
class Arm:
    """One set under one operation.

    Attributes:
        name: value, matched, random, sink_free_random; or baseline.
        draw: which of the sets of this name.
        indices: the neurons.
        outcomes: `[problem]`, 0 or 1 on the shared problems.
        damage: the damage meter (`rollouts.continuations.Answers.damage`, `CleanText.compare`).
        match_error: mean error of the match in rms (`causal.controls.Control`).
    """

    name: str
    op: str
    draw: int
    indices: tuple[int, ...]
    outcomes: Int[np.ndarray, " problem"] = field(repr=False)
    damage: dict[str, float]
    match_error: float = float("nan")

    @property
    def accuracy(self) -> float:
        return float(self.outcomes.mean())


@dataclass(frozen=True)
class Effect:
    """An ablation beside its controls on shared problems with common random numbers.

    Attributes:
        neurons: the set that is ablated.
        baseline: the model as it is.
        arms: every set under every operation.
        problems: their ids.
        sinks: sink or massive neurons of the site.
        policy: how answers were drawn.
    """

    neurons: NeuronSet
    baseline: Arm
    arms: tuple[Arm, ...] = field(repr=False)
    problems: tuple[str, ...] = field(repr=False)
    sinks: tuple[int, ...]
    seed: int
    policy: Policy = field(default_factory=Policy)

    def __post_init__(self) -> None:
        copies = len(self.problems) - len(set(self.problems))
        require(
            copies == 0,
            f"{copies} of {len(self.problems)} problems of the effect are copies of others, which "
            "would count as independent: give each once.",
        )

    @property
    def ops(self) -> list[str]:
        """Operations that were run."""
        return list(dict.fromkeys(arm.op for arm in self.arms))

    def draws(self, name: str, op: str) -> list[Arm]:
        """All arms of one name and operation."""
        return [arm for arm in self.arms if arm.name == name and arm.op == op]

    def summary(self, op: str) -> dict[str, Any]:
        """The figures that decide, for one operation.

        `accuracy`, `change` (against the baseline, bootstrap by problem), `p_mcnemar` (exact),
        `rank` of the accuracy among the matched draws (1 = lowest), `p_rank`, `beyond_matched`
        (accuracy minus the mean of the matched draws, bootstrap by problem), `match_error` and
        whether that counts as matched.
        """
        one_of("operation of this effect", op, self.ops)
        (value,) = self.draws("value", op)
        controls = self.draws("matched", op)
        ids = np.array(self.problems)
        clean = self.baseline.outcomes
        mean_control = np.mean([arm.outcomes for arm in controls], axis=0)
        error = float(np.mean([arm.match_error for arm in controls]))
        accuracies = np.array([arm.accuracy for arm in controls])
        rank, p_rank = stats.rank_among(value.accuracy, accuracies)
        return {
            "accuracy": stats.proportion(int(value.outcomes.sum()), len(value.outcomes)),
            "change": stats.paired_difference(value.outcomes, clean, ids, seed=self.seed),
            "beyond_matched": stats.paired_difference(
                value.outcomes, mean_control, ids, seed=self.seed
            ),
            "p_mcnemar": stats.mcnemar(clean, value.outcomes),
            "rank": rank,
            "draws": len(controls),
            "p_rank": p_rank,
            "match_error": error,
            "matched": error <= MATCHED,
        }

    def power(self) -> float:
        """Smallest drop in accuracy this many problems can show (80% power, two-sided .05, exact
        McNemar)."""
        return stats.detectable_effect(len(self.problems), self.baseline.accuracy)

    def __str__(self) -> str:
        base = stats.proportion(int(self.baseline.outcomes.sum()), len(self.problems))
        lines = [
            f"{len(self.neurons)} neurons of {self.neurons.site} ({self.neurons.how}), "
            f"{len(self.problems)} problems",
            f"baseline accuracy {base}; {stats.can_see(self.power(), 'drop')}",
            f"sink or massive neurons: {list(self.sinks) or 'none'}",
        ]
        for op in self.ops:
            lines += self._lines(op)
        return "\n".join(lines)

    def _lines(self, op: str) -> list[str]:
        """The text of one operation."""
        s = self.summary(op)
        lines = [
            f"{op}: accuracy {s['accuracy']}, change {s['change']}, "
            f"McNemar p={s['p_mcnemar']:.3g}, "
            f"rank {s['rank']} of {s['draws'] + 1} with the matched sets (p={s['p_rank']:.3g})"
        ]
        for name in dict.fromkeys(arm.name for arm in self.arms):
            sets = [arm.accuracy for arm in self.draws(name, op)]
            spread = f"{min(sets):.3f} to {max(sets):.3f}, {len(sets)} sets"
            lines.append(f"  {name}: {np.mean(sets):.3f} ({spread})")
        close = "matched" if s["matched"] else f"NOT matched: over {MATCHED}"
        (value,) = self.draws("value", op)
        meters = ", ".join(f"{meter} {size:.3g}" for meter, size in value.damage.items())
        lines.append(f"  match error {s['match_error']:.3f} ({close}); damage {meters}")
        return lines

    def save(self, path: Path | str) -> Path:
        """JSON, written atomically; all paired outcomes of all draws are kept."""
        fields = {
            "kind": "effect",
            "site": str(self.neurons.site),
            "neurons": self.neurons.indices,
            "model_id": asdict(self.neurons.model_id),
            "width": self.neurons.width,
            "how": self.neurons.how,
            "sinks": self.sinks,
            "seed": self.seed,
            "policy": asdict(self.policy),
            "problems": self.problems,
            "baseline": _json_of_arm(self.baseline),
            "arms": [_json_of_arm(arm) for arm in self.arms],
        }
        return write_json(path, fields)

    @classmethod
    def load(cls, path: Path | str) -> Effect:
        """Raises MechRewardError for a file that is missing, damaged, or holds something else."""
        data = read_json(path, "effect")
        require(data.get("kind") == "effect", f"{path} holds {data.get('kind')}, not an effect.")
        try:
            neurons = NeuronSet(
                Site.parse(data["site"]),
                tuple(data["neurons"]),
                data["width"],
                ModelId(**data["model_id"]),
                (),
                data["how"],
            )
            return cls(
                neurons,
                _arm_of_json(data["baseline"]),
                tuple(_arm_of_json(fields) for fields in data["arms"]),
                tuple(data["problems"]),
                tuple(data["sinks"]),
                data["seed"],
                Policy(**data["policy"]),
            )
        except MechRewardError:
            raise
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise MechRewardError(f"{path} is a damaged effect: {error}.") from error


def ablate(
    model: Any,
    problems: Sequence[Problem],
    neurons: NeuronSet,
    *,
    ops: Sequence[str] = OPS,
    draws: int = 19,
    random_draws: int = 5,
    seed: int = 0,
    policy: Policy | None = None,
    out: Path | str | None = None,
    progress: bool | str = True,
) -> Effect:
    """Ablate `neurons` at every position while the model answers `problems`, beside every control.

    Controls cannot be left out: activation-magnitude-matched sets, and random sets with and without
    sink neurons, each under the same operation on the same problems with the same random numbers.
    The damage meter of every arm says whether the model still works: parse rate, end-of-sequence
    rate, truncation rate, premature endings, mean length, KL to the clean model and norm of the
    change on clean text.
    What drop so many problems can show is said before the first set is ablated.

    Args:
        ops: zero, mean and resample (default all); rows of the last come from the clean answers
            (the same rows for a set and for all its controls).
        draws: matched sets (default 19).
        random_draws: random sets of each kind (default 5).
        policy: how tokens are drawn and where answers end; None (default) for its defaults.
        out: folder that keeps what is generated, shard by shard: stopped and called again, it goes
            on (default None).
        progress: whether bars are shown, or their title (default True).

    Raises:
        MechRewardError: a set of another model, no problems, one problem twice, an unknown
            operation, or an intervention that never fired.
    """
    of_kind("neurons", neurons, NeuronSet)
    require(len(neurons) > 0, "there is nothing to ablate: the set is empty.")
    seed = whole("seed", seed)
    whole("draws", draws)
    whole("random_draws", random_draws)
    ops = [ops] if isinstance(ops, str) else list(ops)
    for op in ops:
        one_of("operation", op, ABLATIONS)
    zero(neurons).check(model)
    title = under(progress, "baseline")
    clean = sample(model, problems, seed=seed, policy=policy, out=out, progress=title)
    acts = record(model, clean, neurons.site, rows="tokens", progress=False)[neurons.site]
    unchanged = outcomes(model, clean)
    damage = unchanged.damage(unchanged)
    baseline = Arm("baseline", "", 0, (), np.array(clean.rewards), damage)
    see = stats.detectable_effect(len(clean), baseline.accuracy)
    tell(
        progress,
        "ablation",
        f"accuracy {baseline.accuracy:.2f}; "
        f"with n={len(clean)} problems {stats.can_see(see, 'drop')}",
    )
    sets = _set_and_controls(neurons, acts, draws, random_draws, seed)
    pairs = []
    for op in ops:
        for control in sets:
            pairs.append((control, ABLATIONS[op](control.neurons, acts, seed)))
    title = under(progress, f"{len(pairs)} sets")
    edits = [(change.edit(),) for _, change in pairs]
    with kept_in(out):
        answers = answer_arms(model, problems, edits, seed, policy, title)
    text = CleanText(model, clean)
    arms = []
    for number, (control, change) in enumerate(
        bar(under(progress, "damage"), "damage", "set", pairs)
    ):
        meter = answers[number].damage(unchanged) | text.compare(change, acts)
        arms.append(_arm(control, change, answers[number].reward, meter))
    ids = tuple(run.problem_id for run in clean)
    return Effect(neurons, baseline, tuple(arms), ids, sinks(acts), seed, clean.policy)


class CleanText:
    """Clean rollouts to be read again under an intervention: the damage meter that needs no
    answers.

    Args:
        clean: rollouts of the model as it is.
        most: so many of them are read (default 32).

    Attributes:
        logprobs: `[token vocabulary]` of the clean model at every generated token, short texts
            first.
    """

    def __init__(self, model: Any, clean: Rollouts, most: int = 32) -> None:
        self.model = model
        self.runs = clean.subset(range(min(most, len(clean))))
        self.lean = LeanPass(model) if LeanPass.fits(model) else None
        self.bins = length_bins([len(run.tokens) for run in self.runs], most)
        self.tokens, self.streams = [], []  # by bin, right-padded; what enters each layer
        for rows in self.bins:
            texts = [self.runs[row].tokens for row in rows]
            padded = torch.nn.utils.rnn.pad_sequence(texts, batch_first=True)
            self.tokens.append(padded.to(device_of(model)))
            with torch.no_grad():
                self.streams.append(self.lean.streams(self.tokens[-1]) if self.lean else [])
        self.logprobs = self._read()

    @torch.no_grad()
    def _read(
        self,
        hooks: Sequence[tuple[str, Any]] = (),
        layer: int = 0,
    ) -> Float[torch.Tensor, "token vocabulary"]:
        """Log-probabilities of what was said; `hooks` act from `layer` on. Where the model's pass
        is known (`models.fast_pass`) it is taken up there."""
        lean = self.lean.under(hooks) if self.lean and LeanPass.fits(self.model) else None
        spoken = []
        for rows, tokens, streams in zip(self.bins, self.tokens, self.streams, strict=True):
            if lean:
                logits = lean.read(streams[layer], layer)
            else:
                mask, longest = torch.ones_like(tokens), tokens.shape[1]
                with evaluation(self.model, longest), self.model.hooks(fwd_hooks=list(hooks)):
                    logits = self.model(tokens, return_type="logits", attention_mask=mask)
            for row, text in zip(rows, logits, strict=True):
                run = self.runs[row]
                said = text[run.prompt_len - 1 : len(run.tokens) - 1]
                check_logits(said, row_name(row, run.problem_id), run.prompt_len - 1)
                spoken.append(said.float().log_softmax(-1))
        return torch.cat(spoken)

    def compare(self, change: Intervention, acts: Activations) -> dict[str, float]:
        """`kl`, KL(clean || changed) per generated token in nats, and `change_norm`, the mean norm
        of what the intervention changes over that of the activations.

        Args:
            acts: activations at every token, at the site of the intervention.

        Raises:
            MechRewardError: the hook never fired.
        """
        changed_acts = change(acts.x, torch.from_numpy(acts.position))
        moved = (changed_acts - acts.x).norm(dim=1).mean() / acts.x.norm(dim=1).mean()
        fired = []
        (name, edit), *_ = change.fwd_hooks()

        def counted(tensor: torch.Tensor, hook: Any) -> torch.Tensor:
            fired.append(tensor.shape)
            return edit(tensor, hook)

        changed = self._read([(name, counted)], change.neurons.site.layer)
        require(bool(fired), f"the intervention at {change.neurons.site} never fired.")
        share = self.logprobs.exp()
        gap = torch.where(share > 0, self.logprobs - changed, 0)  # a token ruled out says nothing
        kl = (share * gap).sum(-1).mean()
        return {"kl": float(kl.clamp(min=0)), "change_norm": float(moved)}


def _set_and_controls(
    neurons: NeuronSet,
    acts: Activations,
    draws: int,
    random_draws: int,
    seed: int,
) -> list[Control]:
    """The set, then every control of it."""
    return [
        Control("value", 0, neurons, float("nan")),
        *matched(neurons, acts, draws, seed),
        *random(neurons, acts, random_draws, seed),
        *random(neurons, acts, random_draws, seed, sink_free=True),
    ]


def _arm(
    control: Control,
    change: Intervention,
    reward: Int[np.ndarray, " problem"],
    damage: dict[str, float],
) -> Arm:
    """One set under one operation."""
    return Arm(
        control.arm,
        change.op,
        control.draw,
        control.neurons.indices,
        reward,
        damage,
        control.error,
    )


def _json_of_arm(arm: Arm) -> dict[str, Any]:
    return {
        "name": arm.name,
        "op": arm.op,
        "draw": arm.draw,
        "indices": arm.indices,
        "damage": arm.damage,
        "outcomes": "".join(map(str, arm.outcomes.tolist())),
        "match_error": None if np.isnan(arm.match_error) else arm.match_error,
    }


def _arm_of_json(fields: Any) -> Arm:
    error = fields["match_error"]
    return Arm(
        fields["name"],
        fields["op"],
        fields["draw"],
        tuple(fields["indices"]),
        np.array([int(digit) for digit in fields["outcomes"]]),
        fields["damage"],
        float("nan") if error is None else error,
    )
