"""The picture of a trace: what each round asked and accepted, and what the model calls cost."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from treewright.core.errors import InputError
from treewright.core.trace import Step, Trace
from treewright.plots import canvas
from treewright.plots.layout import flow, shown
from treewright.plots.rounds import Cell, Frame, draw_round, frame_of, lay_out_round
from treewright.plots.timeline import HEIGHT, draw_timeline

if TYPE_CHECKING:
    from matplotlib.axes import Axes

MARGIN = 0.45
HEAD = 1.15
GUTTER = 0.3
NARROWEST = 8.6
MOST_ROUNDS = 80
SHAPE = 1.25
"""The ratio of width to height that is aimed at."""


def draw_trace(trace: Trace, path: Path, rounds: int = MOST_ROUNDS) -> None:
    """Draws a trace to `path` (.png, .svg or .pdf); `rounds` is the most that are shown.

    Raises InputError for another suffix or a trace without rounds, TreewrightError where matplotlib is missing.
    """
    canvas.check(path)
    steps = _first_sample(trace)
    if not steps:
        raise InputError("the trace holds no rounds, so there is nothing to draw; decode at least one token")
    pieces = {int(token): text for token, text in trace.notes.get("pieces", {}).items()}
    cells = [lay_out_round(number, step, pieces) for number, step in enumerate(steps[:rounds], start=1)]
    frame = frame_of(cells)
    columns = _columns(cells, frame)
    tallest = max(sum(cells[index].height for index in column) for column in columns)
    width = _width(frame, len(columns))
    top = HEAD + HEIGHT + 0.75
    figure = canvas.new_figure(width, top + tallest + 0.4)
    sheet = canvas.sheet(figure)
    _draw_head(sheet, trace, steps, width)
    draw_timeline(figure, Trace(trace.recipe, trace.calls, steps), MARGIN + 0.45, HEAD, width - 2 * MARGIN - 1.4)
    _draw_legend(sheet, len(cells), len(steps), top - 0.24)
    for number, column in enumerate(columns):
        left, y = MARGIN + number * (frame.cell + GUTTER), top
        if number:
            sheet.plot([left - GUTTER / 2] * 2, [top, top + tallest], color=canvas.RULE, linewidth=0.8)
        for index in column:
            draw_round(sheet, cells[index], frame, left, y)
            y += cells[index].height
    canvas.save(figure, path)


def _first_sample(trace: Trace) -> list[Step]:
    return [step for step in trace.steps if step.sample == trace.steps[0].sample]


def _columns(cells: Sequence[Cell], frame: Frame) -> list[list[int]]:
    """The cells in as many columns as bring the figure nearest to SHAPE."""
    heights = [cell.height for cell in cells]

    def distance(count: int) -> float:
        tallest = max(sum(heights[index] for index in column) for column in flow(heights, count))
        return abs(_width(frame, count) / (HEAD + HEIGHT + 1.1 + tallest) - SHAPE)

    return flow(heights, min(range(1, 8), key=distance))


def _width(frame: Frame, columns: int) -> float:
    return max(NARROWEST, columns * (frame.cell + GUTTER) - GUTTER + 2 * MARGIN)


def _draw_head(sheet: Axes, trace: Trace, steps: Sequence[Step], width: float) -> None:
    method = trace.recipe.get("method", "trace")
    options = ", ".join(f"{name.rpartition('.')[2]}={value}" for name, value in trace.recipe.get("options", {}).items())
    tokens, calls = sum(len(step.emitted) for step in steps), sum(step.calls for step in steps)
    rounds = f"{len(steps)} round{'' if len(steps) == 1 else 's'}" + ("" if calls == len(steps) else f", {calls} target calls")
    facts = [
        f"{tokens} tokens in {rounds}", f"{tokens / calls:.2f} tokens per target call",
        f"{trace.seconds:.2f} s, {trace.seconds_in_model:.2f} s of them in models",
    ]  # fmt: skip
    canvas.write(sheet, MARGIN, 0.36, method + (f" ({options})" if options else ""), fontsize=15, fontweight="bold")
    canvas.write(sheet, MARGIN, 0.64, "   ·   ".join(facts), fontsize=9.5, color=canvas.MUTED)
    prompt = trace.notes.get("prompt")
    if isinstance(prompt, str):
        room = int((width - 2 * MARGIN) / (8.5 * canvas.CHARACTER / 72)) - len("prompt: ")
        line = shown(prompt, room)
        canvas.write(sheet, MARGIN, 0.88, f"prompt: {line}", family=canvas.MONOSPACE, color=canvas.MUTED)


def _draw_legend(sheet: Axes, drawn: int, rounds: int, y: float) -> None:
    title = f"rounds 1 to {drawn}" + (f" of {rounds}" if drawn < rounds else "")
    canvas.write(sheet, MARGIN, y, title, fontsize=10, fontweight="bold")
    entries = (
        ("●", canvas.INK, "frontier"), ("●", canvas.ACCEPTED, "drafted and accepted"),
        ("●", canvas.REFUSED, "drafted and refused"), ("■", canvas.BONUS, "the target's own token"),
    )  # fmt: skip
    x = MARGIN + 1.9
    for sign, color, label in entries:
        canvas.write(sheet, x, y, sign, color=color, fontsize=9)
        canvas.write(sheet, x + 0.16, y, label, color=canvas.MUTED)
        x += 0.16 + len(label) * 0.066 + 0.25
