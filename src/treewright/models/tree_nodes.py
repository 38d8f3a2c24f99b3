"""The nodes of one round's tree in a Mamba-2 of transformers, and its mixers computed over them (STree).

Kept of a node are the inputs of each layer's convolution and its time step, from which everything else follows: a few
thousand numbers a layer where its state would be near a million.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import nn
from transformers import PreTrainedModel

from treewright.core.claims import ABSENT, Forest
from treewright.models.patching import alone, replaced
from treewright.models.states import Copies, StateLayout, StateName, States
from treewright.models.tree_scan import convolved, replay, scan, windows

MIXER = "Mamba2Mixer"


class Kept(NamedTuple):
    """What one layer keeps of N nodes: inputs of its convolution [R, N, I] and time steps before their bias [R, N, H]."""

    inputs: torch.Tensor
    steps: torch.Tensor


def find_mixers(model: PreTrainedModel, layout: StateLayout) -> dict[int, nn.Module] | None:
    """The mixers by layer, None where something other than Mamba-2's keeps a state or attends."""
    found = {int(one.layer_idx): one for one in model.modules() if type(one).__name__ == MIXER}  # type: ignore[arg-type]
    wanted = {(layer, kind, 0) for layer in found for kind in ("conv", "recurrent")}
    return found if found and wanted == {name for name, *_ in layout.states} and not layout.keys.planes else None


