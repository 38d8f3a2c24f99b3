"""What is left of a law after a draft was refused: one round of rejection emits the target law, whatever the draft's law."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from treewright.core.claims import Law
from treewright.ops.residual import acceptance, after_rejection, residual, without


def emitted(target: np.ndarray, draft: np.ndarray, law: Law, count: int) -> np.ndarray:
    """The law of the token that comes out when `count` siblings drawn by `law` are tried in order."""
    out = np.zeros(len(target))
    for tokens in itertools.product(range(len(target)), repeat=count):
        chance, source = 1.0, draft
        for token in tokens:
            chance *= source[token]
            source = without(source, token) if law is Law.SWOR else source
        left, drawn, reached = target, draft, chance
        for token in tokens if chance else ():
            accepted = acceptance(left, drawn, token)
            out[token] += reached * accepted
            reached *= 1 - accepted
            left, drawn = after_rejection(left, drawn, token, law)  # type: ignore[assignment]
        out += reached * left
    return out


@pytest.mark.parametrize(("law", "count"), [(Law.SINGLE, 1), (Law.SWOR, 2), (Law.SWOR, 3), (Law.IID, 2), (Law.IID, 3)])
def test_rejection_emits_the_target_law(law: Law, count: int) -> None:
    random = np.random.default_rng(3)
    for _ in range(5):
        target, draft = random.dirichlet(np.ones(4), size=2)
        assert emitted(target, draft, law, count) == pytest.approx(target, abs=1e-12)


def test_a_deterministic_draft_is_accepted_with_the_probability_of_its_token() -> None:
    target = np.array([0.5, 0.3, 0.2])
    assert acceptance(target, None, 1) == 0.3
    left, draft = after_rejection(target, None, 1, Law.DELTA)
    assert draft is None and left == pytest.approx([5 / 7, 0, 2 / 7])


def test_equal_laws_leave_the_target_and_an_impossible_draft_is_refused() -> None:
    law = np.array([0.25, 0.75, 0.0])
    assert residual(law, law) is law
    assert acceptance(law, np.array([0.5, 0.0, 0.5]), 1) == 0.0
    assert acceptance(law, np.array([0.5, 0.0, 0.5]), 2) == 0.0
    assert not without(np.array([0.0, 1.0]), 1).any()
