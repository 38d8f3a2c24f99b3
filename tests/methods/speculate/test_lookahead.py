"""Lookahead decoding against the algorithm of the paper's code, kept as plain lists, and its mask by hand."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from treewright.core.claims import ABSENT
from treewright.core.errors import InputError
from treewright.core.request import Sampling
from treewright.methods.speculate.lookahead import Config, Draft, Lookahead, Pool, parts, shape_of, window_topology
from treewright.models.tables import Table

TABLE = Table(7, seed=3, order=2, sharpness=2.0)
PROMPTS = [(1, 2, 3, 1, 2), (0,), (5, 4)]


@pytest.mark.parametrize("level", [2, 3, 5, 9])
@pytest.mark.parametrize("window", [1, 2, 7, 30])
def test_the_widest_window_is_counted_at_once(level, window):
    """Its rows times its columns, in the state where that is most."""
    widest = max(rows * (window + level - 1 - rows) for rows in range(1, level))
    assert parts(Config(level=level, window=window, guesses=3)).claims == widest + 3 * (level - 1)
    assert parts(Config(level=10**9, window=window)).claims > 10**17


def best(text: list[int]) -> int:
    return int(TABLE.logits(text).argmax())


class Reference:
    """The released algorithm: level 0 without the frontier's column, the other levels with it."""

    def __init__(self, config: Config, first_row: list[int], prompt: list[int]) -> None:
        self.n, self.g = config.level, config.guesses
        self.past = [first_row]
        self.pool: dict[int, list[tuple[int, ...]]] = {}
        if config.pool_from_prompt:
            self.add_text(prompt)

    def add_text(self, text: list[int]) -> None:
        for start in range(len(text) - self.n + 1):
            self.add(text[start], tuple(text[start + 1 : start + self.n]))

    def add(self, first: int, rest: tuple[int, ...]) -> None:
        known = self.pool.setdefault(first, [])
        if rest in known:
            known.remove(rest)
        known.append(rest)
        del known[: -self.g]

    def window(self) -> list[list[int]]:
        return self.past

    def step(self, text: list[int], emitted: list[int]) -> None:
        """One round after `text`; `emitted` is what it added."""
        last = len(self.past) - 1
        if last == 0:
            predicted = [best([*text, *self.past[0][: i + 1]]) for i in range(len(self.past[0]))]
            self.past = [self.past[0][1:], predicted]
        else:
            size = len(self.past[last])
            predicted = [
                best([*text, *self.past[0][:i], *(self.past[level][i] for level in range(1, last + 1))]) for i in range(size)
            ]
            if last < self.n - 2:
                self.past = [row[1:] for row in self.past] + [predicted[1:]]
            else:
                for i in range(size):
                    first = text[-1] if i == 0 else self.past[0][i - 1]
                    self.add(first, (*(self.past[level][i] for level in range(1, last + 1)), predicted[i]))
                self.past = [self.past[1][1:], *self.past[2:], predicted]
        self.add_text([*text, *emitted][-(len(emitted) + self.n - 1) :])


def claimed_window(step, rows: int, columns: int) -> list[list[int]]:
    """The window of a traced round in the reference's layout."""
    cells = np.array(step.token[: rows * columns]).reshape(rows, columns).tolist()
    return [cells[0][1:], *cells[1:]]


def claimed_guesses(step) -> set[tuple[int, ...]]:
    """The paths of the trie from the frontier to its leaves."""
    children: dict[int, list[int]] = {}
    for column, above in enumerate(step.parent):
        if above >= 0:
            children.setdefault(above, []).append(column)

    def leaves(column: int, path: tuple[int, ...]):
        below = children.get(column, [])
        yield from (leaf for child in below for leaf in leaves(child, (*path, step.token[child])))
        if not below and path:
            yield path

    return set(leaves(0, ()))


