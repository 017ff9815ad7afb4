"""The words of the prompt as a baseline: does it know more than what the question is about?"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from jaxtyping import Float, Int
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.metrics import log_loss
from sklearn.model_selection import GroupKFold

from mechreward.base.errors import MechRewardError
from mechreward.uses.confidence.logit import linear, logistic

# Our choice, so that numbers and signs of one character count: scikit-learn leaves them out.
HOW: dict[str, Any] = {
    "token_pattern": r"\w+|[^\w\s]",
    "ngram_range": (1, 2),
    "sublinear_tf": True,
}
STRENGTHS = (0.01, 0.1, 1.0, 10.0, 100.0)  # inverse penalties that are tried
FOLDS = 5
EDGE = 1e-6


@dataclass(frozen=True)
class Text:
    """A logistic regression on TF-IDF of words and pairs of words.

    Attributes
    ----------
    words : tuple of str
        The vocabulary.
    idf, weight : array [word]
        Inverse document frequency, and weight in the score.
    bias : float
        Of the score.
    strength : float
        The inverse penalty that other problems were read best with.
    """

    words: tuple[str, ...] = field(repr=False)
    idf: Float[np.ndarray, " word"] = field(repr=False)
    weight: Float[np.ndarray, " word"] = field(repr=False)
    bias: float
    strength: float

    @classmethod
    def of(
        cls,
        prompts: Sequence[str],
        y: Float[np.ndarray, " row"],
        group: Int[np.ndarray, " row"],
    ) -> Text:
        """Fitted to prompts; the penalty is chosen by leaving problems out.

        Parameters
        ----------
        prompts : sequence of str
            One a row.
        y : array [row]
            V-hat at the prompt, or the reward.
        group : array [row]
            The problem.

        Raises
        ------
        MechRewardError
            The prompts have no words.
        """
        vectorizer = TfidfVectorizer(**HOW)
        try:
            x = vectorizer.fit_transform(prompts)
        except ValueError as error:
            raise MechRewardError(f"the prompts have no words: {error}") from error
        strength = _strength(x, y, group)
        weight, bias = linear(logistic(x, y, strength))
        words = tuple(vectorizer.get_feature_names_out().tolist())
        return cls(words, vectorizer.idf_, weight, bias, strength)

    def score(self, prompts: Sequence[str]) -> Float[np.ndarray, " row"]:
        """Logit of the probability of a right answer, from the prompt alone."""
        vectorizer = TfidfVectorizer(vocabulary=list(self.words), **HOW)
        vectorizer.idf_ = self.idf
        return vectorizer.transform(prompts) @ self.weight + self.bias


def _strength(x: Any, y: np.ndarray, group: np.ndarray) -> float:
    """The inverse penalty with the smallest log loss on problems that were left out."""
    folds = min(FOLDS, len(np.unique(group)))
    if folds < 2:
        return 1.0
    losses = []
    for strength in STRENGTHS:
        read = np.empty(len(y))
        for rows, held in GroupKFold(folds).split(x, groups=group):
            model = logistic(x[rows], y[rows], strength)
            read[held] = model.predict_proba(x[held])[:, 1]
        losses.append(_loss(y, read))
    return STRENGTHS[int(np.argmin(losses))]


def _loss(y: np.ndarray, read: np.ndarray) -> float:
    label = np.repeat([1, 0], len(y))
    twice = np.clip(np.concatenate([read, read]), EDGE, 1 - EDGE)
    return float(log_loss(label, twice, sample_weight=np.concatenate([y, 1 - y])))
