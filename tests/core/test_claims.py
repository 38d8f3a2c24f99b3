"""Shapes and forests: how claims grow, who sees whom, what a row keeps when rows move."""

from __future__ import annotations

import numpy as np
import pytest

from treewright.core.claims import ABSENT, Forest, Law, Shape


def forest_of(rows: int = 2) -> Forest:
    return Forest(np.arange(rows) + 10)


def test_a_claim_sees_itself_and_its_ancestors_and_nothing_else() -> None:
    shape = Shape.frontier().grow([0, 0, 1, 1, 3])
    assert shape.depth.tolist() == [[0, 1, 1, 2, 2, 3]]
    for column in range(6):
        seen = {column, *shape.path(0, column), 0}
        assert set(np.flatnonzero(shape.visible[0, column]).tolist()) == seen
    assert shape.path(0, 5) == [1, 3, 5] and shape.path(0, 0) == []
    assert shape.children(0) == [[1, 2], [3, 4], [], [5], [], []]


def test_growing_the_same_way_gives_the_same_object() -> None:
    assert Shape.frontier().grow([0, 1]) is Shape.frontier().grow((0, 1))
    assert Shape.frontier().grow([0]).grow([1]) is Shape.frontier().grow([0]).grow([1])
    assert Shape.frontier().grow([0, 1]) is not Shape.frontier().grow([0, 0])


def test_growing_at_once_and_bit_by_bit_is_the_same_tree() -> None:
    at_once, steps = Shape.frontier().grow([0, 0, 2, 3]), Shape.frontier().grow([0, 0]).grow([2]).grow([3])
    for name in ("parent", "depth", "visible"):
        assert np.array_equal(getattr(at_once, name), getattr(steps, name))


def test_rows_may_have_trees_of_their_own() -> None:
    forest = forest_of()
    forest.grow(np.array([[0, 1], [0, 0]]), np.array([[5, 6], [7, 8]]))
    assert not forest.shape.shared
    assert forest.shape.depth.tolist() == [[0, 1, 2], [0, 1, 1]]
    assert forest.path_tokens(0, 2) == [5, 6] and forest.path_tokens(1, 2) == [8]
    assert forest.shape.children(0)[1] == [2] and forest.shape.children(1)[0] == [1, 2]


def test_an_orphan_sees_only_itself() -> None:
    forest = forest_of(1)
    forest.grow(np.array([[0, -1]]), np.array([[5, 6]]))
    assert forest.shape.visible[0, 2].tolist() == [False, False, True]
    assert forest.shape.depth[0, 2] == 1 and all(2 not in below for below in forest.shape.children(0))


@pytest.mark.parametrize("parents", [[1], [0, 2]])
def test_a_parent_comes_before_its_child(parents: list[int]) -> None:
    with pytest.raises(ValueError, match="a parent must come before its child"):
        forest_of(1).grow(parents, np.zeros((1, len(parents)), int))


@pytest.mark.parametrize("law", [Law.SINGLE, Law.SWOR, Law.IID])
def test_drawn_claims_name_their_law(law: Law) -> None:
    with pytest.raises(ValueError, match=f"claims of law {law.name} need q"):
        forest_of(1).grow([0], np.zeros((1, 1), int), law)


def test_columns_keep_their_law_and_the_law_they_were_drawn_from() -> None:
    forest, q = forest_of(), np.full((2, 3), 1 / 3)
    assert forest.grow([0], np.array([[1], [2]])) == range(1, 2)
    assert forest.grow([1, 1], np.array([[0, 1], [1, 2]]), Law.SWOR, {1: q}) == range(2, 4)
    assert forest.law == [Law.DELTA, Law.DELTA, Law.SWOR, Law.SWOR] and forest.q == {1: q}


def test_slots_are_absent_where_claims_fill_none() -> None:
    forest = forest_of(1)
    forest.grow([0], np.array([[3]]))
    forest.grow([1], np.array([[4]]), slots=np.array([[9]]))
    assert forest.slot is not None and forest.slot.tolist() == [[ABSENT, ABSENT, 9]]


def test_what_is_too_deep_is_absent_row_by_row() -> None:
    forest = forest_of()
    before = forest.token
    forest.grow([0, 1, 2], np.array([[1, 2, 3], [4, 5, 6]]))
    forest.limit_depth(np.array([2, 0]))
    assert forest.token.tolist() == [[10, 1, 2, ABSENT], [11, ABSENT, ABSENT, ABSENT]]
    assert before.tolist() == [[10], [11]]


def test_rows_move_with_their_trees_and_laws() -> None:
    forest = forest_of(3)
    q = np.eye(3)
    forest.grow(np.array([[0, 1], [0, 0], [0, -1]]), np.arange(6).reshape(3, 2), Law.SWOR, {0: q}, np.arange(6).reshape(3, 2))
    forest.select([2, 0, 0])
    assert forest.token.tolist() == [[12, 4, 5], [10, 0, 1], [10, 0, 1]]
    assert forest.shape.parent.tolist() == [[-1, 0, -1], [-1, 0, 1], [-1, 0, 1]]
    assert forest.q[0].argmax(1).tolist() == [2, 0, 0] and forest.slot[1].tolist() == [ABSENT, 0, 1]  # type: ignore[index]
    shared = forest_of(3)
    shared.grow([0, 1], np.zeros((3, 2), int))
    shape = shared.shape
    shared.select([1, 1, 1])
    assert shared.shape is shape and shared.token[:, 0].tolist() == [11, 11, 11]
