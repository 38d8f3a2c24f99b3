"""The session that reads every path anew, over tables, Bloom (ALiBi) and RWKV (states of its own), against plain forwards."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from treewright.core.claims import ABSENT, Shape
from treewright.core.errors import CapabilityError
from treewright.core.layers import LayerPlan
from treewright.models.tables import Table

PROMPTS = [[5], [3, 1, 2, 4, 4, 0, 1], [2, 2, 3]]
TOLERANCE = {"table": 0.0, "bloom": 1e-5, "rwkv": 1e-5}


@pytest.fixture
def model_of(causal):
    return lambda family: Table(6, seed=1) if family == "table" else causal(family, "float32")


@pytest.mark.parametrize("shared", [True, False], ids=["one shape", "a shape for each row"])
@pytest.mark.parametrize("family", TOLERANCE)
def test_trees_equal_one_forward_for_each_path(family, shared, model_of, twin_of):
    twin = twin_of(model_of(family), PROMPTS, seed=1)
    assert max(twin.round(calls, shared) for calls in (1, 3, 2)) <= TOLERANCE[family]


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("family", TOLERANCE)
def test_any_sequence_of_verbs(family, seed, model_of, twin_of):
    twin = twin_of(model_of(family), PROMPTS, seed=seed)
    for _ in range(6):
        calls, shared, extra = twin.random.integers(1, 4), twin.random.random() < 0.5, twin.random.integers(0, 3)
        assert twin.round(int(calls), bool(shared), int(extra)) <= TOLERANCE[family]
        deed = twin.random.integers(4)
        if deed == 0:
            twin.select(twin.random.integers(0, len(twin.texts), size=twin.random.integers(1, 5)).tolist())
        if deed == 1 and len(twin.texts) < 5:
            twin.admit([[twin.token() for _ in range(twin.random.integers(1, 9))]])
        if deed == 2:
            twin.append(0, [twin.token() for _ in range(twin.random.integers(1, 14))])


def test_rows_fork_while_claims_are_live(model_of, twin_of):
    twin = twin_of(model_of("table"), PROMPTS, seed=2)
    forest = twin.forest()
    twin.grow(forest, 5, shared=False)
    twin.session.score(forest)
    twin.select([2, 0, 0])
    forest.select([2, 0, 0])
    twin.grow(forest, 2, shared=False)
    assert twin.error(forest, twin.session.score(forest)) == 0
    twin.commit(forest, 1)
    assert twin.round() == 0


def test_one_forward_reads_every_leaf_once(model_of, twin_of):
    """Two children and one grandchild are two paths; a second call reads only paths with something new."""
    twin = twin_of(model_of("table"), [[1, 2]])
    forest = twin.forest()
    forest.grow([0, 0, 1], np.array([[3, 4, 5]]))
    twin.session.score(forest)
    assert twin.calls == [("score", 2, 4)]
    twin.session.score(forest)
    assert len(twin.calls) == 1
    forest.grow([2], np.array([[0]]))
    twin.session.score(forest)
    assert twin.calls[1:] == [("score", 1, 4)]


def test_answer_after_the_last_claim_is_kept(model_of, twin_of):
    """After a path without a further token nothing is pending, so the frontier's logits cost no forward."""
    twin = twin_of(model_of("table"), PROMPTS, seed=5)
    twin.round(extra=0)
    before = len(twin.calls)
    assert twin.error(twin.forest(), twin.session.root()) == 0
    assert len(twin.calls) == before


def test_absent_claims_are_not_read(model_of, twin_of):
    twin = twin_of(model_of("table"), [[1, 2], [3]])
    forest = twin.forest()
    forest.grow([0, 0], np.array([[3, ABSENT], [ABSENT, ABSENT]]))
    answers = twin.session.score(forest)
    assert twin.calls == [("score", 2, 3)]
    assert twin.error(forest, answers) == 0


