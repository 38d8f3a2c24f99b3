"""Sample-then-match: draw what plain decoding would draw; while the draw was claimed, walk on.

Exact for every tree that was built without this position's noise, and for greedy decoding, where the draw is the argmax.
Because draws are keyed by position, it emits the very tokens plain sampling emits. One draw per visited claim: the draw
that matches no child is the one that is emitted, never drawn again (redrawing is biased).
"""

from __future__ import annotations

from treewright.core.roles import Round, TargetLaw, Verdict


class SampleThenMatch:
    """Verifier for any law of drafts; accepts less often than `Rejection` where the drafts' own law is known."""

    def verify(self, round: Round, law: TargetLaw) -> Verdict:
        paths, extra, log_weight = [], [], []
        for row in range(round.rows):
            path, token, weights = weighted_walk(round, law, row)
            paths.append(path)
            extra.append(token)
            log_weight.append(weights)
        return Verdict(paths, extra, log_weight=log_weight, finished=[token < 0 for token in extra])


def weighted_walk(round: Round, law: TargetLaw, row: int) -> tuple[list[int], int, list[float]]:
    """Accepted columns of one row, the token after them (-1 at a dead end), and the log weight of each draw in order."""
    children = round.forest.shape.children(row)
    claimed = round.forest.token[row]
    column, path, weights = 0, list[int](), list[float]()
    while True:
        token, weight = law.draw(row, column)
        weights.append(weight)
        match = next((child for child in children[column] if claimed[child] == token), None)
        if match is None or token < 0:
            return path, token, weights
        path.append(match)
        column = match
