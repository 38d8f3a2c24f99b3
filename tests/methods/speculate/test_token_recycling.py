"""Token Recycling: the template of the paper, and the matrix against a loop that fills it entry by entry."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest

from treewright.core.claims import ABSENT
from treewright.core.errors import InputError
from treewright.core.request import Sampling
from treewright.methods.speculate.token_recycling import Config, TokenRecycling, pruned_template, template_paths
from treewright.models.tables import Table

TABLE = Table(8, seed=2, order=2, sharpness=2.0)
PROMPTS = [(1, 2, 3, 4), (5,), (6, 7, 1)]
# Children of each node of the paper's template 2.2.2, by the ranks on the way to it.
CHILDREN = """
root:8
0:8 1:4 2:3 3:2 4:1 5:1 6:1 7:1
00:8 01:3 02:2 03:1 04:1 05:1 06:1 07:1 10:2 11:1 20:1 30:1 40:1 50:1
000:5 001:2 002:1 003:1 004:1 010:1 020:1 100:1 200:1 300:1
0000:3 0001:1 0002:1 0010:1 0100:1 1000:1
00000:2 00010:1
"""


def top(prefix: list[int], count: int) -> list[int]:
    return np.argsort(-TABLE.logits(prefix), kind="stable")[:count].tolist()


def test_template_has_the_counts_of_the_paper():
    paths = template_paths()
    assert len(paths) == len(set(paths)) == 80
    assert [count for _, count in sorted(Counter(map(len, paths)).items())] == [8, 21, 25, 15, 8, 3]
    counted = Counter(path[:-1] for path in paths)
    written = {name.replace("root", ""): int(count) for name, count in (entry.split(":") for entry in CHILDREN.split())}
    assert {"".join(map(str, parent)): count for parent, count in counted.items()} == written
    for parent, count in counted.items():
        assert {path[-1] for path in paths if path[:-1] == parent} == set(range(count))


@pytest.mark.parametrize("nodes", [1, 2, 7, 24, 63, 80, 200])
@pytest.mark.parametrize("k", [1, 3, 8])
def test_pruned_template_is_a_part_of_the_template(nodes, k):
    shape, levels = pruned_template(nodes, k)
    usable = [path for path in template_paths() if max(path) < k]
    assert shape.columns - 1 == min(nodes, len(usable))
    rank: dict[int, int] = {}
    for columns, parents, ranks in levels:
        assert shape.parent[0, columns].tolist() == parents.tolist()
        rank.update(zip(range(columns.start, columns.stop), ranks.tolist(), strict=True))
    paths = {tuple(rank[step] for step in shape.path(0, column)) for column in range(1, shape.columns)}
    assert len(paths) == shape.columns - 1
    assert paths <= set(usable)


def test_smaller_trees_are_parts_of_larger_ones():
    def paths(nodes: int) -> set[tuple[int, ...]]:
        shape, levels = pruned_template(nodes, 8)
        rank = {c: int(r) for columns, _, ranks in levels for c, r in zip(range(columns.start, columns.stop), ranks, strict=True)}
        return {tuple(rank[step] for step in shape.path(0, column)) for column in range(1, shape.columns)}

    for nodes in range(1, 80):
        assert paths(nodes) < paths(nodes + 1)


def expected_update(matrix: np.ndarray, outcome, k: int) -> np.ndarray:
    """The matrix after a round, one claim after another: the last claim of a token wins, later rows after earlier ones."""
    matrix, forest = matrix.copy(), outcome.round.forest
    for row in range(forest.rows):
        text = outcome.round.text.of(row).tolist()
        before = text[: len(text) - len(outcome.emitted[row])]
        for column in range(forest.columns):
            token = int(forest.token[row, column])
            if token != ABSENT:
                matrix[token] = top([*before, *forest.path_tokens(row, column)], k)
    return matrix


@pytest.mark.parametrize("temperature", [0.0, 1.0])
@pytest.mark.parametrize("k", [2, 5])
def test_matrix_after_each_round_equals_a_loop_over_claims(k, temperature, decode, watcher):
    memories: dict[object, np.ndarray] = {}
    state = {"matrix": None}

    def look(outcome) -> bool:
        matrix = memories["token_recycling", 8, k]
        before = state["matrix"]
        state["matrix"] = matrix.copy()
        return before is None or np.array_equal(matrix, expected_update(before, outcome, k))

    watch = watcher(look)
    decode(
        TABLE, "token_recycling", PROMPTS, {"k": k, "nodes": 30}, observers=[watch], memories=memories,
        max_new_tokens=25, sampling=Sampling(temperature=temperature),
    )  # fmt: skip
    assert len(watch.seen) > 5
    assert all(watch.seen)


def test_every_claim_is_its_parents_successor_of_its_rank(decode, watcher):
    memories: dict[object, np.ndarray] = {}
    decode(TABLE, "token_recycling", PROMPTS, {"k": 4}, memories=memories, max_new_tokens=10)
    warm = memories["token_recycling", 8, 4].copy()
    forests = watcher(lambda outcome: outcome.round.forest)
    decode(
        TABLE, "token_recycling", PROMPTS, {"k": 4, "learn_prompt": False}, observers=[forests], memories=memories,
        max_new_tokens=10,
    )  # fmt: skip
    forest = forests.seen[0]
    _, levels = pruned_template(80, 4)
    for columns, parents, ranks in levels:
        for row in range(3):
            for column, parent, rank in zip(range(columns.start, columns.stop), parents, ranks, strict=True):
                above = forest.token[row, parent]
                assert forest.token[row, column] == (ABSENT if above == ABSENT else warm[above, rank])


def test_siblings_differ_and_absent_claims_have_no_children(decode, watcher):
    def look(outcome) -> None:
        forest = outcome.round.forest
        for row in range(forest.rows):
            for column, children in enumerate(forest.shape.children(row)):
                present = [int(forest.token[row, child]) for child in children if forest.token[row, child] != ABSENT]
                assert len(present) == len(set(present))
                assert not present or forest.token[row, column] != ABSENT

    decode(TABLE, "token_recycling", PROMPTS, observers=[watcher(look)], max_new_tokens=40)


@pytest.mark.parametrize("learn", [True, False])
def test_prompt_fills_the_matrix_if_asked(learn, decode, watcher):
    first = watcher(lambda outcome: outcome.round.forest.token[:, 1:].copy())
    options = {"k": 3, "learn_prompt": learn}
    decode(TABLE, "token_recycling", [(1, 2, 3, 1)], options, observers=[first], max_new_tokens=5)
    claimed = first.seen[0][0]
    if learn:
        # The prompt's last token is 1, whose successors were predicted after the first token; 3 of them, then theirs.
        assert claimed[:3].tolist() == top([1], 3)
    else:
        assert (claimed == ABSENT).all()


def test_prompt_rows_are_those_of_the_last_position_of_a_token(round_of):
    recycling = TokenRecycling(Config(k=2))
    round = round_of([[1, 2, 1, 3], [4]], vocabulary=8)
    predicted = np.array([[[5, 6], [6, 7], [7, 5], [-1, -1]], [[-1, -1]] * 4])
    recycling.read_prompts(round, [[1, 2, 1, 3], [4]], predicted)
    matrix = recycling.matrix(round)
    assert matrix.shape == (9, 2)
    assert {row: matrix[row].tolist() for row in range(9) if (matrix[row] != ABSENT).any()} == {1: [7, 5], 2: [6, 7]}


def test_matrix_outlives_the_run_and_helps_the_next(decode):
    memories: dict[object, np.ndarray] = {}
    settings = dict(memories=memories, max_new_tokens=40)
    cold = decode(TABLE, "token_recycling", PROMPTS, {"k": 4}, **settings)
    warm = decode(TABLE, "token_recycling", PROMPTS, {"k": 4}, **settings)
    assert cold.tokens == warm.tokens
    assert warm.trace().model_calls < cold.trace().model_calls


def test_k_larger_than_the_vocabulary(decode, greedy_text):
    table, prompts = Table(5, seed=2, order=2, sharpness=2.0), [[token % 5 for token in prompt] for prompt in PROMPTS]
    decoded = decode(table, "token_recycling", prompts, {"k": 8}, max_new_tokens=20)
    assert decoded.tokens == [greedy_text(table, prompt, 20) for prompt in prompts]


@pytest.mark.parametrize("k", [0, 9])
def test_k_beyond_the_template_is_refused(k):
    with pytest.raises(InputError, match=f"k is {k}; allowed: an integer from 1 to 8"):
        Config(k=k)


@pytest.mark.parametrize(("nodes", "columns", "most"), [(1, None, 2), (24, None, 25), (80, 30, 10), (80, 3, 1)])
def test_size_of_the_tree_and_the_text(nodes, columns, most, decode, greedy_text):
    decoded = decode(TABLE, "token_recycling", PROMPTS, {"nodes": nodes}, columns=columns, max_new_tokens=20)
    assert decoded.tokens == [greedy_text(TABLE, prompt, 20) for prompt in PROMPTS]
    assert max(len(step.token) for step in decoded.trace().steps[:5]) == most


def test_sampled_tokens_are_those_of_plain_sampling(decode):
    settings = dict(max_new_tokens=30, sampling=Sampling(temperature=1.0), seed=2)
    recycled = decode(TABLE, "token_recycling", PROMPTS, {"k": 4}, **settings)
    assert recycled.tokens == decode(TABLE, "plain", PROMPTS, **settings).tokens
    assert recycled.accepted() > 5
