"""Mamba-2 with all claims in one forward: the same answers and text as one token after another, and little kept of a claim."""

from __future__ import annotations

import threading
from typing import Any

import numpy as np
import pytest
import torch

from treewright.core.claims import ABSENT
from treewright.core.request import Sampling
from treewright.models import tree_nodes, tree_scan_session
from treewright.models.causal import CausalModel
from treewright.models.loading import Loaded
from treewright.models.recurrent_session import LAG, RecurrentSession
from treewright.models.tree_nodes import Nodes
from treewright.models.tree_scan_session import TreeScanSession, tree_mixers
from treewright.testing.laws import LawBroken, tree_scoring

PROMPTS = [[5], [3, 8, 1, 9, 22, 4, 17, 60, 2], [7, 7, 2]]
LOOPING = [9, 4, 7, 30, 9, 4, 7, 31, 9, 4, 7]
DRAFTERS = ["token_recycling", "lookahead", "prompt_lookup", "suffix"]
TOLERANCE = 1e-4


@pytest.fixture
def model(causal) -> CausalModel:
    return causal("mamba2", "float32")


@pytest.fixture(scope="module")
def grouped() -> CausalModel:
    """Two groups of heads, a short convolution, a state wider than the heads."""
    import transformers as t

    config = t.Mamba2Config(
        vocab_size=97, hidden_size=32, num_hidden_layers=3, initializer_range=0.1, state_size=16, num_heads=8, head_dim=8,
        n_groups=2, chunk_size=4, conv_kernel=3, use_bias=True,
    )  # fmt: skip
    with torch.random.fork_rng():
        torch.manual_seed(1)
        return CausalModel(t.Mamba2ForCausalLM(config).eval())


def scored(calls: list[tuple[str, int, int]]) -> list[tuple[int, int]]:
    return [(rows, columns) for kind, rows, columns in calls if kind == "score"]


@pytest.mark.parametrize("prompts", [[LOOPING], [LOOPING, PROMPTS[0], PROMPTS[1]]], ids=["alone", "three"])
@pytest.mark.parametrize("method", DRAFTERS)
def test_greedy_text_is_that_of_transformers(method, prompts, model, reference, decode):
    decoded = decode(model, method, prompts, max_new_tokens=24)
    assert decoded.tokens == reference("mamba2", "float32", prompts, 24)
    # Not by claiming nothing.
    assert max(call.columns for call in decoded.trace().calls if call.kind == "score") > 1


def test_groups_of_heads_and_other_kernels(grouped, decode):
    assert grouped.mixers is not None
    tree_scoring(Loaded("grouped", grouped.model, None, grouped))
    together = decode(grouped, "token_recycling", [LOOPING, PROMPTS[2]], max_new_tokens=16)
    assert together.tokens == decode(grouped, "plain", [LOOPING, PROMPTS[2]], max_new_tokens=16).tokens


def test_samples_are_those_of_plain_decoding_in_every_batch(model, decode):
    settings = dict(max_new_tokens=8, sampling=Sampling(temperature=1.0), seed=4, samples=3)
    together = decode(model, "prompt_lookup", [LOOPING, PROMPTS[1]], **settings)
    assert together.rows == decode(model, "plain", [LOOPING, PROMPTS[1]], batch_rows=3, **settings).rows


def test_a_round_is_one_forward_with_a_row_for_a_row(causal, twin_of):
    """Twelve leaves are no twelve rows, and a claim above several leaves is read once."""
    twin = twin_of(causal("mamba2", "float64"), PROMPTS)
    forest = twin.forest()
    forest.grow([0, 0, 0, *[1] * 4, *[2] * 4, *[3] * 4], twin.random.integers(1, 97, size=(3, 15)))
    assert twin.error(forest, twin.session.score(forest)) <= TOLERANCE
    assert scored(twin.calls) == [(3, 16)]


def test_levels_added_to_a_round_are_read_alone(causal, twin_of):
    twin = twin_of(causal("mamba2", "float64"), PROMPTS, seed=3)
    forest = twin.forest()
    for _ in range(4):
        twin.grow(forest, 3, shared=False)
        assert twin.error(forest, twin.session.score(forest)) <= TOLERANCE
    assert scored(twin.calls) == [(3, 4), (3, 3), (3, 3), (3, 3)]


def test_absent_claims_between_present_ones(causal, twin_of):
    twin = twin_of(causal("mamba2", "float64"), PROMPTS)
    forest = twin.forest()
    token = twin.random.integers(1, 97, size=(3, 4))
    token[0], token[1, 1] = ABSENT, ABSENT
    forest.grow([0, 0, 1, 3], token)
    assert twin.error(forest, twin.session.score(forest)) <= TOLERANCE


def test_the_memory_does_not_lag(causal, twin_of):
    """After any path, also after text from elsewhere, each round reads the frontier and its claims alone."""
    twin = twin_of(causal("mamba2", "float64"), [PROMPTS[1]], limit=200)
    for _ in range(LAG + 4):
        assert twin.round(extra=1) <= TOLERANCE
        assert twin.session._memory.stored.tolist() == [len(twin.texts[0]) - 1]
    assert len(scored(twin.calls)) == LAG + 4
    twin.append(0, [twin.token() for _ in range(5)])
    twin.calls.clear()
    forest = twin.forest()
    forest.grow([0], np.array([[7]]))
    assert twin.error(forest, twin.session.score(forest)) <= TOLERANCE
    assert scored(twin.calls) == [(1, 7)]


