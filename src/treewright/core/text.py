"""The text of every row, owned by the engine; sessions only remember how much of it they have seen."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np


class Text:
    """Tokens of R rows on the host.

    token [R, T] int64, length [R]: tokens that are facts, prompt [R]: how many of them the user gave,
    limit [R]: the most a row may hold. blank: in any-order families the token of an open slot, else None; there every row
    is laid out to its limit on admission, `length` is that canvas, and slots become facts in any order.
    """

    __slots__ = ("blank", "length", "limit", "prompt", "token")

    def __init__(self, capacity: int, blank: int | None = None) -> None:
        self.blank = blank
        self.token = np.zeros((0, capacity), np.int64)
        self.length = np.zeros(0, np.int64)
        self.prompt = np.zeros(0, np.int64)
        self.limit = np.zeros(0, np.int64)

    @property
    def rows(self) -> int:
        return len(self.length)

    def admit(self, prompts: Sequence[Sequence[int]], limits: Sequence[int]) -> None:
        """Adds one row for each prompt, after the present rows."""
        width = max(self.token.shape[1], max(limits))
        token = np.zeros((self.rows + len(prompts), width), np.int64)
        token[: self.rows, : self.token.shape[1]] = self.token
        for row, prompt in enumerate(prompts, start=self.rows):
            token[row, : len(prompt)] = prompt
            if self.blank is not None:
                token[row, len(prompt) : limits[row - self.rows]] = self.blank
        self.token = token
        lengths = np.array([len(prompt) for prompt in prompts], np.int64)
        self.length = np.concatenate([self.length, lengths if self.blank is None else np.array(limits, np.int64)])
        self.prompt = np.concatenate([self.prompt, lengths])
        self.limit = np.concatenate([self.limit, np.array(limits, np.int64)])

    def append(self, row: int, tokens: Sequence[int]) -> None:
        start = int(self.length[row])
        self.token[row, start : start + len(tokens)] = tokens
        self.length[row] = start + len(tokens)

    def fill(self, row: int, slot: int, token: int) -> None:
        """Writes one slot of an any-order canvas."""
        self.token[row, slot] = token

    def of(self, row: int) -> np.ndarray:
        """The facts of a row, a view."""
        return self.token[row, : self.length[row]]

    def frontier(self) -> np.ndarray:
        """The last token of every row, [R]."""
        return self.token[np.arange(self.rows), self.length - 1]

    def remaining(self) -> np.ndarray:
        """How many tokens each row may still take, [R]."""
        if self.blank is None:
            return self.limit - self.length
        on_canvas = np.arange(self.token.shape[1]) < self.length[:, None]
        return ((self.token == self.blank) & on_canvas).sum(axis=1)

    def settled(self, row: int, start: int, end: int | None = None) -> list[int]:
        """The facts of a canvas from slot `start` on, up to the first slot that is open, and to slot `end`."""
        slots = self.token[row, start : self.length[row]][: None if end is None else max(0, end - start)]
        still_open = np.flatnonzero(slots == self.blank)
        return slots[: still_open[0] if len(still_open) else len(slots)].tolist()

    def select(self, rows: Sequence[int]) -> None:
        """Row i becomes a copy of row rows[i]: forks, reorders and drops."""
        index = np.asarray(rows, np.int64)
        self.token, self.length = self.token[index], self.length[index]
        self.prompt, self.limit = self.prompt[index], self.limit[index]
