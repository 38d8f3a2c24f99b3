"""The sampling law, value for value against transformers' own processors and warpers."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
import torch
from transformers import (
    LogitsProcessorList,
    MinPLogitsWarper,
    RepetitionPenaltyLogitsProcessor,
    SequenceBiasLogitsProcessor,
    TemperatureLogitsWarper,
    TopKLogitsWarper,
    TopPLogitsWarper,
    TypicalLogitsWarper,
)

from treewright.core.request import Sampling
from treewright.ops.warp import penalised, probabilities

CASES = [
    Sampling(1.0),
    Sampling(0.7),
    Sampling(1.3, top_k=5),
    Sampling(1.0, top_k=50),
    Sampling(0.9, top_p=0.8),
    Sampling(1.0, top_p=0.05),
    Sampling(1.5, min_p=0.1),
    Sampling(1.0, typical_p=0.6),
    Sampling(1.0, typical_p=0.05),
    Sampling(0.8, top_k=12, top_p=0.9, min_p=0.02, typical_p=0.9),
    Sampling(1.0, repetition_penalty=1.3),
    Sampling(1.0, repetition_penalty=0.7, logit_bias=((0, 2.0), (7, -3.0))),
    Sampling(0.9, repetition_penalty=1.2, top_k=10, top_p=0.7, logit_bias=((3, 1.0),)),
]


def theirs(logits: np.ndarray, prefix: Sequence[int], sampling: Sampling) -> np.ndarray:
    """What transformers makes of logits [V] after `prefix`, with the processors in the order its `generate` puts them."""
    steps = LogitsProcessorList()
    if sampling.logit_bias:
        steps.append(SequenceBiasLogitsProcessor({(token,): bias for token, bias in sampling.logit_bias}))
    if sampling.repetition_penalty != 1:
        steps.append(RepetitionPenaltyLogitsProcessor(sampling.repetition_penalty))
    steps.append(TemperatureLogitsWarper(sampling.temperature))
    if sampling.top_k:
        steps.append(TopKLogitsWarper(sampling.top_k))
    if sampling.top_p:
        steps.append(TopPLogitsWarper(sampling.top_p))
    if sampling.min_p:
        steps.append(MinPLogitsWarper(sampling.min_p))
    if sampling.typical_p:
        steps.append(TypicalLogitsWarper(sampling.typical_p))
    return steps(torch.tensor([list(prefix)]), torch.from_numpy(logits.copy())[None]).softmax(-1)[0].numpy()


def ours(logits: np.ndarray, prefix: Sequence[int], sampling: Sampling) -> np.ndarray:
    return probabilities(penalised(logits, np.array(prefix), 3, sampling), sampling)


@pytest.mark.parametrize("sampling", CASES, ids=str)
def test_the_law_equals_transformers(sampling: Sampling) -> None:
    random = np.random.default_rng(0)
    for _ in range(20):
        logits, prefix = random.normal(size=40) * 3, random.integers(0, 40, size=12)
        law = ours(logits, prefix.tolist(), sampling)
        assert law == pytest.approx(theirs(logits, prefix.tolist(), sampling), abs=1e-12)
        assert law.sum() == pytest.approx(1, abs=1e-12)


@pytest.mark.parametrize("sampling", [Sampling(1.0, top_k=2), Sampling(1.0, min_p=0.5), Sampling(1.0, typical_p=0.5)], ids=str)
def test_ties_are_kept_together_as_transformers_keeps_them(sampling: Sampling) -> None:
    logits = np.log(np.array([0.3, 0.2, 0.2, 0.2, 0.1]))
    assert ours(logits, [0, 1, 2], sampling) == pytest.approx(theirs(logits, [0, 1, 2], sampling), abs=1e-12)


@pytest.mark.parametrize("sharpness", [0.1, 2.0, 6.0])
def test_a_large_vocabulary_is_cut_as_a_small_one(sharpness: float) -> None:
    """The nucleus is looked for among a few tokens first, then among more; ties across the cut take the lower ids."""
    random = np.random.default_rng(4)
    for mass in (0.3, 0.9, 0.999):
        logits = random.normal(size=5_000) * sharpness
        assert ours(logits, [0, 1, 2], Sampling(1.0, top_p=mass)) == pytest.approx(
            theirs(logits, [0, 1, 2], Sampling(1.0, top_p=mass)), abs=1e-12
        )
    even = ours(np.zeros(1_000), [0, 1, 2], Sampling(1.0, top_p=0.0955))
    assert np.flatnonzero(even).tolist() == list(range(96))


def test_presence_and_frequency_count_new_tokens_only() -> None:
    sampling = Sampling(1.0, presence_penalty=0.5, frequency_penalty=0.25)
    changed = penalised(np.zeros(6), np.array([0, 1, 1, 2, 2, 3]), 3, sampling)
    assert changed.tolist() == [0, 0, -(0.5 + 2 * 0.25), -(0.5 + 0.25), 0, 0]


def test_logits_are_not_written_to() -> None:
    logits = np.zeros(4)
    penalised(logits, np.array([0, 1]), 1, Sampling(1.0, repetition_penalty=2.0, presence_penalty=1.0, logit_bias=((2, 5.0),)))
    probabilities(logits, Sampling(0.5, top_k=1))
    assert not logits.any()


def test_an_impossible_row_has_no_probability() -> None:
    assert not probabilities(np.full(5, -np.inf), Sampling(1.0, top_p=0.9, typical_p=0.5)).any()


def test_greedy_takes_the_lowest_id_of_a_tie_and_ignores_warpers() -> None:
    law = probabilities(np.array([0.0, 2.0, 2.0, 1.0]), Sampling(0.0, top_k=3, top_p=0.2, min_p=0.9))
    assert law.tolist() == [0, 1, 0, 0]
