"""First finish search: the shortest of the very samples that plain sampling draws, and rows that stop costing calls."""

from __future__ import annotations

import itertools

import pytest

import treewright
from treewright import laws
from treewright.core.errors import UnknownOption

SETTINGS = dict(max_new_tokens=24, temperature=1.0)


@pytest.mark.parametrize("options", [{}, {"k": 3}, {"candidates": 6, "k": 2}])
def test_it_selects_among_plain_samples(options):
    assert laws.selects("first_finish", options).worst <= 1e-9


@pytest.mark.parametrize("batch_rows", [1, 3, 16])
def test_it_is_the_shortest_of_plain_samples_and_costs_no_more_than_it(table, batch_rows):
    saved = 0
    for seed in range(6):
        plain = treewright.generate(table(), [1, 2], n=4, seed=seed, **SETTINGS)
        lengths = [len(sample.tokens) for sample in plain.samples]
        ended = [len(sample.tokens) for sample in plain.samples if sample.finish_reason == "stop"]
        first = treewright.generate(table(), [1, 2], "first_finish", seed=seed, batch_rows=batch_rows, **SETTINGS)
        least = min(ended, default=min(lengths))
        chosen = plain.samples[next(i for i, s in enumerate(plain.samples) if len(s.tokens) == least)]
        assert (first.tokens, first.finish_reason) == (chosen.tokens, chosen.finish_reason)
        selection = first.trace.notes["selection"]
        if batch_rows == 16 and ended:
            assert first.trace.model_calls == least
            assert selection["tokens"] == sum(min(length, least) for length in lengths) <= 4 * least
            assert selection["candidates"] == lengths.count(least)
            assert selection["given_up"] == 4 - lengths.count(least)
            assert sum(call.rows for call in first.trace.calls if call.kind == "score") == selection["tokens"]
        saved += sum(lengths) - selection["tokens"]
    assert saved > 20


def test_drafts_decide_nothing(table):
    """Accepted drafts bring a longer text to its end in fewer rounds; the shortest still wins."""
    for seed in range(8):
        alone = treewright.generate(table(3), [1, 2], "first_finish", seed=seed, **SETTINGS)
        drafted = treewright.generate(
            table(3), [1, 2], "token_recycling+first_finish", {"token_recycling.k": 3, "nodes": 12}, seed=seed, **SETTINGS
        )
        assert drafted.tokens == alone.tokens


def test_the_law_is_that_of_the_shortest_of_independent_texts(laws_of):
    """The law of the chosen text over all outcomes of two samples, beside the sum over pairs."""
    alone, found = laws_of("first_finish", {})
    expected: dict[tuple[int, ...], float] = {}
    for (one, p), (other, q) in itertools.product(alone.items(), repeat=2):
        chosen = min((one, other), key=lambda tokens: (tokens[-1] != 2, len(tokens)))
        expected[chosen] = expected.get(chosen, 0.0) + p * q
    assert found == pytest.approx(expected, abs=1e-12)


def test_only_an_end_is_a_finish(pool, chooser):
    cut = pool("a", "bb", "ccc", "dd", reasons=["budget", "length", "stop", "stop"])
    assert chooser("first_finish")(cut) == [3, 2, 1, 0]
    assert chooser("first_finish")(pool("aa", "b", "", reasons=["dead_end", "budget", "budget"])) == [0, 1, 2]


def test_the_majority_of_the_first_k(pool, chooser):
    five = pool("so it is 1", "is 2", "or 2", "is 1!", "1")
    assert chooser("first_finish", candidates=5, k=1)(five)[0] == 4
    assert chooser("first_finish", candidates=5, k=3)(five) == [1, 2, 4, 3, 0]
    assert chooser("first_finish", candidates=5, k=5)(five)[0] == 4


def test_k_of_n_equals_self_consistency_at_k_n(table):
    settings = dict(max_new_tokens=6, temperature=1.0, seed=1)
    ours = treewright.generate(table(), [1], "first_finish", {"candidates": 8, "k": 8}, n=8, **settings)
    theirs = treewright.generate(table(), [1], "self_consistency", {"candidates": 8}, n=8, **settings)
    stopped = {sample.finish_reason for sample in theirs.samples}
    assert ours.trace.notes["selection"]["given_up"] == 0 and "stop" in stopped


def test_as_many_as_were_asked_for_are_waited_for(table):
    for seed in range(4):
        plain = treewright.generate(table(), [1, 2], n=4, seed=seed, **SETTINGS)
        order = sorted(plain.samples, key=lambda s: (s.finish_reason != "stop", len(s.tokens)))
        two = treewright.generate(table(), [1, 2], "first_finish", n=2, seed=seed, **SETTINGS)
        if order[1].finish_reason == "stop":
            assert [sample.tokens for sample in two.samples] == [sample.tokens for sample in order[:2]]


def test_ragged_prompts_together_are_each_alone(table):
    prompts = [[1], [2, 3, 1, 4], [3, 3]]
    together = treewright.generate(table(), prompts, "first_finish", seed=4, **SETTINGS)
    for prompt, found in enumerate(together):
        samples = treewright.generate(table(), prompts, n=4, seed=4, **SETTINGS)[prompt].samples
        ended = [sample for sample in samples if sample.finish_reason == "stop"] or samples
        assert found.tokens == min(ended, key=lambda sample: len(sample.tokens)).tokens


def test_a_budget_returns_what_there_is(table):
    found = treewright.generate(table(9, 1), [1, 2], "first_finish", budget={"model_calls": 1}, seed=0, **SETTINGS)
    assert found.finish_reason in ("budget", "stop") and len(found.tokens) == 1
    waiting = treewright.generate(table(9, 1), [1], "first_finish", budget={"model_calls": 1}, batch_rows=1, **SETTINGS)
    assert len(waiting.tokens) == 1


@pytest.mark.parametrize("options", [{"k": 5}, {"k": 0}, {"candidates": 0}, {"k": 2, "answer": "["}])
def test_bad_options(table, options):
    with pytest.raises(UnknownOption):
        treewright.generate(table(), [1], "first_finish", options, temperature=1.0)
