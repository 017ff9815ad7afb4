"""Probes with the scikit-learn contract: read state value or TD error, and score every neuron."""

from __future__ import annotations

import warnings
from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any, Literal, TypeVar

import numpy as np
import torch
from jaxtyping import Float
from sklearn.base import BaseEstimator, RegressorMixin

from mechreward import stats
from mechreward.base.errors import MechRewardError, one_of, require
from mechreward.base.streams import stream
from mechreward.models.identity import ModelId
from mechreward.models.policy import Policy
from mechreward.models.site import Site
from mechreward.probing.activations import Activations, Recording
from mechreward.probing.arrays import NotFitted, examples, inputs
from mechreward.probing.ridge import Spectrum, check_ridge, choose
from mechreward.probing.targets import (
    TARGETS,
    Examples,
    check_learnable,
    check_varied,
    lambda_returns,
    states,
    steps,
    tokens,
)
from mechreward.rollouts.value import Values

SHAPES = ("linear", "mlp")
CONSTANT = 0.1  # share of V-hat's spread; with less a read-out says almost nothing (our choice)
Returns = Callable[[np.ndarray], np.ndarray]
P = TypeVar("P", bound="_Probe")
# Set by some fits and not by others, so that none may outlive its fit.
OF_ONE_FIT = (
    "ridge_",
    "site_",
    "rows_",
    "model_id_",
    "policy_",
    "direction_",
    "correlation_",
    "correlated_",
)


def directions(x: Float[torch.Tensor, "row k"], y: np.ndarray) -> Float[torch.Tensor, " k"]:
    """One standard deviation of every column of `x`, with the sign of its covariance with `y`.

    It is a step that goes with a higher `y`. Rows where `y` is NaN are left out of the sign.

    Raises
    ------
    MechRewardError
        `y` of another length, or without variance.
    """
    require(len(y) == len(x), f"toward has {len(y)} numbers for {len(x)} rows of activations.")
    values, goal = x.double(), torch.as_tensor(np.asarray(y, dtype=np.float64))
    rows = goal.isfinite()
    spread = goal[rows] - goal[rows].mean()
    require(
        bool((spread.abs() > 1e-9).any()),
        "toward is the same number in every row: it shows no way up.",
    )
    sense = torch.where((spread[:, None] * values[rows]).sum(0) < 0, -1.0, 1.0)
    return (sense * values.std(0, correction=0)).float()


class ProbeWarning(UserWarning):
    """A fitted probe that later numbers should not rest on."""


