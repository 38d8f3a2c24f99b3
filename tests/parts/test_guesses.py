"""Guesses, their chances and trees, against the same said in plain Python."""

from __future__ import annotations

import itertools
from heapq import heappop, heappush

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from treewright.core.claims import ABSENT, Shape
from treewright.parts.propose import successors
from treewright.parts.propose.chances import BY_RANK, PRIOR, kind_of
from treewright.parts.propose.guess_kernels import (
    COPIES,
    EDGES,
    FREE,
    FULL,
    KINDS,
    LASTING,
    LENGTHS,
    ORDERS,
    OVERFLOW,
    SHARES,
    TRUST,
    Counts,
    chance_of,
    find,
    pass_on,
)  # fmt: skip
from treewright.parts.propose.guesses import Guesser, Writing, share_kinds
from treewright.parts.propose.successors import Successors

V = 6
TEXTS = st.lists(st.integers(0, 3), min_size=1, max_size=30)


class Reference:
    """What `Guesser` and `Writing` do for one row, without a hash table, an array or a shared loop."""

    def __init__(self, text):
        self.text, self.known, self.pointer, self.match = [], {}, -1, 0
        self.counts = {"row": {}, "all": {}}
        for token in text:
            self.append(token)

    def moved(self, pointer, match, last, token):
        if 0 <= pointer < len(self.text) and self.text[pointer] == token:
            return pointer + 1, match + 1
        places = [end for end in range(2, len(self.text) + 1) if self.text[end - 2 : end] == [last, token]]
        return (places[-1], 2) if places else (-1, 0)

    def append(self, token):
        last = self.text[-1] if self.text else None
        self.pointer, self.match = self.moved(self.pointer, self.match, last, token)
        self.text.append(token)
        self.counts["row"] = {kind: (h * LASTING, n * LASTING) for kind, (h, n) in self.counts["row"].items()}

    def keep(self, context, ids, shares):
        for size in range(1, min(ORDERS, len(context)) + 1):
            self.known[tuple(context[-size:])] = list(zip(ids, shares, strict=True))

    def kinds(self, context, pointer, match):
        found, orders = {}, []
        for size in range(1, min(ORDERS, len(context)) + 1):
            if tuple(context[-size:]) not in self.known:
                break
            orders.append(self.known[tuple(context[-size:])])
        for order in range(len(orders) - 1, -1, -1):
            for token, share in orders[order]:
                found.setdefault(token, order * SHARES + share)
            if len(found) >= 8:
                break
        if 0 <= pointer < len(self.text):
            copied = self.text[pointer]
            found[copied] = found.get(copied, ORDERS * SHARES) + int(COPIES[min(match, LENGTHS[-1])])
        return found

    def chance(self, kind):
        chance = PRIOR[kind]
        for counts in (self.counts["all"], self.counts["row"]):
            hits, tries = counts.get(kind, (0.0, 0.0))
            chance = (hits + TRUST * chance) / (tries + TRUST)
        return chance

    def grade(self, written):
        for token in written:
            for guess, kind in self.kinds(self.text[-ORDERS:], self.pointer, self.match).items():
                for counts in self.counts.values():
                    hits, tries = counts.get(kind, (0.0, 0.0))
                    counts[kind] = hits + (guess == token), tries + 1
            self.append(token)

    def tree(self, most, deepest, worth):
        """(chance, path) of the claims, in the order they are taken."""
        taken, heap = [], []

        def look(path, context, pointer, match, chance):
            if len(path) < deepest:
                for token, kind in self.kinds(context, pointer, match).items():
                    place = *self.moved(pointer, match, context[-1], token), [*context, token][-ORDERS:]
                    heappush(heap, (-chance * self.chance(kind), (*path, token), place))

        look((), self.text[-ORDERS:], self.pointer, self.match, 1.0)
        while heap and len(taken) < most and -heap[0][0] >= worth:
            value, path, (pointer, match, context) = heappop(heap)
            taken.append((-value, path))
            look(path, context, pointer, match, -value)
        return taken


