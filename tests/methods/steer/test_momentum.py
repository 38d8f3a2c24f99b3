"""Momentum decoding: lengths against brute force over all suffixes, and its limit cases."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from treewright.methods.steer.momentum import Config, Momentum, repeated
from treewright.testing.definition import plain_law
from treewright.testing.enumerate import exact_law, total_variation


def by_hand(prefix: list[int], token: int) -> int:
    fits = [
        n for n in range(1, 6)
        for start in range(len(prefix) - n + 1)
        if prefix[start : start + n] == [*prefix[len(prefix) - n + 1 :], token]
    ]  # fmt: skip
    return max(fits, default=0)


@given(st.lists(st.integers(0, 2), min_size=1, max_size=14))
def test_lengths_are_those_of_brute_force(prefix):
    found = repeated(np.array(prefix), np.arange(4))
    assert found.tolist() == [by_hand(prefix, token) for token in range(4)]


def scores(logits, prefix, **options):
    return Momentum(Config(**options)).steer(np.array(logits), {}, np.array(prefix), (0, 0))


def test_an_unseen_favourite_is_taken_and_a_repeated_one_resisted():
    assert scores([3.0, 2.9, 0.0], [2, 2]).argmax() == 0
    assert scores([3.0, 2.9, 0.0], [0, 2]).argmax() == 1


def test_only_k_candidates_are_allowed():
    assert np.isfinite(scores([3.0, 2.0, 1.0, 0.0], [0], k=2)).tolist() == [True, True, False, False]


def test_infinite_resistance_is_a_block_of_repeated_ngrams():
    """f infinite from n = 2 on, over the whole vocabulary: no bigram comes twice."""
    table, text = np.random.default_rng(0).normal(size=(4, 4)), [0]
    for _ in range(12):
        text.append(int(scores(table[text[-1]], text, k=4, resistance=(0.0, 0.0)).argmax()))
    pairs = list(pairwise(text))
    assert len(set(pairs)) == len(pairs)


def test_where_everything_is_forbidden_the_most_probable_is_taken():
    assert scores([0.0, 1.0], [1, 0, 1, 0], k=2, resistance=()).argmax() == 1


def test_alpha_zero_is_greedy(case_of):
    ours = exact_law(case_of("plain+momentum", {"alpha": 0.0}, 0.0, tokens=10, vocabulary=5))
    assert ours == exact_law(case_of("plain", None, 0.0, tokens=10, vocabulary=5))


@pytest.mark.parametrize(
    ("method", "options"),
    [("token_recycling", {"momentum.k": 3, "token_recycling.k": 2, "nodes": 4}), ("prompt_lookup", {"tokens": 2})],
)
def test_drafters_give_the_same_text(case_of, method, options):
    case = case_of(f"{method}+momentum", options, 0.0, tokens=10, vocabulary=5)
    assert total_variation(exact_law(case), plain_law(case)) == 0
