from __future__ import annotations

from dataclasses import dataclass

import pytest

from treewright.core.errors import InputError
from treewright.core.trace import Trace
from treewright.plots.comparison import draw_comparison


@dataclass
class Row:
    method: str
    tokens: list[int]
    seconds: float
    trace: Trace | None
    equal: bool = True
    note: str = ""
    tokens_per_call: float = 2.0
    ratio_to_plain: float = 1.5
    ratio_to_peer: float | None = None


@pytest.fixture
def rows(trace) -> list[Row]:
    return [Row("tried", [2, 4, 5, 8], 0.1, trace), Row("peer", [2, 4, 5, 9], 0.2, None, equal=False, ratio_to_peer=1.0)]


def test_race_and_bars(rows, figure):
    drawn = figure(lambda rows, path: draw_comparison(rows, path, "a $title$"), rows)
    words = [text.get_text() for axes in drawn.axes for text in axes.texts]
    assert {"a $title$", "1.50x tried", "1.50x tried, 1.00x peer"} <= set(words)
    assert {"2.00 tokens a call, text equal", "2.00 tokens a call, text differs"} <= set(words)
    race, bars = drawn.axes[1:]
    assert [bar.get_width() for bar in bars.patches] == pytest.approx([40, 20])
    assert [label.get_text() for label in bars.get_yticklabels()] == ["tried", "peer"]
    tried, peer = race.lines[0], race.lines[2]
    assert tried.get_ydata().tolist() == [0, 0, 3, 4] and peer.get_ydata().tolist() == [0, 1, 2, 3, 4]
    assert tried.get_xdata().tolist() == pytest.approx([0, 0.1 * 11 / 51, 0.1 * 33 / 51, 0.1]) and peer.get_xdata()[-1] == 0.2


def test_refusals(rows, tmp_path):
    with pytest.raises(InputError, match="no rows"):
        draw_comparison([], tmp_path / "picture.png")
    with pytest.raises(InputError, match="suffix"):
        draw_comparison(rows, tmp_path / "picture.jpg")
