"""Exact tables: laws that depend on the last tokens only, the same every time, and canvases filled in any order."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from treewright.core.claims import Forest
from treewright.core.session import Opening
from treewright.core.text import Text
from treewright.models.tables import AnyOrderTable, Table


def test_law_depends_on_the_last_tokens_only():
    table = Table(5, seed=3, order=2)
    assert np.array_equal(table.logits([4, 4, 1, 2]), table.logits([0, 1, 2]))
    assert not np.array_equal(table.logits([4, 4, 1, 2]), table.logits([4, 4, 2, 2]))
    # A prefix shorter than the order has a law of its own.
    assert not np.array_equal(table.logits([2]), table.logits([0, 2]))


def test_the_seed_is_the_table():
    assert np.array_equal(Table(5, seed=3).logits([1, 2]), Table(5, seed=3).logits([1, 2]))
    assert not np.array_equal(Table(5, seed=3).logits([1, 2]), Table(5, seed=4).logits([1, 2]))


def test_sharpness_scales_the_logits():
    assert (Table(4, seed=1, sharpness=0).logits([1]) == 0).all()
    assert np.allclose(Table(4, seed=1, sharpness=3).logits([1]), 3 * Table(4, seed=1).logits([1]))


@pytest.mark.parametrize("likeness", [0.0, 0.3, 1.0])
def test_likeness_mixes_another_tables_logits(likeness):
    target, own = Table(4, seed=1), Table(4, seed=2)
    draft = Table(4, seed=2, like=target, likeness=likeness)
    mixed = (1 - likeness) * own.logits([3, 1]) + likeness * target.logits([3, 1])
    assert np.allclose(draft.logits([3, 1]), mixed)


def test_hidden_states_are_directions():
    state = Table(4, seed=1).hidden([1, 2, 3])
    assert state.shape == (4,)
    assert np.linalg.norm(state) == pytest.approx(1)
    assert not np.allclose(state, Table(4, seed=1).hidden([1, 2, 0]))


def any_order(table: AnyOrderTable) -> tuple[Text, object, list]:
    text = Text(5, table.capabilities.mask)
    text.admit([[0, 1]], [5])
    calls: list[tuple[str, int, int]] = []
    session = table.open(text, Opening(8, 1, 5), lambda kind, rows, columns, *_: calls.append((kind, rows, columns)))
    session.admit(text, [[0, 1]])
    return text, session, calls


def test_field_of_a_canvas_is_a_law_for_every_slot():
    table = AnyOrderTable(3, seed=0)
    canvas = np.array([0, 1, 3, 3])
    field = table.field(canvas)
    assert field.shape == (4, 3)
    assert np.allclose(field.sum(-1), 1)
    assert np.array_equal(field, table.field(canvas.copy()))
    assert not np.allclose(field, table.field(np.array([0, 2, 3, 3])))


def test_claims_fill_slots_of_their_own_canvas():
    table = AnyOrderTable(3, seed=1)
    text, session, calls = any_order(table)
    assert text.of(0).tolist() == [0, 1, 3, 3, 3]
    forest = Forest(text.frontier())
    forest.grow([0, 1, 0], np.array([[2, 0, 1]]), slots=np.array([[4, 2, 3]]))
    field = session.score(forest).field
    canvases = [[0, 1, 3, 3, 3], [0, 1, 3, 3, 2], [0, 1, 0, 3, 2], [0, 1, 3, 1, 3]]
    for column, canvas in enumerate(canvases):
        assert np.allclose(field.probabilities(0, column, range(5)), table.field(np.array(canvas)), atol=1e-15)
    assert calls == [("score", 1, 4)]
    # The accepted canvas is known from the round before, so asking for it again costs nothing.
    text.fill(0, 4, 2)
    text.fill(0, 2, 0)
    session.commit([[1, 2]])
    assert torch.equal(session.root().field.logits(0, 0, range(5)), field.logits(0, 2, range(5)))
    assert len(calls) == 1
