"""Mamba-2's scan over a tree of tokens: all nodes in one pass, and no state for any of them (STree, arXiv 2505.14969).

With one decay for each head, the state after a node is a sum over its ancestors, so a node's output is one too:
`y_i = C_i exp(s_i) h_0 + sum over ancestors j, itself included, of exp(s_i - s_j) (C_i B_j) dt_j x_j + D x_i`, where s_i sums
the log decays dt A on the way to i. With a chain for a tree this is the scan in its dual form.

Shapes: R rows, N nodes, H heads in G groups of equal size, P numbers in a head, S in its state, K in a window of the
convolution. Parents stand before their children.
"""

from __future__ import annotations

import numpy as np
import torch


def scan(
    x: torch.Tensor, dt: torch.Tensor, A: torch.Tensor, B: torch.Tensor, C: torch.Tensor, D: torch.Tensor,
    state: torch.Tensor, sees: torch.Tensor,
) -> torch.Tensor:  # fmt: skip
    """Outputs [R, Q, H, P] of the last Q nodes, each after its own ancestors and, before those, the text that left `state`.

    x [R, N, H, P]; dt [R, N, H], positive; A [H], negative; B [R, N, G, S]; C [R, Q, G, S]; D [H]; state [R, H, P, S];
    sees [R, N, N] bool: sees[r, i, j] where j is an ancestor of i or i itself. Cost: the products of attention with S numbers
    in a key and P in a value. Memory: R x Q x N x H numbers.
    """
    asked, shared = C.shape[1], x.shape[2] // C.shape[2]
    decay = sees.to(x.dtype) @ (dt * A)
    last = decay[:, -asked:]
    # Masked before exp: the difference to a node of another branch may be of any size and sign.
    between = (last[:, :, None] - decay[:, None]).masked_fill(~sees[:, -asked:, :, None], -torch.inf).exp()
    match = torch.einsum("rqgs,rngs->rqng", C, B).repeat_interleave(shared, dim=-1)
    from_tree = torch.einsum("rqnh,rnhp->rqhp", match * between, x * dt[..., None])
    from_text = torch.einsum("rqhs,rhps->rqhp", C.repeat_interleave(shared, dim=2), state)
    return from_tree + last.exp()[..., None] * from_text + D[:, None] * x[:, -asked:]


def replay(
    x: torch.Tensor, dt: torch.Tensor, A: torch.Tensor, B: torch.Tensor, state: torch.Tensor, path: torch.Tensor
) -> torch.Tensor:  # fmt: skip
    """The state [R, H, P, S] after the nodes path [R, N] bool of a row, one branch from its root on; arguments as in `scan`.
    A row without a node keeps its state."""
    decay = (dt * A * path[..., None]).cumsum(1)
    whole = decay[:, -1]
    weight = ((whole[:, None] - decay).exp() * dt * path[..., None])[..., None] * x
    added = torch.einsum("rnhp,rnhs->rhps", weight, B.repeat_interleave(x.shape[2] // B.shape[2], dim=2))
    return whole.exp()[..., None, None] * state + added


def windows(sees: np.ndarray, depth: np.ndarray, size: int) -> np.ndarray:
    """What a causal convolution of `size` K reads at each node, oldest first: [R, N, K] places among K of the text and then
    the N nodes. That is the node and its nearest ancestors, then the end of the text, and never the node that happens to
    stand in the column before. sees [R, N, N] as in `scan`; depth [R, N] int grows along each branch."""
    rows, nodes = depth.shape
    text = np.broadcast_to(np.arange(size) - size + depth.min(initial=0), (rows, nodes, size))
    unseen = text[..., :1] - 1
    when = np.concatenate([text, np.where(sees, depth[:, None], unseen)], axis=-1)
    return np.argsort(when, axis=-1, kind="stable")[..., -size:]


def convolved(inputs: torch.Tensor, places: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None) -> torch.Tensor:
    """The depthwise convolution [R, N, I] of inputs [R, K + N, I] at places [R, N, K] (`windows`); weight [I, K], bias [I]."""
    rows = torch.arange(len(inputs), device=inputs.device)[:, None, None]
    mixed = torch.einsum("rnki,ik->rni", inputs[rows, places], weight)
    return mixed if bias is None else mixed + bias
