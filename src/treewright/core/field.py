"""What an any-order model says of the slots of a canvas."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch


@dataclass(frozen=True, slots=True)
class Canvas:
    """The answer to one canvas: logits [L, V] on the model's device, of the slots `first` to first + L."""

    first: int
    logits: torch.Tensor


class Field:
    """Answers to the canvases of a round, by (row, column). They stay on the model's device as the model gave them; a row
    of logits is widened, and brought over, when a slot is looked at.

    canvases[row][column]: None where nothing was asked. forbidden: ids that no slot may hold (the mask, ids that the
    tokenizer cannot spell); their logits read -inf.
    """

    __slots__ = ("_canvases", "_forbidden")

    def __init__(self, canvases: Sequence[Sequence[Canvas | None]], forbidden: Sequence[int] = ()) -> None:
        self._canvases, self._forbidden = canvases, list(forbidden)

    def logits(self, row: int, column: int, slots: Sequence[int]) -> torch.Tensor:
        """Logits of some slots of one claim's canvas, [S, V] float32 (float64 for a float64 model), a copy.

        Raises KeyError where the claim was not asked about, or a slot lies outside of what was computed.
        """
        canvas = self._canvases[row][column]
        index = np.asarray(slots, np.int64)
        if canvas is None or (index < canvas.first).any() or (index >= canvas.first + len(canvas.logits)).any():
            raise KeyError(f"the slots {index.tolist()} of claim {column} of row {row} were not computed this round")
        wide = torch.float64 if canvas.logits.dtype == torch.float64 else torch.float32
        chosen = torch.from_numpy(index - canvas.first).to(canvas.logits.device)
        logits = canvas.logits[chosen].to(wide)
        if self._forbidden:
            logits[:, self._forbidden] = -torch.inf
        return logits

    def probabilities(self, row: int, column: int, slots: Sequence[int]) -> np.ndarray:
        """Their softmax on the host, [S, V] float64."""
        return self.logits(row, column, slots).double().softmax(-1).cpu().numpy()

    def select(self, rows: Sequence[int]) -> Field:
        """The field after row i became a copy of row rows[i]."""
        return Field([self._canvases[row] for row in rows], self._forbidden)