class _Probe(RegressorMixin, BaseEstimator, ABC):
    """What both probes share: standardisation, the two shapes, scores, predictions.

    Inputs are standardised on the rows given to `fit` (the training split): the ranking by weights
    is not scale-free otherwise.
    """

    shape: str
    hidden: int
    seed: int

    def __init__(
        self,
        shape: str,
        hidden: int,
        ridge: float | None,
        rate: float,
        epochs: int,
        batch: int,
        seed: int,
    ) -> None:
        self.shape = shape
        self.hidden = hidden
        self.ridge = ridge
        self.rate = rate
        self.epochs = epochs
        self.batch = batch
        self.seed = seed

    def fit(self: P, X: Any, y: Any, groups: Any = None) -> P:
        """Fit to recorded activations and the values of the same rollouts, or to arrays.

        Parameters
        ----------
        X : Activations, or array-like [row width]
            `ValueProbe` reads rows="states", or rows="tokens" for targets that are made of the
            reward alone (the paper's TD runs over tokens); `DopamineProbe` reads rows="steps".
        y : Values, or array-like [row]
            Of the same rollouts; beside arrays, the numbers to read.
        groups : array-like [row] or None, default None
            Problem of each row of an array, for the choice of the ridge; None makes every row a
            problem. Values know theirs.

        Returns
        -------
        ValueProbe or DopamineProbe
            Itself.

        Raises
        ------
        MechRewardError
            Unknown target or shape, `mc` at tokens (V-hat exists at states only), rows that do not
            match, arrays for a target that needs rewards, no step beyond the cut, numbers that are
            not finite, or nothing to learn (all right or all wrong, or a constant target).
        """
        if isinstance(X, Recording):
            X.refuse()
        if isinstance(X, Activations) and isinstance(y, Values) and groups is None:
            data, name = self._rows(X, y)
            self.fit_examples(data)
            self._remember(X, data, name)
            return self
        require(
            not isinstance(X, Activations) and not isinstance(y, Values),
            "fit takes the activations of one site and values, or arrays X, y and groups; "
            f"{type(X).__name__}, {type(y).__name__} and {type(groups).__name__} were given.",
        )
        self.check()
        target = getattr(self, "target", "mc")
        require(target == "mc", f"arrays hold no rewards for target {target!r}: take 'mc'.")
        data = self._kept(examples(self, X, y, groups))
        check_varied(data.y)
        self._learn(data)
        return self

    def fit_examples(self: P, data: Examples) -> P:
        """The same from ready-made rows (a split, a shuffle, a subset of neurons).

        Parameters
        ----------
        data : Examples
            `y` is V-hat; for `DopamineProbe` it is delta.

        Returns
        -------
        ValueProbe or DopamineProbe
            Itself.

        Raises
        ------
        MechRewardError
            As `fit`.
        """
        self.check()
        require(
            bool(data.x.isfinite().all()) and bool(np.isfinite(data.y).all()),
            "no probe can be fitted: activations or targets hold NaN or infinity.",
        )
        kept = self._kept(data)
        check_learnable(kept.y, data.reward)
        vars(self).pop("feature_names_in_", None)
        self._learn(kept)
        return self

    def predict(self, X: Any, *, other_model: bool = False) -> np.ndarray:
        """The read-out.

        Parameters
        ----------
        X : tensor or array-like [row width], or Activations
            Activations.
        other_model : bool, default False
            Whether `Activations` may be of another model than those the probe was fitted to.

        Returns
        -------
        array [row]
            In the unit of the target.

        Raises
        ------
        MechRewardError
            Not fitted, another width or site, or a model that was not asked for.
        """
        if not hasattr(self, "net_"):
            raise NotFitted("this probe is not fitted yet: call fit first.")
        if isinstance(X, Recording):
            X.refuse()
        if isinstance(X, Activations):
            site = getattr(self, "site_", X.site)
            require(
                X.site == site,
                f"the probe was fitted at {site}; these activations are of {X.site}.",
            )
            if hasattr(self, "model_id_"):
                self.model_id_.check(X.model_id, "probe", other_model=other_model)
            X = X.x
        x = X if isinstance(X, torch.Tensor) else inputs(self, X)
        width = len(self.scores_)
        require(x.shape[-1] == width, f"the probe reads {width} neurons; {x.shape[-1]} were given.")
        z = (x.float() - self.mean_) / self.scale_
        with torch.no_grad():
            if isinstance(self.net_, torch.nn.Linear):
                # In float64: in float32 a large ridge's small weights, beside the intercept, would
                # make ties of rows that differ.
                weight, bias = self.net_.weight[0].double(), self.net_.bias.double()
                return (z.double() @ weight + bias).numpy()
            return self.net_(z)[:, 0].numpy()

    def check(self) -> None:
        """Raise MechRewardError for parameters that no fit has."""
        one_of("probe shape", self.shape, SHAPES)
        check_ridge(self.ridge)

    @abstractmethod
    def _rows(self, acts: Activations, values: Values) -> tuple[Examples, str]:
        """What is read where, and the name of `y`."""

    def _kept(self, data: Examples) -> Examples:
        """The rows to fit to."""
        return data

    def _learn(self, data: Examples) -> None:
        """Fit to rows that were checked."""
        self._fit(data, data.y)

    def _fit(self, data: Examples, y: np.ndarray, lam: float = 1.0) -> None:
        """Fit to `y`; with `lam` < 1 to TD(lambda) returns, `y` being the reward."""
        for name in OF_ONE_FIT:
            vars(self).pop(name, None)
        self.n_features_in_ = data.x.shape[1]
        self.mean_ = data.x.mean(0)
        deviation = data.x.std(0, correction=0)
        self.scale_ = torch.where(deviation > 1e-8, deviation, torch.inf)
        x = (data.x - self.mean_) / self.scale_
        target = torch.tensor(y, dtype=torch.float32)

        def returns(read: np.ndarray) -> np.ndarray:
            return lambda_returns(np.roll(np.clip(read, 0, 1), -1), y, data.last, lam)

        fit = self._fit_linear if self.shape == "linear" else self._fit_mlp
        fit(x, target, returns if lam < 1 else None, data)
        first = next(self.net_.parameters())  # the weights of the first layer
        self.scores_ = (first.detach().abs().sum(0) * torch.isfinite(self.scale_)).numpy()

    def _fit_linear(
        self, x: torch.Tensor, y: torch.Tensor, returns: Returns | None, data: Examples
    ) -> None:
        """Ridge regression; with bootstrapping, fitted value iteration to its fixed point.

        The ridge of bootstrapped targets is that of the reward, where the iteration begins.
        """
        inputs, target, change = x.double().numpy(), y.double().numpy()[:, None], 1.0
        spectrum = Spectrum(inputs)
        self.ridge_ = choose(spectrum, target, data.group) if self.ridge is None else self.ridge
        for _pass in range(1 if returns is None else 100):
            weights, intercept = spectrum.fit(target, self.ridge_ * len(y))
            if returns is None or change < 1e-4:
                break
            new = returns((inputs @ weights + intercept)[:, 0])[:, None]
            change, target = float(np.abs(new - target).max()), new
        self.net_ = torch.nn.Linear(x.shape[1], 1)
        with torch.no_grad():
            self.net_.weight.copy_(torch.from_numpy(weights.T))
            self.net_.bias.copy_(torch.from_numpy(intercept))

    def _fit_mlp(
        self, x: torch.Tensor, y: torch.Tensor, returns: Returns | None, data: Examples
    ) -> None:
        """The paper's net: d -> hidden -> 1 ReLU, squared error, AdamW, batches of trajectories.

        Bootstrapped targets come from the net as it was at the start of the epoch (our choice of
        target network).
        """
        generator = torch.Generator().manual_seed(stream("probe: order", self.seed))
        self.net_ = net(x.shape[1], self.hidden, self.seed)
        optimizer = torch.optim.AdamW(
            self.net_.parameters(), lr=self.rate, weight_decay=0.01, fused=True
        )
        trajectory = data.trajectory
        starts = np.flatnonzero(np.append(True, trajectory[1:] != trajectory[:-1]))
        bounds = [*starts.tolist(), len(trajectory)]
        for _ in range(self.epochs):
            target = y
            if returns is not None:
                with torch.no_grad():
                    target = torch.from_numpy(returns(self.net_(x)[:, 0].numpy())).float()
            order = torch.randperm(len(starts), generator=generator).tolist()
            for begin in range(0, len(order), self.batch):
                picked = order[begin : begin + self.batch]
                rows = torch.cat([torch.arange(bounds[t], bounds[t + 1]) for t in picked])
                loss = (self.net_(x[rows])[:, 0] - target[rows]).square().mean()
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()

    def _remember(self, acts: Activations, data: Examples, target: str) -> None:
        """What `data` says of every neuron alone, `target` naming its `y`.

        Also warn of a fit that stayed near its mean, as TD on few trajectories does: later numbers
        rest on it.
        """
        self.site_: Site = acts.site
        self.rows_: str = acts.rows
        self.model_id_: ModelId = acts.model_id
        self.policy_: Policy = acts.policy
        self.direction_ = directions(data.x, data.y)
        self.correlation_ = np.nan_to_num(np.abs(stats.spearmans(data.x.numpy(), data.y)))
        self.correlated_ = target
        spread, wanted = float(self.predict(data.x).std()), float(data.y.std())
        name = getattr(self, "target", "delta")
        other = ", or target='mc'" if name in ("td", "td-lambda", "terminal") else ""
        if spread < CONSTANT * wanted:
            warnings.warn(
                f"this {name} probe is near constant: its read-out has standard deviation "
                f"{spread:.3g} over the {len(data)} rows it was fitted to, what it should read "
                f"{wanted:.3g}. Fit more trajectories{other}.",
                ProbeWarning,
                stacklevel=3,
            )


