"""Suffix tries: every count is that of a scan over the texts, whatever came and went, and in whatever order."""

from __future__ import annotations

import random
from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from treewright.core.roles import Memories
from treewright.parts.propose.outputs import Outputs
from treewright.parts.propose.suffix_trie import SuffixTrie

# Which of three texts goes on with which token; a negative token takes the text out.
STEPS = st.lists(st.tuples(st.integers(0, 2), st.integers(-1, 2)), max_size=60)


def brute_force(texts: list[list[int]], depth: int) -> Counter[tuple[int, ...]]:
    return Counter(
        tuple(text[start : start + length])
        for text in texts for start in range(len(text)) for length in range(1, depth + 1) if start + length <= len(text)
    )  # fmt: skip


def counts_of(trie: SuffixTrie, depth: int, alphabet: range) -> dict[tuple[int, ...], int]:
    """All runs that can be reached by `find`, checked against `continuations` on the way."""
    found: dict[tuple[int, ...], int] = {}
    waiting = [(token,) for token in alphabet]
    while waiting:
        run = waiting.pop()
        match = trie.find(run)
        if match is None:
            continue
        found[run] = match.times
        below = trie.continuations(match)
        assert trie.continues(match) == bool(below)
        assert [(-longer.times, token) for token, longer in below] == sorted((-longer.times, token) for token, longer in below)
        if len(run) < depth:
            waiting += [(*run, token) for token in alphabet]
            longer_runs = {token: trie.find((*run, token)) for token in alphabet}
            assert {token: longer.times for token, longer in below} == {t: m.times for t, m in longer_runs.items() if m}
    return found


@settings(max_examples=60, deadline=None)
@given(STEPS, st.integers(1, 5), st.integers(1, 3))
def test_counts_are_those_of_a_scan(steps, depth, bucket):
    trie, texts, numbers = SuffixTrie(depth, bucket), dict[int, list[int]](), dict[int, int]()
    for which, token in steps:
        if token < 0 and which in texts:
            del texts[which]
            trie.remove(numbers.pop(which))
        elif token >= 0:
            if which not in texts:
                texts[which], numbers[which] = [], trie.begin()
            trie.append(numbers[which], [token])
            texts[which].append(token)
    assert counts_of(trie, depth, range(3)) == brute_force(list(texts.values()), depth)
    assert trie.tokens == sum(map(len, texts.values()))
    counted = brute_force(list(texts.values()), depth)
    for tail in texts.values():
        sizes = range(1, min(depth, len(tail) + 1))
        followed = [size for size in sizes if any(run[:-1] == tuple(tail[-size:]) for run in counted)]
        assert [(m.length, m.times) for m in trie.matches(tail)] == [(size, counted[tuple(tail[-size:])]) for size in followed]


@pytest.mark.parametrize("bucket", [1, 8])
def test_what_left_leaves_nothing_behind(bucket):
    chance, trie = random.Random(1), SuffixTrie(12, bucket)
    numbers = []
    for _ in range(6):
        numbers.append(trie.begin())
        trie.append(numbers[-1], [chance.choice((0, 0, 1)) for _ in range(80)])
    grown = trie.nodes
    chance.shuffle(numbers)
    for number in numbers:
        trie.remove(number)
    assert grown > 50 and trie.nodes == 1 and trie.tokens == 0
    trie.append(trie.begin(), [0, 1, 0])
    assert counts_of(trie, 12, range(2)) == brute_force([[0, 1, 0]], 12)


def test_rare_text_costs_few_nodes():
    trie = SuffixTrie(64)
    trie.append(trie.begin(), random.Random(0).choices(range(50), k=2000))
    trie.append(trie.begin(), trie.text(0)[:1000])
    assert trie.nodes < 3000


def test_outputs_are_told_once_and_forks_begin_anew(round_of):
    round, outputs = round_of([[1, 2], [3]]), Outputs()
    round.keys = [(1, 0), (0, 0)]
    assert outputs.begin(round) == [] and outputs.gained(round) == []
    round.text.append(0, [5, 6])
    round.text.append(1, [7])
    gains = outputs.gained(round)
    assert [(gain.key, gain.fresh, gain.tokens) for gain in gains] == [((0, 0), True, [7]), ((1, 0), True, [5, 6])]
    round.text.append(0, [8])
    assert [(gain.key, gain.fresh, gain.tokens) for gain in outputs.gained(round)] == [((1, 0), False, [8])]
    round.text.select([0, 0])
    assert [gain.fresh for gain in outputs.gained(round)] == [True]
    round.text.append(1, [9])
    gains = outputs.gained(round)
    assert [(gain.key, gain.fresh, gain.tokens) for gain in gains] == [((0, 0), False, [9])]
    again = round_of([[1, 2]])
    again.keys = [(0, 0)]
    assert outputs.begin(again) == [(0, 0)]
    again.text.append(0, [5, 6, 8, 9])
    assert [(gain.fresh, gain.tokens) for gain in outputs.gained(again)] == [(True, [5, 6, 8, 9])]


def test_a_fork_back_to_a_shorter_text_begins_anew_when_it_goes_on(round_of):
    round, outputs = round_of([[1], [1]]), Outputs()
    round.text.append(0, [5, 6])
    round.text.append(1, [5])
    outputs.gained(round)
    round.text.select([1, 1])
    assert outputs.gained(round) == []
    round.text.append(0, [7])
    assert [(gain.key, gain.fresh, gain.tokens) for gain in outputs.gained(round)] == [((0, 0), True, [7])]
    assert isinstance(round.memories, Memories)
