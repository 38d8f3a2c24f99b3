"""Sessions whose columns have other numbers than the round's: a drafter tries more claims than it proposes."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import takewhile

import numpy as np

from treewright.core.errors import CapabilityError


def no_embeddings() -> CapabilityError:
    """What a session says to a mixed claim where its model reads nothing but tokens."""
    return CapabilityError("a claim mixes embeddings and the model reads tokens only; give a model that has embeddings")


class OwnColumns:
    """What `Session.adopt` says, kept until the commit. Base of the sessions that answer causal claims."""

    _columns: np.ndarray | None = None

    def adopt(self, columns: np.ndarray) -> None:
        self._columns = columns

    def _own_paths(self, paths: Sequence[Sequence[int]]) -> list[list[int]]:
        """Paths of the round's forest in this session's numbers, cut before the first claim it was not asked about."""
        if self._columns is None:
            return [list(path) for path in paths]
        known = self._columns
        own = ([int(known[row, column]) for column in path] for row, path in enumerate(paths))
        return [list(takewhile(lambda column: column > 0, path)) for path in own]
