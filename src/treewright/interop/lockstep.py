"""Stopping criteria and streamer of transformers over rows that gain several tokens at a time.

transformers advances all rows by one token a step, asks the criteria after each, and hands the step to the streamer. Here
rows run ahead of each other, so the steps are put together afterwards: the outcome is the same, token for token.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch

from treewright.api import Streamer

Criterion = Callable[[torch.Tensor, Any], Any]


class Lockstep:
    """Listener that cuts each row at the first token where a criterion fires, however many tokens came with it.

    input_ids [R, T] as transformers prepared them; row r is sample r % samples of prompt r // samples. criteria are asked
    about one row at a time, as a batch of one with its padding. `pad` fills rows that have ended; None where transformers
    knows no end token: there rows go on until all of them have ended, and so they do here.
    """

    def __init__(
        self, input_ids: torch.Tensor, samples: int, criteria: Sequence[Criterion], room: int, pad: int | None,
        streamer: Streamer | None,
    ) -> None:  # fmt: skip
        rows, self._width = input_ids.shape
        self._input_ids, self._samples, self._criteria = input_ids, samples, criteria
        self._pad, self._streamer, self._streamed = pad, streamer, 0
        self._tokens: list[list[int]] = [[] for _ in range(rows)]
        self._ends: list[int | None] = [None] * rows
        self._lines = torch.cat([input_ids, input_ids.new_zeros(rows, room)], dim=1) if criteria else input_ids

    def hear(self, prompt: int, sample: int, tokens: list[int], piece: str, finished: bool) -> bool:
        row = prompt * self._samples + sample
        for token in tokens:
            if self._ended(row):
                break
            self._tokens[row].append(token)
            if self._ends[row] is None and self._fires(row, token):
                self._ends[row] = len(self._tokens[row])
        if finished and self._ends[row] is None:
            self._ends[row] = len(self._tokens[row])
        if self._streamer is not None:
            self._stream(self._streamer)
        return not self._ended(row)

    def _fires(self, row: int, token: int) -> bool:
        if not self._criteria:
            return False
        end = self._width + len(self._tokens[row])
        self._lines[row, end - 1] = token
        line = self._lines[row : row + 1, :end]
        return any([bool(torch.as_tensor(criterion(line, None)).any()) for criterion in self._criteria])

    def _last(self) -> int | None:
        """Steps that transformers would run, once that is known."""
        known = [end for end in self._ends if end is not None]
        return max(known) if len(known) == len(self._ends) else None

    def _ended(self, row: int) -> bool:
        if self._pad is not None:
            return self._ends[row] is not None
        last = self._last()
        return last is not None and len(self._tokens[row]) >= last

    def _stream(self, streamer: Streamer) -> None:
        last = self._last()
        while last is None or self._streamed < last:
            step = [self._at(row, self._streamed) for row in range(len(self._tokens))]
            if None in step:
                return
            streamer.put(torch.tensor(step))
            self._streamed += 1

    def _at(self, row: int, step: int) -> int | None:
        """A row's token at a step, its padding after its end, None if that is not known yet."""
        if step < len(self._tokens[row]):
            return self._tokens[row][step]
        return None if self._ends[row] is None else self._pad

    def sequences(self) -> torch.Tensor:
        """Prompts and continuations [R, T + longest], on the device of input_ids; ends the streamer."""
        if self._streamer is not None:
            self._streamer.end()
        last = self._last() or 0
        steps = [[self._at(row, step) or 0 for step in range(last)] for row in range(len(self._tokens))]
        return torch.cat([self._input_ids, self._input_ids.new_tensor(steps).reshape(len(steps), last)], dim=1)
