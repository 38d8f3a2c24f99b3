"""Attention in parts: keys are split anywhere, each part is attended to by itself, and the parts are merged exactly.

Shyam et al. 2024, "Tree Attention: Topology-aware Decoding for Long-Context Attention on GPU Clusters"
(https://arxiv.org/abs/2408.04093). The tree is the order of the merges over devices, not a tree of tokens. A part leaves what it
would have answered alone and the log-sum-exp of its scores; merging weighs the answers by their sums, in any order.

On one machine the text and the claims of a round can be the two parts, the text then without a mask. That was measured on a CPU
and is no faster than one masked kernel (docs/log.md), so no session does it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch


@dataclass(frozen=True, slots=True)
class PartialAttention:
    """output [R, heads, N, D]: attention over one part of the keys, 0 where nothing is visible. lse [R, heads, N]: the natural
    logarithm of the sum of exp(score), -inf there. Both are float64 for float64 queries, else float32."""

    output: torch.Tensor
    lse: torch.Tensor


def attend(
    query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, visible: torch.Tensor | None = None, scale: float | None = None
) -> PartialAttention:
    """Attention of query [R, heads, N, D] over one part of the keys [R, kv_heads, K, D] and values [R, kv_heads, K, E], K >= 0.

    visible: bool, broadcasts to [R, heads, N, K]; None: every key. scale: factor of the scores, D ** -0.5 if not given. Query
    head h reads key-value head h // (heads / kv_heads). Raises ValueError where heads is no multiple of kv_heads.
    """
    rows, heads, columns, dim = query.shape
    kv_heads, keys = key.shape[1], key.shape[2]
    if heads % kv_heads:
        raise ValueError(f"{heads} query heads cannot share {kv_heads} key-value heads evenly; give a divisor of {heads}")
    dtype = torch.float64 if query.dtype == torch.float64 else torch.float32
    # The query heads of a group become rows of one longer query, so no key is copied.
    stacked = query.to(dtype).reshape(rows, kv_heads, heads // kv_heads * columns, dim)
    scores = (stacked @ key.to(dtype).mT) * (dim**-0.5 if scale is None else scale)
    scores = scores.reshape(rows, heads, columns, keys)
    if visible is not None:
        scores = scores.masked_fill(~visible, -torch.inf)
    lse = scores.logsumexp(-1)
    weights = (scores - _finite(lse).unsqueeze(-1)).exp().reshape(*stacked.shape[:3], keys)
    return PartialAttention((weights @ value.to(dtype)).reshape(rows, heads, columns, value.shape[-1]), lse)


def merge(one: PartialAttention, other: PartialAttention) -> PartialAttention:
    """Attention over the keys of both parts."""
    return merge_all([one, other])


def merge_all(parts: Sequence[PartialAttention]) -> PartialAttention:
    """Attention over the keys of all parts, at least one; the order matters to rounding only."""
    lses = torch.stack([part.lse for part in parts])
    lse = lses.logsumexp(0)
    weights = (lses - _finite(lse)).exp().unsqueeze(-1)
    return PartialAttention((weights * torch.stack([part.output for part in parts])).sum(0), lse)


def _finite(lse: torch.Tensor) -> torch.Tensor:
    """-inf becomes 0, so that -inf minus it stays -inf and its exp 0, where -inf minus itself would be nan."""
    return lse.masked_fill(lse == -torch.inf, 0.0)
