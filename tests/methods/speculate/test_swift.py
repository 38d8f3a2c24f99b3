"""SWIFT: trees by their widths, trials by a score taken by hand, and a search that is shared, kept and ended."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

import treewright
from treewright.core.claims import ABSENT
from treewright.core.errors import CapabilityError, InputError, UnknownOption
from treewright.core.request import Sampling
from treewright.core.session import Capabilities
from treewright.methods.speculate.swift import WIDEST, Config, Swift, width
from treewright.models.tables import Table
from treewright.testing import laws

TABLE = Table(14, seed=7, order=2, sharpness=3.0)
PROMPTS = [(1, 0), (3,), (5, 2, 4, 0)]
START = 5
"""A table of eight layers without its layers 1, 3 and 5 answers as it would after five."""


def softmax(logits: np.ndarray) -> np.ndarray:
    weights = np.exp(logits - logits.max())
    return weights / weights.sum()


@pytest.mark.parametrize(
    ("probability", "greedy", "sampling"), [(0.96, 3, 1), (0.95, 5, 3), (0.81, 5, 3), (0.8, 8, 5), (0.51, 8, 5), (0.5, 10, 10)]
)
def test_widths_of_the_paper(probability: float, greedy: int, sampling: int):
    assert width(probability, True) == greedy
    assert width(probability, False) == sampling


def paths(forest: Any, row: int) -> list[tuple[int, ...]]:
    """The token paths of a row's claims, siblings in the order of their columns, shorter ones first."""
    present = [column for column in range(1, forest.columns) if forest.token[row, column] != ABSENT]
    return sorted((tuple(forest.path_tokens(row, column)) for column in present), key=len)


def tree_by_hand(prefix: list[int], steps: int, threshold: float) -> list[tuple[int, ...]]:
    chain: list[int] = []
    found = []
    for _ in range(steps):
        law = softmax(TABLE.exit_logits([*prefix, *chain], START))
        order = np.argsort(-law, kind="stable").tolist()
        found += [(*chain, token) for token in order[: width(law[order[0]], True)]]
        chain.append(order[0])
        if law[order[0]] < threshold:
            break
    return found


@pytest.mark.parametrize("threshold", [0.3, 0.6])
def test_greedy_tree_is_the_chain_and_the_best_beside_it(threshold: float, decode: Any, watcher: Any):
    def look(outcome: Any) -> bool:
        round = outcome.round
        same = []
        for row, emitted in enumerate(outcome.emitted):
            text = round.text.of(row).tolist()
            room = int(round.text.remaining()[row]) + len(emitted) - 1
            expected = tree_by_hand(text[: len(text) - len(emitted)], min(4, room), threshold)
            same.append(paths(round.forest, row) == expected)
        return all(same)

    watch = watcher(look)
    options = {"steps": 4, "threshold": threshold, "window": 32}
    decoded = decode(TABLE, "swift", PROMPTS, options, observers=[watch], max_new_tokens=25)
    assert len(watch.seen) > 5 and all(watch.seen)
    assert max(len(step.parent) for step in decoded.trace().steps) > 10


def test_sampled_tree_has_as_many_children_as_its_first_ones_allow(decode: Any, watcher: Any):
    widths = set()

    def look(outcome: Any) -> None:
        forest = outcome.round.forest
        for row in range(forest.rows):
            for column, children in enumerate(forest.shape.children(row)):
                tokens = [int(forest.token[row, child]) for child in children if forest.token[row, child] != ABSENT]
                if tokens:
                    law = forest.q[column][row]
                    assert len(tokens) == min(width(law[tokens[0]], False), int((law > 0).sum()))
                    assert len(set(tokens)) == len(tokens)
                    widths.add(len(tokens))

    how = dict(max_new_tokens=60, sampling=Sampling(0.3), seed=1)
    decode(TABLE, "swift", PROMPTS[:1], {"steps": 3}, observers=[watcher(look)], **how)
    assert {1, 3, 5} <= widths


