"""What a recurrent or hybrid model remembers of each row: states of a fixed size, and keys and values where it attends.

Rows are read and written together over all layers, so a fork or a rollback can never part a state from the keys beside it.
A forward works on copies (`States.copies`); only `keep` changes the memory, which is why a rejected claim leaves no trace.
An empty row is all zeros: transformers pads a convolution with zeros and begins a scan at zero.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from transformers import Cache, DynamicCache, PreTrainedConfig
from transformers.cache_utils import DummyLayer, DynamicLayer, LinearAttentionAndFullAttentionLayer, LinearAttentionLayer

from treewright.models.memory import Layout, Memory, Plane
from treewright.models.sizes import KEY_STEP, rounded

StateName = tuple[int, str, int]
"""A layer's index, "conv" or "recurrent", and which of its states."""

KNOWN_LAYERS = {DummyLayer, DynamicLayer, LinearAttentionAndFullAttentionLayer, LinearAttentionLayer}


class Copies(Cache):
    """The cache of one forward. After it, `layers` hold what the rows remember then."""

    def __init__(self, layers: list[Any]) -> None:
        super().__init__(layers=layers)
        self.begun: torch.Tensor | None = None

    def get_recurrent_state(self, layer_idx: int, state_idx: int = 0) -> torch.Tensor | None:
        """The state, and a note of it: a layer asks for its own just before it scans."""
        self.begun = super().get_recurrent_state(layer_idx, state_idx)
        return self.begun


@dataclass(frozen=True, slots=True)
class StateLayout:
    """What a model's cache holds after a token: the class of each layer's cache and its number of states, shape and dtype
    of each state without its rows, and what the attention layers write."""

    layers: tuple[tuple[type[Any], int], ...]
    states: tuple[tuple[StateName, tuple[int, ...], torch.dtype], ...]
    keys: Layout
    """Without planes where no layer attends."""

    @staticmethod
    def fresh(config: PreTrainedConfig) -> Copies | None:
        """An empty cache with the layers that transformers gives this model; None where it keeps no recurrent state, or in
        ways not known here (sliding windows beside states, a cache of its own)."""
        cache = DynamicCache(config=config)
        kinds = {type(layer) for layer in cache.layers}
        recurrent = any(issubclass(kind, LinearAttentionLayer) for kind in kinds)
        return Copies(cache.layers) if recurrent and kinds <= KNOWN_LAYERS else None

    @staticmethod
    def of(cache: Cache, dtype: torch.dtype, device: torch.device) -> StateLayout:
        """Reads the layout off a cache that a forward of one row has filled."""
        states: list[tuple[StateName, tuple[int, ...], torch.dtype]] = []
        planes: list[tuple[Plane, tuple[int, int]]] = []
        for index, layer in enumerate(cache.layers):
            for kind in ("conv", "recurrent"):
                for number, state in getattr(layer, f"{kind}_states", {}).items():
                    if state is not None:
                        states.append(((index, kind, number), tuple(state.shape[1:]), state.dtype))
            for kind, written in (("key", getattr(layer, "keys", None)), ("value", getattr(layer, "values", None))):
                if written is not None:
                    planes.append(((index, kind), (written.shape[1], written.shape[3])))
        layers = tuple((type(layer), getattr(layer, "number_of_states", 1)) for layer in cache.layers)
        return StateLayout(layers, tuple(states), Layout(tuple(planes), dtype, device))


