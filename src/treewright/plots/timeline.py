"""Model calls over time: how many tokens stood after each, how long each took, how many claims each was asked."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate
from typing import TYPE_CHECKING

from treewright.core.trace import Call, Trace
from treewright.plots import canvas
from treewright.plots.layout import calls_by_round

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

HEIGHT = 2.3


def draw_timeline(figure: Figure, trace: Trace, left: float, top: float, width: float) -> None:
    """Two strips of HEIGHT inches in all, sharing an axis of milliseconds spent in model calls."""
    tokens = canvas.panel(figure, left, top, width, 1.15)
    claims = canvas.panel(figure, left, top + 1.32, width, 0.62)
    before, rounds = calls_by_round(trace.calls, trace.steps)
    ends = _draw_calls(claims, before, rounds)
    _draw_tokens(tokens, trace, ends)
    last = max(ends[-1], 1e-6)
    for axes in (tokens, claims):
        axes.set_xlim(0, last * 1.005)
    tokens.set_xticklabels([])
    claims.set_xlabel("milliseconds in model calls", fontsize=8, color=canvas.MUTED)


def _draw_calls(axes: Axes, before: Sequence[Call], rounds: Sequence[Sequence[Call]]) -> list[float]:
    """A bar for each call; returns the end of each round, the first entry being the start of round 1."""
    clock, ends = 0.0, []
    bars: dict[str, list[tuple[float, float, int]]] = {}
    for group in (before, *rounds):
        for call in group:
            kind = "prompt" if call.kind != "score" else call.model
            bars.setdefault(kind, []).append((clock, call.seconds * 1000, call.columns))
            clock += call.seconds * 1000
        ends.append(clock)
    colors = {"prompt": canvas.FAINT, "target": canvas.SERIES[0]}
    others = iter(canvas.SERIES[2:] * 3)
    for kind, spans in bars.items():
        color = colors[kind] if kind in colors else next(others)
        starts, widths, heights = zip(*spans, strict=True)
        axes.bar(starts, heights, widths, align="edge", color=color, linewidth=0.4, edgecolor="white", label=kind)
    scored = [height for kind, spans in bars.items() if kind != "prompt" for *_, height in spans]
    axes.set_ylim(0, 1.15 * max(scored, default=1))
    axes.set_ylabel("columns", fontsize=8, color=canvas.MUTED)
    axes.locator_params(axis="y", integer=True, nbins=3)
    canvas.legend(axes)
    return ends


def _draw_tokens(axes: Axes, trace: Trace, ends: Sequence[float]) -> None:
    counts = list(accumulate((len(step.emitted) for step in trace.steps), initial=0))
    calls = list(accumulate((step.calls for step in trace.steps), initial=0))
    axes.fill_between(ends, counts, calls, step="post", color=canvas.ACCEPTED_FILL, linewidth=0)
    axes.step(ends, counts, where="post", color=canvas.ACCEPTED, linewidth=1.6, label="tokens")
    axes.step(ends, calls, where="post", color=canvas.MUTED, linewidth=1, linestyle=(0, (3, 2)), label="target calls")
    axes.set_ylim(0, max(1, counts[-1], calls[-1]) * 1.06)
    axes.set_ylabel("so far", fontsize=8, color=canvas.MUTED)
    axes.locator_params(axis="y", integer=True, nbins=5)
    canvas.legend(axes)