@pytest.mark.parametrize("family", TOLERANCE)
def test_what_a_claim_sees_can_be_overridden(family, model_of, twin_of, plain):
    """A lookahead window: orphans that see row 0 up to their column and their own column below them."""
    twin = twin_of(model_of(family), PROMPTS)
    depth = np.array([[0, 1, 2, 1, 2, 3]])
    visible = np.eye(6, dtype=bool)[None]
    visible[:, :, 0] = visible[0, 2, 1] = visible[0, 4, 1] = True
    visible[0, 5, [1, 2]] = True
    token = np.concatenate([twin.text.frontier()[:, None], twin.random.integers(1, 6, size=(3, 5))], axis=1)
    forest = twin.forest()
    forest.replace(Shape(np.full((1, 6), -1), depth, visible), token)
    answers = twin.session.score(forest)
    for row in range(3):
        for column, path in enumerate([[], [1], [1, 2], [3], [1, 4], [1, 2, 5]]):
            expected = plain(twin.model, [*twin.texts[row], *token[row, path].tolist()])
            assert np.abs(answers.row(row, column) - expected).max() <= 1e-4


@pytest.mark.parametrize("family", ["table", "bloom"])
def test_prompt_top_ids(family, model_of, twin_of, plain):
    model = model_of(family)
    top = twin_of(model, PROMPTS, prompt_top=3).session.prompt_top
    for row, prompt in enumerate(PROMPTS):
        for position in range(len(prompt)):
            expected = np.argsort(-plain(model, prompt[: position + 1]))[:3]
            assert top[row, position].tolist() == expected.tolist()
        assert (top[row, len(prompt) :] == ABSENT).all()


def test_a_session_may_read_a_prompt_of_its_own(model_of, twin_of):
    twin = twin_of(model_of("table"), PROMPTS, seed=3, own=[[5, 1, 1, 4], [2], [3, 3]])
    assert max(twin.round(calls, extra=extra) for calls, extra in ((1, 1), (2, 0), (1, 1))) == 0


@pytest.mark.parametrize("family", ["table", "bloom"])
def test_states_of_the_text(family, model_of, twin_of):
    twin = twin_of(model_of(family), PROMPTS, seed=4, hidden=True)
    for extra in (1, 0, 2):
        twin.round(calls=2, extra=extra)
    twin.session.root()
    for row, text in enumerate(twin.texts):
        found = torch.as_tensor(twin.session.states(row))
        if family == "table":
            expected = torch.from_numpy(np.stack([twin.model.hidden(text[:end]) for end in range(1, len(text) + 1)]))
        else:
            with torch.no_grad():
                output = twin.model.model(torch.tensor([text]), use_cache=False, output_hidden_states=True)
            expected = output.hidden_states[-1][0]
        assert found.shape == expected.shape
        assert (found - expected).abs().max() < 1e-4


def until(*layers: int) -> list[LayerPlan]:
    return [LayerPlan.until(8, layer) for layer in layers]


def answered_by(twin, forest, answers, ends) -> None:
    """Every column is the answer after layer ends[row][column]."""
    for row, text in enumerate(twin.texts):
        for column, end in enumerate(ends[row]):
            expected = twin.model.exit_logits([*text, *forest.path_tokens(row, column)], end)
            assert np.array_equal(answers.row(row, column), expected)


@pytest.mark.parametrize("verb", ["score", "sketch"])
def test_what_a_part_of_the_layers_answered_is_not_read_again(verb, model_of, twin_of):
    twin = twin_of(model_of("table"), PROMPTS, seed=6)
    forest, plans = twin.forest(), until(2, 7, 5)

    def ask():
        return twin.session.score(forest, plans) if verb == "score" else twin.session.sketch(forest, *plans)

    forest.grow([0, 0, 1], np.array([[3, 4, 5]] * 3))
    ask()
    assert ask().logits.shape[1] == 4 and twin.calls == [(verb, 6, len(PROMPTS[1]) + 2)]
    forest.grow([2], np.array([[0]] * 3))
    answers = ask()
    # One forward for all rows, whatever their plans, and over the new path of each alone.
    assert [rows for _, rows, _ in twin.calls] == [6, 3]
    answered_by(twin, forest, answers, [[2] * 5, [7] * 5, [5] * 5])


