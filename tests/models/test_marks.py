import pytest
import torch

from treewright.models.marks import mark


@pytest.mark.parametrize("dtype", [torch.float8_e4m3fn, torch.bfloat16, torch.float32, torch.float64])
@pytest.mark.parametrize("size", [(), (1,), (3, 5), (64, 48), (0, 4)], ids=str)
def test_a_weight_of_any_dtype_and_size_has_a_mark_that_its_numbers_change(dtype, size):
    weight = torch.ones(size).to(dtype)
    before = mark(weight)
    assert mark(weight) == before
    weight.data.copy_(weight.float() * 2)
    assert mark(weight) != before or not weight.numel()