def test_what_is_kept_of_a_claim(causal, twin_of):
    """Inputs of the convolution and time steps of each layer, whatever the size of the state."""
    model = causal("mamba2", "float32")
    twin = twin_of(model, PROMPTS)
    before = twin.session.cache_bytes()
    forest = twin.forest()
    forest.grow([0, 0, 1, 1, 2], twin.random.integers(1, 97, size=(3, 5)))
    twin.session.score(forest)
    mixer = model.mixers[0]
    assert twin.session.cache_bytes() - before == 3 * 6 * 2 * (mixer.conv_dim + mixer.num_heads) * 4
    state = sum(int(np.prod(shape)) for _, shape, _ in model.states.states)
    assert 2 * (mixer.conv_dim + mixer.num_heads) < state / 5
    twin.session.commit([[]] * 3)
    assert twin.session.cache_bytes() == before


def test_forwards_of_the_model_itself_are_left_alone(model, twin_of):
    """Those that come later, and those of other threads in the midst of one of ours."""
    ids, memory = torch.tensor([[4, 5, 6]]), twin_of(model, PROMPTS[:1]).session._memory
    with torch.no_grad():
        alone, found = model.model(ids).logits, []
        with Nodes(model.mixers, memory, [np.array([5])]).mixing():
            assert all("forward" in vars(mixer) for mixer in model.mixers.values())
            thread = threading.Thread(target=lambda: found.append(model.model(ids).logits.detach()))
            thread.start()
            thread.join()
    assert not any("forward" in vars(mixer) for mixer in model.mixers.values())
    assert torch.equal(found[0], alone)


@pytest.mark.parametrize("family", ["mamba", "jamba", "falcon_h1", "qwen3_next"])
def test_other_families_go_on_from_copies(family, causal, twin_of):
    model = causal(family, "float32")
    assert model.mixers is None
    assert type(twin_of(model, PROMPTS).session) is RecurrentSession


BUGS = {}


def bug(plant: Any) -> Any:
    BUGS[plant.__name__] = plant
    return plant


@bug
def convolution_reads_the_columns_before(patch: pytest.MonkeyPatch) -> None:
    def windows(sees: np.ndarray, depth: np.ndarray, size: int) -> np.ndarray:
        rows, nodes = depth.shape
        return np.broadcast_to(np.arange(nodes)[:, None] + np.arange(size) + 1, (rows, nodes, size)).copy()

    patch.setattr(tree_nodes, "windows", windows)


@bug
def claims_see_their_cousins(patch: pytest.MonkeyPatch) -> None:
    clean = tree_nodes.scan
    patch.setattr(tree_nodes, "scan", lambda *given: clean(*given[:-1], torch.ones_like(given[-1]).tril()))


@bug
def state_of_the_text_is_forgotten(patch: pytest.MonkeyPatch) -> None:
    clean = tree_nodes.scan
    patch.setattr(tree_nodes, "scan", lambda *given: clean(*given[:-2], torch.zeros_like(given[-2]), given[-1]))


@bug
def every_claim_is_replayed(patch: pytest.MonkeyPatch) -> None:
    clean = tree_nodes.replay
    patch.setattr(tree_nodes, "replay", lambda *given: clean(*given[:-1], torch.ones_like(given[-1])))


MORE_BUGS = {}


def session_bug(plant: Any) -> Any:
    MORE_BUGS[plant.__name__] = plant
    return plant


@session_bug
def nodes_do_not_move_with_their_rows(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Nodes, "select", lambda self, rows: None)


@session_bug
def frontier_is_replayed_twice(patch: pytest.MonkeyPatch) -> None:
    clean = TreeScanSession._own_length
    patch.setattr(TreeScanSession, "_own_length", lambda self, row: clean(self, row) + 1)


@pytest.mark.parametrize("name", BUGS)
def test_a_wrong_scan_is_found_out_when_the_model_is_loaded(name, causal):
    model = causal("mamba2", "float32")
    with pytest.MonkeyPatch.context() as patch:
        BUGS[name](patch)
        assert tree_mixers(model, model.states) is None
    assert tree_mixers(model, model.states) is not None


@pytest.mark.parametrize("name", [*BUGS, "frontier_is_replayed_twice"])
def test_tree_scoring_sees_the_planted_bug(name, causal):
    protocol = causal("mamba2", "float32")
    model = Loaded("mamba2", protocol.model, None, protocol)
    with pytest.MonkeyPatch.context() as patch, pytest.raises(LawBroken):
        (BUGS | MORE_BUGS)[name](patch)
        for seed in range(2):
            tree_scoring(model, seed=seed)


@pytest.mark.parametrize("order", [[0, 0, 1], [2, 0, 1]])
def test_forks_between_score_and_commit(order, causal, twin_of):
    def forked() -> float:
        twin = twin_of(causal("mamba2", "float64"), PROMPTS, seed=order[0])
        twin.round()
        forest = twin.forest()
        twin.grow(forest, 4, shared=False)
        twin.session.score(forest)
        twin.select(order)
        forest.select(order)
        twin.grow(forest, 2, shared=False)
        error = twin.error(forest, twin.session.score(forest))
        twin.commit(forest, 1)
        return max(error, twin.round(2, False), twin.round(2, False))

    assert forked() <= TOLERANCE
    with pytest.MonkeyPatch.context() as patch:
        MORE_BUGS["nodes_do_not_move_with_their_rows"](patch)
        assert forked() > 100 * TOLERANCE


def test_a_model_whose_mixers_cannot_be_read_goes_on_from_copies(causal, monkeypatch):
    def refuse(*_: Any, **__: Any) -> None:
        raise RuntimeError("weights are elsewhere")

    model = causal("mamba2", "float32")
    monkeypatch.setattr(tree_scan_session, "_tree_error", refuse)
    assert tree_mixers(model, model.states) is None
