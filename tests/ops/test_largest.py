"""The largest entries against a sort."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from treewright.core.answers import Answers
from treewright.ops.largest import BLOCK, largest, top_ids, tops


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32, torch.float64])
@pytest.mark.parametrize("size", [1, 5, BLOCK, 3 * BLOCK + 7])
def test_ids_and_values_are_those_of_a_stable_sort(dtype, size):
    logits = torch.randn(2, 6, size + 2, generator=torch.Generator().manual_seed(size)).mul(3).to(dtype)[:, 1:5, :size]
    logits[0, 0, size // 2] = -torch.inf
    logits[1, 1, : size // 2] = logits[1, 1, 0].clone()
    ids, values = largest(logits, 8)
    order = np.argsort(-logits.double().numpy(), axis=-1, kind="stable")[..., :8]
    assert np.array_equal(values, np.take_along_axis(logits.float().numpy(), order, -1))
    assert np.array_equal(ids, np.where(values == -np.inf, -1, order))


def test_tops_come_largest_first_and_are_absent_beyond_the_vocabulary():
    logits = torch.tensor([[[0.1, 0.9, 0.5]]])
    answers = Answers(logits)
    assert tops(answers, 1).tolist() == [[[1]]] and tops(answers, 3).tolist() == [[[1, 2, 0]]]
    assert tops(answers, 2).tolist() == [[[1, 2]]] and tops(answers, 5).tolist() == [[[1, 2, 0, -1, -1]]]
    assert top_ids(logits[0], 4).tolist() == [[1, 2, 0, -1]]
    assert top_ids(logits, 0).shape == (1, 1, 0)


def test_tops_are_found_once():
    answers = Answers(torch.randn(1, 2, 9))
    assert tops(answers, 2).base is tops(answers, 1).base is not None
    assert tops(answers, 3).shape == (1, 2, 3)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32, torch.float64])
@pytest.mark.parametrize("size", [16384, 16385, 16447])
def test_tops_of_large_vocabularies_are_those_of_a_sort(dtype, size):
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


def test_what_float32_has_no_number_for_can_be_drawn():
    logits = torch.full((1, 1, 3), torch.finfo(torch.float64).min, dtype=torch.float64)
    logits[0, 0, 1] = -torch.inf
    assert top_ids(logits, 3).tolist() == [[[0, 2, -1]]]
