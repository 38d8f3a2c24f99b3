"""Prompt lookup against a search that tries every place."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from treewright.methods.speculate.prompt_lookup import Config, PromptLookup
from treewright.models.tables import Table

texts = st.lists(st.integers(0, 3), min_size=1, max_size=24)
configs = st.builds(
    Config, tokens=st.integers(1, 6), max_ngram=st.integers(1, 4), match=st.sampled_from(["latest", "earliest"]),
    full=st.booleans(),
)  # fmt: skip


def searched(text: list[int], config: Config, width: int) -> list[int]:
    """The draft by the letter of the method: longest n-gram first, every start tried."""
    for size in range(config.max_ngram, 0, -1):
        last = text[-size:]
        found = []
        for start in range(len(text) - size):
            follows = text[start + size : start + size + width]
            if len(last) == size and text[start : start + size] == last and (len(follows) == width or not config.full):
                found.append(follows)
        if found:
            whole = [follows for follows in found if len(follows) == width]
            return whole[-1] if config.match == "latest" and whole else found[0]
    return []


def drafts(round, config: Config) -> list[list[int]]:
    PromptLookup(config).propose(round)
    return [[int(token) for token in row[1:] if token >= 0] for row in round.forest.token]


@given(batch=st.lists(texts, min_size=1, max_size=3), config=configs, claims=st.integers(1, 9), room=st.integers(1, 9))
def test_draft_is_what_a_full_search_finds(batch, config, claims, room, round_of):
    width = max(0, min(config.tokens, claims - 1, room - 1))
    round = round_of(batch, claims=claims, room=room)
    assert drafts(round, config) == [searched(text, config, width) if width else [] for text in batch]
    assert round.forest.columns <= claims


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        (dict(tokens=4), [8, 1, 2, 9]),
        (dict(tokens=10), [7, 1, 2, 8, 1, 2, 9, 1, 2]),
        (dict(tokens=2), [9, 1]),
        (dict(tokens=4, full=True), [8, 1, 2, 9]),
        (dict(tokens=4, match="earliest"), [7, 1, 2, 8]),
        (dict(tokens=10, match="earliest"), [7, 1, 2, 8, 1, 2, 9, 1, 2]),
        (dict(tokens=9, full=True), [7, 1, 2, 8, 1, 2, 9, 1, 2]),
        (dict(tokens=10, full=True), []),
        (dict(tokens=4, max_ngram=1), [8, 1, 2, 9]),
        (dict(tokens=3), [9, 1, 2]),
    ],
)
def test_by_hand(options, expected, round_of):
    text = [1, 2, 7, 1, 2, 8, 1, 2, 9, 1, 2]
    assert drafts(round_of([text]), Config(**options)) == [expected]


def test_rows_of_different_draft_length(round_of):
    round = round_of([[1, 2, 3, 1], [4, 5], [6, 6]])
    assert drafts(round, Config(tokens=3)) == [[2, 3, 1], [], [6]]


def test_a_text_that_repeats_itself_is_drafted_for_several_periods(round_of):
    assert drafts(round_of([[1, 2] * 6]), Config(tokens=6)) == [[1, 2] * 3]


def test_shape_of_ragged_drafts(round_of):
    round = round_of([[1, 2, 3, 1], [4, 5], [6, 6]])
    PromptLookup(Config(tokens=3)).propose(round)
    assert round.forest.shape.parent.tolist() == [[-1, 0, 1, 2]]


def test_nothing_found_asks_for_nothing(round_of):
    round = round_of([[1, 2, 3], [4]])
    PromptLookup(Config()).propose(round)
    assert round.forest.columns == 1


def test_repeating_text_is_accepted(decode, greedy_text):
    """A table of order 1 soon goes round in a circle, which the search then follows."""
    table = Table(5, seed=9, order=1)
    decoded = decode(table, "prompt_lookup", [(1,), (2, 3)], max_new_tokens=60)
    assert decoded.tokens == [greedy_text(table, prompt, 60) for prompt in [(1,), (2, 3)]]
    assert decoded.trace().tokens_per_call > 3
