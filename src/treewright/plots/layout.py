"""Where things stand in a picture of a trace; pure arithmetic, in inches."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from treewright.core.trace import Call, Step

ABSENT = -1


@dataclass(frozen=True, slots=True)
class Tree:
    """A token tree laid out on a grid. x {column: depth}, y {column: lane}; lane 0 is on top, and an accepted child
    stands on its parent's lane. `lanes` is their number, `depth` the deepest claim."""

    x: dict[int, int]
    y: dict[int, int]
    edges: tuple[tuple[int, int], ...]
    lanes: int
    depth: int


def lay_out_tree(step: Step) -> Tree:
    """The tree of one round, absent claims left out. The order of siblings is that of the draft, the accepted one first."""
    children: dict[int, list[int]] = {0: []}
    for column in range(1, len(step.token)):
        parent = step.parent[column]
        if step.token[column] != ABSENT and parent in children:
            children[parent].append(column)
            children[column] = []
    accepted = set(step.accepted)
    x, y, edges = {0: 0}, {0: 0}, []
    lanes, stack = 1, [0]
    while stack:
        column = stack.pop()
        if column not in y:
            y[column] = lanes
            lanes += 1
        for rank, child in enumerate(sorted(children[column], key=lambda other: other not in accepted)):
            x[child] = x[column] + 1
            edges.append((column, child))
            if rank == 0:
                y[child] = y[column]
        stack += sorted(children[column], key=lambda other: other not in accepted)[::-1]
    return Tree(x, y, tuple(edges), lanes, max(x.values()))


def calls_by_round(calls: Sequence[Call], steps: Sequence[Step]) -> tuple[list[Call], list[list[Call]]]:
    """(calls before the first round, calls of each round): a round ends with the last of the target's own forwards that it
    asked for. Calls beyond the last round, of rows that went on, are left out."""
    before: list[Call] = []
    groups: list[list[Call]] = []
    current: list[Call] = []
    asked = 0
    for call in calls:
        if len(groups) == len(steps):
            break
        if call.kind != "score" and not groups and not current:
            before.append(call)
            continue
        current.append(call)
        asked += call.model == "target" and call.kind == "score"
        if asked == steps[len(groups)].calls:
            groups.append(current)
            current, asked = [], 0
    return before, groups + [[] for _ in steps[len(groups) :]]


def lines_of(widths: Sequence[float], room: float, gap: float) -> list[list[int]]:
    """Indices of boxes of these widths, broken into lines no wider than `room`."""
    lines: list[list[int]] = [[]]
    used = 0.0
    for index, width in enumerate(widths):
        if lines[-1] and used + width > room:
            lines.append([])
            used = 0.0
        lines[-1].append(index)
        used += width + gap
    return lines


def flow(heights: Sequence[float], columns: int) -> list[list[int]]:
    """Indices of cells of these heights, in reading order, in at most `columns` columns of nearly equal height."""
    low, high = max(heights, default=0.0), sum(heights)
    for _ in range(40):
        middle = (low + high) / 2
        low, high = (low, middle) if len(_fill(heights, middle)) <= columns else (middle, high)
    return _fill(heights, high)


def _fill(heights: Sequence[float], most: float) -> list[list[int]]:
    columns: list[list[int]] = [[]]
    used = 0.0
    for index, height in enumerate(heights):
        if columns[-1] and used + height > most + 1e-9:
            columns.append([])
            used = 0.0
        columns[-1].append(index)
        used += height
    return columns


def shown(piece: str, most: int = 16) -> str:
    """A text on one line: line breaks and tabs as signs, other control characters as dots, the middle of a long one left out."""
    signs = {"\n": "↵", "\t": "⇥", "\r": "␍"}
    text = "".join(signs.get(c, c if c.isprintable() else "·") for c in piece)
    return text if len(text) <= most else f"{text[: most - 5]}…{text[-4:]}"
