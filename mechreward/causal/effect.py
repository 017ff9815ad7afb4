"""What an ablation does, beside every control: paired accuracies, ranks among matched draws, the
damage meter."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Int

from mechreward import stats
from mechreward.base.errors import MechRewardError, one_of, require
from mechreward.base.files import read_json, write_json
from mechreward.base.progress import progress, tell
from mechreward.causal.controls import MATCHED, Control, matched, random, sinks
from mechreward.causal.intervene import OPS, Intervention, mean, resample, zero
from mechreward.models.engine import Policy
from mechreward.models.fast_pass import LeanPass
from mechreward.models.load import device_of
from mechreward.models.text import eos_id
from mechreward.probing.activations import Activations, record
from mechreward.probing.neurons import NeuronSet
from mechreward.rollouts.sample import sample, sample_arms
from mechreward.rollouts.trajectory import Rollouts
from mechreward.tasks import Problem

ABLATIONS: dict[str, Callable[[NeuronSet, Activations, int], Intervention]] = {
    "zero": lambda neurons, acts, seed: zero(neurons),
    "mean": lambda neurons, acts, seed: mean(neurons, acts),
    "resample": lambda neurons, acts, seed: resample(neurons, acts, seed=seed),
}


@dataclass(frozen=True)
class Arm:
    """One set under one operation: `outcomes` [problem] 0/1 on the shared problems, and the damage
    meter."""

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
    """An ablation beside its controls on shared problems with common random numbers."""

    neurons: NeuronSet
    baseline: Arm
    arms: tuple[Arm, ...] = field(repr=False)
    problems: tuple[str, ...] = field(repr=False)
    sinks: tuple[int, ...]
    seed: int

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
        (own,) = self.draws("value", op)
        controls = self.draws("matched", op)
        rank, p_rank = stats.rank_among(own.accuracy, np.array([arm.accuracy for arm in controls]))
        ids = np.array(self.problems)
        control = np.mean([arm.outcomes for arm in controls], axis=0)
        error = float(np.mean([arm.match_error for arm in controls]))
        return {
            "accuracy": stats.proportion(int(own.outcomes.sum()), len(own.outcomes)),
            "change": stats.paired_difference(
                own.outcomes, self.baseline.outcomes, ids, seed=self.seed
            ),
            "beyond_matched": stats.paired_difference(own.outcomes, control, ids, seed=self.seed),
            "p_mcnemar": stats.mcnemar(self.baseline.outcomes, own.outcomes),
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
        lines = [
            f"{len(self.neurons)} neurons of {self.neurons.site} ({self.neurons.how}), {len(self.problems)} problems"
        ]
        base = stats.proportion(int(self.baseline.outcomes.sum()), len(self.problems))
        lines.append(f"baseline accuracy {base}; a drop of {self.power():.3f} could be seen")
        lines.append(f"sink or massive neurons: {list(self.sinks) or 'none'}")
        for op in self.ops:
            s = self.summary(op)
            lines.append(
                f"{op}: accuracy {s['accuracy']}, change {s['change']}, McNemar p={s['p_mcnemar']:.3g}, "
                f"rank {s['rank']} of {s['draws'] + 1} with the matched sets (p={s['p_rank']:.3g})"
            )
            for name in dict.fromkeys(arm.name for arm in self.arms):
                each = [arm.accuracy for arm in self.draws(name, op)]
                lines.append(
                    f"  {name}: {np.mean(each):.3f} ({min(each):.3f} to {max(each):.3f}, {len(each)} sets)"
                )
            close = "matched" if s["matched"] else f"NOT matched: over {MATCHED}"
            lines.append(
                f"  match error {s['match_error']:.3f} ({close}); damage {_words(self.draws('value', op)[0])}"
            )
        return "\n".join(lines)

    def save(self, path: Path | str) -> Path:
        """JSON, written atomically; all paired outcomes of all draws are kept."""

        def plain(arm: Arm) -> dict[str, Any]:
            rest = {key: getattr(arm, key) for key in ("name", "op", "draw", "indices", "damage")}
            error = None if np.isnan(arm.match_error) else arm.match_error
            return rest | {
                "outcomes": "".join(map(str, arm.outcomes.tolist())),
                "match_error": error,
            }

        about = {"kind": "effect", "site": str(self.neurons.site), "neurons": self.neurons.indices}
        about |= {
            "model_id": asdict(self.neurons.model_id),
            "width": self.neurons.width,
            "how": self.neurons.how,
        }
        about |= {"sinks": self.sinks, "seed": self.seed, "problems": self.problems}
        return write_json(
            path,
            about | {"baseline": plain(self.baseline), "arms": [plain(arm) for arm in self.arms]},
        )

    @classmethod
    def load(cls, path: Path | str) -> Effect:
        """Raises MechRewardError for a file that is missing, damaged, or holds something else."""
        from mechreward.models.identity import ModelId
        from mechreward.models.site import Site

        data = read_json(path, "effect")
        require(data.get("kind") == "effect", f"{path} holds {data.get('kind')}, not an effect.")

        def arm(row: dict[str, Any]) -> Arm:
            outcomes = np.array([int(c) for c in row["outcomes"]])
            error = float("nan") if row["match_error"] is None else row["match_error"]
            return Arm(
                row["name"],
                row["op"],
                row["draw"],
                tuple(row["indices"]),
                outcomes,
                row["damage"],
                error,
            )

        try:
            site, identity = Site.parse(data["site"]), ModelId(**data["model_id"])
            neurons = NeuronSet(
                site, tuple(data["neurons"]), data["width"], identity, (), data["how"]
            )
            rest = tuple(data["problems"]), tuple(data["sinks"]), data["seed"]
            return cls(
                neurons, arm(data["baseline"]), tuple(arm(row) for row in data["arms"]), *rest
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
    what: str | None = "ablation",
) -> Effect:
    """Ablate `neurons` at every position while the model answers `problems`, beside every control.

    Controls cannot be left out: `draws` activation-magnitude-matched sets, `random_draws` random
    sets with and without sink neurons, each under the same operation on the same problems with the
    same random numbers. The damage meter of every arm says whether the model still works: parse
    rate, end-of-sequence rate, truncation rate, mean length, KL to the clean model and norm of the
    change on clean text.

    `ops` are zero, mean and resample; rows of the last come from the clean answers (the same rows
    for a set and for all its controls). What drop so many problems can show is said before the
    first set is ablated.

    Raises:
        MechRewardError: a set of another model, no problems, an unknown operation, or an
            intervention that never fired.
    """
    require(len(neurons) > 0, "there is nothing to ablate: the set is empty.")
    for op in ops:
        one_of("operation", op, ABLATIONS)
    zero(neurons).check(model)
    clean = sample(model, problems, seed=seed, policy=policy, what=what and f"{what}: baseline")
    acts = record(model, clean, neurons.site, rows="tokens", what=None)[neurons.site]
    text = CleanText(model, clean)
    baseline = Arm("baseline", "", 0, (), np.array(clean.rewards), _damage(model, clean))
    see = stats.detectable_effect(len(clean), baseline.accuracy)
    tell(
        what,
        f"accuracy {baseline.accuracy:.2f}; with n={len(clean)} problems a drop of {see:.2f} can be seen",
    )
    own = Control("value", 0, neurons, float("nan"))
    controls = [
        own,
        *matched(neurons, acts, draws, seed),
        *random(neurons, acts, random_draws, seed),
    ]
    controls += random(neurons, acts, random_draws, seed, sink_free=True)
    pairs = [
        (control, ABLATIONS[op](control.neurons, acts, seed)) for op in ops for control in controls
    ]
    title = what and f"{what}: {len(pairs)} sets"
    rollouts = sample_arms(
        model,
        problems,
        [(change.edit(),) for _, change in pairs],
        seed=seed,
        policy=policy,
        what=title,
    )
    arms = []
    read = progress(what and f"{what}: damage", "set", pairs)
    for (control, change), runs in zip(read, rollouts, strict=True):
        damage = _damage(model, runs) | text.compare(change, acts)
        outcomes = np.array(runs.rewards)
        arms.append(
            Arm(
                control.arm,
                change.op,
                control.draw,
                control.neurons.indices,
                outcomes,
                damage,
                control.error,
            )
        )
    ids = tuple(run.problem_id for run in clean)
    return Effect(neurons, baseline, tuple(arms), ids, sinks(acts), seed)


def _damage(model: Any, runs: Rollouts) -> dict[str, float]:
    eos = eos_id(model)
    ended = np.array([int(run.tokens[-1]) == eos for run in runs])
    readable = np.array([run.verdict.outcome != "unverifiable" for run in runs])
    return {
        "parse_rate": float(readable.mean()),
        "eos_rate": float(ended.mean()),
        "truncation_rate": float(1 - ended.mean()),
        "length": float(np.mean([run.length for run in runs])),
    }


class CleanText:
    """Clean rollouts to be read again under an intervention: KL(clean || changed) per generated
    token, in nats."""

    def __init__(self, model: Any, clean: Rollouts, most: int = 32) -> None:
        self.model = model
        self.runs = clean.subset(range(min(most, len(clean))))
        rows = [run.tokens for run in self.runs]
        self.tokens = torch.nn.utils.rnn.pad_sequence(rows, batch_first=True).to(device_of(model))
        self.lean = LeanPass(model) if LeanPass.fits(model) else None
        with torch.no_grad():
            self.streams = self.lean.streams(self.tokens) if self.lean else []
        self.logprobs = self._read()

    @torch.no_grad()
    def _read(self, hooks: Sequence[tuple[str, Any]] = (), layer: int = 0) -> torch.Tensor:
        """Log-probabilities [token vocabulary] of what was said; `hooks` act from `layer` on. Where
        the model's pass is known (`models.lean`) it is taken up there."""
        if self.lean and LeanPass.fits(self.model):
            logits = self.lean.under(hooks).read(self.streams[layer], layer)
        else:
            mask = torch.ones_like(self.tokens)
            with self.model.hooks(fwd_hooks=list(hooks)):
                logits = self.model(self.tokens, return_type="logits", attention_mask=mask)
        spoken = [
            logits[i, run.prompt_len - 1 : len(run.tokens) - 1] for i, run in enumerate(self.runs)
        ]
        return torch.cat(spoken).float().log_softmax(-1)

    def compare(self, change: Intervention, acts: Activations) -> dict[str, float]:
        """`kl`, and `change_norm`: the mean norm of what the intervention changes over that of the
        activations.

        Raises MechRewardError if the hook never fired.
        """
        there = change(acts.x, torch.from_numpy(acts.position))
        moved = (there - acts.x).norm(dim=1).mean() / acts.x.norm(dim=1).mean()
        fired = []
        (name, edit), *_ = change.fwd_hooks()

        def counted(tensor: torch.Tensor, hook: Any) -> torch.Tensor:
            fired.append(tensor.shape)
            return edit(tensor, hook)

        changed = self._read([(name, counted)], change.neurons.site.layer)
        if not fired:
            raise MechRewardError(f"the intervention at {change.neurons.site} never fired.")
        kl = (self.logprobs.exp() * (self.logprobs - changed)).sum(-1).mean()
        return {"kl": float(kl.clamp(min=0)), "change_norm": float(moved)}


def _words(arm: Arm) -> str:
    return ", ".join(f"{key} {value:.3g}" for key, value in arm.damage.items())