class ValueProbe(_Probe):
    """Reads the state value off activations at step ends.

    Parameters
    ----------
    target : {"mc", "td", "td-lambda", "terminal"}, default "mc"
        "mc" (V-hat), "td" (bootstrapped from the terminal reward, the paper's), "td-lambda"
        (returns that mix both), or "terminal" (the reward itself at every state: what the paper's
        appendix A compares with).
    shape : {"linear", "mlp"}, default "mlp"
        "mlp" (d -> hidden -> 1, the paper's) or "linear" (ridge).
    hidden : int, default 1024
        Units of the MLP.
    ridge : float or None, default None
        Penalty per row of the linear probe; None chooses it by leaving out each problem of the
        rows given to `fit` in turn (see `ridge.choose`).
    rate : float, default 0.0005
        Learning rate of the MLP's AdamW.
    epochs : int, default 20
        Epochs of the MLP.
    batch : int, default 20
        Trajectories in a batch of the MLP.
    seed : int, default 0
        Seed of the MLP: weights and order of trajectories.
    lam : float, default 0.9
        Lambda of "td-lambda", 0 ("td") to 1 ("terminal", but for gamma).

    Attributes
    ----------
    scores_ : array [width]
        L1 norm of each input's first-layer weights (paper section 2); 0 for neurons that are
        constant over the rows.
    mean_ : tensor [width]
        Mean of each neuron over the rows given to `fit`.
    scale_ : tensor [width]
        Standard deviation of each neuron; infinite where it is 0.
    net_ : torch.nn.Module
        Reads standardised activations.
    ridge_ : float
        Penalty per row of the linear probe.
    n_features_in_ : int
        Width; with `feature_names_in_` where arrays name their columns.
    site_ : Site
        Site of the activations given to `fit`. Arrays and `fit_examples` set neither this nor
        those below.
    rows_ : str
        Their kind of row.
    model_id_ : ModelId
        Model of the activations.
    policy_ : Policy
        How their answers were drawn.
    direction_ : tensor [width]
        One standard deviation of each neuron, with the sign of its covariance with V-hat
        (the reward at tokens).
    correlation_ : array [width]
        |Spearman's correlation| of each neuron alone with the same.
    correlated_ : {"V-hat", "the reward"}
        What `correlation_` is a correlation with.

    Notes
    -----
    The paper trains with rate 1e-4 and 4 trajectories a batch; the defaults go faster with the same
    product of rate and updates per row (our choice). TD(0) and TD(lambda) on a linear probe are
    fitted value iteration to its fixed point.

    The linear probe's ridge is chosen on the rows of the fit. With a fixed one, what few neurons
    carry drowns where there are as many neurons as rows; and single rows cannot be left out to
    choose it, since the rows of a problem share V.

    `fit(X, y, groups)` takes arrays, so that scikit-learn's pipelines, searches and
    cross-validations work. These hand `groups` on to the fits inside of them by metadata routing
    alone: `probe.set_fit_request(groups=True)`.
    """

    def __init__(
        self,
        target: Literal["mc", "td", "td-lambda", "terminal"] = "mc",
        shape: Literal["linear", "mlp"] = "mlp",
        hidden: int = 1024,
        ridge: float | None = None,
        rate: float = 5e-4,
        epochs: int = 20,
        batch: int = 20,
        seed: int = 0,
        lam: float = 0.9,
    ) -> None:
        super().__init__(shape, hidden, ridge, rate, epochs, batch, seed)
        self.target, self.lam = target, lam

    def check(self) -> None:
        super().check()
        one_of("probe target", self.target, TARGETS)
        require(
            0 <= self.lam <= 1, f"lam is lambda of TD(lambda), in [0, 1]; {self.lam} was given."
        )

    def _rows(self, acts: Activations, values: Values) -> tuple[Examples, str]:
        if acts.rows != "tokens":
            return states(acts, values), "V-hat"
        require(
            self.target != "mc",
            "V-hat exists at states only: record with rows='states', or td.",
        )
        return tokens(acts, values), "the reward"

    def _learn(self, data: Examples) -> None:
        lam = {"td": 0.0, "td-lambda": self.lam}.get(self.target, 1.0)
        self._fit(data, data.y if self.target == "mc" else data.reward.astype(float), lam)


