"""Counters under trends, few times: the calibration counts them often. Seeds are fixed."""

from __future__ import annotations

import numpy as np
import pytest

from mechreward.base.errors import MechRewardError
from mechreward.calibration.trends import CARRIERS, FOLLOWED, drawn, trends


@pytest.mark.parametrize("followed", FOLLOWED)
def test_what_is_followed_is_what_the_neurons_say(followed: str) -> None:
    data, further = drawn(followed, 64, 200, 0, "test")
    step, position, prompt = data.known.T
    same = data.step == step
    assert same.all() and (position >= prompt).all()
    facts = {
        "value": data.y,
        "step": step,
        "length": position,
        "tokens left": further["length to come"],
        "difficulty": further["difficulty"],
        "hard": further["difficulty"],
    }
    carried = data.x[:, list(CARRIERS)].mean(1).numpy()
    assert np.corrcoef(carried, facts[followed])[0, 1] > 0.6
    assert abs(np.corrcoef(data.x[:, 9].numpy(), facts[followed])[0, 1]) < 0.1
    assert (further["length to come"] > 0).all()


def test_verdicts_are_counted_by_claim() -> None:
    for followed, passes in (("value", 1.0), ("step", 0.0)):
        rows = trends(followed, 64, range(2))
        assert [row.arm for row in rows] == ["decodable", "sparse"]
        for row in rows:
            assert (row.metric, row.n, row.estimate) == ("trend_pass_rate", 2, passes)
            assert sum(row.detail["verdicts"].values()) == 2
    with pytest.raises(MechRewardError, match="did you mean 'step'"):
        trends("steps", 64, range(2))
