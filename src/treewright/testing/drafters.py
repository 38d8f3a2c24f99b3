"""Small drafters of every law, for testing verifiers."""

from __future__ import annotations

import numpy as np

from treewright.core.claims import ABSENT, Law
from treewright.core.errors import InputError, choices
from treewright.core.randomness import DRAFT
from treewright.core.roles import Round

LAWS = ("delta", "single", "swor", "iid", "mixed")


class TreeDrafter:
    """Grows a tree from the model of the role `draft`: widths[d] children for each claim of depth d.

    law: "delta" (the most probable tokens), "single" (one draw; widths of 1 have one child, wider levels are cut to it),
    "swor", "iid", or "mixed": beside the draws of each claim one more child, the least probable token, deterministic.
    """

    def __init__(self, law: str, widths: tuple[int, ...]) -> None:
        if law not in LAWS:
            raise InputError(f"unknown law of drafts '{law}'; {choices(law, LAWS)}")
        self._law, self._widths = law, widths

    def propose(self, round: Round) -> None:
        parents = range(1)
        for width in self._widths[: max(0, round.depth_left)]:
            parents = self._level(round, parents, width)

    def _level(self, round: Round, parents: range, width: int) -> range:
        answers = round.sessions["draft"].score(round.forest)
        rows = range(round.rows)
        laws = {parent: round.draft_law(np.stack([answers.row(row, parent) for row in rows])) for parent in parents}
        width = 1 if self._law == "single" else width
        above = [parent for parent in parents for _ in range(width)]
        first = round.forest.columns
        if self._law == "mixed":
            least = np.stack([laws[parent].argmin(-1) for parent in parents], axis=1)
            round.forest.grow(list(parents), self._where_present(round, list(parents), least))
        drawn = [self._draw(round, row, parent, laws[parent][row], width) for parent in parents for row in rows]
        token = np.array(drawn).reshape(len(parents), len(rows), width).swapaxes(0, 1).reshape(len(rows), -1)
        kind = {"delta": Law.DELTA, "swor": Law.SWOR, "iid": Law.IID}.get(self._law, Law.SINGLE)
        token = self._where_present(round, above, token)
        round.forest.grow(above, token, kind, None if kind is Law.DELTA else laws)
        return range(first, round.forest.columns)

    @staticmethod
    def _where_present(round: Round, above: list[int], token: np.ndarray) -> np.ndarray:
        return np.where(round.forest.token[:, above] == ABSENT, ABSENT, token)

    def _draw(self, round: Round, row: int, parent: int, law: np.ndarray, width: int) -> list[int]:
        if self._law == "delta":
            return np.argsort(-law, kind="stable")[:width].tolist()
        shape = round.forest.shape
        position = round.position(row, int(shape.depth[0, parent]))
        drawn: list[int] = []
        left = law.copy()
        while len(drawn) < width and left.sum() > 0:
            drawn.append(round.randomness.index(left, round.keys[row], position, DRAFT, parent * width + len(drawn)))
            if self._law != "iid":
                left[drawn[-1]] = 0.0
        return drawn + [ABSENT] * (width - len(drawn))
