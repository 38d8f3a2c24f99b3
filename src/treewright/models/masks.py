"""Attention masks of a round: the tree part written once for each shape, the text part growing with the rows."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from treewright.core.claims import Shape
from treewright.ops.bits import integers

Masks = torch.Tensor | dict[str, torch.Tensor]


MOST_KEPT = 4
"""Widths of blocks whose masks are kept."""


@dataclass(slots=True)
class _Kept:
    """A mask, its bits as integers (numpy's where they are on a CPU: it writes a slice in a fifth of torch's time), the shape
    whose trees stand in it, and the text slots that are open in each row."""

    mask: torch.Tensor
    bits: Any
    open_until: np.ndarray
    shape: Shape | None = None


class TreeMasks:
    """Additive masks [rows, 1, columns, scratch + keys] for blocks of pending tokens and claims.

    windows: layer type -> width of its sliding window, None for full attention. One layer type gives one tensor, several
    give the dictionary that transformers models with mixed layers take.
    """

    def __init__(self, windows: dict[str, int | None], scratch: int, dtype: torch.dtype, device: torch.device) -> None:
        self._windows, self._scratch, self._dtype, self._device = windows, scratch, dtype, device
        self._closed = torch.finfo(dtype).min
        self._closed_bits = torch.tensor([self._closed], dtype=dtype).view(integers(dtype)).numpy()[0]
        self._kept: dict[int, _Kept] = {}

    def causal(self, start: int, columns: int) -> Masks:
        """The mask of a prompt chunk: `columns` tokens after `start` tokens, [1, 1, columns, start + columns]."""
        query = np.arange(start, start + columns)[:, None]
        key = np.arange(start + columns)[None]
        return self._by_type({
            name: (key <= query) & (True if width is None else key > query - width)
            for name, width in self._windows.items()
        })  # fmt: skip

    @property
    def windowed(self) -> bool:
        return any(width is not None for width in self._windows.values())

    def general(
        self, seen: np.ndarray, stored: np.ndarray, placed: tuple[np.ndarray, np.ndarray], offset: int, columns: int, keys: int
    ) -> Masks:
        """The mask of any block.

        seen [R, n, scratch] bool: the scratch slots each of the first n columns sees. stored [R]: text slots in use.
        placed: positions of the block's columns [R, n] and of what lies in the scratch slots [R, scratch], which sliding
        windows go by. offset: the slot of the block's first column.
        """
        rows, count, scratch = seen.shape
        allowed = np.zeros((rows, columns, scratch + keys), bool)
        allowed[:, :count, :scratch] = seen
        allowed[:, :count, scratch:] = np.arange(keys)[None, None] < stored[:, None, None]
        position, slot_position = placed
        text_position = np.broadcast_to(np.arange(keys), (rows, keys))
        behind = position[:, :, None] - np.concatenate([slot_position, text_position], axis=1)[:, None]
        by_type = {}
        for name, width in self._windows.items():
            near = allowed.copy()
            if width is not None:
                near[:, :count] &= behind < width
            self._pad(near, count, offset)
            by_type[name] = near
        return self._by_type(by_type)

    @staticmethod
    def _pad(allowed: np.ndarray, count: int, offset: int) -> None:
        """Padding columns attend to their own slot, so that no softmax is empty."""
        for column in range(count, allowed.shape[1]):
            allowed[:, column] = False
            allowed[:, column, offset + column] = True

    def growing(self, shape: Shape, stored: np.ndarray, columns: int, keys: int) -> Masks:
        """A mask that is kept: claims at offset 0 after one pending token a row, no windows. The tree part is written for each
        other shape, the text part never again: each round opens the slots that were committed since. Padding columns see the
        text as well; rows beyond those of the shape are padding, whatever they see."""
        kept = self._kept_for(len(stored), columns, self._scratch + keys)
        if kept.shape is not shape:
            self._write_trees(kept, shape)
            kept.shape = shape
        first = self._scratch
        for row in np.flatnonzero(stored != kept.open_until).tolist():
            begin, end = int(kept.open_until[row]), int(stored[row])
            if end < begin:
                kept.bits[row, 0, :, first + end : first + begin] = self._closed_bits
            else:
                kept.bits[row, 0, :, first + begin : first + end] = 0
            kept.open_until[row] = end
        return kept.mask if len(self._windows) == 1 else dict.fromkeys(self._windows, kept.mask)

    def _kept_for(self, rows: int, columns: int, slots: int) -> _Kept:
        """The mask of this size; a few widths are kept, for rounds with and without claims take turns."""
        known = self._kept.get(columns)
        if known is not None and known.mask.shape == (rows, 1, columns, slots):
            return known
        self._kept = {width: kept for width, kept in self._kept.items() if kept.mask.shape == (rows, 1, width, slots)}
        if len(self._kept) >= MOST_KEPT:
            del self._kept[next(iter(self._kept))]
        mask = torch.full((rows, 1, columns, slots), self._closed, dtype=self._dtype, device=self._device)
        bits = mask.view(integers(self._dtype))
        self._kept[columns] = kept = _Kept(mask, bits.numpy() if bits.device.type == "cpu" else bits, np.zeros(rows, np.int64))
        return kept

    def _write_trees(self, kept: _Kept, shape: Shape) -> None:
        """The part of a mask where claims see claims. The other scratch slots were closed from the beginning."""
        rows, _, columns, _ = kept.mask.shape
        batch, count = len(shape.parent), shape.columns
        trees = np.full((batch, columns, columns), self._closed_bits)
        trees[:, :count, :count][shape.visible] = 0
        padding = np.arange(count, columns)
        trees[:, padding, padding] = 0
        written = rows if shape.shared else batch
        on_host = isinstance(kept.bits, np.ndarray)
        kept.bits[:written, 0, :, :columns] = trees if on_host else torch.from_numpy(trees).to(self._device)

    def _by_type(self, allowed: dict[str, np.ndarray]) -> Masks:
        additive = {name: self._additive(mask) for name, mask in allowed.items()}
        return next(iter(additive.values())) if len(additive) == 1 else additive

    def _additive(self, allowed: np.ndarray) -> torch.Tensor:
        allowed = allowed if allowed.ndim == 3 else allowed[None]
        mask = torch.zeros(allowed.shape, dtype=self._dtype)
        mask.masked_fill_(torch.from_numpy(~allowed), self._closed)
        return mask.unsqueeze(1).to(self._device)
