"""The text: rows of facts, and canvases whose slots become facts in any order."""

from __future__ import annotations

from treewright.core.text import Text


def test_rows_of_several_lengths_grow_on_their_own() -> None:
    text = Text(6)
    text.admit([[1, 2, 3], [4]], [6, 5])
    text.append(1, [7, 8])
    assert [text.of(row).tolist() for row in range(2)] == [[1, 2, 3], [4, 7, 8]]
    assert text.frontier().tolist() == [3, 8] and text.remaining().tolist() == [3, 2]
    assert text.prompt.tolist() == [3, 1] and text.rows == 2


def test_rows_that_join_may_be_longer_than_those_there() -> None:
    text = Text(3)
    text.admit([[1, 2]], [3])
    text.append(0, [5])
    text.admit([[6, 7, 8, 9]], [7])
    assert text.of(0).tolist() == [1, 2, 5] and text.of(1).tolist() == [6, 7, 8, 9]
    assert text.remaining().tolist() == [0, 3]


def test_a_copy_of_a_row_is_a_row_of_its_own() -> None:
    text = Text(5)
    text.admit([[1], [2, 2]], [5, 5])
    text.select([1, 0, 1])
    text.append(0, [9])
    assert [text.of(row).tolist() for row in range(3)] == [[2, 2, 9], [1], [2, 2]]
    assert text.prompt.tolist() == [2, 1, 2]
    text.select([])
    assert text.rows == 0


def test_a_canvas_is_laid_out_to_its_limit_and_settles_from_the_left() -> None:
    text = Text(5, blank=9)
    text.admit([[1, 2], [3]], [5, 3])
    assert [text.of(row).tolist() for row in range(2)] == [[1, 2, 9, 9, 9], [3, 9, 9]]
    assert text.remaining().tolist() == [3, 2]
    text.fill(0, 4, 7)
    assert text.settled(0, 2) == [] and text.remaining().tolist() == [2, 2]
    text.fill(0, 2, 6)
    assert text.settled(0, 2) == [6]
    text.fill(0, 3, 5)
    assert text.settled(0, 2) == [6, 5, 7] and text.settled(0, 4) == [7] and text.remaining().tolist() == [0, 2]


def test_a_blank_of_zero_is_not_taken_for_the_room_behind_a_short_canvas() -> None:
    text = Text(6, blank=0)
    text.admit([[1, 2], [3]], [6, 3])
    assert text.remaining().tolist() == [4, 2]
