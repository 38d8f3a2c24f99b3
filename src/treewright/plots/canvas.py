"""The drawing ground of all pictures: one look, and the one place that imports matplotlib."""

from __future__ import annotations

import importlib
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

from treewright.core.errors import InputError, TreewrightError

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

INK = "#1f2328"
MUTED = "#6e7781"
FAINT = "#c9d1d9"
RULE = "#e4e8ec"
ACCEPTED = "#0b7a5b"
ACCEPTED_FILL = "#d3efe4"
REFUSED = "#a3adb8"
BONUS = "#b45309"
BONUS_FILL = "#fdebd0"
SERIES = ("#0072b2", "#0b7a5b", "#cc79a7", "#d55e00", "#5e4fa2", "#a6761d", "#56b4e9")
"""Colours that stay apart for readers who do not see all colours."""

SUFFIXES = (".png", ".svg", ".pdf")
MONOSPACE = "DejaVu Sans Mono"
CHARACTER = 0.602
"""Width of a character of the monospace font, in units of its size."""


def check(path: Path) -> None:
    """Raises InputError for a suffix that is not one of SUFFIXES, TreewrightError where matplotlib is not installed."""
    if path.suffix.lower() not in SUFFIXES:
        raise InputError(f"cannot draw '{path}': its suffix is '{path.suffix}'; allowed: {', '.join(SUFFIXES)}")
    try:
        importlib.import_module("matplotlib")
    except ModuleNotFoundError as error:
        raise TreewrightError("drawing needs matplotlib, which is not installed; run: pip install treewright[plot]") from error


def new_figure(width: float, height: float) -> Figure:
    """An empty figure, in inches."""
    from matplotlib.figure import Figure

    return Figure(figsize=(width, height), facecolor="white")


def sheet(figure: Figure) -> Axes:
    """Axes over the whole figure whose units are inches, y pointing down, with nothing drawn."""
    width, height = figure.get_size_inches()
    axes = figure.add_axes((0, 0, 1, 1))
    axes.set(xlim=(0, width), ylim=(height, 0))
    axes.axis("off")
    return axes


def panel(figure: Figure, left: float, top: float, width: float, height: float) -> Axes:
    """Axes at a place in inches from the upper left corner, with the house's thin lines."""
    whole_width, whole_height = figure.get_size_inches()
    axes = figure.add_axes((left / whole_width, 1 - (top + height) / whole_height, width / whole_width, height / whole_height))
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_color(FAINT)
    axes.tick_params(colors=MUTED, labelsize=8, length=3, color=FAINT)
    return axes


def write(axes: Axes, x: float, y: float, text: str, **style: Any) -> None:
    """Text that means itself: a '$' is no formula."""
    style = {"fontsize": 8.5, "color": INK, "va": "center", **style}
    axes.text(x, y, text, parse_math=False, **style)


def legend(axes: Axes) -> None:
    """The names of what is drawn, outside on the right."""
    place = (1.005, 1.05)
    axes.legend(loc="upper left", bbox_to_anchor=place, fontsize=7.5, frameon=False, labelcolor=MUTED, handlelength=1.4)


def save(figure: Figure, path: Path) -> None:
    """Writes the figure in the format of the path's suffix."""
    with warnings.catch_warnings():
        # A model's text may hold characters that the font lacks; they are drawn as boxes.
        warnings.filterwarnings("ignore", message="Glyph .* missing from")
        figure.savefig(path, dpi=160)
