"""How sure a model should be of its answers: a value read-out beside baselines that see as much.

Data flow one way: `deal` problems to three splits, `seen` what may be known at every state,
`columns` what needs no activations, `p_true` the model's own word, `text` the prompt's words,
`read_outs` the activations; `reader` all arms fitted, `calibrators` scores as probabilities,
`groups` arms that may be compared, `metrics` what they come to, `noun` the result, `kept` its
file, `verb` the call.
"""

from mechreward.uses.confidence.noun import Confidence
from mechreward.uses.confidence.verb import confidence

__all__ = ["Confidence", "confidence"]
