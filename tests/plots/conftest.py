"""Traces made by hand, and a look at what a picture holds before it becomes a file."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from treewright.core.trace import Call, Step, Trace
from treewright.plots import canvas


@pytest.fixture
def trace() -> Trace:
    """Two rounds: a tree of four claims of which a path of two is accepted, and one claim refused."""
    steps = [
        Step(0, [9, 1, 2, 3, 4, -1], [-1, 0, 0, 2, 2, 4], [2, 4], [2, 4, 5]),
        Step(0, [5, 7], [-1, 0], [], [8]),
    ]  # fmt: skip
    calls = [
        Call("target", "prefill", 1, 8, 0.010), Call("draft", "prefill", 1, 8, 0.001), Call("draft", "score", 1, 1, 0.002),
        Call("target", "score", 1, 6, 0.020), Call("draft", "score", 1, 2, 0.003), Call("target", "score", 1, 2, 0.015),
    ]  # fmt: skip
    pieces = {"2": " two", "4": "four\n", "5": "$5$", "8": "eight"}
    return Trace({"method": "tried", "options": {"tried.k": 2}}, calls, steps, {"pieces": pieces, "prompt": "a\tb"}, 4, 0.06)


@pytest.fixture
def figure(monkeypatch: pytest.MonkeyPatch) -> Callable[..., Any]:
    """Calls a drawing function and returns the matplotlib figure that it saved."""

    def draw(function: Callable[..., None], *arguments: Any) -> Any:
        saved: list[Any] = []
        monkeypatch.setattr(canvas, "save", lambda figure, path: saved.append(figure))
        function(*arguments, Path("picture.png"))
        return saved[0]

    return draw
