"""Keyed randomness: even, independent, the same whoever asks, in whatever order, in whatever process."""

from __future__ import annotations

import itertools
import subprocess
import sys

import numpy as np
import pytest

from treewright.core.randomness import ACCEPT, DRAFT, DRAW, SEARCH, Keyed, hash_key, inverse_cdf

GOLDEN = [0.18436667429957676, 0.5100619094398051, 0.9884609440703209]
"""Of the three places in `golden`; a change of these changes every text that was drawn with a seed."""


def golden() -> list[float]:
    return [
        Keyed(0).uniform(0, 0, DRAW),
        Keyed(1).uniform((2, 3), 40, ACCEPT, 5),
        Keyed(-7).uniform((0, 1), 123_456, DRAFT, 70_000),
    ]


def test_the_numbers_are_the_same_in_every_process() -> None:
    assert golden() == GOLDEN
    code = "from treewright.core.randomness import *; print(Keyed(1).uniform((2, 3), 40, ACCEPT, 5))"
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env={"PYTHONHASHSEED": "5"})
    assert float(shown.stdout) == GOLDEN[1]


def uniforms(axis: str, count: int) -> np.ndarray:
    """Numbers that differ in one part of the key."""
    base = dict(row=(0, 0), position=7, stream=DRAW, trial=0)
    if axis == "seed":
        return np.array([Keyed(seed).uniform(**base) for seed in range(count)])
    parts = {"row": [(0, n) for n in range(count)], "position": range(count), "trial": range(count)}[axis]
    return np.array([Keyed(3).uniform(**(base | {axis: part})) for part in parts])


@pytest.mark.parametrize("axis", ["seed", "row", "position", "trial"])
def test_numbers_are_even_and_neighbours_unrelated(axis: str) -> None:
    count, bins = 20_000, 50
    numbers = uniforms(axis, count)
    assert numbers.min() >= 0 and numbers.max() < 1
    observed = np.histogram(numbers, bins, (0, 1))[0]
    chi_square = ((observed - count / bins) ** 2).sum() * bins / count
    # 49 degrees of freedom: mean 49, standard deviation 9.9; the 1e-6 and 1 - 1e-6 quantiles are near 12 and 113.
    assert 12 < chi_square < 113
    # Serial correlation of independent numbers has a standard deviation of 1/sqrt(n).
    for lag in (1, 2, 7, 64):
        assert abs(np.corrcoef(numbers[:-lag], numbers[lag:])[0, 1]) < 5 / np.sqrt(count)


def test_streams_rows_and_trials_never_share_a_number() -> None:
    keys = itertools.product([0, 1], [(0, 0), (0, 1), (1, 0)], range(20), [DRAW, ACCEPT, DRAFT, SEARCH], [0, 1, 255, 256, 65_536])
    numbers = [Keyed(seed).uniform(row, position, stream, trial) for seed, row, position, stream, trial in keys]
    assert len(set(numbers)) == len(numbers) == 2 * 3 * 20 * 4 * 5


def test_streams_of_one_place_are_independent() -> None:
    pairs = np.array([
        [Keyed(seed).uniform((0, 0), 3, stream) for stream in (DRAW, ACCEPT, DRAFT, SEARCH)] for seed in range(10_000)
    ])  # fmt: skip
    correlation = np.corrcoef(pairs.T) - np.eye(4)
    assert np.abs(correlation).max() < 5 / np.sqrt(len(pairs))


def test_a_number_does_not_depend_on_what_was_asked_before() -> None:
    keyed, places = Keyed(5), [(row, position) for row in range(4) for position in range(30)]
    forwards = {place: keyed.uniform((0, place[0]), place[1], DRAW) for place in places}
    backwards = {place: Keyed(5).uniform((0, place[0]), place[1], DRAW) for place in reversed(places)}
    assert forwards == backwards


def test_numbers_of_numpy_are_the_same_key() -> None:
    assert Keyed(1).uniform(np.int64(4), 2, DRAW) == Keyed(1).uniform(4, 2, DRAW) == Keyed(1).uniform((4,), 2, DRAW)
    assert hash_key((np.int64(1), 2)) == hash_key((1, 2)) != hash_key((2, 1))


def test_draws_follow_their_weights() -> None:
    weights = np.array([0.0, 3.0, 1.0, 0.0, 4.0])
    counts = np.bincount([Keyed(seed).index(weights, (0, 0), 0, DRAW) for seed in range(20_000)], minlength=5)
    expected = 20_000 * weights / weights.sum()
    assert counts[[0, 3]].tolist() == [0, 0]
    assert (((counts - expected) ** 2)[weights > 0] / expected[weights > 0]).sum() < 27.6  # 1e-6, two degrees of freedom
    accepted = sum(Keyed(seed).accept(0.3, (0, 0), 0) for seed in range(20_000))
    assert abs(accepted - 6_000) < 5 * np.sqrt(20_000 * 0.3 * 0.7)


@pytest.mark.parametrize("uniform", [0.0, 1 - 2.0**-53])
def test_the_ends_of_the_interval_never_give_a_token_of_weight_zero(uniform: float) -> None:
    for weights in ([0.0, 1e-300, 0.0], [0.0, 0.1, 0.2, 0.7, 0.0], [0.0, 1e16, 1.0, 0.0], [1.0]):
        assert weights[inverse_cdf(np.array(weights), uniform)] > 0


def test_certain_things_are_certain() -> None:
    assert all(Keyed(seed).accept(1.0, 0, 0) and not Keyed(seed).accept(0.0, 0, 0) for seed in range(100))
