"""Tree positions for decoders that take none.

Decoders of encoder-decoder models count their positions themselves, in the order of the columns. For the length of a
forward the counting is replaced where it happens: embeddings of positions (learned or sinusoidal) are looked up at ours, and
biases by distance (T5) are those between the positions of a claim and of each key. All numbers are the model's own.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch

from treewright.core.errors import ModelError


class Places:
    """The modules of a decoder that know of positions.

    Raises ModelError for a decoder with none that can be told of them.
    """

    def __init__(self, decoder: torch.nn.Module) -> None:
        self._biases = [module for module in decoder.modules() if getattr(module, "has_relative_attention_bias", False)]
        embedding = getattr(decoder, "embed_positions", None)
        takes = embedding is not None and "position_ids" in inspect.signature(embedding.forward).parameters
        self._embedding: torch.nn.Module | None = embedding if takes else None
        if (embedding is not None and not takes) or not (takes or self._biases):
            raise ModelError(
                f"{type(decoder).__name__} takes no positions, so its claims cannot be placed in a tree; encoder-decoders of the "
                "BART, Marian, Pegasus and T5 kinds can be used"
            )

    @contextmanager
    def at(self, positions: np.ndarray, keys: np.ndarray) -> Iterator[None]:
        """For the length of a forward, columns stand at positions [R, B] and keys at keys [R or 1, K]."""
        undo: list[Any] = []
        if self._embedding is not None:
            undo += _embed_at(self._embedding, positions)
        if self._biases:
            distance = torch.from_numpy(np.maximum(positions[:, :, None] - keys[:, None], 0))
            for module in self._biases:
                module.compute_bias = _Bias(module.compute_bias, distance)  # type: ignore[assignment, arg-type]
        try:
            yield
        finally:
            for hook in undo:
                hook.remove()
            for module in self._biases:
                # The instance's attribute only shadowed the method of the class.
                del module.compute_bias


def _embed_at(embedding: torch.nn.Module, positions: np.ndarray) -> list[Any]:
    """Hooks that look up positions [R, B] in place of the counted ones; flat, since some modules add a dimension."""
    flat = torch.from_numpy(positions.ravel().copy())

    def before(module: torch.nn.Module, args: Any, kwargs: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
        return args, {**kwargs, "position_ids": flat.to(module.weight.device)}  # type: ignore[arg-type]

    def after(module: torch.nn.Module, args: Any, output: torch.Tensor) -> torch.Tensor:
        return output.reshape(*positions.shape, -1)

    return [embedding.register_forward_pre_hook(before, with_kwargs=True), embedding.register_forward_hook(after)]


class _Bias:
    """In the place of an attention's `compute_bias`: the bias of every distance, as the model has it for one query behind
    all its keys, taken at the distances [R, B, K] of a tree."""

    def __init__(self, compute: Any, distance: torch.Tensor) -> None:
        self._compute, self._distance = compute, distance

    def __call__(
        self, query_length: int, key_length: int, device: torch.device | None = None, past_seen_tokens: int = 0
    ) -> torch.Tensor:
        """[R, heads, B, K]; the counted lengths are not used."""
        longest = int(self._distance.max())
        behind = self._compute(1, longest + 1, device=device, past_seen_tokens=longest)[0, :, 0].flip(-1)
        return behind[:, self._distance.to(behind.device)].transpose(0, 1)