class Nodes(Copies):
    """Tokens of the text that are not in memory yet, then the claims; also the cache of the forwards that read them.

    A row's unread tokens end at column `width` - 1, where the frontier stands; claim c of the forest is node width - 1 + c.
    The memory is read and never written. read: nodes that a forward has read.
    """

    def __init__(self, mixers: dict[int, nn.Module], memory: States, unread: Sequence[np.ndarray]) -> None:
        super().__init__([])
        self._mixers, self._memory = mixers, memory
        self.unread = np.array([len(tokens) for tokens in unread])
        self.width = int(self.unread.max())
        self.token = np.zeros((len(unread), self.width), np.int64)
        for row, tokens in enumerate(unread):
            self.token[row, self.width - len(tokens) :] = tokens
        self.read = 0
        self._kept: dict[int, Kept] = {}
        self._sees = self._places = torch.zeros(0)

    def of(self, row: int, path: Sequence[int]) -> list[int]:
        """The nodes of a row's unread tokens and of the claims on a path, in the order of their text."""
        return [*range(self.width - int(self.unread[row]), self.width), *(self.width - 1 + column for column in path)]

    def grow(self, forest: Forest) -> np.ndarray:
        """Takes in the claims that are new in the forest; gives the tokens [R, Q] that are to be read."""
        claims = forest.token[:, 1:]
        self.token = np.concatenate([self.token[:, : self.width], np.where(claims == ABSENT, 0, claims)], axis=1)
        sees, depth = self._topology(forest)
        device = self._memory.layout.keys.device
        self._sees = torch.from_numpy(sees).to(device)
        kernel = next(shape[-1] for (_, kind, _), shape, _ in self._memory.layout.states if kind == "conv")
        self._places = torch.from_numpy(windows(sees, depth, kernel)).to(device)
        return self.token[:, self.read :]

    def _topology(self, forest: Forest) -> tuple[np.ndarray, np.ndarray]:
        """sees [R, N, N] and depth [R, N]. Every claim sees the unread text, orphans too: they stand behind it."""
        rows, count = self.token.shape
        width, sees = self.width, np.zeros((rows, count, count), bool)
        unread = np.arange(width)[None] >= width - self.unread[:, None]
        sees[:, :, :width] = unread[:, None]
        sees[:, :width, :width] &= np.tril(np.ones((width, width), bool))
        sees[:, width:, width:] = forest.shape.visible[:, 1:, 1:] & (forest.token[:, None, 1:] != ABSENT)
        depth = np.empty((rows, count), np.int64)
        depth[:, :width], depth[:, width:] = np.arange(width) - width + 1, forest.shape.depth[:, 1:]
        return sees, depth

    @contextmanager
    def mixing(self) -> Iterator[None]:
        """For the length of a forward over the tokens that `grow` gave, with these nodes as its cache, the mixers compute trees.
        One such forward runs at a time; forwards of other threads, which have other caches, are the model's own."""
        with alone, ExitStack() as stack:
            for layer, mixer in self._mixers.items():
                stack.enter_context(replaced(mixer, partial(self._forward, layer, mixer, mixer.forward)))
            yield
        self.read = self.token.shape[1]

    def _forward(
        self, layer: int, mixer: Any, own: Callable[..., torch.Tensor], hidden_states: torch.Tensor,
        cache_params: Copies | None = None, **rest: Any,
    ) -> torch.Tensor:  # fmt: skip
        if cache_params is not self:
            return own(hidden_states, cache_params=cache_params, **rest)
        return self._mix(layer, mixer, hidden_states)

    def _mix(self, layer: int, mixer: Any, hidden_states: torch.Tensor) -> torch.Tensor:
        """What a mixer gives for the nodes that are read, [R, Q, hidden]."""
        projected = mixer.in_proj(hidden_states)
        gate, inputs, steps = projected.split([mixer.intermediate_size, mixer.conv_dim, mixer.num_heads], dim=-1)
        known = self._kept.get(layer)
        self._kept[layer] = Kept(inputs, steps) if known is None else Kept(*map(_joined, known, (inputs, steps)))
        x, dt, A, B, C = self._arguments(layer, mixer)
        state = self._held((layer, "recurrent", 0)).to(x.dtype)
        output = scan(x, dt, A, B, C[:, -hidden_states.shape[1] :], mixer.D.to(x.dtype), state, self._sees)
        return mixer.out_proj(mixer.norm(output.flatten(2), gate).to(hidden_states.dtype))

    def _held(self, name: StateName) -> torch.Tensor:
        return self._memory.held(name)

    def _arguments(self, layer: int, mixer: Any) -> tuple[torch.Tensor, ...]:
        """x, dt, A, B and C of all nodes as `tree_scan` names them, in float32 or wider as the model's own scan has them."""
        kept, weight, groups = self._kept[layer], mixer.conv1d.weight.squeeze(1), (mixer.n_groups, mixer.ssm_state_size)
        context = self._held((layer, "conv", 0)).transpose(1, 2).to(weight.dtype)
        mixed = mixer.act(convolved(torch.cat([context, kept.inputs], 1), self._places, weight, mixer.conv1d.bias))
        wide = torch.promote_types(mixed.dtype, torch.float32)
        x, B, C = mixed.to(wide).split([mixer.intermediate_size, *[groups[0] * groups[1]] * 2], dim=-1)
        dt = nn.functional.softplus(kept.steps + mixer.dt_bias).clamp(*mixer.time_step_limit).to(wide)
        A = -mixer.A_log.float().exp().to(wide)
        return x.unflatten(-1, (mixer.num_heads, -1)), dt, A, B.unflatten(-1, groups), C.unflatten(-1, groups)

    @torch.inference_mode()
    def replayed(self, paths: Sequence[Sequence[int]]) -> dict[StateName, torch.Tensor]:
        """Every row's states after the nodes of its path, from what was kept of them. No call."""
        device, on_path = self._sees.device, np.zeros((len(paths), self.read), bool)
        kernel = self._places.shape[-1]
        ends = np.zeros((len(paths), kernel), np.int64)
        for row, path in enumerate(paths):
            on_path[row, list(path)] = True
            ends[row] = [*range(kernel), *(kernel + node for node in path)][-kernel:]
        states, every = {}, torch.arange(len(paths), device=device)[:, None]
        taken, last = torch.from_numpy(on_path).to(device), torch.from_numpy(ends).to(device)
        for layer, mixer in self._mixers.items():
            x, dt, A, B, _ = self._arguments(layer, mixer)
            begun, context = self._held((layer, "recurrent", 0)), self._held((layer, "conv", 0))
            states[layer, "recurrent", 0] = replay(x, dt, A, B, begun.to(x.dtype), taken)
            read = torch.cat([context.transpose(1, 2), self._kept[layer].inputs.to(context.dtype)], 1)
            states[layer, "conv", 0] = read[every, last].transpose(1, 2)
        return states

    def select(self, rows: Sequence[int]) -> None:
        """Row i becomes a copy of row rows[i]; the memory does the same."""
        index = torch.tensor(list(rows), device=self._sees.device)
        self.unread, self.token = self.unread[list(rows)], self.token[list(rows)]
        self._sees, self._places = self._sees[index], self._places[index]
        self._kept = {layer: Kept(kept.inputs[index], kept.steps[index]) for layer, kept in self._kept.items()}

    def bytes(self) -> int:
        """Of what is kept of all nodes, over all layers."""
        return sum(kept.numel() * kept.element_size() for layer in self._kept.values() for kept in layer)


def _joined(known: torch.Tensor, new: torch.Tensor) -> torch.Tensor:
    return torch.cat([known, new], dim=1)
