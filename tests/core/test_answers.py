"""Answers: what the host reads of a model's logits."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from treewright.core.answers import Answers
from treewright.core.errors import ModelError
from treewright.core.field import Canvas, Field


def test_half_precision_is_read_as_float32_and_float64_as_it_is() -> None:
    logits = torch.randn(2, 3, 5)
    assert Answers(logits.bfloat16()).row(1, 2).dtype == np.float32
    assert Answers(logits.bfloat16()).row(1, 2).tolist() == logits.bfloat16()[1, 2].float().tolist()
    assert Answers(logits.double()).row(0, 1).dtype == np.float64


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32, torch.float64])
def test_the_largest_is_the_lowest_id_of_a_tie(dtype: torch.dtype) -> None:
    logits = torch.tensor([[[0.0, 3.0, 3.0, 1.0]]], dtype=dtype)
    assert Answers(logits).largest(0, 0) == 1


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize(
    "row",
    [[-3.0, -1.0, -2.0, -1.0], [-torch.inf, -5.0, -torch.inf], [-0.0, 0.0, -1.0], [-torch.inf] * 2, [-7.0, 2.0, 5.0, 5.0]],
    ids=str,
)
def test_the_largest_of_a_16_bit_row_is_that_of_its_numbers(dtype: torch.dtype, row: list[float]) -> None:
    # As a part of a larger tensor, as the logits of some columns are.
    logits = torch.zeros(2, 3, len(row) + 2, dtype=dtype)
    logits[1, 2, : len(row)] = torch.tensor(row, dtype=dtype)
    found = Answers(logits[:, 1:, : len(row)]).largest(1, 1)
    assert found == int(np.array(row).argmax())


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32])
@pytest.mark.parametrize("row", [[torch.nan] * 3, [1.0, torch.nan, 2.0], [-1.0, -torch.nan]], ids=str)
def test_logits_that_are_no_numbers_are_refused(dtype: torch.dtype, row: list[float]) -> None:
    answers = Answers(torch.tensor([[row]], dtype=dtype))
    for ask in (answers.numbers, answers.largest):
        with pytest.raises(ModelError, match="no numbers"):
            ask(0, 0)


def test_infinity_is_the_largest() -> None:
    for dtype in (torch.bfloat16, torch.float16, torch.float32):
        assert Answers(torch.tensor([[[1.0, torch.inf, 2.0]]], dtype=dtype)).largest(0, 0) == 1


def test_rows_move_with_everything_they_were_answered() -> None:
    random = np.random.default_rng(0)
    logits, hidden = torch.randn(3, 2, 4), torch.randn(3, 2, 6)
    slots = torch.from_numpy(random.random((3, 2, 5, 4)))
    field = Field([[Canvas(1, slots[row, column]) for column in range(2)] for row in range(3)])
    answers = Answers(logits, hidden, field)
    answers.row(0, 0), answers.largest(0, 0)
    moved = answers.select([2, 0])
    assert torch.equal(moved.logits, logits[[2, 0]]) and torch.equal(moved.hidden, hidden[[2, 0]])  # type: ignore[arg-type]
    assert torch.equal(moved.field.logits(0, 1, [5]), slots[2, 1, [4]])  # type: ignore[union-attr]
    assert moved.row(0, 0).tolist() == logits[2, 0].tolist() and moved.largest(1, 1) == int(logits[0, 1].argmax())
    assert Answers(logits).select([1]).hidden is None
