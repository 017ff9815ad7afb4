"""Pictures of answers and of a neuron on the tiny model: text as it was written, numbers by plain
loops."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
import tiny
from matplotlib.text import Text as Letters
from scipy.stats import pearsonr, spearmanr

import mechreward as mr
from mechreward import show
from mechreward.base.errors import MechRewardError
from mechreward.models.text import joined_pieces
from mechreward.show.picture import NARROW, WIDE
from mechreward.show.written import Said, Text, Words

SITE = "1.resid_post"


@pytest.fixture(scope="module")
def runs(tiny_model):
    return mr.sample(tiny_model, tiny.Even().problems("test", 12), k=2, seed=4, progress=False)


@pytest.fixture(scope="module")
def vals(tiny_model, runs):
    return mr.estimate(tiny_model, runs, k=4, progress=False)


@pytest.fixture(scope="module")
def acts(tiny_model, runs):
    return mr.record(tiny_model, runs, SITE, progress=False)[SITE]


def test_a_strip_is_the_text_as_it_was_written(tiny_model, runs, vals):
    made = show.strip(runs, vals, 3, model=tiny_model)
    tokens = made.data[made.data["mark"] == "token"]
    assert tokens["text"].tolist() == joined_pieces(tiny_model, runs[3].tokens)
    mine = vals.trajectory == 3
    value = vals.mean[mine]
    for position, number in enumerate(tokens["y"]):
        if position < runs[3].step_ends[0]:
            assert np.isnan(number)
        else:
            step = int(np.searchsorted(runs[3].step_ends, position))
            assert number == value[step]
    states = made.data[made.data["mark"] == "state"]
    np.testing.assert_array_equal(states["y"], value)
    np.testing.assert_allclose(states["high"], np.minimum(value + vals.error[mine], 1))


def test_a_badge_is_grey_within_noise(tiny_model, runs, vals):
    for answer in range(4):
        made = show.strip(runs, vals, answer, model=tiny_model)
        badges = made.data[made.data["mark"].str.startswith("badge")]
        mine = np.flatnonzero(vals.trajectory == answer)
        assert len(badges) == runs[answer].steps
        for row, mark in zip(mine[1:], badges["mark"], strict=True):
            noise = 1.96 * math.hypot(vals.error[row], vals.error[row - 1])
            assert mark == ("badge" if abs(vals.delta[row]) > noise else "badge within noise")


def test_read_outs_are_steps_below(tiny_model, runs, vals, acts):
    neurons = mr.NeuronSet.of(acts, [3, 8], "by hand")
    column = np.arange(len(vals.trajectory), dtype=float)
    made = show.strip(runs, vals, 5, {"set": neurons, "rows": column}, model=tiny_model)
    states = made.data[made.data["mark"] == "state"].groupby("panel")["y"].agg(list)
    mine = np.flatnonzero(vals.trajectory == 5)
    assert states["rows"] == mine.tolist()
    expected = acts.x[mine][:, [3, 8]].mean(1).numpy()
    np.testing.assert_allclose(states["set"], expected, atol=1e-5)
    listed = show.strip(runs, vals, 5, [neurons], model=tiny_model)
    assert listed.panels[-1].title == f"2 neurons of {SITE}"


def test_strips_are_drawn_blind_one_a_problem(tiny_model, runs, vals):
    made = show.strips(runs, vals, 3, model=tiny_model)
    titles = [panel.title for panel in made.panels if isinstance(panel, Text)]
    assert len(titles) == len({title.rpartition(":")[0] for title in titles}) == 3
    assert "drawn blind" in made.caption and "seed 0" in made.caption
    assert show.strips(runs, vals, 3, model=tiny_model).data.equals(made.data)
    other = show.strips(runs, vals, 3, model=tiny_model, seed=1)
    assert [panel.title for panel in other.panels] != [panel.title for panel in made.panels]
    every = show.strips(runs, vals, 99, model=tiny_model)
    assert sum(isinstance(panel, Text) for panel in every.panels) == len(set(runs.groups))


@pytest.mark.unchecked
def test_strips_of_other_things_are_refused(tiny_model, runs, vals):
    def one_line(word: str, *given, **options) -> None:
        with pytest.raises(MechRewardError, match=word) as error:
            show.strip(*given, model=tiny_model, **options)
        assert "\n" not in str(error.value)

    one_line("other rollouts", runs.subset([0]), vals, 0)
    one_line("answers 0 to", runs, vals, 99)
    one_line("whole number", runs, vals, 0.5)
    one_line("column of", runs, vals, 0, {"x": [1.0]})
    one_line("read", runs, vals, 0, "text")
    one_line("runs", "text", vals, 0)


@pytest.mark.parametrize("name", ["strips", "neuron"])
def test_every_picture_is_legible_and_the_same_bytes(tiny_model, runs, vals, acts, name: str):
    def draw() -> show.Picture:
        if name == "neuron":
            return show.neuron(tiny_model, SITE, 5, runs, vals)
        return show.strips(runs, vals, 2, [acts.x[:, 3].numpy()], model=tiny_model)

    made, again = draw(), draw()
    narrow = made._drawn(NARROW)
    assert made.svg(NARROW) == again.svg(NARROW)
    written = [text for text in narrow.findobj(Letters) if text.get_text().strip()]
    assert min(text.get_fontsize() for text in written) >= 9
    assert "nan" not in made.alt + made.caption


HOSTILE = ["<b>", "\x1b[2J", "日本", "a" * 200, "\n\n", "", " ", "$x$", "\u202e"]


def test_hostile_text_is_placed_whole_and_within_its_lines():
    numbers = [0.5] * len(HOSTILE)
    part = Said("0.50", "+0.10", True, HOSTILE, numbers, numbers)
    panel = Text("t", [part], 19)
    for width in (NARROW / 96, WIDE / 96):
        letters = panel._letters(width)
        placed = panel._placed(letters)
        shown = "".join(place.text for place in placed)
        assert shown == "".join(HOSTILE).replace("\x1b", "⟨U+001B⟩").replace(
            "\u202e", "⟨U+202E⟩"
        ).replace("\n", "↵")
        assert all(19 <= place.x <= letters for place in placed)
        assert max(place.x + len(place.text) for place in placed) <= letters
    made = show.Picture("t", [panel, Words("w", {"more": "".join(HOSTILE)})], "c", "a")
    page = made._repr_html_()
    assert "<b>" not in page and "\x1b" not in page and "\u202e" not in page


def test_a_neuron_is_followed_by_plain_loops(tiny_model, runs, vals, acts):
    made = show.neuron(tiny_model, SITE, 5, runs, vals)
    data = made.data
    live = vals.live
    dots = data[(data["panel"] == "Activation and V-hat") & (data["mark"] == "dot")]
    np.testing.assert_allclose(dots["y"], acts.x[live, 5], atol=1e-5)
    np.testing.assert_array_equal(dots["x"], vals.mean[live])
    rho = []
    for column in acts.x[live].numpy().T:
        rho.append(spearmanr(column, vals.mean[live]).statistic)
    line = data[(data["mark"] == "upright line") & data["label"].str.startswith("5: rank")].iloc[0]
    assert line["x"] == pytest.approx(rho[5])
    place = 1 + sum(abs(other) > abs(rho[5]) + 1e-12 for other in rho)
    assert f"rank {place} of {len(rho)}" in line["label"]
    parts = data[data["panel"].str.startswith("What writes it") & (data["mark"] == "dot")]
    names = ["embedding", "attention 0", "MLP 0", "attention 1", "MLP 1"]
    assert parts["label"].tolist() == names
    whole = pearsonr(acts.x[live, 5].numpy(), vals.mean[live]).statistic
    assert parts["x"].sum() == pytest.approx(whole, abs=1e-4)


def test_a_neuron_has_its_steps_one_a_problem(tiny_model, runs, vals, acts):
    made = show.neuron(tiny_model, SITE, 5, runs, vals)
    steps = np.flatnonzero(vals.is_step)
    order = steps[np.argsort(-acts.x[steps, 5].numpy(), kind="stable")]
    highest = next(panel for panel in made.panels if panel.title == "Steps where it is highest")
    labels, seen = [], set()
    for row in order:
        if vals.group[row] not in seen and len(labels) < 6:
            seen.add(vals.group[row])
            labels.append(f"{float(acts.x[row, 5]):+.2f}".replace("-", "−"))
    assert [part.label.partition(",")[0] for part in highest.parts] == labels
    top = highest.parts[0]
    run = runs[int(vals.trajectory[order[0]])]
    span = run.span(int(vals.step[order[0]]))
    text = "".join(joined_pieces(tiny_model, run.tokens)[span]).replace("\n", "↵")
    assert "".join(top.pieces[top.faint :]) == text
    assert top.numbers[-1] == pytest.approx(float(acts.x[order[0], 5]), abs=1e-5)


def test_words_are_those_of_the_unembedding(tiny_model, runs, vals):
    made = show.neuron(tiny_model, SITE, 5, runs, vals)
    words = next(panel for panel in made.panels if isinstance(panel, Words))
    logits = tiny_model.unembed.W_U[5].detach()
    first = tiny_model.tokenizer.decode([int(logits[: len(tiny_model.tokenizer)].argmax())])
    assert words.lines["more"].split("  ")[0] == first.replace("\n", "↵")


def test_an_mlp_unit_has_a_page_without_writers(tiny_model, runs, vals):
    made = show.neuron(tiny_model, "0.mlp", 2, runs, vals)
    assert not any(panel.title.startswith("What writes it") for panel in made.panels)
    assert any(isinstance(panel, Words) for panel in made.panels)


def test_mistakes_of_a_neuron_are_one_line(tiny_model, runs, vals):
    with pytest.raises(MechRewardError, match="neurons 0 to 31; 32"):
        show.neuron(tiny_model, SITE, 32, runs, vals)
    with pytest.raises(MechRewardError, match="layers 0 to 1"):
        show.neuron(tiny_model, "7.mlp", 0, runs, vals)
    ends = [row for row in range(len(vals.trajectory)) if not vals.live[row]]
    with pytest.raises(MechRewardError, match="other rollouts"):
        show.neuron(tiny_model, SITE, 0, runs, replace(vals, trajectory=vals.trajectory + 1))
    assert ends
