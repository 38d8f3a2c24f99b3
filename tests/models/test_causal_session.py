"""The session of a causal model against one plain forward for each path: trees, commits, forks, admissions, long prompts."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from treewright.core.claims import ABSENT, Shape

TOLERANCE = {"float32": 1e-5, "float64": 1e-10}
FAMILIES = ["llama", "qwen3", "gpt2", "gemma3", "gemma2", "mistral", "phi3", "opt", "mixtral", "gpt_oss"]


@pytest.fixture(autouse=True)
def exact_softmax(monkeypatch: pytest.MonkeyPatch) -> None:
    """Eager attention in transformers rounds its softmax to float32 whatever the dtype; taken out of both sides here."""
    rounded = torch.nn.functional.softmax

    def softmax(values: torch.Tensor, *args: object, **options: object) -> torch.Tensor:
        wanted = torch.float64 if values.dtype == torch.float64 else options.get("dtype")
        return rounded(values, *args, **{**options, "dtype": wanted})

    monkeypatch.setattr(torch.nn.functional, "softmax", softmax)


PROMPTS = [[5], [3, 8, 1, 9, 22, 4, 17, 60, 2], [7, 7, 2]]


@pytest.mark.parametrize("shared", [True, False], ids=["one shape", "a shape for each row"])
@pytest.mark.parametrize("attention", ["eager", "sdpa"])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("family", FAMILIES)
def test_trees_equal_one_forward_for_each_path(family, dtype, attention, shared, causal, twin_of):
    if attention == "sdpa" and not causal(family, dtype).model._supports_sdpa:
        pytest.skip(f"{family} has no sdpa attention in transformers")
    twin = twin_of(causal(family, dtype, attention), PROMPTS, seed=FAMILIES.index(family))
    # One call, then several with the earlier claims kept live, then a round after an accepted path.
    errors = [twin.round(calls, shared) for calls in (1, 3, 2)]
    assert max(errors) <= TOLERANCE[dtype]
    assert sum(kind == "score" for kind, _, _ in twin.calls) == 6


@pytest.mark.parametrize("family", ["llama", "gpt2", "gemma3", "mistral", "opt", "gpt_oss"])
def test_memory_after_commits_is_that_of_a_fresh_prefill(family, causal, twin_of):
    twin = twin_of(causal(family, "float64"), PROMPTS, seed=3)
    for extra in (1, 0, 2, 1, 1):
        twin.round(calls=2, extra=extra)
    kept = memory_of(twin)
    for row, text in enumerate(twin.texts):
        fresh = memory_of(twin_of(twin.model, [text, [1]], limit=200))
        known = int(twin.session.seen[row])
        assert known >= len(text) - 2
        shared = min(known, len(text) - 1)
        for ours, theirs in zip(kept, fresh, strict=True):
            assert (ours[row, :, :shared] - theirs[0, :, :shared]).abs().max() < 1e-9


def memory_of(twin) -> list[torch.Tensor]:
    """Keys and values of the text slots, [rows, heads, slots, dim] for each layer."""
    session = twin.session
    keys, values, _ = session._memory.planes()
    return [plane[:, :, session._scratch :] for plane in (*keys, *values)]


@pytest.mark.parametrize("family", ["llama", "gemma3"])
def test_answers_are_never_computed_twice(family, causal, twin_of):
    twin = twin_of(causal(family, "float64"), PROMPTS)
    forest = twin.forest()
    twin.grow(forest, 4, shared=True)
    first = twin.session.score(forest).logits.clone()
    assert twin.session.score(forest) is twin.session.score(forest)
    twin.grow(forest, 3, shared=True)
    again = twin.session.score(forest)
    assert torch.equal(again.logits[:, :5], first)
    # A prefill, one pending token with 4 claims, 3 more claims.
    assert [(kind, columns) for kind, _, columns in twin.calls] == [("prefill", 8), ("score", 5), ("score", 3)]


@pytest.mark.parametrize("family", ["llama", "gpt2", "gemma3"])
def test_root_costs_one_forward_or_none(family, causal, twin_of):
    twin = twin_of(causal(family, "float64"), PROMPTS)
    root = twin.session.root()
    assert twin.error(twin.forest(), root) <= 1e-10
    before = len(twin.calls)
    twin.session.root()
    assert len(twin.calls) == before
    forest = twin.forest()
    twin.grow(forest, 3, shared=True)
    assert twin.error(forest, twin.session.score(forest)) <= 1e-10


@pytest.mark.parametrize("family", ["llama", "gpt2", "gemma3"])
def test_nothing_pending_after_a_path_without_a_further_token(family, causal, twin_of):
    """The frontier's logits are those of the last accepted claim, kept from the round before."""
    twin = twin_of(causal(family, "float64"), PROMPTS, seed=5)
    forest = twin.forest()
    twin.grow(forest, 5, shared=True)
    twin.session.score(forest)
    twin.commit(forest, extra=0)
    before = len(twin.calls)
    assert twin.error(twin.forest(), twin.session.root()) <= 1e-10
    assert len(twin.calls) == before
    assert max(twin.round(calls, extra=extra) for calls, extra in ((1, 0), (2, 0), (1, 1), (2, 0), (1, 2))) <= 1e-10


