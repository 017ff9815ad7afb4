"""Find the sparse reward subsystem of a language model, and find out whether to believe it."""

from mechreward import experiments as paper
from mechreward import tasks, testbed
from mechreward.base.errors import MechRewardError
from mechreward.causal.attach import attach
from mechreward.causal.certificate import Certificate, certify
from mechreward.causal.effect import ablate
from mechreward.causal.intervene import Intervention, mean, patch, resample, scale, steer, zero
from mechreward.data.external import read_rollouts
from mechreward.models.load import load
from mechreward.models.policy import Policy
from mechreward.models.site import Site
from mechreward.probing.activations import Activations, record
from mechreward.probing.neurons import NeuronSet, select
from mechreward.probing.probe import DopamineProbe, ValueProbe
from mechreward.rollouts.adaptive import AdaptiveK
from mechreward.rollouts.sample import sample
from mechreward.rollouts.trajectory import Rollouts, Trajectory
from mechreward.rollouts.value import Values, estimate
from mechreward.studies.forecast import Forecast, forecast

__version__ = "0.1.0"
__all__ = [
    "Activations",
    "AdaptiveK",
    "Certificate",
    "DopamineProbe",
    "Forecast",
    "Intervention",
    "MechRewardError",
    "NeuronSet",
    "Policy",
    "Rollouts",
    "Site",
    "Trajectory",
    "ValueProbe",
    "Values",
    "ablate",
    "attach",
    "certify",
    "estimate",
    "forecast",
    "load",
    "mean",
    "paper",
    "patch",
    "read_rollouts",
    "record",
    "resample",
    "sample",
    "scale",
    "select",
    "steer",
    "tasks",
    "testbed",
    "zero",
]
