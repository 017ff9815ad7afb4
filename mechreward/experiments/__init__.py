"""The paper's experiments, one function each, in its order: data in, tidy rows out.

| | claim | where |
| --- | --- | --- |
| R1 | a value probe works | `reads.py` |
| R2 | few neurons are enough | `reads.py` |
| R3 | over layers | `reads.py` |
| R4 | they are causal | `causes.py`; other rankings, other tasks, self-repair: `besides.py` |
| R5 | the probe's target matters | `causes.py` |
| R6 | they are not next-token neurons | `reads.py` |
| R7 | confidence | `uses.py` |
| R8 | dopamine neurons | `surprise.py` |
| R9 | traces of single neurons | `surprise.py` |
| R10 | value neurons feed dopamine neurons | `directions.py` |
| R12 | transfer over tasks and models | `transfer.py` |
| R13 | MLP neurons: R2 and R4 there | `causes.py` |
| R14 | both directions: steering up and down | `directions.py`; at one damage, by share, and patching: `doses.py` |
"""

from mechreward.experiments.ablation import R4, R13
from mechreward.experiments.ablation_beside import elsewhere, other_rankings, repair, rivals
from mechreward.experiments.choice import find
from mechreward.experiments.confidence import R7
from mechreward.experiments.dependence import R10, zeroed_below
from mechreward.experiments.doses import by_share, same_damage, share_dose
from mechreward.experiments.layers import R3, choose
from mechreward.experiments.next_token import R6
from mechreward.experiments.patching import both_patched
from mechreward.experiments.pruning import R2
from mechreward.experiments.single_neuron import R9
from mechreward.experiments.split import CUT, SHARES, Split, describe, observe, shared
from mechreward.experiments.steering import R14, steering_arms
from mechreward.experiments.targets import R5
from mechreward.experiments.td_error import R8, best_dopamine
from mechreward.experiments.transfer import R12, Home
from mechreward.experiments.value_probe import R1, random_weights

__all__ = [
    "CUT",
    "R1",
    "R2",
    "R3",
    "R4",
    "R5",
    "R6",
    "R7",
    "R8",
    "R9",
    "R10",
    "R12",
    "R13",
    "R14",
    "SHARES",
    "Home",
    "Split",
    "best_dopamine",
    "both_patched",
    "by_share",
    "choose",
    "describe",
    "elsewhere",
    "find",
    "observe",
    "other_rankings",
    "random_weights",
    "repair",
    "rivals",
    "same_damage",
    "share_dose",
    "shared",
    "steering_arms",
    "zeroed_below",
]
