"""Guesses and their chances against searches by hand."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from treewright.core.claims import ABSENT
from treewright.parts.propose import successors
from treewright.parts.propose.chances import KINDS, LASTING, PRIOR, TRUST, Chances, kind_of
from treewright.parts.propose.guesses import Guesser, Writing
from treewright.parts.propose.successors import ORDERS, Successors

TEXTS = st.lists(st.integers(0, 3), min_size=1, max_size=30)


@given(TEXTS)
def test_a_copy_goes_on_behind_the_last_place_of_the_last_pair_or_where_it_was_right(text):
    writing, pointer, match = Writing([]), -1, 0
    for count in range(1, len(text) + 1):
        known, new = text[: count - 1], text[count - 1]
        if 0 <= pointer < len(known) and known[pointer] == new:
            pointer, match = pointer + 1, match + 1
        else:
            places = [end for end in range(2, count) if text[end - 2 : end] == text[count - 2 : count]]
            pointer, match = (places[-1], 2) if places else (-1, 0)
        writing.append(new)
        assert (writing.pointer, writing.match) == (pointer, match)
        assert text[pointer - match : pointer] == text[count - match : count] or match == 0
        assert writing.copied(pointer) == (text[pointer] if 0 <= pointer < count else ABSENT)


@given(st.lists(st.tuples(TEXTS, st.lists(st.integers(0, 9), min_size=2, max_size=2, unique=True)), max_size=12), TEXTS)
def test_successors_are_what_was_last_learned_after_the_last_tokens(learned, asked):
    store, known = Successors(10), {}
    for before, predicted in learned:
        store.learn(before[-ORDERS:], predicted)
        for size in range(1, min(ORDERS, len(before)) + 1):
            known[tuple(before[-size:])] = tuple(predicted)
    sizes = itertools.takewhile(lambda size: tuple(asked[-size:]) in known, range(1, min(ORDERS, len(asked)) + 1))
    expected = [known[tuple(asked[-size:])] for size in sizes]
    assert store.after(asked[-ORDERS:]) == expected


def test_old_contexts_go_first(monkeypatch):
    monkeypatch.setattr(successors, "MOST", 4)
    store = Successors(10)
    for token in range(5):
        store.learn([token], [token])
    assert [bool(store.after([token])) for token in range(5)] == [False, False, True, True, True]


def test_kinds_are_numbers_of_their_own():
    kinds = {kind_of(match, order, rank) for match in range(12) for order in range(ORDERS + 1) for rank in range(8)}
    assert kinds == set(range(KINDS)) and len(PRIOR) == KINDS
    assert all(0 <= chance < 1 for chance in PRIOR)


def test_chances_are_shares_drawn_to_their_prior():
    lasting = Chances(fades=False)
    for hit in (True, False, True, True):
        lasting.count(5, hit)
        lasting.pass_on()
    assert lasting.of(5, 0.5) == pytest.approx((3 + TRUST * 0.5) / (4 + TRUST))
    assert lasting.of(6, 0.5) == 0.5


def test_a_fading_count_is_a_discounted_one_however_long_the_text():
    fading, hits, tries = Chances(fades=True), 0.0, 0.0
    random = np.random.default_rng(0)
    for _ in range(3000):
        hit = bool(random.random() < 0.3)
        fading.count(0, hit)
        fading.pass_on()
        hits, tries = (hits + hit) * LASTING, (tries + 1) * LASTING
    assert fading.of(0, 0.9) == pytest.approx((hits + TRUST * 0.9) / (tries + TRUST))


def taught(seed: int) -> tuple[Guesser, Writing]:
    random = np.random.default_rng(seed)
    guesser = Guesser(Successors(6))
    for _ in range(40):
        guesser.learn(random.integers(0, 6, 3).tolist(), [0], [-1], [random.permutation(6)[:3].tolist()])
    return guesser, Writing(random.integers(0, 6, 20).tolist())


@pytest.mark.parametrize("seed", range(6))
def test_the_tree_holds_the_likeliest_paths_of_all(seed):
    guesser, writing = taught(seed)
    tree = guesser.tree(writing, most=9, deepest=3, worth=0.0)
    every: list[float] = []

    def descend(before, pointer, match, chance, depth):
        if depth == 3:
            return
        for token, kind in guesser.kinds(writing, before, pointer, match).items():
            below = chance * writing.counts.of(kind, PRIOR[kind])
            every.append(below)
            descend([*before, token][-3:], *writing.moved(pointer, match, before[-1], token), below, depth + 1)

    descend(writing.tokens[-3:], writing.pointer, writing.match, 1.0, 0)
    assert len(tree) == 10
    assert tree.chances[1:] == pytest.approx(sorted(every, reverse=True)[:9])
    assert all(parent < node for node, parent in enumerate(tree.parents))
    siblings = list(zip(tree.parents[1:], tree.tokens[1:], strict=True))
    assert len(set(siblings)) == len(siblings)


def test_a_tree_ends_where_it_is_worth_nothing_more_and_where_the_text_must_end():
    guesser, writing = taught(1)
    whole = guesser.tree(writing, most=30, deepest=9, worth=0.0)
    part = guesser.tree(writing, most=30, deepest=9, worth=0.05)
    assert part.chances == [chance for chance in whole.chances if chance >= 0.05]
    assert len(guesser.tree(writing, most=30, deepest=0, worth=0.0)) == 1
    assert set(guesser.tree(writing, most=30, deepest=1, worth=0.0).parents[1:]) == {0}


def test_a_guess_is_counted_where_the_text_went_on():
    guesser = Guesser(Successors(10))
    guesser.learn([7], [0], [-1], [[4, 5, 6]])
    writing = Writing([7])
    guesser.grade(writing, [5])
    first, second = kind_of(0, 0, 0), kind_of(0, 0, 1)
    assert writing.counts.of(first, 0.5) < 0.5 < writing.counts.of(second, 0.5)
    assert writing.tokens == [7, 5]


def test_predictions_at_drafts_are_learned_after_the_drafts_own_path():
    guesser = Guesser(Successors(10))
    guesser.learn([1, 2, 3], [3, 4, ABSENT, 5], [-1, 0, 0, 1], [[7], [8], [9], [6]])
    store = guesser._successors
    assert store.after([2, 3])[1] == (7,) and store.after([2, 3, 4])[2] == (8,)
    assert store.after([3, 4, 5])[2] == (6,)
    assert all((9,) not in store.after([token]) for token in range(10))
