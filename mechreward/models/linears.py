"""Linear maps of one input, side by side."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch.nn.functional import linear

Weight = tuple[torch.Tensor, torch.Tensor | None]


class Linears:
    """Linear maps of one input, side by side.

    On a CPU that oneDNN serves they are one product of weights in oneDNN's own order, nearly twice
    as fast for some dozens of rows; that order is a copy, so large models do without.
    """

    LARGEST = 2**28  # bytes of all weights: our choice

    def __init__(self, parts: Sequence[Weight], small: bool) -> None:
        self.parts = parts
        self.packed = None
        weights = [weight for weight, _ in parts]
        plain = weights[0].device.type == "cpu" and weights[0].dtype == torch.float32
        if small and plain and torch.backends.mkldnn.enabled:
            self.packed = torch.ops.mkldnn._reorder_linear_weight(torch.cat(weights))
            self.bias = _joined_bias(parts)

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        if self.packed is not None:
            product = torch.ops.mkldnn._linear_pointwise
            return product(x, self.packed, self.bias, "none", [], "")
        outputs = [linear(x, weight, bias) for weight, bias in self.parts]
        return outputs[0] if len(outputs) == 1 else torch.cat(outputs, -1)


def _joined_bias(parts: Sequence[Weight]) -> torch.Tensor | None:
    """The biases side by side, zeros where a part has none; None where no part has one."""
    if all(bias is None for _, bias in parts):
        return None
    biases = []
    for weight, bias in parts:
        biases.append(weight.new_zeros(len(weight)) if bias is None else bias)
    return torch.cat(biases)
