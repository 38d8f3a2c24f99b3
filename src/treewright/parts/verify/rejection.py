"""Exact rejection over a tree of drafts, one routine for all laws (recursive rejection sampling).

At a claim with children x1 .. xk in the order they were drawn, R = p and D = q: accept x with probability min(1, R/D),
else R becomes norm([R - D]+), and D forgets x where the draws were without replacement. A deterministic child is accepted
with probability R[x]. If none is accepted the token is drawn from R. (Leviathan et al. 2023; Chen et al. 2023; Miao et al.
2024 for trees; Jeon et al. 2024 without replacement.)
"""

from __future__ import annotations

import math

import numpy as np

from treewright.core.claims import ABSENT, Law
from treewright.core.randomness import DRAW
from treewright.core.roles import Round, TargetLaw, Verdict
from treewright.ops.residual import acceptance, after_rejection
from treewright.parts.verify.sample_then_match import weighted_walk


class Rejection:
    """Verifier that uses the law each claim was drawn by. At temperature 0 it walks as sample-then-match does. A relaxed rule
    takes the place of `greedy_walk` and `try_children`."""

    def verify(self, round: Round, law: TargetLaw) -> Verdict:
        paths, extra = [], []
        for row in range(round.rows):
            path, token = self.greedy_walk(round, law, row) if law.greedy else self._walk(round, law, row)
            paths.append(path)
            extra.append(token)
        ended = [token < 0 for token in extra]
        weights = [[0.0] * len(path) + [-math.inf if end else 0.0] for path, end in zip(paths, ended, strict=True)]
        return Verdict(paths, extra, log_weight=weights, finished=ended)

    def greedy_walk(self, round: Round, law: TargetLaw, row: int) -> tuple[list[int], int]:
        """Accepted columns of a row at temperature 0, and the token after them."""
        return weighted_walk(round, law, row)[:2]

    def _walk(self, round: Round, law: TargetLaw, row: int) -> tuple[list[int], int]:
        children = round.forest.shape.children(row)
        column, path = 0, list[int]()
        while True:
            target = law.probs(row, column)
            if not target.any():
                return path, -1
            accepted, left = self.try_children(round, target, row, column, len(path), children[column])
            if accepted is None:
                if left is target:
                    return path, law.draw(row, column)[0]
                return path, round.randomness.index(left, round.keys[row], round.position(row, len(path)), DRAW)
            path.append(accepted)
            column = accepted

    def try_children(
        self, round: Round, target: np.ndarray, row: int, column: int, depth: int, children: list[int]
    ) -> tuple[int | None, np.ndarray]:
        """The first child that is accepted, or None and the law that remains; the very `target` where nothing was refused."""
        forest = round.forest
        source = forest.q.get(column)
        drawn = None if source is None else source[row]
        for trial, child in enumerate(children):
            token = int(forest.token[row, child])
            if token == ABSENT:
                continue
            law = forest.law[child]
            draft = None if law is Law.DELTA else drawn
            if round.randomness.accept(self.chance(target, draft, token), round.keys[row], round.position(row, depth), trial):
                return child, target
            target, next_draft = self.refuse(target, draft, token, law)
            if law is not Law.DELTA:
                drawn = next_draft
        return None, target

    def chance(self, target: np.ndarray, draft: np.ndarray | None, token: int) -> float:
        """The probability that a draft is accepted; `draft` is the law it was drawn by, None where it was not drawn."""
        return acceptance(target, draft, token)

    def refuse(self, target: np.ndarray, draft: np.ndarray | None, token: int, law: Law) -> tuple[np.ndarray, np.ndarray | None]:
        """What is left of the target's law after `token` was refused, and the draft law of its next sibling."""
        return after_rejection(target, draft, token, law)
