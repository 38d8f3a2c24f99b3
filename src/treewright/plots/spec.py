"""The picture of a speculation benchmark: how deep drafts are accepted, speed against size, promised against measured speed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from treewright.core.errors import InputError
from treewright.plots import canvas
from treewright.plots.layout import shown

if TYPE_CHECKING:
    from matplotlib.axes import Axes

WIDTH, HEIGHT = 13.2, 4.6
DEEPEST = 10
FEWEST = 10
"""Rounds below which a share is not drawn."""


@dataclass(frozen=True, slots=True)
class Method:
    """What is drawn of one method. tried, accepted: rounds by depth; claims: of a round; ratio: to plain decoding; promised: the
    ratio by the costs, None where the curve is too short."""

    name: str
    tried: Sequence[int]
    accepted: Sequence[int]
    claims: float
    ratio: float
    promised: float | None


def draw_spec(methods: Sequence[Method], path: Path, title: str = "") -> None:
    """Draws the methods to `path` (.png, .svg or .pdf). Raises InputError for another suffix or no methods, TreewrightError
    where matplotlib is missing."""
    canvas.check(path)
    if not methods:
        raise InputError("no method of the run drafts, so there is nothing to draw; name one beside plain")
    figure = canvas.new_figure(WIDTH, HEIGHT)
    sheet = canvas.sheet(figure)
    canvas.write(sheet, 0.4, 0.35, shown(title, 120), fontsize=11, fontweight="bold")
    titles = ("a draft is accepted, by drafts before it (the fastest)", "speed beside plain decoding, by drafts a round",
              "speed by cost model and as measured")  # fmt: skip
    for place, (text, draw) in enumerate(zip(titles, (_depths, _sizes, _promises), strict=True)):
        left = 0.75 + place * 4.2
        canvas.write(sheet, left - 0.35, 0.72, text, color=canvas.MUTED, fontsize=9.5)
        draw(canvas.panel(figure, left, 0.95, 3.1, 2.9), methods)
    canvas.save(figure, path)


def _color(index: int) -> str:
    return canvas.SERIES[index % len(canvas.SERIES)]


def _style(index: int) -> str:
    return ("-", "--", ":")[index // len(canvas.SERIES) % 3]


def _depths(axes: Axes, methods: Sequence[Method]) -> None:
    fastest = sorted(methods, key=lambda method: -method.ratio)[: len(canvas.SERIES)]
    for index, method in enumerate(methods):
        if method not in fastest:
            continue
        known = [
            (depth, accepted / tried)
            for depth, (tried, accepted) in enumerate(zip(method.tried, method.accepted, strict=True))
            if tried >= FEWEST and depth < DEEPEST
        ]
        if known:
            depths, shares = zip(*known, strict=True)
            axes.plot(depths, shares, _style(index), marker="o", markersize=3, color=_color(index), label=shown(method.name, 26))
    axes.set_ylim(0, 1.02)
    axes.set_xlabel("drafts accepted before")
    axes.set_ylabel("share of rounds")
    axes.legend(fontsize=6, frameon=False, loc="lower right")


def _sizes(axes: Axes, methods: Sequence[Method]) -> None:
    for index, method in enumerate(methods):
        axes.plot(method.claims, method.ratio, "o", color=_color(index))
        axes.annotate(
            shown(method.name, 22), (method.claims, method.ratio), fontsize=6, xytext=(3, 3), textcoords="offset points"
        )
    axes.axhline(1.0, color=canvas.FAINT, linewidth=1)
    axes.set_xlabel("drafts a round")
    axes.set_ylabel("x plain")


def _promises(axes: Axes, methods: Sequence[Method]) -> None:
    known = [(index, method, method.promised) for index, method in enumerate(methods) if method.promised is not None]
    for index, method, promised in known:
        axes.plot(promised, method.ratio, "o", color=_color(index))
        axes.annotate(shown(method.name, 22), (promised, method.ratio), fontsize=6, xytext=(3, 3), textcoords="offset points")
    most = max([1.2, *(max(method.ratio, promised) for _, method, promised in known)]) * 1.08
    axes.plot([0, most], [0, most], color=canvas.FAINT, linewidth=1)
    axes.set_xlabel("x plain by the cost model")
    axes.set_ylabel("x plain as measured")
