"""The text of every row, owned by the engine; sessions only remember how much of it they have seen."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np


class Text:
    """Tokens of R rows on the host.

    token [R, T] int64, length [R]: tokens that are facts, prompt [R]: how many of them the user gave,
    limit [R]: the most a row may hold. In any-order families `length` is the canvas and facts are written in any order.
    """

    __slots__ = ("token", "length", "prompt", "limit")

    def __init__(self, capacity: int) -> None:
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
        self.token = token
        lengths = np.array([len(prompt) for prompt in prompts], np.int64)
        self.length = np.concatenate([self.length, lengths])
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
        return self.limit - self.length

    def select(self, rows: Sequence[int]) -> None:
        """Row i becomes a copy of row rows[i]: forks, reorders and drops."""
        index = np.asarray(rows, np.int64)
        self.token, self.length = self.token[index], self.length[index]
        self.prompt, self.limit = self.prompt[index], self.limit[index]