@pytest.mark.parametrize("family", ["llama", "gemma3"])
def test_some_rows_pending_and_others_not(family, causal, twin_of):
    twin = twin_of(causal(family, "float64"), PROMPTS, seed=6)
    twin.round(extra=0)
    twin.append(1, [twin.token(), twin.token()])
    assert max(twin.round(2, shared, extra=0) for shared in (True, False)) <= 1e-10


@pytest.mark.parametrize("family", ["llama", "gpt2", "gemma3"])
@pytest.mark.parametrize("count", [3, 7, 9, 10, 11, 12, 13, 15, 30])
def test_many_pending_tokens_are_swallowed(family, count, causal, twin_of):
    """Tokens that a constraint forced, or that another model's drafts wrote: up to more than the scratch slots hold."""
    twin = twin_of(causal(family, "float64"), PROMPTS, seed=7)
    twin.round()
    twin.append(0, [twin.token() for _ in range(count)])
    twin.append(2, [twin.token() for _ in range(count // 2)])
    assert twin.round(calls=3) <= 1e-10
    twin.append(1, [twin.token() for _ in range(count)])
    assert twin.round(calls=1, shared=False) <= 1e-10


@pytest.mark.parametrize("family", ["llama", "gpt2", "gemma3"])
def test_accepted_claims_that_this_session_never_scored(family, causal, twin_of):
    """A draft model does not score the last level of the tree it drew; it catches up in the next round."""
    twin = twin_of(causal(family, "float64"), PROMPTS, seed=8)
    forest = twin.forest()
    token = twin.random.integers(1, 90, size=(3, 3))
    forest.grow([0], token[:, :1])
    twin.session.score(forest)
    forest.grow([1, 2], token[:, 1:])
    for row in range(3):
        twin.append(row, [*token[row].tolist(), twin.token()])
    twin.session.commit([[1, 2, 3]] * 3)
    assert (twin.text.length - twin.session.seen).tolist() == [3, 3, 3]
    assert twin.round(calls=2) <= 1e-10


@pytest.mark.parametrize("family", ["llama", "gpt2", "gemma3"])
@pytest.mark.parametrize("order", [[0, 0, 1, 2, 2, 2], [2, 0, 1], [1], [2, 2], [0, 1, 2]], ids=str)
def test_rows_fork_reorder_and_leave(family, order, causal, twin_of):
    twin = twin_of(causal(family, "float64"), PROMPTS, seed=9)
    twin.round()
    twin.select(order)
    assert twin.round(2, shared=False) <= 1e-10
    assert twin.round(1, extra=0) <= 1e-10
    twin.select(order if len(order) == 3 else [0] * len(twin.texts))
    assert twin.round(2) <= 1e-10


@pytest.mark.parametrize("family", ["llama", "gpt2", "gemma3"])
def test_rows_join_in_flight(family, causal, twin_of):
    twin = twin_of(causal(family, "float64"), PROMPTS, seed=10)
    twin.round()
    twin.admit([[9, 4, 4, 31, 8, 2, 50], [6]])
    assert max(twin.round(calls, shared) for calls, shared in ((1, True), (2, False))) <= 1e-10
    twin.select([0, 3, 4])
    twin.admit([[11, 12, 13]])
    assert twin.round(2) <= 1e-10


@pytest.mark.parametrize("family", FAMILIES)
def test_any_sequence_of_verbs(family, causal, twin_of):
    twin = twin_of(causal(family, "float64"), PROMPTS, seed=FAMILIES.index(family))
    for _ in range(8):
        calls, shared, extra = twin.random.integers(1, 4), twin.random.random() < 0.5, twin.random.integers(0, 3)
        assert twin.round(int(calls), bool(shared), int(extra)) <= 1e-10
        deed = twin.random.integers(4)
        if deed == 0:
            twin.select(twin.random.integers(0, len(twin.texts), size=twin.random.integers(1, 5)).tolist())
        if deed == 1 and len(twin.texts) < 5:
            twin.admit([[twin.token() for _ in range(twin.random.integers(1, 9))]])
        if deed == 2:
            twin.append(0, [twin.token() for _ in range(twin.random.integers(1, 14))])


@pytest.mark.parametrize("family", ["llama", "gemma3", "mistral"])
def test_prompts_longer_than_a_chunk(family, causal, twin_of):
    """Prompts are read 512 tokens at a time; a sliding window crosses the seam."""
    random = np.random.default_rng(1)
    prompts = [random.integers(1, 90, size=size).tolist() for size in (700, 3, 513, 514)]
    twin = twin_of(causal(family, "float64"), prompts, limit=760)
    assert [columns for kind, _, columns in twin.calls if kind == "prefill"] == [512, 187]
    forest = twin.forest()
    twin.grow(forest, 3, shared=True)
    assert twin.error(forest, twin.session.score(forest)) <= 1e-10


@pytest.mark.parametrize("family", ["llama", "gemma3", "opt"])
def test_prompt_top_ids(family, causal, twin_of, plain):
    model = causal(family, "float64")
    twin = twin_of(model, PROMPTS, prompt_top=4)
    top = twin.session.prompt_top
    assert top.shape == (3, 9, 4)
    for row, prompt in enumerate(PROMPTS):
        for position in range(9):
            if position >= len(prompt) - 1:
                assert (top[row, position] == ABSENT).all()
            else:
                expected = np.argsort(-plain(model, prompt[: position + 1]))[:4]
                assert top[row, position].tolist() == expected.tolist()


def test_hidden_states(causal, twin_of):
    model = causal("llama", "float64")
    twin = twin_of(model, PROMPTS, hidden=True)
    forest = twin.forest()
    twin.grow(forest, 2, shared=True)
    twin.session.score(forest)
    twin.grow(forest, 3, shared=True)
    hidden = twin.session.score(forest).hidden
    for row in range(3):
        for column in range(6):
            with torch.no_grad():
                tokens = torch.tensor([[*twin.texts[row], *forest.path_tokens(row, column)]])
                expected = model.model(tokens, use_cache=False, output_hidden_states=True).hidden_states[-1][0, -1]
            assert (hidden[row, column] - expected).abs().max() < 1e-10


@pytest.mark.parametrize("family", ["llama", "gpt2", "gemma3"])
def test_a_session_may_read_a_prompt_of_its_own(family, causal, twin_of):
    """A steering part can rewrite the prompt; what the text gains later is shared."""
    own = [[5, 1, 1, 40], [9], [7, 7, 2, 3, 3, 3, 8, 8]]
    twin = twin_of(causal(family, "float64"), PROMPTS, seed=11, own=own)
    assert max(twin.round(calls, extra=extra) for calls, extra in ((1, 1), (2, 0), (1, 1))) <= 1e-10


@pytest.mark.parametrize("family", ["llama", "gemma3"])
def test_absent_claims_disturb_nobody(family, causal, twin_of):
    twin = twin_of(causal(family, "float64"), PROMPTS, seed=12)
    forest = twin.forest()
    twin.grow(forest, 8, shared=True)
    leaf = 1 + int(np.argmax(forest.shape.depth[0, 1:]))
    forest.token[1, leaf] = ABSENT
    forest.token[2, [column for column in range(1, 9) if column != leaf and not forest.shape.children(0)[column]]] = ABSENT
    assert twin.error(forest, twin.session.score(forest)) <= 1e-10


@pytest.mark.parametrize("family", ["llama", "gpt2", "gemma3", "mistral"])
def test_what_a_claim_sees_can_be_overridden(family, causal, twin_of, plain):
    """Orphans with a `visible` of their own, as a lookahead window has them: column 3 follows 1, and 4 follows 2 and 1."""
    twin = twin_of(causal(family, "float64"), PROMPTS, seed=13)
    parent = np.array([[-1, -1, -1, -1, -1, 0]])
    depth = np.array([[0, 1, 2, 2, 3, 1]])
    visible = np.eye(6, dtype=bool)[None]
    visible[:, :, 0] = True
    visible[0, 2, 1] = visible[0, 3, 1] = visible[0, 4, [1, 2]] = True
    token = np.concatenate([twin.text.frontier()[:, None], twin.random.integers(1, 90, size=(3, 5))], axis=1)
    forest = twin.forest()
    forest.replace(Shape(parent, depth, visible), token)
    answers = twin.session.score(forest)
    follows = {0: [], 1: [1], 2: [1, 2], 3: [1, 3], 4: [1, 2, 4], 5: [5]}
    for row in range(3):
        for column, path in follows.items():
            expected = plain(twin.model, [*twin.texts[row], *token[row, path].tolist()])
            assert np.abs(answers.row(row, column) - expected).max() < 1e-9


def test_cache_bytes_are_those_of_the_tensors(causal, twin_of):
    twin = twin_of(causal("llama", "float32"), PROMPTS)
    planes = [plane for group in twin.session._memory.planes()[:2] for plane in group]
    assert twin.session.cache_bytes() == sum(plane.numel() * plane.element_size() for plane in planes) > 0


@pytest.mark.parametrize("family", ["llama", "gpt2", "gemma3"])
@pytest.mark.parametrize("order", [[0, 0, 1, 2, 2, 2], [2, 0, 1], [1]], ids=str)
@pytest.mark.parametrize("extra", [0, 1])
def test_rows_fork_while_claims_are_live(family, order, extra, causal, twin_of):
    """A verdict that resamples rows selects between the score and the commit: answers and claims move along."""
    twin = twin_of(causal(family, "float64"), PROMPTS, seed=14)
    twin.round(extra=extra)
    forest = twin.forest()
    twin.grow(forest, 4, shared=False)
    twin.session.score(forest)
    twin.grow(forest, 3, shared=False)
    twin.session.score(forest)
    twin.select(order)
    forest.select(order)
    assert twin.error(forest, twin.session.score(forest)) <= 1e-10
    twin.grow(forest, 2, shared=False)
    assert twin.error(forest, twin.session.score(forest)) <= 1e-10
    twin.commit(forest, extra)
    assert max(twin.round(calls=2, extra=extra) for _ in range(2)) <= 1e-10


@pytest.mark.parametrize("family", ["llama", "gemma3"])
def test_states_of_the_text(family, causal, twin_of):
    """Hidden states of prompt and text up to the frontier, after commits, long swallows, forks and admissions."""
    twin = twin_of(causal(family, "float64"), PROMPTS, seed=15, hidden=True)

    def check() -> None:
        twin.session.root()
        for row, text in enumerate(twin.texts):
            with torch.no_grad():
                expected = twin.model.model(torch.tensor([text]), use_cache=False, output_hidden_states=True).hidden_states[-1]
            found = torch.as_tensor(twin.session.states(row))
            assert found.shape == expected[0].shape
            assert (found - expected[0]).abs().max() < 1e-10

    check()
    for extra in (1, 0, 2):
        twin.round(calls=2, extra=extra)
        check()
    twin.session.commit([[]] * 3)
    twin.append(1, [twin.token() for _ in range(20)])
    check()
    twin.session.commit([[]] * 3)
    twin.select([2, 1, 1, 0])
    check()
    twin.session.commit([[]] * 4)
    twin.admit([[5, 6, 7]])
    check()


@pytest.mark.parametrize("family", ["llama", "gpt2"])
def test_one_tree_again_and_again(family, causal, twin_of):
    """The mask that is kept from round to round, while rows grow, change places and give way to shorter ones."""
    twin = twin_of(causal(family, "float64"), PROMPTS, seed=16)
    for order in ([0, 1, 2], [2, 0, 1], [0, 0, 2], [1, 2, 0], [2, 2, 2]):
        forest = twin.forest()
        forest.grow([0, 0, 1, 3], twin.random.integers(1, 90, size=(3, 4)))
        assert twin.error(forest, twin.session.score(forest)) <= 1e-10
        twin.commit(forest, extra=1)
        twin.select(order)
