"""Templates of trees: the guess is the best of its kind, counts are read from traces, files are checked."""

from __future__ import annotations

import itertools
import json
from types import SimpleNamespace

import pytest

from treewright.core.errors import InputError
from treewright.parts.propose.templates import (
    FALL,
    FIRST,
    accepted_ranks,
    best_template,
    guessed_template,
    read_template,
    write_template,
)  # fmt: skip


def opened(template: tuple[tuple[int, ...], ...]) -> bool:
    """Whether every node comes after its parent and its earlier siblings."""
    known: set[tuple[int, ...]] = {()}
    for path in template:
        if path[:-1] not in known or (path[-1] and (*path[:-1], path[-1] - 1) not in known):
            return False
        known.add(path)
    return len(known) == len(template) + 1


@pytest.mark.parametrize(("nodes", "width", "depth"), [(1, 1, 1), (7, 2, 3), (20, 3, 2), (80, 8, 13), (100, 2, 3), (5, 1, 9)])
def test_the_guess_takes_the_most_promising_nodes(nodes, width, depth):
    template = guessed_template(nodes, width, depth)
    assert opened(template)
    if width**depth < 1000:
        every = [path for length in range(1, depth + 1) for path in itertools.product(range(width), repeat=length)]
        value = sorted((FIRST ** len(path) * FALL ** sum(path) for path in every), reverse=True)
        assert [FIRST ** len(path) * FALL ** sum(path) for path in template] == pytest.approx(value[:nodes])


def test_ranks_are_places_among_siblings():
    steps = [
        SimpleNamespace(parent=[-1, 0, 0, 1, 2, 2, -1], accepted=[2, 5]),
        SimpleNamespace(parent=[-1, 0, 0, 1, 2, 2, -1], accepted=[1]),
        SimpleNamespace(parent=[-1, 0, 1], accepted=[1, 2]),
        SimpleNamespace(parent=[-1], accepted=[]),
    ]
    assert accepted_ranks([SimpleNamespace(steps=steps)]) == {(1,): 1, (1, 1): 1, (0,): 2, (0, 0): 1}


def test_the_best_nodes_hold_what_they_need():
    counts = {(0,): 50, (1,): 20, (0, 0): 30, (0, 1): 5, (1, 0): 12, (0, 0, 0): 18, (3,): 7, (0, 0, 0, 0): 1}
    template = best_template(counts, 80)
    assert opened(template) and set(counts) | {(2,)} == set(template)
    assert best_template(counts, 4) == ((0,), (0, 0), (1,), (0, 0, 0))
    assert best_template(counts, 7) == (*best_template(counts, 5), (2,), (3,))
    assert best_template({}, 5) == ()


def test_a_written_template_is_read(tmp_path):
    template = guessed_template(30, 4, 6)
    write_template(tmp_path / "template.json", template)
    assert read_template(tmp_path / "template.json") == template


@pytest.mark.parametrize(
    ("content", "match"),
    [
        ("[[0], [1", "cannot be read"), ("[]", "has no nodes"), ("[[1]]", r"holds \[1\]"), ("[[0], [0, 1]]", r"holds \[0, 1\]"),
        ("[[0, 0]]", r"holds \[0, 0\]"), ("[[0], [0]]", r"holds \[0\]"), ('[["a"]]', "holds"), ("3", "holds 3"),
        ("[[]]", r"holds \[\]"), ("[[0], [-1]]", "holds"), ("[[true]]", "holds"),
    ],
)  # fmt: skip
def test_malformed_templates_are_refused(content, match, tmp_path):
    (tmp_path / "template.json").write_text(content)
    with pytest.raises(InputError, match=match):
        read_template(tmp_path / "template.json")
    with pytest.raises(InputError, match="cannot be read"):
        read_template(tmp_path / "missing.json")
    assert json.loads("[[0]]") == [[0]]
