"""Sessions whose columns have other numbers than the round's: a drafter tries more claims than it proposes."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import takewhile

import numpy as np

from treewright.core.errors import CapabilityError
from treewright.core.layers import LayerPlan, share_run
from treewright.core.session import Recorder


def no_embeddings() -> CapabilityError:
    """What a session says to a mixed claim where its model reads nothing but tokens."""
    return CapabilityError("a claim mixes embeddings and the model reads tokens only; give a model that has embeddings")


class OwnColumns:
    """What `Session.adopt` says, kept until the commit, and how forwards are told of. Base of the sessions that answer causal
    claims."""

    _columns: np.ndarray | None = None
    _record: Recorder

    def _tell(self, kind: str, rows: int, columns: int, seconds: float, plans: Sequence[LayerPlan] = ()) -> None:
        """Records a forward under these plans; a sketch through which every part of the layers ran is a call of the model."""
        share = share_run(plans)
        self._record("score" if kind == "sketch" and share == 1 else kind, rows, columns, seconds, share)

    def adopt(self, columns: np.ndarray) -> None:
        self._columns = columns

    def _own_paths(self, paths: Sequence[Sequence[int]]) -> list[list[int]]:
        """Paths of the round's forest in this session's numbers, cut before the first claim it was not asked about."""
        if self._columns is None:
            return [list(path) for path in paths]
        known = self._columns
        own = ([int(known[row, column]) for column in path] for row, path in enumerate(paths))
        return [list(takewhile(lambda column: column > 0, path)) for path in own]
