"""A drafter's own claims: what was scored under other numbers is kept by the commit, and only that."""

from __future__ import annotations

import numpy as np
import pytest

from treewright.core.claims import Forest
from treewright.models.tables import Table

PROMPTS = [[5], [3, 8, 1, 9, 22, 4, 17, 60, 2], [7, 7, 2]]


@pytest.fixture(params=["llama", "gpt2", "mamba2", "bloom", "table"])
def model(request, causal):
    return Table(64, seed=0) if request.param == "table" else causal(request.param, "float64")


def tried(twin):
    """A drafter's tree: a chain of three under the frontier, with a side branch at each."""
    own = twin.forest()
    own.grow([0, 0], twin.random.integers(1, twin.vocabulary, size=(own.rows, 2)))
    own.grow([1, 1, 3, 3], twin.random.integers(1, twin.vocabulary, size=(own.rows, 4)))
    return own


def test_accepted_claims_are_found_under_the_drafters_numbers(model, twin_of):
    twin = twin_of(model, PROMPTS, seed=1)
    for extra in (1, 0, 1):
        own = tried(twin)
        assert twin.error(own, twin.session.score(own)) < 1e-6
        # The round proposes 1, 3 and 5 of it, each row's last claim one that was never tried.
        forest = twin.forest()
        forest.grow(range(3), own.token[:, [1, 3, 5]])
        forest.grow([3], twin.random.integers(1, twin.vocabulary, size=(own.rows, 1)))
        twin.session.adopt(np.array([[0, 1, 3, 5, -1]] * own.rows))
        seen = twin.session.seen.copy()
        pending = twin.text.length - seen
        paths = [[1, 2, 3, 4], [1, 2], []]
        for row, path in enumerate(paths):
            twin.append(row, [int(forest.token[row, column]) for column in path] + [twin.token() for _ in range(extra)])
        twin.session.commit(paths)
        assert (twin.session.seen - seen - pending).tolist() == [3, 2, 0]
        assert twin.error(twin.forest(), twin.session.root()) < 1e-6
        assert twin.round(calls=2) < 1e-6


def test_what_is_asked_after_an_adoption_is_asked_afresh(model, twin_of):
    twin = twin_of(model, PROMPTS, seed=2)
    own = tried(twin)
    twin.session.score(own)
    forest: Forest = twin.forest()
    forest.grow(range(2), own.token[:, [2, 1]])
    twin.session.adopt(np.array([[0, 2, -1]] * own.rows))
    assert twin.error(forest, twin.session.score(forest)) < 1e-6
    twin.commit(forest, extra=1)
    assert twin.round() < 1e-6


def test_rows_that_fork_take_their_numbers_along(model, twin_of):
    twin = twin_of(model, PROMPTS, seed=3)
    own = tried(twin)
    twin.session.score(own)
    forest = twin.forest()
    forest.grow(range(2), own.token[:, [1, 3]])
    twin.session.adopt(np.array([[0, 1, 3], [0, 1, -1], [0, -1, -1]]))
    twin.select([1, 1, 0])
    forest.select([1, 1, 0])
    seen = twin.session.seen + (twin.text.length - twin.session.seen)
    for row in range(3):
        twin.append(row, [*forest.path_tokens(row, 2), twin.token()])
    twin.session.commit([[1, 2]] * 3)
    assert (twin.session.seen - seen).tolist() == [1, 1, 2]
    assert twin.round() < 1e-6
