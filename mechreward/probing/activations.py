"""`Activations`: what was recorded where, row by row; `record` replays trajectories."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any, Literal, NoReturn

import numpy as np
import torch
from jaxtyping import Float, Int

from mechreward.base.errors import MechRewardError, of_kind, one_of, require, whole
from mechreward.base.files import digest, read_tensors, write_tensors
from mechreward.base.plain import visible
from mechreward.base.progress import bar
from mechreward.models.ability import evaluation
from mechreward.models.bins import length_bins
from mechreward.models.capture import ROWS
from mechreward.models.checks import check_hooks
from mechreward.models.engine import Hooks
from mechreward.models.fast_pass import LeanPass
from mechreward.models.finite import not_finite, row_name
from mechreward.models.identity import ModelId, model_id
from mechreward.models.load import device_of
from mechreward.models.policy import Policy
from mechreward.models.site import HOOKS, Site, parse_sites
from mechreward.probing.store import Filling, filled
from mechreward.rollouts.trajectory import Rollouts, Trajectory


@dataclass(frozen=True)
class Activations:
    """Activations at one site, with labels of every row.

    Attributes
    ----------
    x : tensor [row width]
        Float32.
    site : Site
        Where the neurons are.
    rows : str
        "states" (the last token of every step, s_0 first), "steps" (mean over a step's tokens), or
        "tokens" (every position, prompt included).
    trajectory : array [row]
        Number of the trajectory.
    position : array [row]
        Absolute position; of the last token, for a step.
    step : array [row]
        Number of the step, 0 in the prompt.
    model_id : ModelId
        The model they are of.
    policy : Policy, default Policy()
        How the answers were drawn. Files of versions that did not keep it have the default.
    width : int
        Number of neurons at the site.
    """

    x: Float[torch.Tensor, "row width"] = field(repr=False)
    site: Site
    rows: str
    trajectory: Int[np.ndarray, " row"] = field(repr=False)
    position: Int[np.ndarray, " row"] = field(repr=False)
    step: Int[np.ndarray, " row"] = field(repr=False)
    model_id: ModelId
    policy: Policy = field(default=Policy(), repr=False)

    def __repr__(self) -> str:
        shape = f"{self.x.shape[0]} {self.rows} x {self.x.shape[1]}"
        return f"Activations({self.site}, {shape}, {visible(self.model_id.name)})"

    @property
    def width(self) -> int:
        """Number of neurons at the site."""
        return self.x.shape[1]

    def rms(self) -> Float[torch.Tensor, " width"]:
        """Root mean square of each neuron over the rows."""
        return self.x.square().mean(0).sqrt()

    def save(self, path: Path | str) -> Path:
        """One safetensors file, written atomically."""
        labels = {"trajectory": self.trajectory, "position": self.position, "step": self.step}
        about = _about(self.site, self.rows, self.model_id, self.policy)
        return write_tensors(path, {"x": self.x, **_columns(labels)}, about)

    @classmethod
    def load(cls, path: Path | str) -> Activations:
        """Read what `save` wrote.

        Raises
        ------
        MechRewardError
            The file is missing, damaged, or holds something else.
        """
        tensors, about = read_tensors(path, "activations")
        require(
            about.get("kind") == "activations",
            f"{path} holds {about.get('kind')}, not activations.",
        )
        lengths = {tensor.shape[:1] for tensor in tensors.values()}
        require(
            len(lengths) == 1, f"{path} is a damaged activations file: columns of unlike lengths."
        )
        try:
            return cls(
                x=tensors["x"],
                site=Site.parse(about["site"]),
                rows=about["rows"],
                trajectory=tensors["trajectory"].long().numpy(),
                position=tensors["position"].long().numpy(),
                step=tensors["step"].long().numpy(),
                model_id=ModelId(**about["model_id"]),
                policy=Policy(**about.get("policy", {})),
            )
        except (KeyError, TypeError) as error:
            raise MechRewardError(f"{path} is a damaged activations file: {error}.") from error


OF_ONE_SITE = {each.name for each in fields(Activations)} | {"width", "rms"}


class Recording(Mapping[str, Activations]):
    """Activations by site: `acts["3.resid_post"]`.

    Given where activations of one site are wanted, it says so.
    """

    def __init__(self, parts: Mapping[str, Activations]) -> None:
        self._parts = dict(parts)

    def __getitem__(self, site: Site | str) -> Activations:
        key = str(Site.parse(site))
        one_of("recorded site", key, self._parts)
        return self._parts[key]

    def __iter__(self) -> Any:
        return iter(self._parts)

    def __len__(self) -> int:
        return len(self._parts)

    def __repr__(self) -> str:
        return f"Recording({', '.join(self._parts)})"

    def __getattr__(self, name: str) -> Any:
        if name in OF_ONE_SITE:
            self.refuse()
        raise AttributeError(f"a recording has no attribute {name!r}")

    def refuse(self) -> NoReturn:
        """Raise MechRewardError: activations of one site are wanted."""
        raise MechRewardError(
            "activations of one site are wanted; this is a recording of "
            f"{', '.join(self._parts)}: take one, as in recording[{next(iter(self._parts))!r}]."
        )


@torch.no_grad()
def record(
    model: Any,
    runs: Rollouts,
    sites: str | Site | list[str] | list[Site],
    *,
    rows: Literal["states", "steps", "tokens"] = "states",
    batch: int = 64,
    hooks: Hooks = (),
    other_model: bool = False,
    budget: int | float = 4e9,
    out: Path | str | None = None,
    progress: bool | str = True,
) -> Recording:
    """Replay trajectories and keep the activations at some sites.

    Equal to `run_with_cache` on each trajectory alone: rows are right-padded, which a causal model
    cannot see, and layers after the last site are not run. Trajectories of like length share a pass
    (`models.bins`), which is the fast one where the model has it (`models.fast_pass`).

    Parameters
    ----------
    model : TransformerBridge or HookedTransformer
        The one that made the runs, or another (see `other_model`).
    runs : Rollouts
        What is replayed.
    sites : str, Site, or list of either
        One or several, as in "3.resid_post".
    rows : {"states", "steps", "tokens"}, default "states"
        What to keep, see `Activations`.
    batch : int, default 64
        Trajectories run at once; fewer where they are long.
    hooks : sequence of (str, function), default ()
        TransformerLens `(name, fn)` pairs (an intervention) that stay on meanwhile and are seen by
        the recording.
    other_model : bool, default False
        Whether another model than the one that made the runs may read them, such as its base; it
        has to have their tokens. The activations are then of that model.
    budget : float, default 4000000000.0
        Bytes of activations to hold in memory; more needs `out`.
    out : Path or str or None, default None
        Folder of files `SITE.ROWS.safetensors`, which are filled as the recording goes on and
        mapped into memory when read. Stopped and called again without hooks, it goes on where it
        was.
    progress : bool or str, default True
        Whether a bar is shown, or its title.

    Returns
    -------
    Recording
        `Activations` by site: `recording["3.resid_post"]`.

    Raises
    ------
    MechRewardError
        Unknown site, layer, or kind of rows; runs of another model that was not asked for, or of
        other tokens; no runs; hooks of another kind; batch < 1; more than `budget` and no `out`,
        or no room on its disk; activations that are not finite.
    """
    identity = model_id(model)
    of_kind("runs", runs, Rollouts, "sample makes them of problems")
    one_of("kind of rows", rows, ROWS)
    require(len(runs) > 0, "no trajectories were given.")
    batch = whole("batch", batch, 1, "trajectories run at once")
    of_kind("budget", budget, (int, float))
    check_hooks(model, hooks)
    _check(runs, model, identity, other_model)
    wanted = parse_sites(model, sites)
    labels = _labels(runs, rows)
    begins = np.searchsorted(labels["trajectory"], np.arange(len(runs) + 1))
    counts = np.diff(begins)  # rows of every trajectory
    total = int(begins[-1])
    width = {site: site.width(model) for site in wanted}
    size = 4 * total * sum(width.values())
    files: dict[Site, Filling] = {}
    if out is None and size <= budget:
        x = {site: torch.empty(total, width[site]) for site in wanted}
    else:
        require(
            out is not None,
            f"these activations take {size / 1e9:.2f} GB, more than the budget of "
            f"{budget / 1e9:.2f} GB: name a folder with out=, record fewer sites or rows, "
            "or raise budget=.",
        )
        source = digest(*(run.tokens.numpy().tobytes() for run in runs))
        for site in wanted:
            about = _about(site, rows, identity, runs.policy) | {"source": source}
            path = Path(str(out)) / f"{site}.{rows}.safetensors"
            files[site] = Filling(path, width[site], _columns(labels), about, resume=not hooks)
        x = {site: file.x for site, file in files.items() if not file.complete}
    over = set.intersection(*(file.done for file in files.values())) if files else set()
    stop = max(site.layer for site in wanted) + 1
    left = [number for number in range(len(runs)) if number not in over]
    lean = _lean(model, hooks)
    counter = bar(progress, "activations", "trajectory", total=len(runs), initial=len(over))
    with filled(files.values()), counter:
        for numbers in length_bins([len(runs[number].tokens) for number in left], batch):
            chosen = [left[number] for number in numbers]
            texts = [runs[number].tokens for number in chosen]
            caught = forward(model, texts, wanted, stop, hooks, lean)
            for site, into in x.items():
                for row, i in enumerate(chosen):
                    x_row = _pick(caught[site][row], runs[i], rows)
                    _check_finite(x_row, site, labels["position"][begins[i] :], runs[i], i)
                    into[begins[i] : begins[i + 1]] = x_row
                if site in files:
                    files[site].wrote(chosen, int(counts[chosen].sum()))
            counter.update(len(chosen))
    parts: dict[str, Activations] = {}
    for site in wanted:
        if files:
            parts[str(site)] = Activations.load(files[site].path)
        else:
            parts[str(site)] = Activations(
                x[site], site, rows, **labels, model_id=identity, policy=runs.policy
            )
    return Recording(parts)


def _columns(labels: Mapping[str, np.ndarray]) -> dict[str, torch.Tensor]:
    return {name: torch.from_numpy(column).int() for name, column in labels.items()}


def _about(site: Site, rows: str, identity: ModelId, policy: Policy) -> dict[str, Any]:
    return {
        "kind": "activations",
        "site": str(site),
        "rows": rows,
        "model_id": asdict(identity),
        "policy": policy.to_json(),
    }


def _check(runs: Rollouts, model: Any, identity: ModelId, other_model: bool) -> None:
    """Raise MechRewardError unless the model may read these runs."""
    if not other_model:
        runs.model_id.check(identity, "set of rollouts", other_model=False)
    largest = max(int(run.tokens.max()) for run in runs)
    words = int(model.cfg.d_vocab)
    require(
        largest < words,
        f"these rollouts of {runs.model_id.name} hold token {largest}; "
        f"{identity.name} has tokens 0 to {words - 1}.",
    )


def _lean(model: Any, hooks: Hooks) -> LeanPass | None:
    """The fast pass, where the model has it and every hook is at a site that it knows."""
    known = set()
    for layer in range(model.cfg.n_layers):
        known.update(Site(layer, kind).hook for kind in HOOKS)
    fits = all(name in known for name, _ in hooks) and LeanPass.fits(model)
    return LeanPass(model, exact=True) if fits else None


def forward(
    model: Any,
    rows: list[torch.Tensor],
    sites: list[Site],
    stop: int,
    hooks: Hooks = (),
    lean: LeanPass | None = None,
) -> dict[Site, torch.Tensor]:
    """One right-padded pass under hooks; activations `[batch pos width]` by site, on the CPU in
    float32. `lean` is the model's fast pass, if it has one; layers from `stop` on are not run."""
    caught: dict[Site, torch.Tensor] = {}

    def catch(site: Site) -> tuple[str, Any]:
        def hook(tensor: torch.Tensor, hook: Any) -> None:
            caught[site] = tensor.detach().to("cpu", torch.float32, copy=True)

        return site.hook, hook

    tokens = torch.nn.utils.rnn.pad_sequence(rows, batch_first=True).to(device_of(model))
    acting = [*hooks, *map(catch, sites)]
    with evaluation(model, tokens.shape[1]):
        if lean:
            lean.under(acting).replay(tokens, stop)
        else:
            mask = torch.ones_like(tokens)
            last = stop if stop < model.cfg.n_layers else None
            kind = None if last else "logits"
            with model.hooks(fwd_hooks=acting):
                model(tokens, return_type=kind, attention_mask=mask, stop_at_layer=last)
    missing = [str(site) for site in sites if site not in caught]
    require(not missing, f"nothing passed through {', '.join(missing)}: the hook never fired.")
    return caught


def _pick(x: torch.Tensor, run: Trajectory, rows: str) -> torch.Tensor:
    """The rows that are kept of one trajectory's activations [pos width]."""
    if rows == "tokens":
        return x[: len(run.tokens)].clone()
    if rows == "states":
        return x[list(run.step_ends)].clone()
    return torch.stack([x[run.span(step)].mean(0) for step in range(1, run.steps + 1)])


def _check_finite(
    x: torch.Tensor, site: Site, positions: np.ndarray, run: Trajectory, number: int
) -> None:
    wrong = torch.nonzero(~x.isfinite())
    if len(wrong):
        position = int(positions[wrong[0, 0]])
        raise not_finite(row_name(number, run.problem_id), str(site), position)


def _labels(runs: Rollouts, rows: str) -> dict[str, np.ndarray]:
    columns: list[tuple[int, int, int]] = []
    for number, run in enumerate(runs):
        if rows == "tokens":
            steps = np.searchsorted(run.step_ends, np.arange(len(run.tokens)))
            for position, step in enumerate(steps):
                columns.append((number, position, int(step)))
        else:
            first = 1 if rows == "steps" else 0
            for step, end in enumerate(run.step_ends[first:], start=first):
                columns.append((number, end, step))
    trajectory, position, step = np.array(columns, dtype=np.int64).T.copy()
    return {"trajectory": trajectory, "position": position, "step": step}
