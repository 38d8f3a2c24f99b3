"""The causal family's key-value memory, behind the transformers Cache interface.

One zero-filled tensor for each shape of layer: [planes, rows, heads, slots, dim], a plane being one layer's keys or values.
Slots are laid out scratch first: [0, S) hold the pending tokens and claims of this round, the text begins at S. So new
claims are written at a constant offset (a slice, not a scatter), live claims never move, and a commit is one gather and
one indexed write of the accepted slots. Never torch.empty: a NaN in a masked value slot would poison the output.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from transformers import Cache

Plane = tuple[int, str]
"""A layer's index and "key" or "value"."""

KeysValues = tuple[torch.Tensor, torch.Tensor]


@dataclass(frozen=True, slots=True)
class Layout:
    """What a model writes for one token: (heads, dim) of each plane, as its own forward showed it."""

    planes: tuple[tuple[Plane, tuple[int, int]], ...]
    dtype: torch.dtype
    device: torch.device

    @property
    def slot_bytes(self) -> int:
        """Bytes of one slot of one row."""
        return sum(heads * dim for _, (heads, dim) in self.planes) * self.dtype.itemsize


MOST_RUNS = 4
"""Up to this many runs of slots, one slice copy each is faster than one indexed copy (5 against 15 microseconds)."""


class Probe(Cache):
    """Notes the shapes that a forward of one token writes, and stores nothing."""

    def __init__(self) -> None:
        super().__init__(layers=[])
        self.seen: dict[Plane, torch.Tensor] = {}

    def update(
        self, key_states: torch.Tensor, value_states: torch.Tensor, layer_idx: int, *args: object, **kwargs: object
    ) -> tuple[torch.Tensor, torch.Tensor]:
        self.seen[layer_idx, "key"], self.seen[layer_idx, "value"] = key_states, value_states
        return key_states, value_states

    def layout(self) -> Layout:
        first = next(iter(self.seen.values()))
        planes = tuple((plane, (states.shape[1], states.shape[3])) for plane, states in self.seen.items())
        return Layout(planes, first.dtype, first.device)


class Window(Cache):
    """The part of the memory that one forward writes and reads; a layer's update is two copies into prepared views."""

    def __init__(self, writes: dict[int, KeysValues], reads: dict[int, KeysValues]) -> None:
        super().__init__(layers=[])
        self.writes, self.reads = writes, reads

    def update(
        self, key_states: torch.Tensor, value_states: torch.Tensor, layer_idx: int, *args: object, **kwargs: object
    ) -> tuple[torch.Tensor, torch.Tensor]:
        keys, values = self.writes[layer_idx]
        keys.copy_(key_states)
        values.copy_(value_states)
        return self.reads[layer_idx]

    def get_seq_length(self, layer_idx: int = 0) -> int:
        return 0

    def get_max_length(self, layer_idx: int | None = None) -> int:
        return -1

    @property
    def is_compileable(self) -> bool:
        return False


class Memory:
    """Keys and values of R rows."""

    def __init__(self, layout: Layout, rows: int, scratch: int, slots: int) -> None:
        self.layout, self.rows, self.scratch, self.slots = layout, rows, scratch, slots
        self._groups: dict[tuple[int, int], torch.Tensor] = {}
        self._planes: dict[Plane, torch.Tensor] = {}
        self._windows: dict[tuple[int, int, int, int, int, int], Window] = {}
        for shape in sorted({shape for _, shape in layout.planes}):
            members = [plane for plane, plane_shape in layout.planes if plane_shape == shape]
            heads, dim = shape
            group = torch.zeros(len(members), rows, heads, slots, dim, dtype=layout.dtype, device=layout.device)
            self._groups[shape] = group
            self._planes.update(zip(members, group.unbind(0), strict=True))

    def planes(self) -> tuple[list[torch.Tensor], list[torch.Tensor], list[int]]:
        """Keys, values [rows, heads, slots, dim] and the layer index of each."""
        layers = [layer for layer, kind in self._planes if kind == "key"]
        return [self._planes[n, "key"] for n in layers], [self._planes[n, "value"] for n in layers], layers

    def window(self, rows: range, write: range, read: range) -> Window:
        """A cache whose forward writes the slots `write` and attends to the slots `read`."""
        key = (rows.start, rows.stop, write.start, write.stop, read.start, read.stop)
        known = self._windows.get(key)
        if known is None:
            if len(self._windows) > 64:
                self._windows.clear()
            layers = [layer for layer, kind in self._planes if kind == "key"]
            known = Window({n: self._views(n, rows, write) for n in layers}, {n: self._views(n, rows, read) for n in layers})
            self._windows[key] = known
        return known

    def _views(self, layer: int, rows: range, slots: range) -> KeysValues:
        keys, values = self._planes[layer, "key"], self._planes[layer, "value"]
        span = (slice(rows.start, rows.stop), slice(None), slice(slots.start, slots.stop))
        return keys[span], values[span]

    def move(self, rows: Sequence[int], sources: Sequence[int], targets: Sequence[int]) -> None:
        """Copies scratch slot sources[i] of rows[i] to text slot targets[i]."""
        runs = _runs(rows, sources, targets)
        if len(runs) <= MOST_RUNS:
            for row, source, target, count in runs:
                for group in self._groups.values():
                    group[:, row, :, target : target + count] = group[:, row, :, source : source + count]
            return
        index = torch.tensor([rows, sources, targets], device=self.layout.device)
        for group in self._groups.values():
            group[:, index[0], :, index[2]] = group[:, index[0], :, index[1]]

    def select(self, rows: Sequence[int], used: range) -> None:
        """Row i becomes a copy of row rows[i] in the slots `used`; rows that stay are not touched."""
        moved = [(target, source) for target, source in enumerate(rows) if target != source]
        if not moved:
            return
        targets = torch.tensor([target for target, _ in moved], device=self.layout.device)
        sources = torch.tensor([source for _, source in moved], device=self.layout.device)
        for group in self._groups.values():
            slots = group[:, :, :, used.start : used.stop]
            slots[:, targets] = slots[:, sources]

    def grown(self, rows: int, slots: int) -> Memory:
        """A larger memory with the same content."""
        larger = Memory(self.layout, max(rows, self.rows), self.scratch, max(slots, self.slots))
        self.copy_into(larger)
        return larger

    def copy_into(self, larger: Memory) -> None:
        """Writes the content into a memory of the same layout with as many rows and slots or more."""
        for shape, group in self._groups.items():
            larger._groups[shape][:, : self.rows, :, : self.slots] = group

    def bytes(self) -> int:
        return sum(group.numel() * group.element_size() for group in self._groups.values())


def _runs(rows: Sequence[int], sources: Sequence[int], targets: Sequence[int]) -> list[tuple[int, int, int, int]]:
    """(row, first source, first target, length) of the stretches in which all slots follow each other."""
    runs: list[tuple[int, int, int, int]] = []
    for row, source, target in zip(rows, sources, targets, strict=True):
        if runs:
            last, first_source, first_target, count = runs[-1]
            if (row, source, target) == (last, first_source + count, first_target + count):
                runs[-1] = (last, first_source, first_target, count + 1)
                continue
        runs.append((row, source, target, 1))
    return runs
