"""What a forward over pending tokens and claims reads, and what a session needs of a model that makes one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
import torch

from treewright.core.answers import Answers
from treewright.core.exits import ExitHead
from treewright.core.layers import LayerPlan
from treewright.core.session import Capabilities
from treewright.models.compiled import CompiledStep
from treewright.models.masks import Masks
from treewright.models.memory import Memory

Mix = Mapping[int, tuple[np.ndarray, np.ndarray]]
"""Tokens and weights [R, m] of what is read in place of a token, by column."""


@dataclass(frozen=True, slots=True)
class Block:
    """What one forward reads: ids and positions [R, B], the masks of its layers, and the positions of the keys it attends to
    [R or 1, K], which distances go by where a model adds a bias for them (those of closed keys mean nothing). mix {column of the
    block: (tokens [R, m], weights [R, m])}: the embeddings that are read in place of the ids'."""

    ids: np.ndarray
    positions: np.ndarray
    masks: Masks
    keys: np.ndarray
    mix: Mix = field(default_factory=dict)


class TreeScorer(Protocol):
    """What the session needs of its model; `CausalModel` says what each is."""

    head: ExitHead | None
    windows: dict[str, int | None]
    compiled: CompiledStep | None
    capabilities: Capabilities
    config: Any
    device: torch.device
    dtype: torch.dtype

    def new_memory(self, rows: int, scratch: int, slots: int) -> Memory: ...

    def forward(
        self, block: Block, cache: Any, keep: int = 0, hidden: bool = False, layers: bool = False,
        plans: Sequence[LayerPlan] = (),
    ) -> Answers: ...  # fmt: skip

    def timed(self) -> float: ...


def padded(array: np.ndarray, rows: int, columns: int | None = None) -> np.ndarray:
    """array [R, n ...] with zero rows (and zero columns) added behind; a contiguous copy where torch will own it."""
    width = array.shape[1] if columns is None and array.ndim > 1 else columns
    if len(array) == rows and (array.ndim == 1 or array.shape[1] == width):
        return array
    shape = (rows, *array.shape[1:]) if array.ndim == 1 else (rows, width, *array.shape[2:])
    out = np.zeros(shape, array.dtype)
    region = (slice(len(array)),) if array.ndim == 1 else (slice(len(array)), slice(array.shape[1]))
    out[region] = array
    return out