def taught(seed, learned=40):
    """A guesser and a row's writing with a reference that knows the same."""
    random = np.random.default_rng(seed)
    text = random.integers(0, V, 20)
    guesser, writing, reference = Guesser(V), Writing(V, text), Reference(text.tolist())
    for _ in range(learned):
        before, count = random.integers(0, V, random.integers(1, ORDERS + 1)), int(random.integers(1, 6))
        parents = np.array([-1, *(int(random.integers(0, column)) for column in range(1, count))])
        tokens = np.array([before[-1], *random.integers(0, V, count - 1)])
        ids = np.stack([random.permutation(V)[:3] for _ in range(count)])
        shares = random.integers(0, SHARES, (count, 3)).astype(np.uint8)
        guesser.successors.learn(before, tokens, parents, ids, shares)
        contexts = [before.tolist()]
        for token, parent in zip(tokens[1:].tolist(), parents[1:].tolist(), strict=True):
            contexts.append([*contexts[parent], token])
        for context, predicted, kinds in zip(contexts, ids.tolist(), shares.tolist(), strict=True):
            reference.keep(context, predicted, kinds)
    for token in random.integers(0, V, 12).tolist():
        above = np.array([-1])
        predicted, kinds = random.permutation(V)[None, :3], random.integers(0, SHARES, (1, 3)).astype(np.uint8)
        context = list(reference.text[-ORDERS:])
        guesser.observe(writing, [token], np.array([context[-1]]), above, predicted, kinds)
        reference.grade([token])
        reference.keep(context, predicted[0].tolist(), kinds[0].tolist())
    return guesser, writing, reference


def paths(trees, row=0):
    """(chance, path) of the claims of a row."""
    found = [(1.0, ())]
    for column in range(1, trees.columns):
        if trees.token[row, column] != ABSENT:
            above = found[trees.parent[row, column]][1]
            found.append((trees.chance[row, column], (*above, int(trees.token[row, column]))))
    return found[1:]


@pytest.mark.parametrize("seed", range(12))
def test_the_tree_holds_the_likeliest_paths_of_all(seed):
    guesser, writing, reference = taught(seed)
    for most, deepest, worth in ((9, 3, 0.0), (30, 9, 0.02), (63, 5, 0.0)):
        tree, expected = paths(guesser.trees([writing], most, [deepest], worth)), reference.tree(most, deepest, worth)
        assert [chance for chance, _ in tree] == pytest.approx([chance for chance, _ in expected])
        # Where chances are equal, either may be taken.
        least = expected[-1][0] * (1 + 1e-9)
        assert {path for chance, path in tree if chance > least} == {path for chance, path in expected if chance > least}
        assert len({path for _, path in tree}) == len(tree)


def test_rows_have_trees_of_their_own_and_absent_claims_beside_wider_ones():
    guesser, writing, _ = taught(3)
    other = Writing(V, writing.tokens[:7])
    both = guesser.trees([other, writing], 12, [1, 4], 0.0)
    assert both.columns == 13 and both.promised == pytest.approx(both.chance[:, 1:].sum())
    for row, (text, deepest) in enumerate(((other, 1), (writing, 4))):
        assert paths(both, row) == paths(guesser.trees([text], 12, [deepest], 0.0))
    expected = Shape.of(both.shape.parent)
    assert np.array_equal(both.shape.visible, expected.visible) and np.array_equal(both.shape.depth, expected.depth)


def test_a_tree_ends_where_it_is_worth_nothing_more_and_where_the_text_must_end():
    guesser, writing, _ = taught(1)
    whole = paths(guesser.trees([writing], 30, [9], 0.0))
    assert paths(guesser.trees([writing], 30, [9], 0.05)) == [(chance, path) for chance, path in whole if chance >= 0.05]
    assert guesser.trees([writing], 30, [0], 0.0).columns == 1
    assert all(len(path) == 1 for _, path in paths(guesser.trees([writing], 30, [1], 0.0)))


