"""Fixed and banned tokens as a constraint."""

from __future__ import annotations

import numpy as np

from treewright.parts.constrain.form import BehindFirst, FixedTokens


def allowed(constraint, *tokens: int) -> set[int]:
    return set(np.flatnonzero(constraint.mask((0, 0), np.array(tokens, np.int64))).tolist())


def test_first_and_last_stand_whatever_is_banned():
    form = FixedTokens(6, first=3, last=[5], banned=[(3,), (5,)], start=(0,), length=[3])
    assert allowed(form) == {3}
    assert allowed(form, 3) == {0, 1, 2, 4}
    assert allowed(form, 3, 1) == {5}


def test_a_sequence_is_banned_at_its_last_token_and_the_start_counts():
    form = FixedTokens(5, first=None, last=[None], banned=[(0, 1), (2, 2, 3)], start=(0,), length=[9])
    assert allowed(form) == {0, 2, 3, 4}
    assert allowed(form, 2) == {0, 1, 2, 3, 4}
    assert allowed(form, 2, 2) == {0, 1, 2, 4}


def test_a_text_of_one_token_ends_rather_than_begins():
    """As transformers has it, whose end comes after its beginning."""
    assert allowed(FixedTokens(6, first=3, last=[5], banned=[], start=(0,), length=[1])) == {5}


def test_a_grammar_begins_behind_the_first_token():
    class Only:
        def mask(self, row, continuation):
            return np.arange(4) == len(continuation)

    shifted = BehindFirst(Only(), 4)
    assert allowed(shifted) == {0, 1, 2, 3}
    assert allowed(shifted, 2) == {0}
    assert allowed(shifted, 2, 0) == {1}


def test_a_last_token_is_a_prompts_own_affair():
    form = FixedTokens(6, first=None, last=[None, 5], banned=[], start=(0,), length=[2, 2])
    before_last = np.array([1], np.int64)
    assert form.mask((0, 0), before_last).all()
    assert np.flatnonzero(form.mask((1, 0), before_last)).tolist() == [5]


def test_texts_of_different_lengths_have_their_last_tokens_at_their_own():
    form = FixedTokens(6, first=None, last=[5, 5], banned=[], start=(0,), length=[2, 3])
    before_last = np.array([1], np.int64)
    assert np.flatnonzero(form.mask((0, 0), before_last)).tolist() == [5]
    assert form.mask((1, 0), before_last).all()
    assert np.flatnonzero(form.mask((1, 0), np.array([1, 1], np.int64))).tolist() == [5]
