"""Answers: what the host reads of a model's logits."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from treewright.core.answers import BLOCK, LARGE, Answers, top_ids
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


def test_tops_come_largest_first_and_are_absent_beyond_the_vocabulary() -> None:
    logits = torch.tensor([[[0.1, 0.9, 0.5]]])
    answers = Answers(logits)
    assert answers.top(1).tolist() == [[[1]]] and answers.top(3).tolist() == [[[1, 2, 0]]]
    assert answers.top(2).tolist() == [[[1, 2]]] and answers.top(5).tolist() == [[[1, 2, 0, -1, -1]]]
    assert top_ids(logits[0], 4).tolist() == [[1, 2, 0, -1]]


def test_rows_move_with_everything_they_were_answered() -> None:
    random = np.random.default_rng(0)
    logits, hidden = torch.randn(3, 2, 4), torch.randn(3, 2, 6)
    slots = torch.from_numpy(random.random((3, 2, 5, 4)))
    field = Field([[Canvas(1, slots[row, column]) for column in range(2)] for row in range(3)])
    answers = Answers(logits, hidden, field)
    answers.row(0, 0), answers.top(1), answers.largest(0, 0)
    moved = answers.select([2, 0])
    assert torch.equal(moved.logits, logits[[2, 0]]) and torch.equal(moved.hidden, hidden[[2, 0]])  # type: ignore[arg-type]
    assert torch.equal(moved.field.logits(0, 1, [5]), slots[2, 1, [4]])  # type: ignore[union-attr]
    assert moved.row(0, 0).tolist() == logits[2, 0].tolist() and moved.largest(1, 1) == int(logits[0, 1].argmax())
    assert Answers(logits).select([1]).hidden is None


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32, torch.float64])
@pytest.mark.parametrize("size", [LARGE, LARGE + 1, LARGE + BLOCK - 1])
def test_tops_of_large_vocabularies_are_those_of_a_sort(dtype: torch.dtype, size: int) -> None:
    logits = torch.randn(2, 3, size, generator=torch.Generator().manual_seed(size)).to(dtype)
    # The largest close together in one block, in the part behind the last whole block, and of one value.
    logits[0, 0, 256:266] = torch.arange(10, 20).to(dtype)
    logits[0, 1, -3:] = torch.tensor([7.0, 9.0, 8.0]).to(dtype)
    logits[1, 0] = -torch.inf
    logits[1, 0, [5, 900]] = torch.tensor([1.0, 2.0]).to(dtype)
    found = top_ids(logits, 8)
    assert found[1, 0].tolist() == [900, 5, -1, -1, -1, -1, -1, -1]
    for row, column in ((0, 0), (0, 1), (0, 2), (1, 1), (1, 2)):
        values = logits[row, column][found[row, column]]
        assert values.tolist() == logits[row, column].sort(descending=True).values[:8].tolist()
        assert len(set(found[row, column].tolist())) == 8
