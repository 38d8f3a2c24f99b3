"""Tries of drafts: prefixes are shared, the best part is connected, rows keep trees of their own."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from treewright.core.claims import ABSENT, Law, Shape
from treewright.parts.propose.trees import Trie, place, sparse_laws

PATHS = st.lists(st.lists(st.integers(0, 3), min_size=1, max_size=4), max_size=12)


def prefixes(paths: list[list[int]]) -> set[tuple[int, ...]]:
    return {tuple(path[:end]) for path in paths for end in range(1, len(path) + 1)}


def trie_of(paths: list[list[int]]) -> Trie:
    trie = Trie()
    for path in paths:
        trie.insert(path)
    return trie


@given(PATHS)
def test_a_trie_holds_each_prefix_once(paths):
    trie = trie_of(paths)
    held = [tuple(trie.path(node)) for node in range(1, len(trie))]
    assert len(held) == len(set(held)) and set(held) == prefixes(paths)
    assert all(above < node for node, above in enumerate(trie.parents))


@given(PATHS, PATHS, st.integers(1, 30))
def test_merging_is_the_union_of_the_prefixes(first, second, most):
    whole, capped = trie_of(first), trie_of(first)
    whole.merge(trie_of(second), most=1000)
    capped.merge(trie_of(second), most)
    both = prefixes(first) | prefixes(second)
    assert {tuple(whole.path(node)) for node in range(1, len(whole))} == both
    assert len(capped) == min(1 + len(both), max(most, 1 + len(prefixes(first))))


@given(PATHS, st.integers(1, 6))
def test_the_best_part_is_the_best_of_all_connected_parts(paths, most):
    trie = trie_of(paths[:4])
    chance = {node: 0.9 ** (node % 5 + 1) for node in range(1, len(trie))}

    def value(node: int) -> float:
        return 1.0 if node == 0 else chance[node] * value(trie.parents[node])

    best = trie.best(value, most)
    found = sum(value(trie.insert(best.path(node))) for node in range(1, len(best)))
    nodes, room = range(1, len(trie)), min(most, len(trie)) - 1
    allowed = [
        sum(map(value, part)) for part in itertools.combinations(nodes, room)
        if all(trie.parents[node] in (0, *part) for node in part)
    ]  # fmt: skip
    assert found == pytest.approx(max(allowed))


@given(st.integers(1, 3).flatmap(lambda rows: st.lists(st.lists(st.integers(-1, 11), min_size=6, max_size=6),
                                                          min_size=rows, max_size=rows)))  # fmt: skip
def test_a_shape_built_at_once_is_the_one_that_grew(wanted):
    below = [[min(above, column) for column, above in enumerate(row)] for row in wanted]
    grown = Shape.frontier()
    for column in range(6):
        grown = grown.grow_rows(np.array([[row[column]] for row in below])) if column else Shape(
            np.full((len(below), 1), -1), np.zeros((len(below), 1), np.int64), np.ones((len(below), 1, 1), bool)
        ).grow_rows(np.array([[row[0]] for row in below]))  # fmt: skip
    at_once = Shape.of(np.concatenate([np.full((len(below), 1), -1), np.array(below)], axis=1))
    for name in ("parent", "visible", "depth"):
        assert np.array_equal(getattr(at_once, name), getattr(grown, name)), name


def test_a_shape_needs_parents_before_children():
    with pytest.raises(ValueError, match="a parent must come before its child"):
        Shape.of(np.array([[-1, 1]]))


def test_rows_keep_their_own_trees(round_of):
    round = round_of([[1], [2]], claims=4)
    place(round, [trie_of([[5, 6], [5, 7]]), trie_of([[8]])])
    assert round.forest.token[:, 1:].tolist() == [[5, 6, 7], [8, ABSENT, ABSENT]]
    assert round.forest.path_tokens(0, 3) == [5, 7] and round.forest.path_tokens(1, 1) == [8]
    with pytest.raises(ValueError, match="5 claims; the round allows 4"):
        place(round, [trie_of([[1, 2, 3, 4]]), Trie()])


def test_laws_of_the_children_are_those_of_each_row(round_of):
    round = round_of([[1], [2]], claims=4, vocabulary=5)
    place(
        round,
        [trie_of([[4], [2]]), trie_of([[3, 1]])],
        Law.SWOR,
        sparse_laws(5, [{0: ([4, 2], [0.6, 0.2])}, {0: ([3], [1.0]), 1: ([1, 0], [1, 3])}]),
    )
    q = round.forest.q
    assert round.forest.law == [Law.DELTA, Law.SWOR, Law.SWOR] and set(q) == {0, 1}
    assert q[0][0].tolist() == pytest.approx([0, 0, 0.25, 0, 0.75]) and q[0][1].tolist() == [0, 0, 0, 1, 0]
    assert not q[1][0].any() and q[1][1].tolist() == [0.75, 0.25, 0, 0, 0]
    round.forest.select([1, 1])
    assert round.forest.q[0][0].tolist() == round.forest.q[0][1].tolist() == [0, 0, 0, 1, 0]
    place(round, [Trie(), Trie()])
    assert not round.forest.q and round.forest.law == [Law.DELTA]