def test_width_is_a_limit(decode: Any):
    decoded = decode(TABLE, "swift", PROMPTS[:1], {"steps": 3, "width": 2, "threshold": 0.0}, max_new_tokens=12)
    assert decoded.trace().steps[0].parent == [-1, 0, 1, 2, 0, 1, 2]


def test_a_row_with_little_room_gives_up_siblings_first(decode: Any, watcher: Any):
    def look(outcome: Any) -> bool:
        forest = outcome.round.forest
        chain = forest.shape.depth[0].max()
        return forest.columns <= 6 and int((np.diff(forest.shape.depth[0]) > 0).sum()) == chain

    watch = watcher(look)
    decoded = decode(TABLE, "swift", PROMPTS[:1], {"threshold": 0.0}, observers=[watch], columns=6, max_new_tokens=20)
    assert all(watch.seen)
    assert len(decoded.trace().steps[0].token) == 6


def matches(plan: Any, texts: list[list[int]], prompts: list[tuple[int, ...]], window: int) -> float:
    """The share of the first new tokens, but for the very first, that the table without those parts predicts."""
    layer, hits = round(plan.share * 8), []
    for prompt, text in zip(prompts, texts, strict=True):
        for place in range(1, window + 1):
            predicted = TABLE.exit_logits([*prompt, *text[:place]], layer).argmax()
            hits.append(predicted == text[place])
    return float(np.mean(hits))


def test_trials_score_what_a_set_predicts_of_the_first_new_tokens(decode: Any, watcher: Any, greedy_text: Any):
    memories: dict[Any, Any] = {}
    told: list[tuple[int, float]] = []

    def look(outcome: Any) -> None:
        search = next(iter(memories.values()))
        told.append((search.trials, search.score))

    config = Config(window=6, skip=0.3, enough=1.0)
    options = {"window": 6, "skip": 0.3, "enough": 1.0}
    decoded = decode(TABLE, "swift", PROMPTS, options, observers=[watcher(look)], memories=memories, max_new_tokens=40)
    assert decoded.tokens == [greedy_text(TABLE, prompt, 40) for prompt in PROMPTS]
    search = memories["swift", 8, config]
    assert search.trials > 5 and [count for count, _ in told] == sorted(count for count, _ in told)
    best = matches(search.plan, decoded.tokens, PROMPTS, 6)
    # The best set was scored on the rows that were long enough in its round, so it is within one row's weight of the mean.
    assert search.score == pytest.approx(best, abs=2 / 3)
    alone: dict[Any, Any] = {}
    single = decode(TABLE, "swift", PROMPTS[:1], options, memories=alone, max_new_tokens=40)
    search = alone["swift", 8, config]
    assert search.score == pytest.approx(matches(search.plan, single.tokens, PROMPTS[:1], 6), abs=1e-12)
    assert len(search._scores) == search.trials and search.score == max(search._scores)


def test_each_trial_costs_one_forward_until_the_search_is_over(decode: Any):
    memories: dict[Any, Any] = {}
    settings = dict(memories=memories, max_new_tokens=30)
    options = {"window": 4, "enough": 0.0, "steps": 1}
    decoded = decode(TABLE, "swift", PROMPTS[:1], options, **settings)
    search = next(iter(memories.values()))
    assert search.trials == search.idle + 1 and search.score > 0
    drafting = sum(len(step.token) > 1 for step in decoded.trace().steps)
    assert len([call for call in decoded.trace().calls if call.kind == "sketch"]) == drafting + search.trials
    # It lasts: another run tries nothing more.
    decode(TABLE, "swift", PROMPTS[1:2], options, **settings)
    assert len(memories) == 1 and next(iter(memories.values())).trials == search.trials


@pytest.mark.parametrize("options", [{"steps": 2, "threshold": 0.4, "window": 1, "width": 2}, {"steps": 1, "window": 4}], ids=str)
def test_the_law_holds_under_other_options(options: dict[str, Any]):
    assert laws.lossless("swift", options).worst <= 1e-9