class DopamineProbe(_Probe):
    """Reads the TD error off the mean activation over a step's tokens.

    Parameters
    ----------
    cut : float, default 0.0
        Fit only to steps with |delta| > cut, as the paper does with 0.3; 0 fits all (the default:
        at finite k the cut selects noise).
    shape : {"linear", "mlp"}, default "mlp"
        "mlp" (d -> hidden -> 1, the paper's) or "linear" (ridge).
    hidden : int, default 32
        Units of the MLP.
    ridge : float or None, default None
        Penalty per row of the linear probe; None chooses it by leaving out each problem of the
        rows given to `fit` in turn (see `ridge.choose`).
    rate : float, default 0.001
        Learning rate of the MLP's AdamW.
    epochs : int, default 30
        Epochs of the MLP.
    batch : int, default 20
        Trajectories in a batch of the MLP.
    seed : int, default 0
        Seed of the MLP: weights and order of trajectories.

    Attributes
    ----------
    scores_ : array [width]
        L1 norm of each input's first-layer weights (paper section 2); 0 for neurons that are
        constant over the rows.
    mean_ : tensor [width]
        Mean of each neuron over the rows given to `fit`.
    scale_ : tensor [width]
        Standard deviation of each neuron; infinite where it is 0.
    net_ : torch.nn.Module
        Reads standardised activations.
    ridge_ : float
        Penalty per row of the linear probe.
    n_features_in_ : int
        Width; with `feature_names_in_` where arrays name their columns.
    site_ : Site
        Site of the activations given to `fit`. Arrays and `fit_examples` set neither this nor
        those below.
    rows_ : str
        Their kind of row.
    model_id_ : ModelId
        Model of the activations.
    policy_ : Policy
        How their answers were drawn.
    direction_ : tensor [width]
        One standard deviation of each neuron, with the sign of its covariance with delta.
    correlation_ : array [width]
        |Spearman's correlation| of each neuron alone with the same.
    correlated_ : str, "delta"
        What `correlation_` is a correlation with.

    Notes
    -----
    d -> 32 -> 1 with squared error is that of paper section 2. Ridge and arrays are as for
    `ValueProbe`.
    """

    def __init__(
        self,
        cut: float = 0.0,
        shape: Literal["linear", "mlp"] = "mlp",
        hidden: int = 32,
        ridge: float | None = None,
        rate: float = 1e-3,
        epochs: int = 30,
        batch: int = 20,
        seed: int = 0,
    ) -> None:
        super().__init__(shape, hidden, ridge, rate, epochs, batch, seed)
        self.cut = cut

    def _rows(self, acts: Activations, values: Values) -> tuple[Examples, str]:
        return steps(acts, values), "delta"

    def _kept(self, data: Examples) -> Examples:
        kept = data.only(np.abs(data.y) > self.cut) if self.cut else data
        if not len(kept):
            raise MechRewardError(
                f"no step has |delta| > {self.cut}; the largest is {np.abs(data.y).max():.3f}."
            )
        return kept


def net(width: int, hidden: int, seed: int) -> torch.nn.Sequential:
    """A fresh d -> hidden -> 1 ReLU net. Its first layer begins at a hundredth of PyTorch's default
    (our choice): from the default, a column's L1 norm, which ranks the neurons, is mostly the
    random weights that it began with."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(stream("probe: first weights", seed))
        first, second = torch.nn.Linear(width, hidden), torch.nn.Linear(hidden, 1)
    with torch.no_grad():
        first.weight.mul_(0.01)
    return torch.nn.Sequential(first, torch.nn.ReLU(), second)
