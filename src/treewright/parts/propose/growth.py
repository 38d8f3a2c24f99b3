"""Ways of growing a sketch: the best paths level by level, and the slot that is most likely to be reached next."""

from __future__ import annotations

import heapq
from collections.abc import Callable, Sequence

import numpy as np

from treewright.parts.propose.sketchpad import Sketchpad


def ask_level(pad: Sketchpad, level: Sequence[Sequence[int]]) -> None:
    """Asks about some nodes of each row; one call of the model."""
    for row, nodes in enumerate(level):
        for node in nodes:
            pad.ask(row, node)
    pad.score()


def best_children(pad: Sketchpad, level: Sequence[Sequence[int]], each: int, most: int) -> list[list[int]]:
    """Of the `each` most probable children of every answered node of a level, the `most` best of each row, made as nodes and
    given best first. A node's value is the log-probability of its path (temperature 1) below the node of value 0 above it."""
    if not any(level):
        return [[] for _ in level]
    ids, logs = pad.top_children(level, each)
    made = []
    for row, nodes in enumerate(level):
        sketch = pad.rows[row]
        above = [place for place, node in enumerate(nodes) if pad.may_grow(row, node)]
        values = logs[row, above] + np.array([sketch.values[nodes[place]] for place in above]).reshape(-1, 1)
        order = np.argsort(-values.ravel(), kind="stable")[:most]
        below = []
        for place, rank in zip(*np.unravel_index(order, values.shape), strict=True):
            if values[place, rank] > -np.inf:
                below.append(sketch.add(nodes[above[place]], int(ids[row, above[place], rank])))
                sketch.values[below[-1]] = float(values[place, rank])
        made.append(below)
    return made


class BestFirst:
    """Draws where a draw is most likely to be looked at (DySpec's first algorithm).

    A slot is a draw that is still to be made under some node; its value is the probability that verification tries it, if
    targets draw as the drafts do. A draw y of probability r turns a slot of value v into one under y, of value v r, and one
    for the next sibling, of value v (1 - r), so values fall and the best slots are those that are taken. Whether a draw is
    made is settled before its token is known, which is what exact rejection needs.

    most: nodes of each row. least: slots below this value are left. before: called with the rows that wait for an answer and
    the node each waits for, before all that a row has drawn is asked in one call. Draws go on as far as answers reach.
    """

    def __init__(
        self, pad: Sketchpad, most: int, least: float = 0.0, before: Callable[[int, int], None] = lambda row, node: None
    ) -> None:
        self._pad, self._most, self._least, self._before = pad, most, least, before
        self._slots: list[list[tuple[float, int, int]]] = [[(-1.0, 0, 0)] for _ in pad.rows]
        self._made = 0

    def grow(self) -> None:
        """Grows every row's tree to its end. Cost: a call for each time that some row needs an answer."""
        pad = self._pad
        while True:
            waiting = [(row, node) for row in range(len(pad.rows)) if (node := self._draw_on(row)) is not None]
            if not waiting:
                return
            for row, node in waiting:
                pad.ask(row, node)
                for drawn in pad.rows[row].drawn:
                    if pad.may_grow(row, drawn) and pad.room(row) > 0:
                        pad.ask(row, drawn)
                self._before(row, node)
            pad.score()

    def _draw_on(self, row: int) -> int | None:
        """Draws until an answer is missing, and returns the node it is missing at; None where the row is done."""
        pad, slots = self._pad, self._slots[row]
        sketch = pad.rows[row]
        while slots and len(sketch.drawn) < self._most:
            value, _, node = slots[0]
            if -value < self._least:
                return None
            if not pad.answered(row, node):
                return node if pad.room(row) > 0 else None
            heapq.heappop(slots)
            drawn = pad.draw(row, node)
            if drawn is None:
                continue
            child, share = drawn
            self._push(row, -value * (1 - share), node)
            if pad.may_grow(row, child):
                self._push(row, -value * share, child)
        return None

    def _push(self, row: int, value: float, node: int) -> None:
        if value > 0:
            self._made += 1
            heapq.heappush(self._slots[row], (-value, self._made, node))
