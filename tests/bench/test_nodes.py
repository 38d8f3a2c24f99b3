"""The tree size that pays: by hand, and on a model."""

from __future__ import annotations

import pytest

from treewright.api import Loaded, load
from treewright.bench import nodes
from treewright.bench.nodes import best_nodes, choose_nodes, cost_at, gain, measure_nodes
from treewright.core.errors import InputError

COSTS = {1: 2.0, 8: 2.2, 16: 3.0, 32: 5.0}
MAT = {7: 1.8, 15: 2.6, 31: 3.0}


def test_the_gain_is_acceptance_over_relative_cost() -> None:
    assert gain(COSTS, MAT, 7) == pytest.approx(1.8 * 2.0 / 2.2)
    assert gain(COSTS, MAT, 15) == pytest.approx(2.6 * 2.0 / 3.0)
    assert gain(COSTS, MAT, 31) == pytest.approx(3.0 * 2.0 / 5.0)


def test_the_best_size_changes_with_the_costs() -> None:
    assert best_nodes(COSTS, MAT) == 15
    assert best_nodes({1: 2.0, 8: 2.0, 16: 2.0, 32: 2.0}, MAT) == 31
    assert best_nodes({1: 2.0, 8: 2.2, 16: 6.0, 32: 12.0}, MAT) == 7
    assert best_nodes({1: 1.0, 4: 1.0, 8: 1.0}, {3: 1.5, 7: 1.5}) == 3


def test_costs_between_measured_sizes_lie_on_the_line() -> None:
    assert cost_at(COSTS, 12) == pytest.approx(2.6)
    assert cost_at(COSTS, 16) == 3.0
    with pytest.raises(InputError, match="no cost is known for 40 claims; measured: 1, 8, 16, 32; add --claims 40"):
        cost_at(COSTS, 40)
    with pytest.raises(InputError, match="no acceptance"):
        best_nodes(COSTS, {})


def test_a_choice_is_the_best_of_what_was_measured(tiny: Loaded, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(nodes, "CANDIDATES", (3, 7))
    monkeypatch.setattr(nodes, "TOKENS", 16)
    choice = measure_nodes(tiny, rows=2)
    assert set(choice.mat) == {3, 7} and set(choice.costs) == {1, 4, 8}
    assert all(1.0 <= mat <= nodes + 1 for nodes, mat in choice.mat.items())
    assert choice.outside > 0
    rounds = {claims: seconds + choice.outside for claims, seconds in choice.costs.items()}
    assert choice.nodes == best_nodes(rounds, choice.mat)
    assert choice.predicted == pytest.approx(gain(rounds, choice.mat, choice.nodes))
    assert tiny.memories == {}


def test_sizes_that_the_engine_would_cut_on_a_processor_are_not_tried(tiny: Loaded, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(nodes, "TOKENS", 8)
    assert choose_nodes(tiny, rows=16) in (1, 3)


def test_a_model_without_a_tokenizer_is_refused() -> None:
    with pytest.raises(InputError, match="'random:tiny' has no tokenizer"):
        choose_nodes(load("random:tiny"), 1)
