"""The memory of an encoder-decoder's rows: what the decoder wrote, and what its cross-attention sees of the prompt.

The second is another `Memory` whose slots are the prompt's tokens; it is written once, when a prompt is encoded, and moves
with its row. Samples of one prompt get copies of one encoding.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from transformers import Cache, EncoderDecoderCache

from treewright.models.memory import KeysValues, Layout, Memory, Window


class Encoded(Cache):
    """Keys and values of encoded prompts [R, heads, K, D] by layer, in the places where cross-attention looks for them."""

    class Layer:
        """One layer's keys and values."""

        def __init__(self, keys: torch.Tensor, values: torch.Tensor) -> None:
            self.keys, self.values = keys, values

    def __init__(self, layers: Mapping[int, KeysValues]) -> None:
        super().__init__(layers=[])
        self.layers = [self.Layer(*layers[number]) for number in sorted(layers)]  # type: ignore[misc]

    def get_seq_length(self, layer_idx: int = 0) -> int:
        return int(self.layers[layer_idx].keys.shape[-2])  # type: ignore[union-attr]


class CrossWindow(EncoderDecoderCache):
    """One forward's cache: the decoder's window, the encoded prompts, and their mask [R, 1, 1, K]."""

    def __init__(self, window: Window, encoded: Encoded, mask: torch.Tensor) -> None:
        super().__init__(window, encoded)
        self.mask = mask


class CrossMemory(Memory):
    """`Memory` of the decoder with that of the prompts beside it. cross: what cross-attention holds of one prompt token."""

    def __init__(self, layout: Layout, cross: Layout, rows: int, scratch: int, slots: int) -> None:
        super().__init__(layout, rows, scratch, slots)
        self._cross = Memory(cross, rows, 0, 0)
        self._lengths = np.zeros(rows, np.int64)
        self._crossing: dict[tuple[int, int], tuple[Encoded, torch.Tensor]] = {}

    def put(self, rows: range, encoded: Mapping[int, KeysValues], lengths: Sequence[int]) -> None:
        """Writes the encodings of the prompts of `rows`, right-padded, of so many tokens each."""
        count = max(lengths)
        if count > self._cross.slots:
            self._cross = self._cross.grown(self.rows, count)
        window = self._cross.window(rows, range(count), range(count))
        for layer, (keys, values) in encoded.items():
            window.update(keys, values, layer)
        self._lengths[rows.start : rows.stop] = lengths
        self._crossing.clear()

    def window(self, rows: range, write: range, read: range) -> CrossWindow:  # type: ignore[override]
        key = rows.start, rows.stop
        if key not in self._crossing:
            lengths = self._lengths[rows.start : rows.stop]
            seen = range(int(lengths.max()))
            closed = torch.from_numpy(np.arange(seen.stop)[None] >= lengths[:, None]).to(self.layout.device)
            mask = torch.zeros(closed.shape, dtype=self.layout.dtype, device=self.layout.device)
            mask = mask.masked_fill(closed, torch.finfo(self.layout.dtype).min)[:, None, None]
            self._crossing[key] = Encoded(self._cross.window(rows, seen, seen).reads), mask
        return CrossWindow(super().window(rows, write, read), *self._crossing[key])  # type: ignore[arg-type]

    def select(self, rows: Sequence[int], used: range) -> None:
        super().select(rows, used)
        self._cross.select(rows, range(self._cross.slots))
        self._lengths[: len(rows)] = self._lengths[list(rows)]
        self._crossing.clear()

    def grown(self, rows: int, slots: int) -> CrossMemory:
        larger = CrossMemory(self.layout, self._cross.layout, max(rows, self.rows), self.scratch, max(slots, self.slots))
        self.copy_into(larger)
        larger._cross = self._cross.grown(larger.rows, self._cross.slots)
        larger._lengths[: self.rows] = self._lengths
        return larger

    def bytes(self) -> int:
        return super().bytes() + self._cross.bytes()
