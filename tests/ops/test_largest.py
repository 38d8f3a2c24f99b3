"""The largest entries against a sort."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from treewright.ops.largest import BLOCK, largest


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
