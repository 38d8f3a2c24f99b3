"""A model's answers to the claims of one round, readable until the session commits."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch

from treewright.core.claims import ABSENT
from treewright.core.errors import ModelError
from treewright.core.exits import Exits
from treewright.core.field import Field

INFINITE = {torch.bfloat16: 0x7F80, torch.float16: 0x7C00}
"""The bits of infinity; those of what is no number are larger."""
HOST_DTYPES = (torch.float32, torch.float64)
"""What numpy reads as it is."""


class Answers:
    """Logits of every claim, [R, N, V] on the model's device, and host copies of the parts that are asked for.

    On a CPU a row of logits is read where it lies, when it is visited. On a GPU a greedy walk brings the largest ids of all
    claims over in one copy.

    hidden [R, N, H] or None: the last hidden states, where the session was opened with them.
    field: in any-order families, what the model says of every slot under each claim's canvas, else None.
    exits: the answers of exit layers, where the session was opened with them. kept: what was computed of these answers and may be
    asked for again, by the name of what computes it.
    """

    __slots__ = ("_bits", "_host", "_largest", "_view", "exits", "field", "hidden", "kept", "logits")

    def __init__(
        self,
        logits: torch.Tensor,
        hidden: torch.Tensor | None = None,
        field: Field | None = None,
        exits: Exits | None = None,
    ) -> None:
        self.logits, self.hidden, self.field, self.exits = logits, hidden, field, exits
        self.kept: dict[str, np.ndarray] = {}
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

    def numbers(self, row: int, column: int) -> np.ndarray:
        """`row`, of a model whose answers decide. Raises ModelError where a logit is no number: nothing can be chosen then."""
        logits = self.row(row, column)
        if np.isnan(logits.max()):
            raise ModelError(
                f"the model gave logits that are no numbers (nan) for row {row}, so no token can be chosen; check its weights, "
                "and load it in float32 or bfloat16 where float16 overflows"
            )
        return logits

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
        """The id of the largest logit of one claim; the lowest id on a tie, as torch and numpy have it. Raises ModelError as
        `numbers` does, on a CPU."""
        if self.logits.device.type == "cpu":
            token = self._largest_of_bits(row, column) if self.logits.dtype.itemsize == 2 else ABSENT
            return int(self.numbers(row, column).argmax()) if token == ABSENT else token
        if self._largest is None:
            self._largest = self.logits.argmax(-1).cpu().numpy()
        return int(self._largest[row, column])

    def _largest_of_bits(self, row: int, column: int) -> int:
        """The same for a 16-bit dtype, without making the row a wider one: floats above zero are in the order of their bits.
        ABSENT where none is, and where one is infinite or no number."""
        if self._bits is None:
            self._bits = self.logits.view(torch.int16).numpy()
        bits = self._bits[row, column]
        token = int(bits.argmax())
        return token if 0 < bits[token] < INFINITE[self.logits.dtype] else ABSENT

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


def _on_host(logits: torch.Tensor) -> np.ndarray:
    return (logits if logits.dtype in HOST_DTYPES else logits.float()).cpu().numpy()
