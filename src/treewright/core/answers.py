"""A model's answers to the claims of one round, readable until the session commits."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch

from treewright.core.claims import ABSENT
from treewright.core.exits import Exits
from treewright.core.field import Field

BLOCK, LARGE = 128, 16384
"""On a CPU, blocks of so many ids are looked through one by one in vocabularies that are so large."""
HOST_DTYPES = (torch.float32, torch.float64)
"""What numpy reads as it is."""


def top_ids(logits: torch.Tensor, count: int) -> np.ndarray:
    """The ids of the `count` largest of logits [..., V], largest first, on the host; -1 beyond a vocabulary of fewer, and for
    ids whose logit is -inf: those cannot be drawn."""
    values, ids = _largest(logits, min(count, logits.shape[-1]))
    known = ids.masked_fill(values == -torch.inf, ABSENT).cpu().numpy()
    missing = count - known.shape[-1]
    return np.pad(known, [(0, 0)] * (known.ndim - 1) + [(0, missing)], constant_values=ABSENT) if missing else known


def _largest(logits: torch.Tensor, count: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Values and ids of the largest logits. torch's own `topk` is slow on a CPU; the `count` largest lie in the `count` blocks
    with the largest maxima, which is three to six times as fast for large vocabularies."""
    size = logits.shape[-1]
    whole = size - size % BLOCK
    if logits.device.type != "cpu" or size < LARGE or count > whole // BLOCK:
        return logits.topk(count, dim=-1)  # type: ignore[return-value]
    if logits.dtype.itemsize == 2:
        # torch finds maxima of 16-bit numbers more slowly than it makes them 32-bit ones.
        logits = logits.float()
    blocks = logits[..., :whole].unflatten(-1, (-1, BLOCK))
    chosen = blocks.amax(-1).topk(count, dim=-1).indices.unsqueeze(-1).expand(*logits.shape[:-1], count, BLOCK)
    ids = (chosen * BLOCK + torch.arange(BLOCK)).flatten(-2)
    rest = torch.arange(whole, size).expand(*logits.shape[:-1], -1)
    best = torch.cat([blocks.gather(-2, chosen).flatten(-2), logits[..., whole:]], dim=-1).topk(count, dim=-1)
    return best.values, torch.cat([ids, rest], dim=-1).gather(-1, best.indices)


class Answers:
    """Logits of every claim, [R, N, V] on the model's device, and host copies of the parts that are asked for.

    On a CPU a row of logits is read where it lies, when it is visited. On a GPU the first reading of `top` brings the
    top ids of all claims over in one copy, and greedy walks need nothing else.

    hidden [R, N, H] or None: the last hidden states, where the session was opened with them.
    field: in any-order families, what the model says of every slot under each claim's canvas, else None.
    exits: the answers of exit layers, where the session was opened with them.
    """

    __slots__ = ("_bits", "_host", "_largest", "_top", "_view", "exits", "field", "hidden", "logits")

    def __init__(
        self,
        logits: torch.Tensor,
        hidden: torch.Tensor | None = None,
        field: Field | None = None,
        exits: Exits | None = None,
    ) -> None:
        self.logits, self.hidden, self.field, self.exits = logits, hidden, field, exits
        self._top: np.ndarray | None = None
        self._host: dict[tuple[int, int], np.ndarray] = {}
        self._view: np.ndarray | None = None
        self._bits: np.ndarray | None = None
        self._largest: np.ndarray | None = None

    def row(self, row: int, column: int) -> np.ndarray:
        """The logits of one claim on the host, [V] float32 (float64 for a float64 model). Not to be written to."""
        if self._view is None and self.logits.device.type == "cpu" and self.logits.dtype in HOST_DTYPES:
            self._view = self.logits.numpy()
            self._view.flags.writeable = False
        if self._view is not None:
            return self._view[row, column]
        known = self._host.get((row, column))
        if known is None:
            known = self._host[row, column] = _on_host(self.logits[row, column])
            known.flags.writeable = False
        return known

    def at_layers(self, row: int, column: int, layers: Sequence[int], norm: bool = True) -> np.ndarray:
        """The logits of one claim if the model ended after each of K layers, [K, V] on the host; layer L is the model's own
        answer. Costs one projection of K hidden states."""
        exits = self.exits
        if exits is None:
            raise ValueError("no exit layers: open the session with layers=True")
        found = np.repeat(self.row(row, column)[None], len(layers), axis=0)
        early = [place for place, layer in enumerate(layers) if layer < exits.layers]
        if early:
            found[early] = _on_host(exits.logits(row, column, [layers[place] for place in early], norm))
        return found

    def largest(self, row: int, column: int) -> int:
        """The id of the largest logit of one claim; the lowest id on a tie, as torch and numpy have it."""
        if self.logits.device.type == "cpu":
            token = self._largest_of_bits(row, column) if self.logits.dtype.itemsize == 2 else ABSENT
            return int(self.row(row, column).argmax()) if token == ABSENT else token
        if self._largest is None:
            self._largest = self.logits.argmax(-1).cpu().numpy()
        return int(self._largest[row, column])

    def _largest_of_bits(self, row: int, column: int) -> int:
        """The same for a 16-bit dtype, without making the row a wider one: floats above zero are in the order of their bits.
        ABSENT where none is."""
        if self._bits is None:
            self._bits = self.logits.view(torch.int16).numpy()
        bits = self._bits[row, column]
        token = int(bits.argmax())
        return token if bits[token] > 0 else ABSENT

    def select(self, rows: Sequence[int]) -> Answers:
        """The answers after row i became a copy of row rows[i]."""
        index = list(rows)
        chosen = self.map(lambda outputs: outputs[index])
        chosen.field = None if self.field is None else self.field.select(index)
        return chosen

    @staticmethod
    def by_row(sources: Sequence[Answers]) -> Answers:
        """Row r of the answers sources[r]; logits only where the rows come from more than one model."""
        if all(source is sources[0] for source in sources):
            return sources[0]
        return Answers(torch.stack([source.logits[row].to(sources[0].logits) for row, source in enumerate(sources)]))

    def map(self, change: Callable[[torch.Tensor], torch.Tensor]) -> Answers:
        """The answers after `change` of logits, hidden states and the states of exit layers."""
        exits = None if self.exits is None else Exits(change(self.exits.states), self.exits.head)
        return Answers(change(self.logits), None if self.hidden is None else change(self.hidden), exits=exits)

    def merge(self, other: Answers, join: Callable[[torch.Tensor, torch.Tensor], torch.Tensor]) -> Answers:
        """The answers made of these and of others that hold the same kinds of outputs."""
        hidden, exits = None, None
        if self.hidden is not None and other.hidden is not None:
            hidden = join(self.hidden, other.hidden)
        if self.exits is not None and other.exits is not None:
            exits = Exits(join(self.exits.states, other.exits.states), self.exits.head)
        return Answers(join(self.logits, other.logits), hidden, exits=exits)

    def top(self, count: int) -> np.ndarray:
        """The ids of the `count` largest logits of every claim, largest first, [R, N, count] on the host."""
        if self._top is None or self._top.shape[-1] < count:
            self._top = top_ids(self.logits, count)
        return self._top[..., :count]


def _on_host(logits: torch.Tensor) -> np.ndarray:
    return (logits if logits.dtype in HOST_DTYPES else logits.float()).cpu().numpy()
