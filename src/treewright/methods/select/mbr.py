"""Minimum Bayes risk: of several samples return the one that is most like all the others.

Sampling-based minimum Bayes risk decoding, as Finkelstein and Freitag 2024, "MBR and QE Finetuning: Training-time Distillation
of the Best and Most Expensive Decoding Methods" (https://arxiv.org/abs/2309.10966) use it to make their training data. The
samples are candidates and pseudo-references at once: argmax over h of the sum over r of w(r) u(h, r), for a utility u of a
hypothesis h (first) and a reference r (second), both texts.

Cost: the target calls of all candidates, decoded as rows of a batch, and n^2 utilities of different texts.

Beside the paper: utilities that need no model: `token_f1` (overlap of words), `exact_match` (then the most frequent text wins),
`edit_similarity` (1 - Levenshtein distance / length of the longer, over characters), and `chrf` and `bleu` (sentence BLEU of
the effective order) of sacrebleu, all in [0, 1]. Uniform references are the Monte Carlo estimate; `references` = probability
weighs every different token sequence by the model's own probability of it, however often it was drawn, which is the exact
Bayes decision once all texts are among the samples. A candidate is a reference of itself. Cut-off candidates are no references,
and come after all finished ones. Equal utilities go to the lowest sample. The quality estimation of the paper's title is
`best_of_n` with a reward.
"""

from __future__ import annotations

import importlib
import math
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from treewright.core.errors import InputError, require
from treewright.core.roles import Parts
from treewright.core.selection import Candidate, Scorer
from treewright.parts.select.ranking import AllEnd, probability_weights, ranked, whole

CARD = {
    "title": "MBR and QE Finetuning: Training-time Distillation of the Best and Most Expensive Decoding Methods",
    "year": 2024,
    "link": "https://arxiv.org/abs/2309.10966",
    "card": 232,
    "aliases": ["minimum Bayes risk", "MBR decoding"],
    "roles": ["select"],
    "models": [],
    "needs": ["left_to_right"],
    "claims": ["selects"],
    "tables": {"candidates": 4},
}

Utility = Callable[[str, str], float]


@dataclass(frozen=True)
class Config:
    """
    candidates: samples of each prompt, which are its references, too
    utility: how like a hypothesis is to a reference; chrf and bleu need sacrebleu
    references: what a reference weighs: one each, or its probability under the model
    """

    candidates: int = 32
    utility: Literal["token_f1", "exact_match", "edit_similarity", "chrf", "bleu"] = "token_f1"
    references: Literal["uniform", "probability"] = "uniform"

    def __post_init__(self) -> None:
        require(self.candidates >= 1, "candidates", self.candidates, "an integer >= 1")


def token_f1(hypothesis: str, reference: str) -> float:
    """The harmonic mean of precision and recall of the words, repetitions counted; 1 for two texts without words."""
    ours, theirs = Counter(hypothesis.split()), Counter(reference.split())
    words = ours.total() + theirs.total()
    return 2 * (ours & theirs).total() / words if words else 1.0


def exact_match(hypothesis: str, reference: str) -> float:
    """1 for equal texts, else 0."""
    return float(hypothesis == reference)


def edit_similarity(hypothesis: str, reference: str) -> float:
    """1 less the Levenshtein distance as a share of the longer text, over characters; 1 for two empty texts."""
    return 1.0 - levenshtein(hypothesis, reference) / max(1, len(hypothesis), len(reference))


def levenshtein(one: str, other: str) -> int:
    """Insertions, deletions and substitutions that turn one text into the other. A column of the table of distances is two
    integers of len(one) bits, the places where it rises and falls (Myers 1999, in Hyyrö's form): a few operations a character."""
    if not one:
        return len(other)
    places: dict[str, int] = {}
    for place, character in enumerate(one):
        places[character] = places.get(character, 0) | 1 << place
    every, last = (1 << len(one)) - 1, 1 << (len(one) - 1)
    rises, falls, distance = every, 0, len(one)
    for character in other:
        match = places.get(character, 0) | falls
        diagonal = (((match & rises) + rises) ^ rises) | match
        right_rises, right_falls = falls | ~(diagonal | rises), rises & diagonal
        distance += bool(right_rises & last) - bool(right_falls & last)
        right_rises = right_rises << 1 | 1
        falls = right_rises & diagonal & every
        rises = (right_falls << 1 | ~(right_rises | diagonal)) & every
    return distance


def _sacrebleu(utility: str) -> Utility:
    try:
        metrics = importlib.import_module("sacrebleu.metrics")
    except ImportError as error:
        raise InputError(
            f"utility is '{utility}', which needs sacrebleu; pip install 'treewright[select]', or choose token_f1, exact_match "
            "or edit_similarity"
        ) from error
    metric = metrics.CHRF() if utility == "chrf" else metrics.BLEU(effective_order=True)
    return lambda hypothesis, reference: float(metric.sentence_score(hypothesis, [reference]).score) / 100


class MinimumBayesRisk(AllEnd):
    """Selector by expected utility."""

    def __init__(self, config: Config) -> None:
        own: dict[str, Utility] = {"token_f1": token_f1, "exact_match": exact_match, "edit_similarity": edit_similarity}
        self._utility = own.get(config.utility) or _sacrebleu(config.utility)
        self._by_probability = config.references == "probability"

    def select(self, prompt: str, candidates: Sequence[Candidate], scorers: Mapping[str, Scorer]) -> list[int]:
        weights = self._weights(candidates)
        expected: dict[str, float] = {}
        for one in candidates:
            if one.text not in expected:
                # An exactly rounded sum does not depend on the order, so a tie stays one.
                expected[one.text] = math.fsum(weight * self._utility(one.text, text) for text, weight in weights.items())
        return ranked(candidates, [expected[one.text] for one in candidates])

    def _weights(self, candidates: Sequence[Candidate]) -> dict[str, float]:
        """The weight of each different text among the references."""
        indices = whole(candidates)
        uniform = dict.fromkeys(indices, 1 / len(indices))
        shares: dict[str, list[float]] = {}
        for index, weight in (probability_weights(candidates, indices) if self._by_probability else uniform).items():
            shares.setdefault(candidates[index].text, []).append(weight)
        return {text: math.fsum(given) for text, given in shares.items()}


def parts(config: Config) -> Parts:
    by_probability = config.references == "probability"
    return Parts(select=MinimumBayesRisk(config), candidates=config.candidates, logprobs=by_probability, texts=True)
