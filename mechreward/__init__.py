"""Find the sparse reward subsystem of a language model, and find out whether to believe it."""

from mechreward import experiments as paper
from mechreward import show, tasks, testbed
from mechreward.base.errors import MechRewardError
from mechreward.causal.attach import attach
from mechreward.causal.certificate import Certificate, certify
from mechreward.causal.edges import edges
from mechreward.causal.edges_noun import Edges
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
from mechreward.rollouts.trajectory import Rollouts
from mechreward.rollouts.value import Values, estimate
from mechreward.studies.forecast import forecast
from mechreward.uses.confidence import Confidence, confidence
from mechreward.uses.early_exit import early_exit
from mechreward.uses.search.search import Search, search
from mechreward.uses.siblings import siblings

__version__ = "0.1.0"
__all__ = [
    "Activations",
    "AdaptiveK",
    "Certificate",
    "Confidence",
    "DopamineProbe",
    "Edges",
    "Intervention",
    "MechRewardError",
    "NeuronSet",
    "Policy",
    "Rollouts",
    "Search",
    "Site",
    "ValueProbe",
    "Values",
    "ablate",
    "attach",
    "certify",
    "confidence",
    "early_exit",
    "edges",
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
    "search",
    "select",
    "show",
    "siblings",
    "steer",
    "tasks",
    "testbed",
    "zero",
]
