"""Ordered trees that are best where only the order of siblings matters, and how to learn that (Chen et al. 2024, Sequoia).

The positional model: verification that comes to a claim accepts its b-th child, in the order they are tried, with probability
P[b], wherever the claim stands. Then the best tree of a given size and depth is found by dynamic programming.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from treewright.parts.propose.draft_model import Levels


def expected_tokens(levels: Levels, acceptance: Sequence[float]) -> float:
    """Tokens that a round with this tree is expected to emit, the one after the accepted path included."""
    reached, total = [1.0], 1.0
    for counts in levels:
        reached = [above * acceptance[rank] for above, count in zip(reached, counts, strict=True) for rank in range(count)]
        total += sum(reached)
    return total


class TreeTable:
    """The best trees of 1 to `nodes` nodes and 1 to `depth` levels, root included in both, if no node has more than
    len(acceptance) children. Cost: O(nodes^2 * depth * len(acceptance)) operations of numpy.

    tokens [depth + 1, nodes + 1]: expected tokens of the best tree of that many levels at most and of exactly that many
    nodes, -inf where there is none.
    """

    def __init__(self, acceptance: Sequence[float], nodes: int, depth: int) -> None:
        self.acceptance, widest = tuple(acceptance), min(len(acceptance), nodes - 1)
        self.tokens = np.full((depth + 1, nodes + 1), -np.inf)
        self._children = np.zeros((depth + 1, nodes + 1), np.int64)
        # _first[l, m, b]: nodes of the best tree of m nodes whose root has b children, its last child's subtree left out.
        self._first = np.zeros((depth + 1, nodes + 1, widest + 1), np.int64)
        self.tokens[1:, 1] = 1.0
        place = np.arange(nodes + 1)
        for level in range(2, depth + 1):
            below = self.tokens[level - 1]
            # last[m, y]: the best subtree for the m - y nodes that remain beside y.
            last = np.where(place[:, None] > place, below[place[:, None] - place], -np.inf)
            rooted = np.full(nodes + 1, -np.inf)
            rooted[1] = 1.0
            for children in range(1, widest + 1):
                chance = acceptance[children - 1]
                value = rooted[None, :] + np.where(np.isfinite(last), chance * np.where(np.isfinite(last), last, 0), -np.inf)
                self._first[level, :, children] = value.argmax(1)
                rooted = value.max(1)
                better = rooted > self.tokens[level]
                self.tokens[level][better] = rooted[better]
                self._children[level][better] = children

    def best(self, nodes: int, depth: int) -> Levels:
        """The best tree of at most `nodes` nodes and `depth` levels, root included."""
        nodes, depth = min(nodes, self.tokens.shape[1] - 1), min(depth, self.tokens.shape[0] - 1)
        size = int(self.tokens[depth, : nodes + 1].argmax())
        levels, row = list[tuple[int, ...]](), [(size, depth)]
        while row:
            below = [self._subtrees(size, depth) for size, depth in row]
            levels.append(tuple(map(len, below)))
            row = [subtree for subtrees in below for subtree in subtrees]
        return tuple(levels[:-1])

    def _subtrees(self, size: int, depth: int) -> list[tuple[int, int]]:
        """Sizes and depths of the root's subtrees, in the order of its children."""
        subtrees = []
        for children in range(int(self._children[depth, size]), 0, -1):
            first = int(self._first[depth, size, children])
            subtrees.append((size - first, depth - 1))
            size = first
        return subtrees[::-1]

    def fastest(self, draft_seconds: float, target_seconds: Mapping[int, float], deepest: int) -> tuple[int, int]:
        """The size and depth (`deepest` at most), root included in both, of the least expected time for each token.
        target_seconds: a call of the target over so many columns, for the sizes that were measured. A draft call is made for
        each level but the last."""
        tokens = np.maximum.accumulate(self.tokens, axis=1)
        costs = {
            (size, depth): ((depth - 1) * draft_seconds + seconds) / tokens[depth, size]
            for size, seconds in target_seconds.items()
            for depth in range(1, deepest + 1)
        }
        return min(costs, key=lambda choice: costs[choice])


class Acceptance:
    """An estimate of P from what verification did: at a visited claim children were tried in order until one was accepted.

    How often the b-th try succeeds is estimated for itself (accepted / tried), because claims have different numbers of
    children and a claim of two says nothing about a third; P[b] is then the chance of failing before and succeeding at b.
    The prior counts as `weight` tries of each place. seen: claims whose children were tried.
    """

    def __init__(self, prior: Sequence[float], weight: float = 8.0) -> None:
        left = 1 - np.concatenate([[0.0], np.cumsum(prior)[:-1]])
        self._succeeded = weight * np.divide(prior, left, out=np.zeros(len(prior)), where=left > 0)
        self._tried = np.full(len(prior), weight)
        self.seen = 0

    def learn(self, tried: int, accepted: bool) -> None:
        """Of the children in order `tried` were looked at, the last of which was accepted or not."""
        places = min(tried, len(self._tried))
        self._tried[:places] += 1
        if accepted and tried <= len(self._tried):
            self._succeeded[tried - 1] += 1
        self.seen += 1

    def vector(self) -> np.ndarray:
        """P [W]; its sum is at most 1."""
        success = self._succeeded / self._tried
        return success * np.concatenate([[1.0], np.cumprod(1 - success)[:-1]])