@given(TEXTS)
def test_a_copy_goes_on_behind_the_last_place_of_the_last_pair_or_where_it_was_right(text):
    writing, reference = Writing(V, []), Reference([])
    for token in text:
        writing.extend([token])
        reference.append(token)
        pointer, match = writing.pointer, writing.match
        assert (pointer, match) == (reference.pointer, reference.match)
        assert text[pointer - match : pointer] == reference.text[len(reference.text) - match :] or match == 0
    assert writing.tokens.tolist() == text and writing.last.tolist() == text[-ORDERS:]


def test_a_long_text_is_remembered_whole():
    text = np.random.default_rng(0).integers(0, 40, 3000)
    writing, known = Writing(40, text[:5]), {}
    writing.extend(text[5:])
    for place in range(1, len(text)):
        known[text[place - 1], text[place]] = place + 1
    assert np.array_equal(writing.tokens, text)
    for (last, token), behind in known.items():
        place = find(writing.script.pairs, last * 40 + token)
        assert writing.script.pairs[place] != FREE and writing.script.places[place] == behind


LEARNED = st.lists(st.tuples(TEXTS, st.lists(st.integers(0, 9), min_size=2, max_size=2, unique=True)), max_size=12)


@settings(deadline=None)
@given(LEARNED, TEXTS)
def test_successors_are_what_was_last_learned_after_the_last_tokens(learned, asked):
    store, known = Successors(10), {}
    for before, predicted in learned:
        last = np.array(before[-ORDERS:])
        store.learn(last, last[-1:], np.array([-1]), np.array([predicted]), np.zeros((1, 2), np.uint8))
        for size in range(1, min(ORDERS, len(before)) + 1):
            known[tuple(before[-size:])] = tuple(predicted)
    sizes = itertools.takewhile(lambda size: tuple(asked[-size:]) in known, range(1, min(ORDERS, len(asked)) + 1))
    assert store.after(asked) == [known[tuple(asked[-size:])] for size in sizes]


def test_a_prompt_teaches_what_follows_each_of_its_places():
    store, text = Successors(10), np.array([1, 2, 3, 4])
    store.read(text, np.array([[2, 9], [3, 9], [4, 9]]))
    assert store.after([1, 2, 3]) == [(4, 9)] * 3 and store.after([1, 2]) == [(3, 9)] * 2 and store.after([4]) == []
    place = find(store.known.keys, 1 + 1)
    assert store.known.shares[place, :2].tolist() == list(BY_RANK[:2])


def test_a_table_grows_and_old_contexts_go_first(monkeypatch):
    monkeypatch.setattr(successors, "FIRST", 16)
    monkeypatch.setattr(successors, "MOST", 512)
    store, none = Successors(10_000), np.zeros((1, 1), np.uint8)
    for token in range(2000):
        store.learn(np.array([token]), np.array([token]), np.array([-1]), np.array([[token + 1]]), none)
        kept = [bool(store.after([old])) for old in range(max(0, token - 200), token + 1)]
        assert all(kept) and int(store.known.used[0]) == int((store.known.keys != FREE).sum())
    assert len(store.known.keys) <= 2 * 512 and store.after([1999]) == [(2000,)] and store.after([3]) == []


def test_a_full_table_keeps_what_it_has_and_every_search_ends(monkeypatch):
    monkeypatch.setattr(successors, "FIRST", 16)
    monkeypatch.setattr(Successors, "_reserve", lambda store, claims: None)
    store, none = Successors(10_000), np.zeros((1, 1), np.uint8)
    for token in range(100):
        store.learn(np.array([token]), np.array([token]), np.array([-1]), np.array([[token + 1]]), none)
    assert [token for token in range(100) if store.after([token])] == list(range(int(FULL * 16)))