def test_greedy_text_of_networks_is_that_of_plain_decoding(says_what_plain_says: Any):
    results = says_what_plain_says("swift", {"steps": 3, "window": 4, "threshold": 0.1}, tokens=24)
    assert sum(len(step.accepted) for result in results for step in result.trace.steps) > 0


def test_a_trial_on_a_network_reads_the_first_new_tokens_behind_the_prompts_memory(deep: Any):
    """The first trial's score, with a network whose skipped layers give zeros, on the memory of the whole one."""
    import copy

    from transformers import DynamicCache

    model = deep("llama")
    fresh = treewright.load(model.model)
    prompt, options = [3, 14, 15, 9, 26], {"window": 6, "enough": 0.0, "steps": 1, "threshold": 1.0}
    text = treewright.generate(fresh, prompt, "swift", options, max_new_tokens=14).tokens
    score = next(value for key, value in fresh.memories.items() if key[0] == "swift")._scores[0]
    part, cache = copy.deepcopy(model.model), DynamicCache()
    with torch.no_grad():
        model.model(torch.tensor([prompt]), past_key_values=cache, use_cache=True)
        part.model.layers[1].self_attn.o_proj.weight.zero_()
        part.model.layers[1].mlp.down_proj.weight.zero_()
        predicted = part(torch.tensor([text[:6]]), past_key_values=cache, use_cache=True).logits[0].argmax(-1)
    assert score == pytest.approx(float((predicted == torch.tensor(text[1:7])).double().mean()))


@pytest.mark.parametrize("prompts", [[[3, 14, 15, 9, 26]], [[5], [35, 8, 9, 7, 9, 3]]], ids=["one row", "two rows"])
def test_a_window_may_be_wider_than_the_rounds_that_pay(prompts: Any, deep: Any):
    fresh = treewright.load(deep("llama").model)
    options = {"window": 200, "enough": 0.0, "steps": 2, "width": 1, "threshold": 0.1}
    found = treewright.generate(fresh, prompts, "swift", options, max_new_tokens=203)
    plain = treewright.generate(fresh, prompts, "plain", max_new_tokens=203)
    assert [result.tokens for result in found] == [result.tokens for result in plain]
    trials = [call for call in found[0].trace.calls if call.kind == "sketch" and call.columns == 200]
    search = next(value for key, value in fresh.memories.items() if key[0] == "swift")
    assert len(trials) == search.trials == 1 and search.score > 0
    assert max(call.columns for call in found[0].trace.calls if call.kind == "score") <= 64


def test_a_window_that_no_text_fills_takes_no_memory(deep: Any):
    found = treewright.generate(deep("llama"), [1, 2], "swift", {"window": 10**9, "steps": 2}, max_new_tokens=8)
    assert found.tokens == treewright.generate(deep("llama"), [1, 2], "plain", max_new_tokens=8).tokens


def test_claims_hold_the_widest_tree():
    assert Config().claims == 1 + 24 * 5 + WIDEST
    assert Config(threshold=0.4).claims == 1 + 24 * WIDEST + WIDEST
    assert Config(threshold=0.95).claims == 1 + 24 * 3 + WIDEST
    assert Config(steps=4, width=2).claims == 9


def test_bad_options_are_one_sentence(deep: Any):
    bad = ({"steps": 0}, {"threshold": 1.5}, {"skip": 0.0}, {"skip": 1.0}, {"window": 0}, {"width": 0}, {"enough": -0.1})
    for options in bad:
        with pytest.raises((InputError, UnknownOption), match=next(iter(options))):
            treewright.generate(deep("llama"), [1, 2], "swift", options)
    with pytest.raises(CapabilityError, match=r"the model has 2 layers; give one with 3 or more"):
        Swift(Config()).fits(Capabilities(layers=2))


def test_a_model_without_layers_is_refused(deep: Any):
    with pytest.raises(CapabilityError, match="needs layers"):
        treewright.generate(deep("mamba"), [1, 2], "swift")
