"""Speculative sampling: its law by going through all outcomes, and the closed forms of Leviathan et al."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from treewright.core.request import Budget, Sampling
from treewright.models.tables import Table

PROMPT = (1, 0)


class Independent(Table):
    """A table whose law is the same at every place."""

    def __init__(self, weights: list[float]) -> None:
        super().__init__(len(weights), seed=0)
        self.law = np.array(weights) / np.sum(weights)

    def logits(self, prefix) -> np.ndarray:
        return np.log(self.law)


TARGET, DRAFT = Independent([5, 3, 2]), Independent([2, 2, 6])
ALPHA = float(np.minimum(TARGET.law, DRAFT.law).sum())


def first_rounds(decode, outcomes, tokens: int, count: int, target=TARGET, draft=DRAFT, **sampling):
    """(probability, emitted tokens, accepted drafts) of the first round, over all outcomes."""
    settings = dict(max_new_tokens=count, budget=Budget(model_calls=1), sampling=Sampling(temperature=1.0, **sampling))

    def run(chance):
        decoded = decode(target, "speculative_sampling", [PROMPT], {"tokens": tokens}, draft, randomness=chance, **settings)
        step = decoded.trace().steps[0]
        return step.emitted, len(step.accepted)

    return [(probability, *result) for probability, result in outcomes(run)]


@pytest.mark.parametrize("tokens", [1, 2, 3])
def test_acceptance_and_mean_tokens_have_their_closed_forms(tokens, decode, outcomes):
    found = first_rounds(decode, outcomes, tokens, tokens + 1)
    assert sum(probability for probability, _, _ in found) == pytest.approx(1, abs=1e-12)
    for place in range(1, tokens + 1):
        reached = sum(probability for probability, _, accepted in found if accepted >= place)
        assert reached == pytest.approx(ALPHA**place, abs=1e-12)
    mean = sum(probability * len(emitted) for probability, emitted, _ in found)
    assert mean == pytest.approx((1 - ALPHA ** (tokens + 1)) / (1 - ALPHA), abs=1e-12)


def whole_law(decode, outcomes, target, draft, sampling: Sampling, tokens: int, count: int) -> dict[tuple[int, ...], float]:
    law: dict[tuple[int, ...], float] = {}

    def run(chance):
        decoded = decode(
            target, "speculative_sampling", [PROMPT], {"tokens": tokens}, draft,
            randomness=chance, max_new_tokens=count, sampling=sampling,
        )  # fmt: skip
        return tuple(decoded.tokens[0])

    for probability, text in outcomes(run):
        law[text] = law.get(text, 0.0) + probability
    return law


@pytest.mark.parametrize(
    "sampling", [Sampling(temperature=1.0), Sampling(temperature=0.6), Sampling(temperature=1.3, top_k=2)], ids=str
)
def test_joint_law_is_the_targets(sampling, decode, outcomes):
    """A draft unlike the target, laws that depend on the prefix, more tokens than one round gives. With these seeds the
    residual after a rejection keeps two or three tokens, so its weights matter."""
    target, draft = Table(4, seed=10), Table(4, seed=1)
    found = whole_law(decode, outcomes, target, draft, sampling, tokens=2, count=2)
    expected: dict[tuple[int, ...], float] = {}
    for text in itertools.product(range(4), repeat=2):
        probability, prefix = 1.0, list(PROMPT)
        for token in text:
            scaled = target.logits(prefix) / sampling.temperature
            if sampling.top_k:
                scaled = np.where(scaled < np.sort(scaled)[-sampling.top_k], -np.inf, scaled)
            weights = np.exp(scaled - scaled.max())
            probability *= weights[token] / weights.sum()
            prefix.append(token)
        expected[text] = probability
    distance = 0.5 * sum(abs(found.get(text, 0.0) - probability) for text, probability in expected.items())
    assert distance < 1e-12


@pytest.mark.parametrize("temperature", [0.0, 0.7])
def test_target_as_its_own_draft_accepts_everything(temperature, decode):
    table = Table(6, seed=5)
    decoded = decode(
        table, "speculative_sampling", [PROMPT, (3,)], {"tokens": 4}, table,
        max_new_tokens=20, sampling=Sampling(temperature=temperature),
    )  # fmt: skip
    assert [len(step.emitted) for step in decoded.trace().steps] == [5, 5, 5, 5]


def test_draft_that_cannot_be_right_costs_rounds_and_no_token(decode):
    target, draft = Independent([1, 1, 1e-300]), Independent([1e-300, 1e-300, 1])
    decoded = decode(
        target, "speculative_sampling", [PROMPT], {"tokens": 3}, draft, max_new_tokens=12, sampling=Sampling(temperature=1.0)
    )  # fmt: skip
    assert decoded.accepted() == 0
    assert set(decoded.tokens[0]) == {0, 1}
    assert decoded.rounds() == 12


def test_calls_of_a_round(decode):
    decoded = decode(TARGET, "speculative_sampling", [PROMPT], {"tokens": 3}, DRAFT, max_new_tokens=30)
    calls = [call.model for call in decoded.trace().calls if call.kind == "score"]
    rounds = decoded.rounds()
    assert calls[:8] == ["draft", "draft", "draft", "target"] * 2
    assert calls.count("target") == rounds
    # No draft is written for places that the text can no longer take.
    assert calls.count("draft") <= 3 * rounds


def test_greedy_drafts_are_the_drafts_own_greedy_text(decode, greedy_text):
    target, draft = Table(6, seed=7), Table(6, seed=8)
    decoded = decode(target, "speculative_sampling", [PROMPT], {"tokens": 4}, draft, max_new_tokens=16)
    assert decoded.tokens == [greedy_text(target, PROMPT, 16)]
    assert decoded.trace().steps[0].token[1:] == greedy_text(draft, PROMPT, 4)


def test_limit_on_columns_shortens_the_draft(decode):
    decoded = decode(TARGET, "speculative_sampling", [PROMPT], {"tokens": 9}, DRAFT, columns=4, max_new_tokens=20)
    assert {len(step.token) for step in decoded.trace().steps[:4]} == {4}
