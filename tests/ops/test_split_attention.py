"""Attention in parts against softmax over all keys at once, in float64, for any partition and any order of merging."""

from __future__ import annotations

import functools
import itertools

import pytest
import torch

from treewright.ops.split_attention import PartialAttention, attend, merge, merge_all

KEYS = 11


def tensors(heads: int, kv_heads: int, dtype: torch.dtype = torch.float64, spread: float = 3.0):
    chance = torch.Generator().manual_seed(heads + kv_heads)
    shapes = ((2, heads, 3, 8), (2, kv_heads, KEYS, 8), (2, kv_heads, KEYS, 5))
    query, key, value = (spread * torch.randn(shape, generator=chance, dtype=torch.float64) for shape in shapes)
    visible = torch.rand(2, 1, 3, KEYS, generator=chance) < 0.4
    visible[:, :, 0, 4] = True
    return query.to(dtype), key.to(dtype), value.to(dtype), visible


def whole(query, key, value, visible, scale):
    """Definition: each query head over its own copy of its key-value head; 0 where nothing is visible."""
    group = query.shape[1] // key.shape[1]
    output = torch.zeros(*query.shape[:3], value.shape[-1], dtype=query.dtype)
    for row, head, column in itertools.product(*map(range, query.shape[:3])):
        seen = visible[row, 0, column]
        scores = scale * key[row, head // group][seen] @ query[row, head, column]
        if seen.any():
            output[row, head, column] = scores.softmax(0) @ value[row, head // group][seen]
    return output


def in_parts(query, key, value, visible, cuts, scale=None) -> list[PartialAttention]:
    ends = [0, *cuts, KEYS]
    spans = [slice(begin, end) for begin, end in itertools.pairwise(ends)]
    return [attend(query, key[:, :, span], value[:, :, span], visible[..., span], scale) for span in spans]


@pytest.mark.parametrize(("heads", "kv_heads"), [(4, 4), (6, 2), (4, 1)])
@pytest.mark.parametrize("cuts", [(), (4,), (0, 0), (1, 1, 6), (KEYS,), tuple(range(1, KEYS))], ids=str)
def test_any_partition_is_attention_over_all_keys(heads, kv_heads, cuts):
    query, key, value, visible = tensors(heads, kv_heads)
    parts, expected = in_parts(query, key, value, visible, cuts, 0.3), whole(query, key, value, visible, 0.3)
    for merged in (merge_all(parts), functools.reduce(merge, parts), functools.reduce(merge, parts[::-1])):
        assert (merged.output - expected).abs().max() < 1e-12
        assert (merged.lse - attend(query, key, value, visible, 0.3).lse).abs().nan_to_num(0.0).max() < 1e-12


def test_keys_may_be_dealt_out_in_any_way_and_merged_as_a_tree():
    query, key, value, visible = tensors(4, 2)
    dealt = [torch.arange(start, KEYS, 4) for start in range(4)]
    parts = [attend(query, key[:, :, chosen], value[:, :, chosen], visible[..., chosen]) for chosen in dealt]
    merged = merge(merge(parts[2], parts[0]), merge(parts[3], parts[1]))
    assert (merged.output - whole(query, key, value, visible, 8**-0.5)).abs().max() < 1e-12


def test_it_is_torchs_attention():
    query, key, value, visible = tensors(6, 2)
    visible[..., 4] = True
    expected = torch.nn.functional.scaled_dot_product_attention(query, key, value, attn_mask=visible, enable_gqa=True)
    merged = merge_all(in_parts(query, key, value, visible, (3, 7)))
    assert (merged.output - expected).abs().max() < 1e-12


def test_what_sees_nothing_is_zero_and_weighs_nothing():
    query, key, value, _ = tensors(4, 2)
    blind = attend(query, key, value, torch.zeros(1, 1, 3, KEYS, dtype=torch.bool))
    empty = attend(query, key[:, :, :0], value[:, :, :0])
    seeing = attend(query, key, value)
    for nothing in (blind, empty, merge(blind, empty)):
        assert (nothing.output == 0).all()
        assert (nothing.lse == -torch.inf).all()
        for both in (merge(nothing, seeing), merge(seeing, nothing)):
            assert torch.equal(both.output, seeing.output)
            assert torch.equal(both.lse, seeing.lse)


def test_large_scores_do_not_overflow():
    query, key, value, visible = tensors(4, 2, spread=200.0)
    merged = merge_all(in_parts(query, key, value, visible, (2, 5)))
    expected = whole(query, key, value, visible, 8**-0.5)
    assert merged.output.isfinite().all()
    assert (merged.output - expected).abs().max() < 1e-10 * expected.abs().max()


def test_half_precision_is_merged_in_float32():
    query, key, value, visible = tensors(4, 2, torch.bfloat16, spread=1.0)
    merged = merge_all(in_parts(query, key, value, visible, (2, 5)))
    assert (merged.output.dtype, merged.lse.dtype) == (torch.float32, torch.float32)
    expected = whole(query.double(), key.double(), value.double(), visible, 8**-0.5)
    assert (merged.output - expected).abs().max() < 1e-5


def test_heads_that_cannot_be_shared_are_refused():
    query, key, value, _ = tensors(6, 4)
    with pytest.raises(ValueError, match="6 query heads cannot share 4"):
        attend(query, key, value)
