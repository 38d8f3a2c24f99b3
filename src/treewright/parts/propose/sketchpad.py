"""A sketchpad: drafts of every row, tried on one model in a forest of the drafter's own, of which some become the round's claims.

A row's nodes are numbered as they are made; node 0 is the frontier, and a parent has a lower number than its child. Making a
node costs nothing. `ask` says that the model shall be asked about it, and `score` asks about all such nodes of all rows in one
call, each row in columns of its own. `place` makes the round's forest of the chosen nodes and tells the session which is which.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import torch

from treewright.core.answers import Answers
from treewright.core.claims import ABSENT, Forest, Law
from treewright.core.randomness import DRAFT, hash_key
from treewright.core.roles import Round
from treewright.ops.residual import without
from treewright.ops.softmax import softmax
from treewright.parts.propose.trees import Trie, place

UNASKED = -1


@dataclass(slots=True)
class Sketch(Trie):
    """One row's nodes. depths: distance from the frontier. values: whatever the drafter ranks nodes by; 0 at the frontier.
    columns: each node's column on the pad, UNASKED where it has none. drawn: nodes in the order they were drawn in.
    name: a number for each drawn node, made of the ranks on the way to it: its noise, whatever else was drawn before."""

    depths: list[int] = field(default_factory=lambda: [0])
    values: list[float] = field(default_factory=lambda: [0.0])
    columns: list[int] = field(default_factory=lambda: [0])
    drawn: list[int] = field(default_factory=list)
    names: dict[int, int] = field(default_factory=lambda: {0: 0})

    def add(self, parent: int, token: int) -> int:
        node = Trie.add(self, parent, token)
        if node == len(self.depths):
            self.depths.append(self.depths[parent] + 1)
            self.values.append(0.0)
            self.columns.append(UNASKED)
        return node

    def best_nodes(self, count: int, among: Sequence[int] | None = None) -> list[int]:
        """The `count` nodes of the largest value `among` these (without them, of all but the frontier), by number; of equal ones
        the earlier. They hang together where no node is worth more than its parent."""
        nodes = np.arange(1, len(self)) if among is None else np.array(sorted(among), np.int64)
        order = np.argsort(-np.array(self.values)[nodes], kind="stable")[:count]
        return sorted(nodes[order].tolist())


class Sketchpad:
    """The nodes of all rows and one model's answers to them. `capacity`: the most columns of the pad, frontier included; no more
    than `Parts.drafts`. rows [R]: the sketches."""

    def __init__(self, round: Round, model: str, capacity: int) -> None:
        self.round, self.rows = round, [Sketch() for _ in range(round.rows)]
        self._session, self._capacity = round.sessions[model], capacity
        self._forest = Forest(round.text.frontier())
        self._asked: list[list[int]] = [[] for _ in self.rows]
        self._answers: Answers | None = None
        self._laws: dict[tuple[int, int], np.ndarray] = {}
        self._left: dict[tuple[int, int], tuple[np.ndarray, int]] = {}

    def room(self, row: int) -> int:
        """Columns that the row may still ask for."""
        return self._capacity - self._forest.columns - len(self._asked[row])

    def may_grow(self, row: int, node: int) -> bool:
        """Whether a child of the node could become text."""
        return self.rows[row].depths[node] < int(self.round.deepest[row])

    def ask(self, row: int, node: int) -> None:
        """Wants an answer at a node, and so at all nodes above it, from the next `score`. Raises ValueError where the pad is
        full."""
        sketch = self.rows[row]
        if sketch.columns[node] != UNASKED:
            return
        self.ask(row, sketch.parents[node])
        if self.room(row) < 1:
            raise ValueError(f"the pad has {self._capacity} columns and all are taken; open it with more")
        sketch.columns[node] = self._forest.columns + len(self._asked[row])
        self._asked[row].append(node)

    def score(self) -> None:
        """Asks the model about what was wanted since; one call of it, none where nothing was."""
        width = max(map(len, self._asked))
        if width:
            token = np.full((len(self.rows), width), ABSENT, np.int64)
            parent = np.full((len(self.rows), width), ABSENT, np.int64)
            for row, (sketch, nodes) in enumerate(zip(self.rows, self._asked, strict=True)):
                token[row, : len(nodes)] = [sketch.tokens[node] for node in nodes]
                parent[row, : len(nodes)] = [sketch.columns[sketch.parents[node]] for node in nodes]
            self._forest.grow(parent, token)
            self._asked = [[] for _ in self.rows]
        if width or self._answers is None:
            self._answers = self._session.score(self._forest)

    def answered(self, row: int, node: int) -> bool:
        """Whether the model has said what follows the node."""
        column = self.rows[row].columns[node]
        return self._answers is not None and UNASKED != column < self._answers.logits.shape[1]

    def logits(self, row: int, node: int) -> np.ndarray:
        """The model's logits after an answered node, [V] on the host."""
        assert self._answers is not None
        return self._answers.row(row, self.rows[row].columns[node])

    def law(self, row: int, node: int) -> np.ndarray:
        """The law [V] that children of an answered node are drawn by: the request's warpers; at temperature 0, where nothing is
        drawn, the model's own probabilities."""
        known = self._laws.get((row, node))
        if known is None:
            logits = self.logits(row, node)
            greedy = self.round.request.sampling.greedy
            known = softmax(logits) if greedy else self.round.draft_law(logits[None])[0]
            self._laws[row, node] = known
        return known

    def draw(self, row: int, node: int) -> tuple[int, float] | None:
        """The next child of an answered node, drawn without replacement (at temperature 0 the most probable one that is left),
        and the probability it had among what was left; None where nothing is left."""
        left, rank = self._left.get((row, node)) or (self.law(row, node), 0)
        if not left.any():
            return None
        sketch, round = self.rows[row], self.round
        name = hash_key((sketch.names[node], rank)) >> 16
        if round.request.sampling.greedy:
            token = int(left.argmax())
        else:
            position = round.position(row, sketch.depths[node])
            token = round.randomness.index(left, round.keys[row], position, DRAFT, name)
        self._left[row, node] = without(left, token), rank + 1
        child = sketch.add(node, token)
        sketch.names[child] = name
        sketch.drawn.append(child)
        return child, float(left[token])

    def top_children(self, level: Sequence[Sequence[int]], count: int) -> tuple[np.ndarray, np.ndarray]:
        """The `count` most probable children of answered nodes (level[r]: nodes of row r, K at most): ids [R, K, count] and
        log-probabilities at temperature 1, most probable first; what is beyond level[r] means nothing."""
        assert self._answers is not None
        width = max(map(len, level))
        columns = np.zeros((len(level), width), np.int64)
        for row, nodes in enumerate(level):
            columns[row, : len(nodes)] = [self.rows[row].columns[node] for node in nodes]
        logits = self._answers.logits
        found = logits[torch.arange(len(level))[:, None], torch.from_numpy(columns)]
        found = torch.log_softmax(found if found.dtype == torch.float64 else found.float(), -1)
        values, ids = found.topk(min(count, found.shape[-1]), dim=-1)
        return ids.cpu().numpy(), values.double().cpu().numpy()

    def place(self, chosen: Sequence[Sequence[int]] | None = None) -> None:
        """Makes the round's claims of the chosen nodes of each row, in that order, parents first: DELTA. Without `chosen`, of
        all nodes that were drawn, by the law they were drawn by (SWOR; DELTA at temperature 0)."""
        drawn = chosen is None and not self.round.request.sampling.greedy
        nodes = [[0, *(sketch.drawn if chosen is None else chosen[row])] for row, sketch in enumerate(self.rows)]
        tries, where = [], []
        for sketch, listed in zip(self.rows, nodes, strict=True):
            trie, column = Trie(), {0: 0}
            for node in listed[1:]:
                column[node] = trie.add(column[sketch.parents[node]], sketch.tokens[node])
            tries.append(trie)
            where.append(column)
        place(self.round, tries, Law.SWOR if drawn else Law.DELTA, self._drawn_by(where) if drawn else {})
        self.adopt(nodes)

    def _drawn_by(self, where: Sequence[dict[int, int]]) -> dict[int, np.ndarray]:
        laws: dict[int, np.ndarray] = {}
        for row, node in self._left:
            law = laws.setdefault(where[row][node], np.zeros((len(self.rows), self.round.vocabulary)))
            law[row] = self._laws[row, node]
        return laws

    def adopt(self, nodes: Sequence[Sequence[int]]) -> None:
        """Tells the session that the round's columns are these nodes of each row (node 0 first)."""
        if self._answers is None:
            return
        columns = np.full((len(self.rows), self.round.forest.columns), UNASKED, np.int64)
        for row, listed in enumerate(nodes):
            known = self.rows[row].columns
            columns[row, : len(listed)] = [known[node] if self.answered(row, node) else UNASKED for node in listed]
        self._session.adopt(columns)
