from __future__ import annotations

import dataclasses

from hypothesis import given
from hypothesis import strategies as st

from treewright.core.trace import Step
from treewright.plots.layout import calls_by_round, flow, lay_out_tree, lines_of, shown


@st.composite
def steps(draw: st.DrawFn) -> Step:
    """A random tree of up to 30 claims, some absent, with a random accepted path."""
    count = draw(st.integers(0, 30))
    parent = [-1, *(draw(st.integers(0, column - 1)) for column in range(1, count + 1))]
    token = [0, *(draw(st.sampled_from([-1, 5, 6])) for _ in range(count))]
    accepted: list[int] = []
    while True:
        last = accepted[-1] if accepted else 0
        following = [c for c in range(1, count + 1) if parent[c] == last and token[c] >= 0]
        if not following or not draw(st.booleans()):
            return Step(0, token, parent, accepted, [])
        accepted.append(draw(st.sampled_from(following)))


@given(steps())
def test_trees(step: Step):
    tree = lay_out_tree(step)
    places = [(tree.x[column], tree.y[column]) for column in tree.x]
    assert len(set(places)) == len(places) and set(tree.x) == set(tree.y)
    assert tree.x[0] == tree.y[0] == 0 and tree.depth == max(tree.x.values()) and tree.lanes == max(tree.y.values()) + 1
    for parent, child in tree.edges:
        assert step.parent[child] == parent and tree.x[child] == tree.x[parent] + 1 and tree.y[child] >= tree.y[parent]
    assert {child for _, child in tree.edges} == set(tree.x) - {0}
    assert all(tree.y[column] == 0 for column in step.accepted)
    present = [c for c in tree.x if c]
    assert all(step.token[c] >= 0 for c in present) and set(step.accepted) <= set(present)


def test_absent_claims_take_their_children_along():
    tree = lay_out_tree(Step(0, [0, -1, 5, 6], [-1, 0, 1, 0], [], []))
    assert set(tree.x) == {0, 3}


@given(st.lists(st.floats(0.1, 2), max_size=60), st.integers(1, 6))
def test_flow_keeps_order_and_is_even(heights: list[float], columns: int):
    cells = flow(heights, columns)
    assert [index for column in cells for index in column] == list(range(len(heights))) and len(cells) <= max(1, columns)
    tallest = max(sum(heights[index] for index in column) for column in cells)
    assert tallest <= sum(heights) / columns + max(heights, default=0) + 1e-6


@given(st.lists(st.floats(0.01, 3), max_size=20))
def test_lines(widths: list[float]):
    lines = lines_of(widths, room=2, gap=0.1)
    assert [index for line in lines for index in line] == list(range(len(widths)))
    for line in lines:
        assert len(line) <= 1 or sum(widths[index] for index in line) + 0.1 * (len(line) - 1) <= 2 + 1e-9


def test_calls_are_sorted_into_rounds(trace):
    before, rounds = calls_by_round(trace.calls, trace.steps)
    assert [call.kind for call in before] == ["prefill", "prefill"]
    assert [[call.model for call in group] for group in rounds] == [["draft", "target"], ["draft", "target"]]
    assert calls_by_round([], trace.steps) == ([], [[], []])


def test_a_round_has_all_the_calls_it_asked_for(trace):
    search = dataclasses.replace(trace.steps[0], calls=2)
    _, rounds = calls_by_round(trace.calls, [search])
    assert [[call.model for call in group] for group in rounds] == [["draft", "target", "draft", "target"]]
    assert calls_by_round(trace.calls, trace.steps[:1])[1] == [trace.calls[2:4]]


def test_words_are_shown_on_one_line():
    assert shown(" a\n\tb\x07") == " a↵⇥b·"
    assert shown("x" * 30, 10) == "xxxxx…xxxx"
