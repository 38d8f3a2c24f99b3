"""The picture of a comparison: who had how many tokens when, and who was how fast."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from treewright.core.errors import InputError
from treewright.core.trace import Trace
from treewright.plots import canvas
from treewright.plots.layout import calls_by_round, shown

if TYPE_CHECKING:
    from matplotlib.axes import Axes

WIDTH = 11.5
RACE = 5.4
BARS = 7.6
LINE = 0.52


class Contestant(Protocol):
    """What is drawn of one method or peer. seconds: of the whole text. trace: None for a peer."""

    @property
    def method(self) -> str: ...
    @property
    def tokens(self) -> Sequence[int]: ...
    @property
    def equal(self) -> bool: ...
    @property
    def note(self) -> str: ...
    @property
    def tokens_per_call(self) -> float: ...
    @property
    def seconds(self) -> float: ...
    @property
    def ratio_to_plain(self) -> float: ...
    @property
    def ratio_to_peer(self) -> float | None: ...
    @property
    def trace(self) -> Trace | None: ...


def draw_comparison(rows: Sequence[Contestant], path: Path, title: str = "") -> None:
    """Draws the rows to `path` (.png, .svg or .pdf): on the left tokens over time, on the right tokens per second.

    Raises InputError for another suffix or no rows, TreewrightError where matplotlib is missing.
    """
    canvas.check(path)
    if not rows:
        raise InputError("the comparison has no rows, so there is nothing to draw; name at least one method")
    height = max(3.0, LINE * len(rows) + 0.3)
    figure = canvas.new_figure(WIDTH, height + 1.35)
    sheet = canvas.sheet(figure)
    canvas.write(sheet, 0.4, 0.35, shown(title, 95), fontsize=11, fontweight="bold")
    canvas.write(sheet, 0.4, 0.62, "tokens written over time", color=canvas.MUTED, fontsize=9.5)
    canvas.write(sheet, BARS - 1.65, 0.62, "tokens per second", color=canvas.MUTED, fontsize=9.5)
    colors = {row.method: _color(index, row) for index, row in enumerate(rows)}
    _draw_race(canvas.panel(figure, 0.75, 0.85, RACE - 0.95, height - 0.15), rows, colors)
    _draw_bars(canvas.panel(figure, BARS, 0.85, WIDTH - BARS - 1.75, height - 0.15), rows, colors)
    canvas.save(figure, path)


def _color(index: int, row: Contestant) -> str:
    return canvas.MUTED if row.trace is None else canvas.SERIES[index % len(canvas.SERIES)]


def _draw_race(axes: Axes, rows: Sequence[Contestant], colors: dict[str, str]) -> None:
    for row in rows:
        times, counts = _progress(row)
        line, steps = ((0, (4, 2)), "default") if row.trace is None else ("-", "steps-post")
        axes.plot(times, counts, color=colors[row.method], linewidth=1.8, linestyle=line, drawstyle=steps)
        axes.plot(times[-1:], counts[-1:], "o", color=colors[row.method], markersize=5)
    axes.set_xlim(0, 1.04 * max(row.seconds for row in rows))
    axes.set_ylim(0, 1.06 * max(1, *(len(row.tokens) for row in rows)))
    axes.set_xlabel("seconds", fontsize=8.5, color=canvas.MUTED)


def _progress(row: Contestant) -> tuple[list[float], list[int]]:
    """(seconds, tokens so far) after each round. Rounds share the measured seconds as their model calls do; a peer, whose
    rounds are not known, goes at an even pace."""
    count = len(row.tokens)
    if row.trace is None or not row.trace.steps:
        return [row.seconds * index / max(1, count) for index in range(count + 1)], list(range(count + 1))
    before, rounds = calls_by_round(row.trace.calls, row.trace.steps)
    clock = sum(call.seconds for call in before)
    times, counts = [0.0, clock], [0, 0]
    for step, calls in zip(row.trace.steps, rounds, strict=True):
        clock += sum(call.seconds for call in calls)
        times.append(clock)
        counts.append(counts[-1] + len(step.emitted))
    return [time * row.seconds / max(clock, 1e-12) for time in times], counts


def _draw_bars(axes: Axes, rows: Sequence[Contestant], colors: dict[str, str]) -> None:
    speeds = [len(row.tokens) / max(row.seconds, 1e-12) for row in rows]
    places = range(len(rows))
    axes.barh(places, speeds, height=0.42, color=[colors[row.method] for row in rows])
    axes.set_ylim(len(rows) - 0.4, -0.6)
    axes.set_xlim(0, max(speeds))
    axes.set_yticks(places, [row.method for row in rows], fontsize=8.5, color=canvas.INK)
    axes.tick_params(axis="y", length=0)
    axes.spines["left"].set_visible(False)
    for place, row, speed in zip(places, rows, speeds, strict=True):
        ratios = [f"{row.ratio_to_plain:.2f}x {rows[0].method}"]
        ratios += [] if row.ratio_to_peer is None else [f"{row.ratio_to_peer:.2f}x peer"]
        text = "text differs" if not row.equal else "near tie" if row.note else "text equal"
        gap = 0.02 * max(speeds)
        canvas.write(axes, speed + gap, place - 0.14, ", ".join(ratios), fontsize=8, fontweight="bold", clip_on=False)
        facts = f"{row.tokens_per_call:.2f} tokens a call, {text}"
        canvas.write(axes, speed + gap, place + 0.17, facts, fontsize=7.5, color=canvas.MUTED, clip_on=False)
