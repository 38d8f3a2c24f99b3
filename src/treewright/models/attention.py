"""Attention over a tree of claims, in the arrangement that torch's kernels are fastest at.

torch's masked attention on a CPU wants as many key-value heads as query heads, so transformers repeats them in every layer.
Here the query heads that share a key-value head become rows of one longer query instead; only the mask is repeated, which
is smaller by about twice the head dimension. And its kernel for a single query in a 16-bit dtype takes two to three times as
long as the one for two queries (docs/log.md), so a lone query is asked twice.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from transformers import AttentionInterface, PreTrainedModel
from transformers.integrations.sdpa_attention import sdpa_attention_forward

from treewright.core.errors import ModelError

TREE = "treewright_tree"


def tree_attention(
    module: torch.nn.Module, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor,
    attention_mask: torch.Tensor | None, dropout: float = 0.0, scaling: float | None = None, **rest: Any,
) -> tuple[torch.Tensor, None]:  # fmt: skip
    """query [R, heads, N, D], key and value [R, kv_heads, K, D], attention_mask [R, 1, N, K]; gives [R, N, heads, D].

    Whatever needs no rearrangement goes to transformers' own function.
    """
    rows, heads, columns, dim = query.shape
    kv_heads = key.shape[1]
    groups = heads // kv_heads
    alone = groups * columns == 1 and query.device.type == "cpu" and query.dtype.itemsize == 2
    unheard = [name for name in ("s_aux", "softcap") if rest.get(name) is not None]
    if unheard:
        raise ModelError(f"attention of this model uses {unheard[0]}, which only its eager implementation has; load it as eager")
    if attention_mask is None or rest.get("position_bias") is not None or (groups == 1 and not alone):
        return sdpa_attention_forward(module, query, key, value, attention_mask, dropout, scaling, **rest)
    if alone:
        stacked, mask = query.expand(-1, -1, 2, -1), attention_mask.expand(-1, -1, 2, -1)
    else:
        stacked, mask = query.reshape(rows, kv_heads, groups * columns, dim), attention_mask.repeat(1, 1, groups, 1)
    output = torch.nn.functional.scaled_dot_product_attention(
        stacked, key, value, attn_mask=mask, dropout_p=dropout, scale=scaling
    )
    output = output[:, :, :1] if alone else output.reshape(rows, heads, columns, value.shape[-1])
    return output.transpose(1, 2).contiguous(), None


AttentionInterface.register(TREE, tree_attention)


@contextmanager
def attending_to_trees(model: PreTrainedModel) -> Iterator[None]:
    """For the length of a forward, an attention implementation that heeds 4-D masks: eager where the model is eager or can
    be no other (attention sinks), ours in place of any other. The choice is written in the model's configuration, which
    belongs to the user, so it is put back."""
    config = model.config.get_text_config()
    chosen = config._attn_implementation
    wanted = "eager" if chosen == "eager" or not model._supports_sdpa else TREE
    if wanted == chosen:
        yield
        return
    config._attn_implementation = wanted
    try:
        yield
    finally:
        config._attn_implementation = chosen
