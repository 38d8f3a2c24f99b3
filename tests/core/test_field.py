"""A field: logits of slots by row and column, widened and brought over when they are looked at."""

from __future__ import annotations

import pytest
import torch

from treewright.core.field import Canvas, Field


def test_slots_count_from_the_canvas_and_forbidden_ids_never_come() -> None:
    logits = torch.randn(3, 4, dtype=torch.float64)
    field = Field([[Canvas(5, logits), None]], forbidden=[2])
    seen = field.logits(0, 0, [7, 5])
    assert torch.equal(seen[:, [0, 1, 3]], logits[[2, 0]][:, [0, 1, 3]])
    assert (seen[:, 2] == -torch.inf).all() and torch.isfinite(logits).all()
    laws = field.probabilities(0, 0, [5, 6, 7])
    assert laws.sum(-1) == pytest.approx([1, 1, 1]) and (laws[:, 2] == 0).all()


def test_16_bits_are_widened_before_the_softmax() -> None:
    field = Field([[Canvas(0, torch.tensor([[30.0, 0.0]], dtype=torch.bfloat16))]])
    assert field.logits(0, 0, [0]).dtype == torch.float32
    assert 0 < field.probabilities(0, 0, [0])[0, 1] < 1e-12


@pytest.mark.parametrize("asked", [(0, 1, [5]), (0, 0, [4]), (0, 0, [8])])
def test_what_was_not_computed_is_no_answer(asked) -> None:
    field = Field([[Canvas(5, torch.zeros(3, 4)), None]])
    with pytest.raises(KeyError, match="were not computed this round"):
        field.logits(*asked)


def test_rows_are_selected() -> None:
    field = Field([[Canvas(0, torch.full((1, 2), float(row)))] for row in range(3)]).select([2, 2, 0])
    assert [float(field.logits(row, 0, [0])[0, 0]) for row in range(3)] == [2.0, 2.0, 0.0]
