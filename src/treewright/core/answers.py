"""A model's answers to the claims of one round, readable until the session commits."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from treewright.core.claims import ABSENT
from treewright.core.field import Field


def top_ids(logits: torch.Tensor, count: int) -> np.ndarray:
    """The ids of the `count` largest of logits [..., V], largest first, on the host; -1 beyond a vocabulary of fewer."""
    known = logits.topk(min(count, logits.shape[-1]), dim=-1).indices.cpu().numpy()
    missing = count - known.shape[-1]
    return np.pad(known, [(0, 0)] * (known.ndim - 1) + [(0, missing)], constant_values=ABSENT) if missing else known


class Answers:
    """Logits of every claim, [R, N, V] on the model's device, and host copies of the parts that are asked for.

    On a CPU a row of logits is read where it lies, when it is visited. On a GPU the first reading of `top` brings the
    top ids of all claims over in one copy, and greedy walks need nothing else.

    hidden [R, N, H] or None: the last hidden states, where the session was opened with them.
    field: in any-order families, what the model says of every slot under each claim's canvas, else None.
    """

    __slots__ = ("_host", "_largest", "_top", "field", "hidden", "logits")

    def __init__(self, logits: torch.Tensor, hidden: torch.Tensor | None = None, field: Field | None = None) -> None:
        self.logits, self.hidden, self.field = logits, hidden, field
        self._top: np.ndarray | None = None
        self._host: dict[tuple[int, int], np.ndarray] = {}
        self._largest: np.ndarray | None = None

    def row(self, row: int, column: int) -> np.ndarray:
        """The logits of one claim on the host, [V] float32 (float64 for a float64 model). Not to be written to."""
        known = self._host.get((row, column))
        if known is None:
            logits = self.logits[row, column]
            if logits.dtype not in (torch.float32, torch.float64):
                logits = logits.float()
            known = self._host[row, column] = logits.cpu().numpy()
            known.flags.writeable = False
        return known

    def largest(self, row: int, column: int) -> int:
        """The id of the largest logit of one claim; the lowest id on a tie, as torch and numpy have it."""
        if self.logits.device.type == "cpu":
            return int(self.row(row, column).argmax())
        if self._largest is None:
            self._largest = self.logits.argmax(-1).cpu().numpy()
        return int(self._largest[row, column])

    def select(self, rows: Sequence[int]) -> Answers:
        """The answers after row i became a copy of row rows[i]."""
        index = list(rows)
        hidden = None if self.hidden is None else self.hidden[index]
        return Answers(self.logits[index], hidden, None if self.field is None else self.field.select(index))

    def top(self, count: int) -> np.ndarray:
        """The ids of the `count` largest logits of every claim, largest first, [R, N, count] on the host."""
        if self._top is None or self._top.shape[-1] < count:
            self._top = top_ids(self.logits, count)
        return self._top[..., :count]