@pytest.mark.parametrize("pool_from_prompt", [True, False])
@pytest.mark.parametrize(("level", "window", "guesses"), [(3, 3, 2), (4, 5, 3), (5, 7, 7), (5, 2, 1)])
def test_window_and_pool_are_those_of_the_papers_code(level, window, guesses, pool_from_prompt, decode):
    config = Config(level, window, guesses, pool_from_prompt)
    options = dict(level=level, window=window, guesses=guesses, pool_from_prompt=pool_from_prompt)
    decoded = decode(TABLE, "lookahead", PROMPTS, options, max_new_tokens=60)
    for number, prompt in enumerate(PROMPTS):
        steps, text = decoded.trace(number).steps, list(prompt)
        reference = Reference(config, steps[0].token[1 : window + level - 2], text)
        assert set(reference.past[0]) <= set(prompt)
        compared = 0
        for step in steps:
            if len(text) + 2 * (window + level) > len(prompt) + 60:
                break
            rows = len(reference.past)
            assert claimed_window(step, rows, window + level - 1 - rows) == reference.window()
            # Every pooled guess has N - 1 tokens, so the leaves of the trie are the guesses.
            assert claimed_guesses(step) == set(reference.pool.get(text[-1], []))
            reference.step(text, step.emitted)
            text += step.emitted
            compared += 1
        assert compared > 2 * level


def test_what_a_window_cell_sees_by_hand():
    """Two rows, three columns; cell (0, 0) is the frontier, cells count row by row."""
    depth, visible = window_topology(2, 3)
    assert depth.tolist() == [0, 1, 2, 1, 2, 3]
    seen = [set(np.flatnonzero(line).tolist()) for line in visible]
    assert seen == [{0}, {0, 1}, {0, 1, 2}, {0, 3}, {0, 1, 4}, {0, 1, 2, 5}]


def test_shape_of_window_and_trie_by_hand():
    """Row 0: a window of two rows and columns, guesses 7 8 and 7 9; row 1: no window, one guess."""
    first, second = Draft(np.array([[0, 4], [5, 6]])), Draft(np.zeros((2, 0), np.int64))
    for guess in ((7, 8), (7, 9)):
        first.insert(guess, most=99)
    second.insert((3,), most=99)
    assert first.tokens()[1:] == [4, 5, 6, 7, 8, 9]
    shape = shape_of([first, second])
    assert shape.parent.tolist() == [[-1, -1, -1, -1, 0, 4, 4], [-1, 0, -1, -1, -1, -1, -1]]
    assert shape.depth[0].tolist() == [0, 1, 1, 2, 1, 2, 2]
    assert shape.depth[1, :2].tolist() == [0, 1]
    seen = [set(np.flatnonzero(line).tolist()) for line in shape.visible[0]]
    assert seen == [{0}, {0, 1}, {0, 2}, {0, 1, 3}, {0, 4}, {0, 4, 5}, {0, 4, 6}]


@given(added=st.lists(st.tuples(st.integers(0, 2), st.integers(-1, 2), st.integers(0, 2)), max_size=40), size=st.integers(0, 4))
def test_pool_keeps_the_latest_of_each_first_token(added, size):
    pool = Pool(size)
    for gram in added:
        pool.add(gram)
    for first in range(3):
        rests = [gram[1:] for gram in added if gram[0] == first and ABSENT not in gram]
        latest = sorted(set(rests), key=lambda rest: -max(i for i, other in enumerate(rests) if other == rest))
        assert pool.guesses(first) == latest[:size]


def trie_paths(draft: Draft) -> set[tuple[int, ...]]:
    paths = {0: ()}
    for (above, token), column in draft.trie.items():
        paths[column] = (*paths[above], token)
    return set(paths.values())


