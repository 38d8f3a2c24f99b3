"""Mamba's scan, started from a state that is there already.

transformers' `mamba_selective_scan` (Mamba, Falcon Mamba, Jamba) begins at zero whenever a forward has more than one token,
even with a filled cache: the forward goes through and its logits are wrong. The scan is linear in its state, so what is
missing is added afterwards: `y_t += C_t exp(A (dt_1 + ... + dt_t)) h_0`, and the decayed h_0 to the last state. That holds
for whichever kernel computed the rest.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from transformers import PreTrainedModel

from treewright.models.patching import alone, in_this_thread

NAME = "mamba_selective_scan"


def continued(
    scan: Callable[..., Any], state: torch.Tensor, hidden_states: torch.Tensor, dt: torch.Tensor, A: torch.Tensor,
    B: torch.Tensor, C: torch.Tensor, D: torch.Tensor | None = None, z: torch.Tensor | None = None,
    delta_bias: torch.Tensor | None = None, delta_softplus: bool = False, return_last_state: bool = False, **rest: Any,
) -> Any:  # fmt: skip
    """`scan` over T tokens, from `state` [R, I, N] in place of zero; arguments as transformers names them: hidden_states,
    dt and z [R, I, T], A [I, N], B and C [R, N, T]. Memory: one decay [R, I, T, N] more."""
    output, last = scan(
        hidden_states, dt, A, B, C, D=D, z=z, delta_bias=delta_bias, delta_softplus=delta_softplus, return_last_state=True, **rest
    )
    step = dt if delta_bias is None else dt + delta_bias[:, None]
    step = torch.nn.functional.softplus(step) if delta_softplus else step
    decay = torch.exp(A[None, :, None] * step.cumsum(-1)[..., None])
    left = decay * state[:, :, None]
    added = torch.einsum("ritn,rnt->rit", left, C.to(left.dtype))
    output = output + (added if z is None else added * torch.nn.functional.silu(z)).to(output.dtype)
    return (output, last + left[:, :, -1].to(last.dtype)) if return_last_state else output


@contextmanager
def continuing(model: PreTrainedModel, state: Callable[[], torch.Tensor | None]) -> Iterator[None]:
    """For the length of a forward, `model`'s scans begin at `state()`, the state of the layer whose turn it is (None: zero).

    The scan is a function of the module that defines the model, so it is replaced there and put back; one such forward runs
    at a time, and forwards of other threads keep the scan they know. Models without this scan are left alone.
    """
    module = sys.modules[type(model).__module__]
    if not hasattr(module, NAME):
        yield
        return
    with alone:
        scan = getattr(module, NAME)

        def from_state(*args: Any, **options: Any) -> Any:
            begun = state()
            return scan(*args, **options) if begun is None else continued(scan, begun, *args, **options)

        setattr(module, NAME, in_this_thread(from_state, scan))
        try:
            yield
        finally:
            setattr(module, NAME, scan)
