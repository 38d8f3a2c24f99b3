"""Attention with fewer key-value heads than query heads, without copying keys and values for each query head.

torch's masked attention on a CPU wants as many key-value heads as query heads, so transformers repeats them in every layer.
Here the query heads that share a key-value head become rows of one longer query instead; only the mask is repeated, which
is smaller by about twice the head dimension.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from transformers import AttentionInterface, PretrainedConfig
from transformers.integrations.sdpa_attention import sdpa_attention_forward

GROUPED = "treewright_grouped"


def grouped_attention(
    module: torch.nn.Module, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor,
    attention_mask: torch.Tensor | None, dropout: float = 0.0, scaling: float | None = None, **rest: Any,
) -> tuple[torch.Tensor, None]:  # fmt: skip
    """query [R, heads, N, D], key and value [R, kv_heads, K, D], attention_mask [R, 1, N, K]; gives [R, N, heads, D].

    Whatever is not masked grouped-query attention over several columns goes to transformers' own function.
    """
    rows, heads, columns, dim = query.shape
    kv_heads = key.shape[1]
    groups = heads // kv_heads
    if groups == 1 or columns == 1 or attention_mask is None or rest.get("position_bias") is not None:
        return sdpa_attention_forward(module, query, key, value, attention_mask, dropout, scaling, **rest)
    stacked = query.reshape(rows, kv_heads, groups * columns, dim)
    mask = attention_mask.repeat(1, 1, groups, 1)
    output = torch.nn.functional.scaled_dot_product_attention(
        stacked, key, value, attn_mask=mask, dropout_p=dropout, scale=scaling
    )
    output = output.reshape(rows, heads, columns, value.shape[-1])
    return output.transpose(1, 2).contiguous(), None


AttentionInterface.register(GROUPED, grouped_attention)


@contextmanager
def tree_attention(config: PretrainedConfig) -> Iterator[None]:
    """For the length of a forward, an attention implementation that heeds 4-D masks: grouped where the model has fewer
    key-value heads, sdpa in place of those that ignore such masks, the model's own otherwise. The choice is written in the
    model's configuration, which belongs to the user, so it is put back."""
    chosen = config._attn_implementation
    heads = getattr(config, "num_attention_heads", None)
    grouped = getattr(config, "num_key_value_heads", heads) != heads
    wanted = "eager" if chosen == "eager" else GROUPED if grouped else "sdpa"
    if wanted == chosen:
        yield
        return
    config._attn_implementation = wanted
    try:
        yield
    finally:
        config._attn_implementation = chosen
