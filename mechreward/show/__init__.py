"""One `Picture` class, and a function a noun: `mr.show.calibration(conf)`, `mr.show.search(...)`.

Every picture holds `.figure` (matplotlib), `.data` (a line a mark) and `.caption`, shows itself in
notebooks, and is saved as svg, png, pdf, html or csv.
"""

from mechreward.show.answers import strip, strips
from mechreward.show.cards import certificate
from mechreward.show.causes import ablation, dose
from mechreward.show.choices import exits, search, siblings
from mechreward.show.circuit import circuit
from mechreward.show.confident import calibration, risk
from mechreward.show.page import neuron
from mechreward.show.picture import Picture
from mechreward.show.sparse import layers, overlap, pruning
from mechreward.show.sweeps import patching

__all__ = [
    "Picture",
    "ablation",
    "calibration",
    "certificate",
    "circuit",
    "dose",
    "exits",
    "layers",
    "neuron",
    "overlap",
    "patching",
    "pruning",
    "risk",
    "search",
    "siblings",
    "strip",
    "strips",
]