@given(claims=st.integers(2, 40), level=st.integers(2, 5), window=st.integers(1, 6), guesses=st.integers(0, 4))
def test_limit_on_claims_takes_old_guesses_first_then_columns(claims, level, window, guesses, round_of):
    text = [1, 2, 3, 4, 5, 1, 6, 7, 8, 9, 1, 5, 4, 3, 2, 1]
    lookahead = Lookahead(Config(level, window, guesses))
    full = round_of([text], claims=1000)
    lookahead.propose(full)
    whole = lookahead._drafts[0]
    round = round_of([text], claims=claims)
    lookahead.propose(round)
    draft = lookahead._drafts[0]
    assert round.forest.columns == draft.columns == min(claims, draft.columns)
    assert trie_paths(draft) <= trie_paths(whole)
    if draft.window.size < whole.window.size:
        # The window is cut only when no more than the newest guess is left.
        assert len(draft.trie) <= level - 1
    if guesses and claims > level:
        assert len(draft.trie) >= min(len(whole.trie), level - 1)


@pytest.mark.parametrize("level", [2, 3, 5])
@pytest.mark.parametrize("columns", [None, 64, 24, 9, 4])
@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_text_is_that_of_plain_decoding(level, columns, temperature, decode):
    settings = dict(max_new_tokens=40, sampling=Sampling(temperature=temperature), seed=1)
    options = dict(level=level, window=4, guesses=3)
    decoded = decode(TABLE, "lookahead", PROMPTS, options, columns=columns, **settings)
    assert decoded.tokens == decode(TABLE, "plain", PROMPTS, **settings).tokens


def test_guesses_are_accepted_and_window_cells_never(decode):
    decoded = decode(Table(6, seed=3, order=1), "lookahead", PROMPTS, max_new_tokens=60)
    assert decoded.trace().tokens_per_call > 2
    for number in range(3):
        for step in decoded.trace(number).steps:
            assert all(step.parent[column] >= 0 for column in step.accepted)
            assert len(step.accepted) <= 4


def test_rows_fill_and_then_the_window_slides(decode):
    """Six columns more than the frontier in row 0 at first; every round trades a column for a row, up to N - 1 rows."""
    decoded = decode(
        TABLE, "lookahead", [(0,)], dict(level=4, window=3, guesses=1, pool_from_prompt=False), max_new_tokens=30
    )  # fmt: skip
    cells = [sum(above < 0 for above in step.parent) for step in decoded.trace().steps[:5]]
    assert cells == [1 * 5, 2 * 4, 3 * 3, 3 * 3, 3 * 3]


def test_prompt_is_a_pool_if_asked(decode):
    for asked, expected in ((True, {(4, 5)}), (False, set())):
        decoded = decode(
            TABLE, "lookahead", [(3, 4, 5, 2, 3)], dict(level=3, window=2, pool_from_prompt=asked), max_new_tokens=9
        )  # fmt: skip
        assert claimed_guesses(decoded.trace().steps[0]) == expected


def test_rows_have_windows_and_pools_of_their_own(decode):
    """A row that joins late fills its rows while the others slide, and gets the tokens it gets alone."""
    settings = dict(options=dict(level=4, window=3, guesses=3), max_new_tokens=20)
    late = decode(TABLE, "lookahead", [*PROMPTS, (6, 6), (2,)], batch_rows=2, **settings)
    for number, prompt in enumerate([*PROMPTS, (6, 6), (2,)]):
        alone = decode(TABLE, "lookahead", [prompt], **settings)
        assert late.tokens[number] == alone.tokens[0]
        assert [step.emitted for step in late.trace(number).steps] == [step.emitted for step in alone.trace().steps]


def test_one_call_a_round(decode):
    trace = decode(TABLE, "lookahead", PROMPTS[:1], max_new_tokens=20).trace()
    assert [call.kind for call in trace.calls if call.kind != "prefill"] == ["score"] * len(trace.steps)


def test_columns_asked_for_hold_every_phase():
    """The widest moment may come while the rows fill: with W = 2 and N = 5, three rows of three."""
    assert parts(Config(5, 2, 0)).claims == 9
    assert parts(Config(5, 7, 7)).claims == 4 * 7 + 7 * 4


@pytest.mark.parametrize(("name", "value"), [("level", 1), ("window", 0), ("guesses", -1)])
def test_impossible_options(name, value):
    with pytest.raises(InputError, match=f"{name} is {value}; allowed: an integer >="):
        Config(**{name: value})
