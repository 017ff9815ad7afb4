"""The paper's experiments, one function each, in its order: data in, tidy rows out.

The paper does not number its experiments; R1 to R14 are ours, and aliases of the functions.

| | claim | function | file |
| --- | --- | --- | --- |
| R1 | a value probe works | `value_probe`, `random_weights` | `value_probe.py` |
| R2 | few neurons are enough | `pruning` | `pruning.py` |
| R3 | over layers | `layers`, `choose` | `layers.py` |
| R4 | they are causal | `ablation` | `ablation.py` |
| | the same at every layer | `ablation_by_layer` | `ablation_by_layer.py` |
| | beside other rankings, on other tasks, and self-repair | `other_rankings`, `elsewhere`, \
`repair` | `ablation_beside.py` |
| R5 | the probe's target matters | `targets` | `targets.py` |
| R6 | they are not next-token neurons | `next_token_overlap` | `next_token.py` |
| R7 | confidence | `confidence_rows` | `confidence.py` |
| R8 | dopamine neurons | `td_error` | `td_error.py` |
| R9 | a single neuron that follows surprise | `single_neuron` | `single_neuron.py` |
| R10 | value neurons feed dopamine neurons | `dependence` | `dependence.py` |
| R11 | guided search | `guided_search` | `search.py` |
| | sibling steps of one state | `sibling_rows` | `siblings.py` |
| R12 | transfer over tasks and models | `transfer` | `transfer.py` |
| R13 | MLP neurons: R2 and R4 there | `mlp_neurons` | `ablation.py` |
| R14 | both directions: steering up and down | `steering` | `steering.py` |
| | at one damage, and by share | `same_damage`, `share_dose` | `doses.py` |
| | states patched into each other | `both_patched` | `patching.py` |
| | rollouts stopped early | `early_exits` | `early_exit.py` |
| | the claims of a certificate as rows | `claim_rows` | `certificate.py` |

A function may have the name of its file: `from mechreward.experiments.pruning import pruning` and
`mechreward.experiments.pruning` are then the same function.
"""

from mechreward.experiments.ablation import ablation, mlp_neurons
from mechreward.experiments.ablation_beside import elsewhere, other_rankings, repair, rivals
from mechreward.experiments.ablation_by_layer import ablation_by_layer
from mechreward.experiments.certificate import claim_rows
from mechreward.experiments.choice import find
from mechreward.experiments.confidence import confidence_rows
from mechreward.experiments.dependence import dependence, zeroed_below
from mechreward.experiments.doses import by_share, same_damage, share_dose
from mechreward.experiments.early_exit import early_exits
from mechreward.experiments.layers import choose, layers
from mechreward.experiments.next_token import next_token_overlap
from mechreward.experiments.patching import both_patched
from mechreward.experiments.pruning import pruning
from mechreward.experiments.search import guided_search
from mechreward.experiments.siblings import sibling_rows
from mechreward.experiments.single_neuron import single_neuron
from mechreward.experiments.split import CUT, SHARES, Split, describe, observe, shared
from mechreward.experiments.steering import steering, steering_arms
from mechreward.experiments.targets import targets
from mechreward.experiments.td_error import best_dopamine, td_error
from mechreward.experiments.transfer import Home, transfer
from mechreward.experiments.value_probe import random_weights, value_probe

R1 = value_probe
R2 = pruning
R3 = layers
R4 = ablation
R5 = targets
R6 = next_token_overlap
R7 = confidence_rows
R8 = td_error
R9 = single_neuron
R10 = dependence
R11 = guided_search
R12 = transfer
R13 = mlp_neurons
R14 = steering

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
    "R11",
    "R12",
    "R13",
    "R14",
    "SHARES",
    "Home",
    "Split",
    "ablation",
    "ablation_by_layer",
    "best_dopamine",
    "both_patched",
    "by_share",
    "choose",
    "claim_rows",
    "confidence_rows",
    "dependence",
    "describe",
    "early_exits",
    "elsewhere",
    "find",
    "guided_search",
    "layers",
    "mlp_neurons",
    "next_token_overlap",
    "observe",
    "other_rankings",
    "pruning",
    "random_weights",
    "repair",
    "rivals",
    "same_damage",
    "share_dose",
    "shared",
    "sibling_rows",
    "single_neuron",
    "steering",
    "steering_arms",
    "targets",
    "td_error",
    "transfer",
    "value_probe",
    "zeroed_below",
]