def test_claims_keep_the_answers_of_the_plans_they_were_scored_under(model_of, twin_of):
    twin = twin_of(model_of("table"), PROMPTS[:2], seed=7)
    forest = twin.forest()
    forest.grow([0], np.array([[3], [4]]))
    twin.session.score(forest, until(2, 8))
    forest.grow([1], np.array([[5], [0]]))
    answers = twin.session.score(forest, until(6))
    answered_by(twin, forest, answers, [[2, 2, 6], [8, 8, 6]])
    forest.grow([2], np.array([[1], [1]]))
    answered_by(twin, forest, twin.session.sketch(forest, *until(1)), [[2, 2, 6, 1], [8, 8, 6, 1]])
    answered_by(twin, forest, twin.session.score(forest), [[2, 2, 6, 8], [8, 8, 6, 8]])


def test_a_frontier_that_was_answered_is_no_sketch(model_of, twin_of):
    twin = twin_of(model_of("table"), PROMPTS[:2], seed=8)
    twin.round(extra=0)
    forest = twin.forest()
    forest.grow([0], np.array([[3], [4]]))
    answered_by(twin, forest, twin.session.sketch(forest, *until(3)), [[8, 3], [8, 3]])


def test_states_of_the_text_under_plans(model_of, twin_of):
    """What the text's tokens leave is kept, and a sketch leaves nothing."""
    twin = twin_of(model_of("table"), PROMPTS, seed=9, hidden=True)
    forest = twin.forest()
    forest.grow([0], np.array([[3], [4], [5]]))
    before = [len(twin.session.states(row)) for row in range(3)]
    twin.session.sketch(forest, *until(2))
    assert [len(twin.session.states(row)) for row in range(3)] == before
    twin.session.score(forest, until(2))
    assert [len(twin.session.states(row)) for row in range(3)] == [len(prompt) for prompt in PROMPTS]


@pytest.mark.parametrize("verb", ["score", "sketch"])
def test_mixed_claims_under_plans(verb, model_of, twin_of):
    twin = twin_of(model_of("table"), PROMPTS[:2], seed=10)
    forest, plans = twin.forest(), until(3, 8)
    forest.grow([0, 1], np.array([[3, 1], [4, 2]]))
    forest.mix[1] = np.array([[3, 0], [4, 5]]), np.array([[0.25, 0.75], [0.5, 0.5]])
    answers = twin.session.score(forest, plans) if verb == "score" else twin.session.sketch(forest, *plans)
    for row, end in enumerate((3, 8)):
        tokens, weights = (of[row] for of in forest.mix[1])
        for column, path in enumerate(([], [1], [1, 2])):
            expected = sum(
                weight * twin.model.exit_logits([*twin.texts[row], *([token, *forest.token[row, path[1:]]] if path else [])], end)
                for token, weight in zip(tokens, weights, strict=True)
            )
            assert np.abs(answers.row(row, column) - expected).max() < 1e-12


def test_a_model_that_reads_tokens_only_refuses_mixed_claims_under_plans(model_of, twin_of):
    twin = twin_of(model_of("bloom"), PROMPTS, seed=11)
    forest = twin.forest()
    forest.grow([0], np.array([[3]] * 3))
    forest.mix[1] = np.array([[3, 0]] * 3), np.full((3, 2), 0.5)
    for ask in (lambda plan: twin.session.score(forest, [plan]), lambda plan: twin.session.sketch(forest, plan)):
        with pytest.raises(CapabilityError, match="reads tokens only"):
            ask(LayerPlan.until(2, 1))


def test_columns_that_no_row_uses_cost_nothing(model_of, twin_of):
    twin = twin_of(model_of("table"), [[1, 2], [3]])
    forest = twin.forest()
    twin.session.score(forest)
    forest.grow([0], np.full((2, 1), ABSENT))
    assert twin.error(forest, twin.session.score(forest)) == 0
    assert len(twin.calls) == 1
