"""Exit layers: what a model would answer if it ended after one of its layers, computed only where it is read."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import torch

ReadExits = Callable[[Sequence[int], bool], np.ndarray]
"""Logits [K, V] of one claim at K layers, with the final norm or without it."""


class ExitHead(Protocol):
    """A model's way from a hidden state to logits: its final norm, its output matrix, and what follows.

    tied: the output matrix is the embedding matrix, so that an exit at layer 0 mostly repeats the token itself.
    """

    tied: bool

    def __call__(self, states: torch.Tensor, norm: bool) -> torch.Tensor:
        """Logits [K, V] of hidden states [K, H]; without `norm` the final norm is left out."""


@dataclass(frozen=True, slots=True)
class Exits:
    """Hidden states [R, N, L, H] of every claim before each of the L layers (0: the embeddings), and the way to logits. What
    comes out of layer L is the model's own answer, so it has no place here."""

    states: torch.Tensor
    head: ExitHead

    @property
    def layers(self) -> int:
        return self.states.shape[2]

    def logits(self, row: int, column: int, layers: Sequence[int], norm: bool) -> torch.Tensor:
        """Logits [K, V] of one claim at K layers below L, in one projection."""
        return self.head(self.states[row, column, list(layers)], norm)


class Others(Mapping[Any, np.ndarray]):
    """What a steering part may combine with the target's logits at one claim; all of it as the models gave it.

    By name: the logits [V] of each model of the part's `models`. By number, where the parts asked for layers: what the
    target would answer if it ended after that layer, from 0 (its embeddings) to `layers`, L, which is its own answer.
    Layers cost a projection each when they are read; `exits` shares it. tied: the output matrix is the embedding matrix.
    """

    def __init__(
        self, named: Mapping[str, np.ndarray], layers: int = 0, read: ReadExits | None = None, tied: bool = False
    ) -> None:
        self._named, self._read = named, read
        self.layers, self.tied = layers, tied

    def exits(self, layers: Sequence[int], norm: bool = True) -> np.ndarray:
        """Logits [K, V] at K layers, in one projection. norm: through the model's final norm, as its own answer goes.

        Raises KeyError for a layer that is not there.
        """
        if self._read is None or not all(0 <= layer <= self.layers for layer in layers):
            raise KeyError(f"layers {list(layers)} of a claim with exit layers {'none' if self._read is None else self.layers}")
        return self._read(layers, norm)

    def __getitem__(self, key: Any) -> np.ndarray:
        return self._named[key] if key in self._named else self.exits([key])[0]

    def __iter__(self) -> Iterator[Any]:
        yield from self._named
        yield from range(self.layers + 1 if self._read is not None else 0)

    def __len__(self) -> int:
        return len(list(iter(self)))
