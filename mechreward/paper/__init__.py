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

from mechreward.paper.arms import by_share, rivals, steering_arms, zeroed_below
from mechreward.paper.besides import elsewhere, other_rankings, repair
from mechreward.paper.causes import R4, R5, R13
from mechreward.paper.choice import find
from mechreward.paper.directions import R10, R14
from mechreward.paper.doses import both_patched, same_damage, share_dose
from mechreward.paper.reads import R1, R2, R3, R6, choose, random_weights
from mechreward.paper.split import CUT, SHARES, Split, describe, observe, shared
from mechreward.paper.surprise import R8, R9, best_dopamine
from mechreward.paper.transfer import R12, Home
from mechreward.paper.uses import R7

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
