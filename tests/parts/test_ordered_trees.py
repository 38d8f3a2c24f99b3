"""Ordered trees of the positional model: the dynamic programme against all trees, and the estimate of its vector."""

from __future__ import annotations

import itertools
from functools import cache

import numpy as np
import pytest

from treewright.parts.propose.draft_model import tree_size
from treewright.parts.propose.ordered_trees import Acceptance, TreeTable, expected_tokens

VECTORS = [(0.6, 0.2, 0.1), (0.5, 0.45), (0.9,), (0.2, 0.2, 0.2, 0.2), (0.3, 0.0, 0.4), (0.0, 0.7)]
Ordered = tuple["Ordered", ...]


@cache
def forests(nodes: int, depth: int, width: int) -> list[tuple[Ordered, ...]]:
    """All ordered lists of at most `width` trees of `nodes` nodes in all and at most `depth` levels."""
    if nodes == 0:
        return [()]
    if width == 0 or depth == 0:
        return []
    return [
        (first, *rest)
        for size in range(1, nodes + 1)
        for first in forests(size - 1, depth - 1, 99)
        for rest in forests(nodes - size, depth, width - 1)
    ]


def tokens(tree: Ordered, acceptance: tuple[float, ...]) -> float:
    return 1 + sum(acceptance[rank] * tokens(child, acceptance) for rank, child in enumerate(tree))


def narrow(tree: Ordered, width: int) -> bool:
    return len(tree) <= width and all(narrow(child, width) for child in tree)


def test_the_enumeration_counts_as_catalan():
    assert [len(forests(nodes - 1, 99, 99)) for nodes in range(1, 9)] == [1, 1, 2, 5, 14, 42, 132, 429]


@pytest.mark.parametrize("acceptance", VECTORS, ids=str)
def test_the_best_tree_is_the_best_of_all_ordered_trees(acceptance):
    table = TreeTable(acceptance, 8, 5)
    for nodes, depth in itertools.product(range(1, 9), range(1, 6)):
        found = [
            tokens(tree, acceptance) for tree in forests(nodes - 1, depth - 1, 99) if narrow(tree, len(acceptance))
        ]  # fmt: skip
        assert table.tokens[depth, nodes] == pytest.approx(max(found, default=-np.inf), abs=1e-12), (nodes, depth)


@pytest.mark.parametrize("acceptance", VECTORS, ids=str)
@pytest.mark.parametrize("depth", [1, 2, 4, 9])
def test_the_tree_is_what_the_table_says_of_it(acceptance, depth):
    table = TreeTable(acceptance, 24, 10)
    for nodes in range(1, 25):
        levels = table.best(nodes, depth)
        assert tree_size(levels) <= nodes and len(levels) < depth
        assert all(count <= len(acceptance) for counts in levels for count in counts)
        assert [len(counts) for counts in levels] == [1, *(sum(counts) for counts in levels)][: len(levels)]
        assert expected_tokens(levels, acceptance) == pytest.approx(table.tokens[depth, : nodes + 1].max(), abs=1e-12)


def test_a_sure_draft_is_a_chain_and_a_root_alone_is_no_tree():
    assert TreeTable((1.0, 0.0), 5, 9).best(5, 9) == ((1,), (1,), (1,), (1,))
    assert TreeTable((0.5,), 1, 1).best(1, 1) == ()


def test_size_and_depth_are_those_of_the_least_time():
    acceptance, seconds = (0.6, 0.15, 0.05), {1: 1.0, 4: 1.05, 8: 1.1, 16: 1.6}
    table = TreeTable(acceptance, 16, 6)
    for draft in (0.001, 0.05, 0.5, 5.0):
        best = min(
            ((depth - 1) * draft + time) / expected_tokens(table.best(size, depth), acceptance)
            for size, time in seconds.items() for depth in range(1, 6)
        )  # fmt: skip
        size, depth = table.fastest(draft, seconds, 5)
        assert ((depth - 1) * draft + seconds[size]) / expected_tokens(table.best(size, depth), acceptance) == pytest.approx(best)
    assert table.fastest(0.001, seconds, 5)[1] == 5 and table.fastest(5.0, seconds, 5) == (1, 1)


def test_the_vector_is_found_from_tries_that_end_early():
    """Claims with one, two or four children: a plain count over all rounds would take the missing ones for failures."""
    truth, random = np.array([0.5, 0.2, 0.1, 0.05]), np.random.default_rng(0)
    acceptance = Acceptance([0.25] * 4)
    for _ in range(6000):
        width, taken = int(random.choice([1, 2, 4])), int(random.choice(5, p=[*truth, 1 - truth.sum()]))
        acceptance.learn(min(taken + 1, width), taken < width)
    assert acceptance.vector() == pytest.approx(truth, abs=0.03)
    assert acceptance.seen == 6000


def test_before_anything_was_seen_the_prior_stands():
    prior = [0.6, 0.2, 0.1]
    assert Acceptance(prior).vector() == pytest.approx(prior)
    assert Acceptance([1.0, 0.0]).vector() == pytest.approx([1.0, 0.0])


def test_tries_beyond_the_vector_do_not_count_for_it():
    acceptance = Acceptance([0.5])
    acceptance.learn(3, True)
    assert acceptance.vector()[0] < 0.5
