from __future__ import annotations

import sys
import warnings
from pathlib import Path

import pytest

from treewright.core.errors import InputError, TreewrightError
from treewright.core.trace import Step, Trace
from treewright.plots import canvas
from treewright.plots.trace import draw_trace


def texts(figure) -> list[str]:
    return [text.get_text() for axes in figure.axes for text in axes.texts]


def segments(figure, color: str) -> int:
    from matplotlib.colors import to_rgba

    collections = [c for axes in figure.axes for c in axes.collections if hasattr(c, "get_segments")]
    return sum(len(c.get_segments()) for c in collections if tuple(c.get_color()[0]) == to_rgba(color))


def test_holds_what_the_trace_holds(trace, figure):
    drawn = figure(draw_trace, trace)
    words = texts(drawn)
    for word in ("tried (k=2)", " two", "four↵", "$5$", "eight", "prompt: a⇥b", "rounds 1 to 2"):
        assert word in words
    assert any("4 tokens in 2 rounds" in word and "2.00 tokens per target call" in word for word in words)
    assert segments(drawn, canvas.ACCEPTED) == 2
    assert segments(drawn, canvas.FAINT) == 3


def test_calls_over_time(trace, figure):
    drawn = figure(draw_trace, trace)
    tokens, claims = [axes for axes in drawn.axes if axes.patches or axes.lines][-2:]
    bars = sorted((bar.get_x(), bar.get_width(), bar.get_height()) for bar in claims.patches)
    expected = [(0, 10, 8), (10, 1, 8), (11, 2, 1), (13, 20, 6), (33, 3, 2), (36, 15, 2)]
    assert [pytest.approx(bar) for bar in expected] == bars
    assert tokens.lines[0].get_ydata().tolist() == [0, 3, 4]
    assert tokens.lines[0].get_xdata().tolist() == pytest.approx([11, 33, 51])


def test_most_rounds(trace, figure):
    trace.steps *= 20
    words = texts(figure(draw_trace, trace))
    assert "40" in words
    drawn = figure(lambda record, path: draw_trace(record, path, rounds=7), trace)
    assert "rounds 1 to 7 of 40" in texts(drawn) and "8" not in texts(drawn)


def test_ids_where_words_are_unknown(trace, figure):
    trace.notes = {}
    assert {"2", "4", "5", "8"} <= set(texts(figure(draw_trace, trace)))


def test_only_one_sample_is_drawn(trace, figure):
    trace.steps.append(Step(1, [5], [-1], [], [8]))
    assert "rounds 1 to 2" in texts(figure(draw_trace, trace))


def test_rare_characters_are_no_reason_to_complain(trace, tmp_path):
    trace.notes["pieces"]["8"] = "\U0001f9ff漢\ufffd"
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        draw_trace(trace, tmp_path / "picture.png")
    assert (tmp_path / "picture.png").stat().st_size > 10_000


def test_refusals(trace, tmp_path, monkeypatch):
    with pytest.raises(InputError, match=r"its suffix is '.gif'; allowed: .png, .svg, .pdf"):
        draw_trace(trace, tmp_path / "picture.gif")
    with pytest.raises(InputError, match="no rounds"):
        draw_trace(Trace(), tmp_path / "picture.png")
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(TreewrightError, match=r"pip install treewright\[plot\]"):
        draw_trace(trace, Path(tmp_path / "picture.png"))
    assert list(tmp_path.iterdir()) == []
