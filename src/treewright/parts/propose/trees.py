"""Trees of drafts that differ from row to row: tries on the host, placed into a round's forest at once."""

from __future__ import annotations

import heapq
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from treewright.core.claims import ABSENT, DraftLaws, Forest, Law, Shape
from treewright.core.roles import Round


@dataclass(slots=True)
class Trie:
    """One row's drafts as a prefix tree. Node 0 is the frontier (its token means nothing); parents stand before their
    children, and no two siblings hold one token."""

    tokens: list[int] = field(default_factory=lambda: [ABSENT])
    parents: list[int] = field(default_factory=lambda: [ABSENT])
    children: list[dict[int, int]] = field(default_factory=lambda: [{}])

    def __len__(self) -> int:
        """Nodes, the frontier included."""
        return len(self.tokens)

    def add(self, parent: int, token: int) -> int:
        """The child of `parent` that holds `token`, made where there is none."""
        below = self.children[parent]
        node = below.get(token)
        if node is None:
            node = below[token] = len(self.tokens)
            self.tokens.append(token)
            self.parents.append(parent)
            self.children.append({})
        return node

    def insert(self, path: Iterable[int]) -> int:
        """The node that `path` ends at, from the frontier; what is missing of it is made."""
        node = 0
        for token in path:
            node = self.add(node, token)
        return node

    def path(self, node: int) -> list[int]:
        """Tokens from the frontier (left out) down to `node`."""
        tokens = []
        while node > 0:
            tokens.append(self.tokens[node])
            node = self.parents[node]
        return tokens[::-1]

    def merge(self, other: Trie, most: int) -> None:
        """Adds the paths of `other` in its order, until this trie has `most` nodes; shared prefixes are shared."""
        place = {0: 0}
        for node in range(1, len(other)):
            above = place.get(other.parents[node])
            if above is None:
                continue
            if len(self) >= most and other.tokens[node] not in self.children[above]:
                continue
            place[node] = self.add(above, other.tokens[node])

    def best(self, value: Callable[[int], float], most: int) -> Trie:
        """The connected part of `most` nodes, frontier included, that takes the node of the largest `value` next, earlier
        nodes first where values are equal. Where no child is worth more than its parent these are the best nodes of all."""
        chosen, place = Trie(), {0: 0}
        waiting = [(-value(child), child) for child in self.children[0].values()]
        heapq.heapify(waiting)
        while waiting and len(chosen) < most:
            _, node = heapq.heappop(waiting)
            place[node] = chosen.add(place[self.parents[node]], self.tokens[node])
            for child in self.children[node].values():
                heapq.heappush(waiting, (-value(child), child))
        return chosen


SparseLaw = tuple[list[int], list[float]]
"""Different tokens and their chances, all above 0, of any sum."""


def place(
    round: Round, tries: Sequence[Trie], law: Law = Law.DELTA, q: Mapping[int, DraftLaws] | None = None
) -> None:  # fmt: skip
    """Makes the round's claims of one trie for each row, rows with fewer nodes filled up with absent claims; `law` and `q` as
    in `Forest.grow`, and siblings that were drawn stand in the order they were drawn in. Replaces what was claimed before.
    Raises ValueError where a trie is larger than `round.claims` allows."""
    columns = max(map(len, tries))
    if columns > round.claims:
        raise ValueError(f"a tree has {columns} claims; the round allows {round.claims}")
    forest: Forest = round.forest
    token = np.full((round.rows, columns), ABSENT, np.int64)
    parent = np.full((round.rows, columns), ABSENT, np.int64)
    for row, trie in enumerate(tries):
        token[row, : len(trie)] = trie.tokens
        parent[row, : len(trie)] = trie.parents
    token[:, 0] = forest.token[:, 0]
    forest.replace(Shape.of(parent), token, law, q)


def sparse_laws(vocabulary: int, drawn_by: Sequence[Mapping[int, SparseLaw]]) -> dict[int, DraftLaws]:
    """The `q` of tries whose nodes' children were drawn by drawn_by[row][node]."""
    nodes = sorted({node for laws in drawn_by for node in laws})
    return {node: SparseLaws(vocabulary, [laws.get(node) for laws in drawn_by]) for node in nodes}


class SparseLaws:
    """`DraftLaws` of which a row is spelled out only when a walk visits it: most nodes of a tree are never visited, and an array
    [R, V] for each costs more than all the rest."""

    def __init__(self, vocabulary: int, laws: Sequence[SparseLaw | None]) -> None:
        self._vocabulary, self._laws = vocabulary, laws

    def __getitem__(self, rows: Any, /) -> Any:
        if isinstance(rows, np.ndarray):
            return SparseLaws(self._vocabulary, [self._laws[row] for row in rows.tolist()])
        probabilities, law = np.zeros(self._vocabulary), self._laws[rows]
        if law is not None:
            probabilities[law[0]] = np.array(law[1]) / sum(law[1])
        return probabilities
