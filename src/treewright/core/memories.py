"""What methods remember between rounds and between runs."""

from __future__ import annotations

import copy
from collections.abc import Callable, Hashable, Sequence
from typing import Any, TypeVar

T = TypeVar("T")


class Memories:
    """What methods learn, kept under a name. Memory of the scope `model` outlives a run and is shared by its rows, so
    it may steer what is *proposed*, never what is emitted; memory of the scope `row` belongs to one key of randomness and
    is copied with the row's text on a fork. What is `loaded` was read from a file and never changes: everybody shares it."""

    def __init__(self, lasting: dict[Hashable, Any], loaded: dict[Hashable, Any] | None = None) -> None:
        """lasting: what outlives the run. loaded: where things from files are kept, None for among the lasting ones."""
        self._lasting, self._loaded = lasting, lasting if loaded is None else loaded
        self._rows: dict[Hashable, dict[Hashable, Any]] = {}
        self._within: tuple[Hashable, ...] = ()

    def within(self, name: Hashable) -> Memories:
        """The same memory for one of several users that may keep things under equal keys: what it keeps is its own."""
        own = Memories(self._lasting, self._loaded)
        own._rows, own._within = self._rows, (*self._within, name)
        return own

    def fresh(self) -> Memories:
        """Memory in which nothing was learned, and all that was loaded is there."""
        return Memories({}, self._loaded)

    def loaded(self, key: Hashable, make: Callable[[], T]) -> T:
        """What `make` reads from a file, read once: arms and rows that are decoded apart share it, so nobody may change it. The
        key says which file, in which version, and how it is read."""
        key = ("loaded", key)
        if key not in self._loaded:
            self._loaded[key] = make()
        return self._loaded[key]

    def model(self, key: Hashable, make: Callable[[], T]) -> T:
        """What was learned under `key` on this model."""
        key = self._own(key)
        if key not in self._lasting:
            self._lasting[key] = make()
        return self._lasting[key]

    def row(self, row: Hashable, key: Hashable, make: Callable[[], T]) -> T:
        """What is kept under `key` for the row whose key of randomness is `row`."""
        key, own = self._own(key), self._rows.setdefault(row, {})
        if key not in own:
            own[key] = make()
        return own[key]

    def _own(self, key: Hashable) -> Hashable:
        return (self._within, key) if self._within else key

    def fork(self, rows: Sequence[Hashable], sources: Sequence[Hashable]) -> None:
        """Row rows[i] continues with a copy of what row sources[i] remembers."""
        before = {source: self._rows.get(source, {}) for source in sources}
        for row, source in zip(rows, sources, strict=True):
            if row != source:
                self._rows[row] = copy.deepcopy(before[source])

    def forget(self, row: Hashable) -> None:
        """Drops what is kept for a row that has ended."""
        self._rows.pop(row, None)