def test_a_text_longer_than_the_table_may_be_is_read_in_pieces(monkeypatch):
    monkeypatch.setattr(successors, "MOST", 512)
    monkeypatch.setattr(successors, "PIECE", 16)
    store, text = Successors(5000), np.arange(2000)
    store.read(text, text[1:, None])
    assert store.after([1996, 1997, 1998]) == [(1999,)] * 3 and len(store.known.keys) <= successors.FIRST
    whole, pieces = Successors(50), Successors(50)
    text = np.random.default_rng(0).integers(0, 50, 100)
    pieces.read(text, text[1:, None])
    monkeypatch.setattr(successors, "PIECE", 4096)
    whole.read(text, text[1:, None])
    for end in range(1, 100):
        assert pieces.after(text[:end].tolist()) == whole.after(text[:end].tolist()) != []


def test_what_stands_below_an_absent_claim_is_not_learned():
    store = Successors(10)
    store.learn(
        np.array([1]), np.array([1, ABSENT, 5]), np.array([-1, 0, 1]), np.array([[7], [8], [9]]), np.zeros((3, 1), np.uint8)
    )
    assert store.after([1]) == [(7,)] and int(store.known.used[0]) == 1


def test_predictions_at_drafts_are_learned_after_the_drafts_own_path():
    store = Successors(10)
    store.learn(
        np.array([1, 2, 3]), np.array([3, 4, ABSENT, 5]), np.array([-1, 0, 0, 1]), np.array([[7], [8], [9], [6]]),
        np.zeros((4, 1), np.uint8),
    )  # fmt: skip
    assert store.after([2, 3])[1] == (7,) and store.after([2, 3, 4])[2] == (8,)
    assert store.after([3, 4, 5])[2] == (6,)
    assert all((9,) not in store.after([token]) for token in range(10))


def test_kinds_are_numbers_of_their_own():
    kinds = {kind_of(match, order, share) for match in range(12) for order in range(ORDERS + 1) for share in range(SHARES)}
    assert kinds == set(range(KINDS)) and len(PRIOR) == KINDS
    assert all(0 <= chance < 1 for chance in PRIOR)


def test_shares_are_of_the_tokens_kept_and_known_by_their_kind():
    shares = np.array([0.9, 0.07, 0.03])
    assert share_kinds(np.log(shares)[None] + 5).tolist() == [[sum(share > edge for edge in EDGES) for share in shares]]
    assert share_kinds(np.array([[0.0, -np.inf]])).tolist() == [[SHARES - 1, 0]]


def test_chances_are_shares_drawn_to_their_prior():
    row, shared = Counts.none(), Counts.none()
    shared.hits[5], shared.tries[5] = 3, 4
    common = (3 + TRUST * PRIOR[5]) / (4 + TRUST)
    assert chance_of(5, row, shared, PRIOR) == pytest.approx(common)
    row.hits[5], row.tries[5] = 0, 6
    assert chance_of(5, row, shared, PRIOR) == pytest.approx(TRUST * common / (6 + TRUST))
    assert chance_of(6, row, shared, PRIOR) == PRIOR[6]


def test_a_fading_count_is_a_discounted_one_however_long_the_text():
    fading, hits, tries = Counts.none(), 0.0, 0.0
    random, largest = np.random.default_rng(0), 0.0
    for _ in range(3000):
        hit = bool(random.random() < 0.3)
        fading.hits[0] += fading.now[0] * hit
        fading.tries[0] += fading.now[0]
        pass_on(fading)
        largest = max(largest, fading.now[0])
        hits, tries = (hits + hit) * LASTING, (tries + 1) * LASTING
    assert OVERFLOW / 2 < largest <= OVERFLOW
    assert chance_of(0, fading, Counts.none(), np.full(KINDS, 0.9)) == pytest.approx((hits + TRUST * 0.9) / (tries + TRUST))
