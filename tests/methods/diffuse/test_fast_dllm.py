"""Fast-dLLM: how many slots are sure, what the two rules promise, and what a window computes."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest

from treewright.api import build_parts, generate
from treewright.core.errors import CapabilityError, UnknownOption
from treewright.core.recipe import Recipe
from treewright.methods.diffuse.fast_dllm import sure
from treewright.models.loading import load
from treewright.models.masked import MaskedModel
from treewright.models.random_weights import random_masked
from treewright.models.tables import AnyOrderTable, JointTable, Table
from treewright.testing import laws


@pytest.mark.parametrize(
    ("confidence", "threshold", "factor", "expected"),
    [
        ([0.9, 0.9, 0.89], 0.9, 0.0, 2),
        ([0.5, 0.4], 0.9, 0.0, 1),
        ([1.0, 1.0, 1.0], 0.9, 0.0, 3),
        ([1.0, 1.0], 1.01, 0.0, 1),
        ([0.99, 0.9, 0.7], 0.9, 1.0, 2),
        ([0.4, 0.3], 0.9, 1.0, 1),
        ([0.8], 0.9, 1.0, 1),
        # 2 (1 - c) fails for the first and 3 (1 - c) holds for none; the last slot is no exception.
        ([0.45, 0.44], 0.9, 1.0, 1),
        ([0.9, 0.9, 0.9], 0.9, 0.5, 3),
    ],
)
def test_how_many_slots_are_sure(confidence, threshold, factor, expected):
    assert sure(np.array(confidence), threshold, factor) == expected


def test_above_one_it_is_the_static_schedule(decode):
    for seed in range(4):
        table = AnyOrderTable(5, seed)
        ours = decode(table, "fast_dllm", [[1], [2, 3]], {"threshold": 1.1, "block": 4}, max_new_tokens=8)
        assert ours.tokens == decode(table, "llada", [[1], [2, 3]], {"block": 4}, max_new_tokens=8).tokens
        assert ours.trace().model_calls == 8


def test_a_low_threshold_fills_a_block_at_once(decode):
    done = decode(AnyOrderTable(5, 0), "fast_dllm", [[1]], {"threshold": 1e-9, "block": 4}, max_new_tokens=8)
    assert done.trace().model_calls == 2


def test_a_higher_threshold_takes_no_fewer_calls(decode):
    for seed in range(5):
        calls = [
            decode(AnyOrderTable(3, seed, 3.0), "fast_dllm", [[1]], {"threshold": t}, max_new_tokens=8).trace().model_calls
            for t in (0.01, 2.0)
        ]
        assert calls == [1, 8]


def peaked(seed: int, doubt: float) -> JointTable:
    """A joint law of three slots in which every slot's favourite has more than 1 - doubt."""
    table = JointTable(3, 3, seed)
    table.joint *= doubt * 0.9
    table.joint[tuple(np.random.default_rng(seed).integers(0, 3, 3))] += 1 - table.joint.sum()
    return table


def test_where_the_theorem_holds_the_parallel_answer_is_the_likeliest(decode):
    """(n + 1) (1 - c) <= 1 for all n slots: the favourites together are the joint's favourite."""
    for seed in range(10):
        table = peaked(seed, 0.24)
        done = decode(table, "fast_dllm", [[1]], {"factor": 1.0}, max_new_tokens=3)
        assert done.trace().model_calls == 1
        best = max(product(range(3), repeat=3), key=lambda tokens: table.joint[tokens])
        assert done.tokens[0] == list(best)


@pytest.mark.parametrize("options", [{}, {"factor": 1.0, "block": 3}, {"threshold": 0.3}], ids=str)
def test_it_keeps_the_rules_of_a_canvas(options):
    assert laws.fills_canvas("fast_dllm", options, seeds=1).total("rounds") >= 1


def network(seed: int = 0, layers: int = 2) -> MaskedModel:
    model = random_masked(seed=seed)
    model.model.layers = model.model.layers[:layers]
    return MaskedModel(model, model.config.mask_token_id)


PROMPTS = [[3], [1, 2, 3, 4, 5], [7, 8]]


@pytest.mark.parametrize("cache", ["prefix", "dual"])
def test_a_batch_decodes_as_its_rows_alone_with_a_cache_too(decode, cache):
    options = {"cache": cache, "block": 4, "threshold": 0.6}
    together = decode(network(), "fast_dllm", PROMPTS, options, max_new_tokens=10)
    alone = [decode(network(), "fast_dllm", [prompt], options, max_new_tokens=10).tokens[0] for prompt in PROMPTS]
    assert together.tokens == alone
    waiting = decode(network(), "fast_dllm", PROMPTS, options, max_new_tokens=10, batch_rows=2)
    assert waiting.tokens == alone


@pytest.mark.parametrize("cache", ["prefix", "dual"])
def test_blocks_of_one_slot_are_refreshed_each_step_and_exact(decode, cache):
    exact = decode(network(), "fast_dllm", PROMPTS, {"block": 1}, max_new_tokens=6)
    cached = decode(network(), "fast_dllm", PROMPTS, {"block": 1, "cache": cache}, max_new_tokens=6)
    assert cached.tokens == exact.tokens


def test_a_window_computes_fewer_slots_and_is_an_approximation(decode):
    columns, differs = {}, False
    for cache in ("none", "prefix", "dual"):
        done = decode(network(), "fast_dllm", [PROMPTS[1]], {"cache": cache, "block": 4, "threshold": 2.0}, max_new_tokens=8)
        columns[cache] = [call.columns for call in done.trace().calls]
    assert columns == {"none": [13] * 8, "prefix": [13, 8, 8, 8, 13, 4, 4, 4], "dual": [13, 4, 4, 4, 13, 4, 4, 4]}
    for seed in range(6):
        tokens = [
            decode(network(seed), "fast_dllm", [PROMPTS[1]], {"cache": cache, "threshold": 2.0}, max_new_tokens=8).tokens
            for cache in ("none", "dual")
        ]
        differs |= tokens[0] != tokens[1]
    assert differs


def test_with_one_layer_a_prompts_keys_never_change_so_a_window_is_exact(decode):
    for seed in range(4):
        whole = {"block": 0, "threshold": 2.0}
        exact, cached = (
            decode(network(seed, layers=1), "fast_dllm", PROMPTS, {**whole, "cache": cache}, max_new_tokens=6)
            for cache in ("none", "dual")
        )
        assert exact.tokens == cached.tokens
        assert sum(call.columns for call in cached.trace().calls) < sum(call.columns for call in exact.trace().calls)


def test_a_left_to_right_model_is_refused():
    with pytest.raises(CapabilityError, match="method 'fast_dllm' needs any_order"):
        generate(load(Table(4, 0)), [1], "fast_dllm")


@pytest.mark.parametrize("options", [{"threshold": 0}, {"factor": -1}, {"block": -1}, {"cache": "all"}], ids=str)
def test_bad_options_are_one_sentence(options):
    with pytest.raises(UnknownOption, match=f"option 'fast_dllm.{next(iter(options))}'"):
        build_parts(Recipe.of("fast_dllm", options))
