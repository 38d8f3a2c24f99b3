"""One round of a trace as a small picture: its number, its token tree with the accepted path, and what became text."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from treewright.core.trace import Step
from treewright.plots import canvas
from treewright.plots.layout import Tree, lay_out_tree, lines_of, shown

if TYPE_CHECKING:
    from matplotlib.axes import Axes

NUMBER = 0.34
CHIPS = 3.0
STEP = 0.21
DEEPEST = 1.7
FONT = 7.6
PAD = 0.05
CHIP = 0.165
LINE = 0.205
GAP = 0.035
LANE = 0.036
TALLEST = 0.66


@dataclass(frozen=True, slots=True)
class Frame:
    """Widths that all cells of a picture share: of the trees, of a level of a tree, of the emitted tokens."""

    tree: float
    step: float
    chips: float

    @property
    def cell(self) -> float:
        return NUMBER + self.tree + self.chips


def frame_of(cells: Sequence[Cell]) -> Frame:
    """As wide as the deepest tree and the longest line of tokens need, within limits."""
    deepest = max(cell.tree.depth for cell in cells)
    step = min(STEP, DEEPEST / max(1, deepest))
    longest = max(sum(cell.widths[index] + GAP for index in line) for cell in cells for line in cell.lines)
    return Frame(step * deepest + 0.22, step, max(0.9, longest))


@dataclass(frozen=True, slots=True)
class Cell:
    """A round, laid out. labels: the emitted tokens' texts. lines: which of them stand on which line."""

    number: int
    step: Step
    tree: Tree
    labels: tuple[str, ...]
    widths: tuple[float, ...]
    lines: tuple[tuple[int, ...], ...]
    height: float


def lay_out_round(number: int, step: Step, pieces: Mapping[int, str]) -> Cell:
    """pieces: the text of each token id; ids without one are written as numbers."""
    tree = lay_out_tree(step)
    labels = tuple(shown(pieces[token]) if token in pieces else str(token) for token in step.emitted)
    widths = tuple(len(label) * FONT * canvas.CHARACTER / 72 + 2 * PAD for label in labels)
    lines = tuple(tuple(line) for line in lines_of(widths, CHIPS, GAP))
    height = max(LINE * len(lines), min(TALLEST, LANE * (tree.lanes - 1) + CHIP)) + 0.07
    return Cell(number, step, tree, labels, widths, lines, height)


def draw_round(axes: Axes, cell: Cell, frame: Frame, left: float, top: float) -> None:
    """Draws a cell with its upper left corner at (left, top), in inches."""
    base = top + 0.035 + CHIP / 2
    canvas.write(axes, left + NUMBER - 0.1, base, str(cell.number), ha="right", fontsize=6.5, color=canvas.MUTED)
    _draw_tree(axes, cell, frame.step, left + NUMBER + 0.03, base)
    _draw_chips(axes, cell, left + NUMBER + frame.tree, base)


def _draw_tree(axes: Axes, cell: Cell, step: float, left: float, base: float) -> None:
    tree, accepted = cell.tree, set(cell.step.accepted)
    lane = min(1.6 * LANE, (cell.height - CHIP - 0.07) / max(1, tree.lanes - 1))
    places = {column: (left + tree.x[column] * step, base + tree.y[column] * lane) for column in tree.x}
    from matplotlib.collections import LineCollection

    on = {child for _, child in tree.edges if child in accepted}
    for wanted, color, width, order in ((False, canvas.FAINT, 0.7, 1), (True, canvas.ACCEPTED, 1.9, 3)):
        segments = [(places[a], places[b]) for a, b in tree.edges if (b in on) is wanted]
        axes.add_collection(LineCollection(segments, colors=color, linewidths=width, zorder=order, capstyle="round"))
    refused = [places[column] for column in places if column and column not in on]
    taken = [places[column] for column in places if column in on]
    dots = ((refused, canvas.REFUSED, 3.2, 2), (taken, canvas.ACCEPTED, 11, 4), ([places[0]], canvas.INK, 9, 5))
    for points, color, size, order in dots:
        if points:
            across, down = zip(*points, strict=True)
            axes.scatter(across, down, s=size, c=color, linewidths=0, zorder=order)


def _draw_chips(axes: Axes, cell: Cell, left: float, base: float) -> None:
    from matplotlib.patches import FancyBboxPatch

    drafted = len(cell.step.accepted)
    for number, line in enumerate(cell.lines):
        x, y = left, base + number * LINE
        for index in line:
            own = index >= drafted
            fill, ink = (canvas.BONUS_FILL, canvas.BONUS) if own else (canvas.ACCEPTED_FILL, canvas.ACCEPTED)
            width, shape = cell.widths[index], "round,pad=0,rounding_size=0.035"
            axes.add_patch(FancyBboxPatch((x, y - CHIP / 2), width, CHIP, boxstyle=shape, facecolor=fill, linewidth=0))
            style = {"fontsize": FONT, "family": canvas.MONOSPACE, "color": ink, "va": "center_baseline"}
            canvas.write(axes, x + PAD, y, cell.labels[index], **style)
            x += cell.widths[index] + GAP
