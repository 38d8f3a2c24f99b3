"""Attention without copies of keys and values equals attention with them, and the user's configuration is put back."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch
from transformers.integrations.sdpa_attention import sdpa_attention_forward

from treewright.core.errors import ModelError
from treewright.models.attention import TREE, attending_to_trees, tree_attention


@pytest.mark.parametrize("columns", [1, 5])
@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
@pytest.mark.parametrize(("heads", "shared_heads"), [(4, 4), (4, 2), (6, 2), (4, 1)])
def test_our_attention_equals_that_of_transformers(columns, heads, shared_heads, dtype):
    generator = torch.Generator().manual_seed(heads * 10 + columns)

    def drawn(*size: int) -> torch.Tensor:
        return torch.randn(*size, generator=generator, dtype=torch.float64).to(dtype)

    query, key, value = drawn(3, heads, columns, 8), drawn(3, shared_heads, 11, 8), drawn(3, shared_heads, 11, 8)
    open_slots = torch.rand(3, 1, columns, 11, generator=generator) < 0.5
    open_slots[..., 0] = True
    mask = torch.zeros(3, 1, columns, 11, dtype=dtype).masked_fill(~open_slots, torch.finfo(dtype).min)
    module = SimpleNamespace(num_key_value_groups=heads // shared_heads, is_causal=True, training=False)
    ours, _ = tree_attention(module, query, key, value, mask, scaling=0.3)
    theirs, _ = sdpa_attention_forward(module, query, key, value, mask, scaling=0.3)
    assert ours.shape == (3, columns, heads, 8)
    assert (ours - theirs).abs().max() < (1e-12 if dtype == torch.float64 else 0.02)


@pytest.mark.parametrize(
    ("chosen", "sdpa", "during"),
    [
        ("eager", True, "eager"), ("sdpa", True, TREE), ("flash_attention_2", True, TREE), (TREE, True, TREE),
        ("flex_attention", False, "eager"),
    ],
)  # fmt: skip
def test_implementation_is_chosen_and_put_back(chosen, sdpa, during):
    config = SimpleNamespace(_attn_implementation=chosen)
    config.get_text_config = lambda: config
    model = SimpleNamespace(config=config, _supports_sdpa=sdpa)
    with attending_to_trees(model):
        assert config._attn_implementation == during
    assert config._attn_implementation == chosen
    with pytest.raises(KeyError), attending_to_trees(model):
        raise KeyError
    assert config._attn_implementation == chosen


def test_what_our_attention_has_not_is_refused():
    states = torch.zeros(1, 2, 3, 4)
    with pytest.raises(ModelError, match="s_aux"):
        tree_attention(SimpleNamespace(), states, states, states, torch.zeros(1, 1, 3, 3), s_aux=torch.zeros(2))
