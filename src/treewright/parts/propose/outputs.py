"""What the rows of a run emit, told to a memory that all rows share and that outlives the run."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from treewright.core.roles import Round

Key = tuple[int, int]


@dataclass(frozen=True, slots=True)
class Gain:
    """New output tokens of the row `key`. fresh: they begin a sequence of their own; else they continue the last one."""

    key: Key
    fresh: bool
    tokens: list[int]


def by_key(round: Round) -> list[int]:
    """The round's rows in the order of their keys of randomness: a shared memory that is told of rows in this order learns the
    same whatever slots they sit in."""
    return sorted(range(round.rows), key=lambda row: round.keys[row])


class Outputs:
    """Follows each row's output, the prompt left out. Keys of randomness come again in the next run and texts change hands on
    a fork, so whether a row goes on with what was known is read from the tokens."""

    def __init__(self) -> None:
        self._known: dict[Key, np.ndarray] = {}
        self._forked: set[Key] = set()

    def begin(self, round: Round) -> list[Key]:
        """Forgets the outputs of keys under which a row starts anew in this round; returns those keys. Call before proposing."""
        ended = [key for row, key in enumerate(round.keys) if round.text.length[row] == round.text.prompt[row]]
        return [key for key in ended if self._known.pop(key, None) is not None]

    def forget(self, keys: Iterable[Key]) -> None:
        """Forgets the outputs of these keys."""
        for key in keys:
            self._known.pop(key, None)

    def gained(self, round: Round) -> list[Gain]:
        """What every row emitted since the last call, rows in the order of their keys. A row that was forked begins a sequence
        with the first token that differs from its own. Call after the round's tokens became text."""
        gains = []
        for row in by_key(round):
            key, output = round.keys[row], round.text.of(row)[int(round.text.prompt[row]) :]
            known = self._known.get(key)
            common = 0 if known is None else _common_prefix(known, output)
            if known is not None and common < len(known):
                self._forked.add(key)
            if len(output) > common:
                gains.append(Gain(key, known is None or key in self._forked, output[common:].tolist()))
                self._forked.discard(key)
            if known is not None or len(output):
                self._known[key] = output.copy()
        return gains


def _common_prefix(one: np.ndarray, other: np.ndarray) -> int:
    shortest = min(len(one), len(other))
    differs = np.flatnonzero(one[:shortest] != other[:shortest])
    return int(differs[0]) if len(differs) else shortest
