"""Contrastive decoding against its two formulas, its identities, and drafters under it."""

from __future__ import annotations

import numpy as np
import pytest

from treewright.methods.steer.contrastive_decoding import Config, parts
from treewright.testing.definition import plain_law
from treewright.testing.enumerate import exact_law, total_variation

EXPERT, AMATEUR = np.array([2.0, 1.9, 0.0, -3.0]), np.array([2.5, 0.5, 0.0, -4.0])
NOTHING = (np.array([0]), (0, 0))


def steer(**options):
    return parts(Config(**options)).steer[0].steer(EXPERT, {"amateur": AMATEUR}, *NOTHING)


def test_the_reasoning_form_overturns_what_the_amateur_says_too():
    scores = steer()
    assert scores.argmax() == 1 and EXPERT.argmax() == 0
    assert np.allclose(scores[:3], 1.5 * EXPERT[:3] - 0.5 * AMATEUR[:3])
    assert scores[3] == -np.inf


@pytest.mark.parametrize("temperature", [0.5, 1.0])
def test_the_original_form_is_a_difference_of_log_probabilities(temperature):
    scores = steer(form="original", amateur_temperature=temperature)
    amateur = np.exp(AMATEUR / temperature) / np.exp(AMATEUR / temperature).sum()
    assert np.allclose(scores[:3], np.log(np.exp(EXPERT) / np.exp(EXPERT).sum())[:3] - np.log(amateur)[:3])


def test_plausible_is_a_share_of_the_largest_probability():
    probability = np.exp(EXPERT) / np.exp(EXPERT).sum()
    for alpha in (1.0, 0.5, 0.1, 0.001):
        assert np.array_equal(steer(alpha=alpha) > -np.inf, probability >= alpha * probability.max() * (1 - 1e-12))


def test_beta_zero_is_the_expert_on_plausible_tokens():
    scores = steer(beta=0.0, alpha=0.01)
    assert np.array_equal(scores[:3], EXPERT[:3])


def test_beta_zero_keeps_greedy_text(case_of):
    ours = exact_law(case_of("plain+contrastive_decoding", {"beta": 0.0}, 0.0, tokens=8))
    assert ours == exact_law(case_of("plain", None, 0.0, tokens=8))


@pytest.mark.parametrize("form", ["reasoning", "original"])
@pytest.mark.parametrize("temperature", [0.0, 1.0])
@pytest.mark.parametrize(("method", "options"), [("token_recycling", {"k": 2, "nodes": 4}), ("specinfer", {"expansion": [2, 1]})])
def test_drafters_keep_the_contrasted_law(case_of, method, options, temperature, form):
    case = case_of(f"{method}+contrastive_decoding", {**options, "form": form}, temperature)
    assert total_variation(exact_law(case), plain_law(case)) < 1e-9