class States:
    """The memory of R rows. `stored` [R]: tokens of the own sequence that are in it."""

    def __init__(self, layout: StateLayout, rows: int, slots: int) -> None:
        self.layout, self.stored = layout, np.zeros(0, np.int64)
        device = layout.keys.device
        self._states = {
            name: torch.zeros(rows, *shape, dtype=dtype, device=device) for name, shape, dtype in layout.states
        }  # fmt: skip
        self._keys = Memory(layout.keys, rows, 0, slots if self.attends else 0)

    @property
    def attends(self) -> bool:
        """True where some layers keep keys and values."""
        return bool(self.layout.keys.planes)

    @property
    def rows(self) -> int:
        """Rows there is room for."""
        return self._keys.rows

    @torch.inference_mode()
    def admit(self, rows: int, slots: int) -> None:
        """Adds empty rows; `slots` is the most tokens any row may come to hold."""
        before = len(self.stored)
        self._reserve(before + rows, slots)
        for state in self._states.values():
            state[before : before + rows] = 0
        self.stored = np.concatenate([self.stored, np.zeros(rows, np.int64)])

    def _reserve(self, rows: int, slots: int) -> None:
        slots = rounded(slots, KEY_STEP) if self.attends else 0
        if rows > self.rows or slots > self._keys.slots:
            more = max(rows - self.rows, 0)
            self._keys = self._keys.grown(rows, slots)
            for name, state in self._states.items():
                self._states[name] = torch.cat([state, state.new_zeros(more, *state.shape[1:])])

    def span(self, rows: Sequence[int]) -> int:
        """Key slots that a forward of these rows looks back on."""
        return int(self.stored[list(rows)].max()) if self.attends else 0

    @torch.inference_mode()
    def copies(self, rows: Sequence[int]) -> Copies:
        """The cache for a forward whose row i continues rows[i]; a row may be named more than once."""
        index = torch.tensor(list(rows), device=self.layout.keys.device)
        layers = [kind(number_of_states=count) for kind, count in self.layout.layers]
        for (layer, kind, number), state in self._states.items():
            _place(layers[layer], kind, number, state[index])
        span = self.span(rows)
        for layer, key, value in zip(*self._planes(), strict=True):
            held = layers[layer]
            held.keys, held.values, held.is_initialized = key[index, :, :span], value[index, :, :span], True
            held.dtype, held.device = key.dtype, key.device
        return Copies(layers)

    @torch.inference_mode()
    def keep(self, cache: Copies, span: int, sources: Sequence[int], rows: Sequence[int], count: int) -> None:
        """rows[i] becomes what row sources[i] of `cache` is after a forward of `count` tokens that looked back on `span`."""
        device = self.layout.keys.device
        source, target = (torch.tensor(list(index), device=device) for index in (sources, rows))
        for (layer, kind, number), state in self._states.items():
            state[target] = getattr(cache.layers[layer], f"{kind}_states")[number][source]
        for layer, *planes in zip(*self._planes(), strict=True):
            held: Any = cache.layers[layer]
            for plane, written in zip(planes, (held.keys, held.values), strict=True):
                for position, row in zip(sources, rows, strict=True):
                    start = int(self.stored[row])
                    plane[row, :, start : start + count] = written[position, :, span : span + count]
        self.stored[list(rows)] += count

    def held(self, name: StateName) -> torch.Tensor:
        """A state of all rows [R, ...], not to be written to."""
        return self._states[name][: len(self.stored)]

    @torch.inference_mode()
    def move(self, states: dict[StateName, torch.Tensor], counts: np.ndarray) -> None:
        """Every row's states become `states`, counts [R] tokens further on; for models that attend nowhere."""
        for name, state in states.items():
            self._states[name][: len(self.stored)] = state
        self.stored = self.stored + counts

    @torch.inference_mode()
    def select(self, rows: Sequence[int]) -> None:
        """Row i becomes a copy of row rows[i], states and keys together."""
        self._reserve(len(rows), 0)
        moved = [(target, source) for target, source in enumerate(rows) if target != source]
        if moved:
            targets, sources = (torch.tensor(index, device=self.layout.keys.device) for index in zip(*moved, strict=True))
            for state in self._states.values():
                state[targets] = state[sources]
            self._keys.select(rows, range(int(self.stored.max(initial=0)) if self.attends else 0))
        self.stored = self.stored[list(rows)]

    def _planes(self) -> tuple[list[int], list[torch.Tensor], list[torch.Tensor]]:
        """Index, keys and values of each layer that attends."""
        keys, values, layers = self._keys.planes()
        return layers, keys, values

    def bytes(self) -> int:
        """Of all rows there is room for; for a model that attends nowhere, the same whatever the length of the text."""
        return sum(state.numel() * state.element_size() for state in self._states.values()) + self._keys.bytes()


def _place(layer: Any, kind: str, number: int, state: torch.Tensor) -> None:
    """Puts a state into a layer of transformers' cache as if a forward had left it there."""
    getattr(layer, f"{kind}_states")[number] = state
    getattr(layer, f"is_{kind}_states_initialized")[number] = True
    layer.dtype, layer.device = state.dtype, state.device
    layer.has_previous_state[number] = True
    if kind == "conv":
        layer.conv_kernel_size[number] = state.shape[-1]
