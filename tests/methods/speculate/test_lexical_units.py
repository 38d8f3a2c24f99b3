"""Lexical Unit Decoding against its rule written down by itself, its limits, and its lossless form."""

from __future__ import annotations

from itertools import chain, pairwise
from typing import Any

import numpy as np
import pytest
import torch

import treewright
from treewright.core.errors import CompositionError, UnknownOption
from treewright.core.request import Budget, Request, Sampling
from treewright.methods.speculate.lexical_units import Config, parts
from treewright.models.loading import load
from treewright.models.tables import Table
from treewright.testing import laws
from treewright.testing.enumerate import Case, exact_law, total_variation

TABLE = Table(6, seed=1, order=3, sharpness=2.0)
PROMPTS = [(1, 2, 3), (0,), (5, 4)]
PAD = 2


def softmax(logits: np.ndarray) -> np.ndarray:
    weights = np.exp(logits - logits.max())
    return weights / weights.sum()


def laws_behind(text: list[int], window: int, bar: float, table: Table = TABLE) -> list[np.ndarray]:
    """The laws that a round draws from: behind the text, and behind ever more placeholders while all up to it are confident."""
    found = [softmax(table.logits([*text, *[PAD] * behind])) for behind in range(window)]
    sure = next((place for place, law in enumerate(found) if not law.max() > bar), window)
    return found[: max(1, sure)]


def rounds(prompt: tuple[int, ...], window: int, bar: float, count: int) -> list[list[int]]:
    text, written = list(prompt), []
    while len(text) < len(prompt) + count:
        room = len(prompt) + count - len(text)
        written.append([int(law.argmax()) for law in laws_behind(text, window, bar)][:room])
        text += written[-1]
    return written


@pytest.mark.parametrize("window", [1, 2, 4, 12])
@pytest.mark.parametrize("bar", [0.0, 0.5, 0.8, 1.0])
def test_rounds_are_those_of_the_rule(window: int, bar: float, decode: Any):
    options = {"window": window, "confidence": bar, "placeholder": PAD}
    decoded = decode(TABLE, "lexical_units", PROMPTS, options, max_new_tokens=30)
    for number, prompt in enumerate(PROMPTS):
        emitted = [step.emitted for step in decoded.trace(number).steps]
        assert emitted == rounds(prompt, window, bar, 30)
        assert bar not in (0, 1) or {len(tokens) for tokens in emitted[:-1]} == {window if bar == 0 else 1}


@pytest.mark.parametrize("options", [{"window": 5, "confidence": 1.0}, {"window": 1, "confidence": 0.0}], ids=str)
@pytest.mark.parametrize("temperature", [0.0, 0.8])
def test_one_token_a_round_is_plain_decoding(options: dict[str, Any], temperature: float, decode: Any):
    settings = dict(max_new_tokens=25, sampling=Sampling(temperature=temperature), seed=3)
    decoded = decode(TABLE, "lexical_units", PROMPTS, options, **settings)
    assert decoded.tokens == decode(TABLE, "plain", PROMPTS, **settings).tokens
    assert decoded.rounds() == 25


@pytest.mark.parametrize(("window", "bar"), [(2, 0.4), (3, 0.55), (3, 0.0)])
def test_the_law_above_temperature_0_is_that_of_the_rule(window: int, bar: float):
    table, most = Table(4, seed=3, order=2, sharpness=1.5), 4

    def by_rule(text: list[int], chance: float, law: dict[tuple[int, ...], float]) -> dict[tuple[int, ...], float]:
        found, texts = laws_behind(text, window, bar, table), [(text, chance)]
        if len(text) == len(PROMPTS[0]) + most:
            law[tuple(text[-most:])] = law.get(tuple(text[-most:]), 0.0) + chance
            return law
        for one in found[: len(PROMPTS[0]) + most - len(text)]:
            texts = [([*before, token], p * float(one[token])) for before, p in texts for token in range(4)]
        for longer, p in texts:
            by_rule(longer, p, law)
        return law

    request = Request(prompts=PROMPTS[:1], max_new_tokens=most, sampling=Sampling(temperature=1.0))
    case = Case(request, {"target": table}, lambda: parts(Config(window, bar, PAD)))
    law = exact_law(case)
    assert total_variation(law, by_rule(list(PROMPTS[0]), 1.0, {})) < 1e-12
    assert total_variation(law, laws.plain_law(case)) > 0.02, "a rule that is not plain decoding's"


def test_units_are_cut_at_stops_limits_and_budgets(decode: Any):
    options = {"window": 4, "confidence": 0.0, "placeholder": PAD}
    whole = decode(TABLE, "lexical_units", PROMPTS[:1], options, max_new_tokens=14)
    text = whole.tokens[0]
    assert [len(step.emitted) for step in whole.trace().steps] == [4, 4, 4, 2]
    assert [sum(token >= 0 for token in step.token) for step in whole.trace().steps] == [4, 4, 4, 2]
    for most in range(1, 14):
        assert decode(TABLE, "lexical_units", PROMPTS[:1], options, max_new_tokens=most).tokens == [text[:most]]
        cut = decode(TABLE, "lexical_units", PROMPTS[:1], options, max_new_tokens=14, budget=Budget(tokens=most))
        assert cut.tokens == [text[:most]]
    for stop in sorted(set(text)):
        stopped = decode(TABLE, "lexical_units", PROMPTS[:1], options, max_new_tokens=14, stop_ids=(stop,))
        assert stopped.tokens == [text[: text.index(stop) + 1]]


def test_no_placeholder_stands_where_its_prediction_has_no_room(round_of: Any):
    round = round_of([(1, 2), (3,), (4, 5, 6)], room=5)
    round.text.limit[:] -= [0, 3, 4]
    parts(Config(window=6)).propose.propose(round)
    assert (round.forest.token >= 0).sum(1).tolist() == [5, 2, 1]


def test_ends_too_early_are_not_written(decode: Any):
    options = {"window": 5, "confidence": 0.0, "placeholder": PAD}
    for end in range(6):
        found = decode(TABLE, "lexical_units", PROMPTS, options, max_new_tokens=20, min_new_tokens=8, stop_ids=(end,))
        assert all(end not in tokens[:8] and (len(tokens) == 20 or tokens[-1] == end) for tokens in found.tokens)


@pytest.mark.parametrize("options", [{"window": 4, "confidence": 0.3}, {"window": 3, "confidence": 0.0, "verify": True}], ids=str)
def test_rows_of_a_ragged_batch_are_those_rows_alone(options: dict[str, Any]):
    assert laws.row_independent("lexical_units", options | {"placeholder": PAD}).worst == 0


def test_a_large_batch_does_not_shorten_units(decode: Any):
    options = {"window": 6, "confidence": 0.0, "placeholder": PAD}
    found = decode(TABLE, "lexical_units", PROMPTS * 4, options, columns=12, max_new_tokens=18)
    assert found.tokens[:3] == [list(chain(*rounds(prompt, 6, 0.0, 18))) for prompt in PROMPTS]


def network_rounds(model: Any, prompt: list[int], window: int, bar: float, count: int) -> tuple[list[int], list[float]]:
    """The rule on a network, by forwards over the whole text: tokens and their log-probabilities."""
    text, logprobs = list(prompt), []
    while len(text) < len(prompt) + count:
        with torch.no_grad():
            logits = model(torch.tensor([[*text, *[PAD] * (window - 1)]]), use_cache=False).logits[0, -window:]
        scores = logits.log_softmax(-1)
        sure = next((place for place in range(window) if not scores[place].max().exp() > bar), window)
        kept = scores[: min(max(1, sure), len(prompt) + count - len(text))]
        text += kept.argmax(-1).tolist()
        logprobs += kept.max(-1).values.tolist()
    return text[len(prompt) :], logprobs


@pytest.mark.parametrize("family", ["llama", "gpt2"])
@pytest.mark.parametrize(("window", "bar"), [(3, 0.0), (4, 0.35), (24, 0.0)])
def test_networks_follow_the_rule(family: str, window: int, bar: float, deep: Any):
    """Written tokens reach the memory with the next round, those of a long unit in a forward of their own."""
    model, prompts = deep(family), [[3, 14, 15, 9, 26], [5], [35, 8, 9, 7, 9, 3]]
    options = {"window": window, "confidence": bar, "placeholder": PAD}
    found = treewright.generate(model, prompts, "lexical_units", options, max_new_tokens=30, logprobs=True)
    for prompt, result in zip(prompts, found, strict=True):
        tokens, logprobs = network_rounds(model.model, prompt, window, bar, 30)
        assert result.tokens == tokens
        assert result.samples[0].logprobs == pytest.approx(logprobs, abs=1e-6)
    kinds = {call.kind for call in found[0].trace.calls[3:]}
    assert kinds == ({"score", "prefill"} if window == 24 else {"score"})


def test_a_model_with_states_follows_the_rule(deep: Any):
    model = deep("mamba")
    options = {"window": 3, "confidence": 0.0, "placeholder": PAD}
    found = treewright.generate(model, [7, 8, 9], "lexical_units", options, max_new_tokens=20)
    assert found.tokens == network_rounds(model.model, [7, 8, 9], 3, 0.0, 20)[0]


@pytest.mark.parametrize("options", [{"window": 2, "confidence": 0.0}, {"window": 3, "confidence": 0.4}], ids=str)
def test_the_verified_form_is_lossless(options: dict[str, Any]):
    assert laws.lossless("lexical_units", options | {"verify": True, "placeholder": PAD}, claims=9).worst <= 1e-9


def test_verified_drafts_are_the_predictions_behind_placeholders(decode: Any, greedy_text: Any):
    """Wherever the last round ended, its claims are what stood behind its last accepted token and the placeholders."""
    options = {"window": 4, "confidence": 0.0, "placeholder": PAD, "verify": True}
    decoded = decode(TABLE, "lexical_units", PROMPTS, options, max_new_tokens=24)
    assert decoded.tokens == [greedy_text(TABLE, prompt, 24) for prompt in PROMPTS]
    assert decoded.accepted() > 0
    for number, prompt in enumerate(PROMPTS):
        text, steps = list(prompt), decoded.trace(number).steps
        for before, step in pairwise(steps):
            text += before.emitted
            if len(prompt) + 24 - len(text) > 8:
                behind = [int(TABLE.logits([*text[:-1], *[PAD] * pads]).argmax()) for pads in (1, 2, 3)]
                drafted = [token for token in step.token[1:4] if token >= 0]
                # A placeholder that was itself what the target says is accepted like any claim; fewer stand behind it.
                deepest = max(before.accepted, default=0)
                assert drafted == behind[: 3 - deepest // 4]
        assert [call.kind for call in decoded.trace(number).calls].count("score") == decoded.rounds(number) or number


def test_verified_drafts_end_before_what_is_not_confident(decode: Any):
    for bar in (0.5, 1.0):
        options = {"window": 4, "confidence": bar, "placeholder": PAD, "verify": True}
        steps = decode(TABLE, "lexical_units", PROMPTS[:1], options, max_new_tokens=30).trace().steps
        drafted = {sum(token >= 0 for token in step.token[1:4]) for step in steps}
        assert drafted == {0} if bar == 1 else {0} < drafted


@pytest.mark.parametrize(("columns", "width"), [(3, 1), (4, 4), (8, 4), (9, 9), (100, 16)])
def test_a_limit_on_columns_shrinks_the_verified_window(columns: int, width: int, decode: Any, greedy_text: Any):
    options = {"window": 4, "confidence": 0.0, "placeholder": PAD, "verify": True}
    decoded = decode(TABLE, "lexical_units", PROMPTS[:1], options, columns=columns, max_new_tokens=12)
    assert {len(step.token) for step in decoded.trace().steps} == {width}
    assert decoded.tokens == [greedy_text(TABLE, PROMPTS[0], 12)]


def test_verified_networks_say_what_plain_decoding_says(says_what_plain_says: Any):
    says_what_plain_says("lexical_units", {"window": 3, "confidence": 0.0, "placeholder": PAD, "verify": True})


def test_what_placeholders_hide_is_refused_and_verified_is_not():
    model, options = load(TABLE), {"window": 3, "placeholder": PAD}
    for method, settings in (("lexical_units", {"repetition_penalty": 1.2}), ("lexical_units+momentum", {})):
        with pytest.raises(CompositionError, match="placeholders hide"):
            treewright.generate(model, [1], method, options, max_new_tokens=3, **settings)
    with pytest.raises(CompositionError, match="no drafts but its definition"):
        treewright.generate(model, [1], "lexical_units+typical_acceptance", options, max_new_tokens=3)
    settings = dict(max_new_tokens=12, repetition_penalty=1.3)
    verified = treewright.generate(model, [1], "lexical_units", options | {"verify": True, "confidence": 0.0}, **settings)
    assert verified.tokens == treewright.generate(model, [1], **settings).tokens


@pytest.mark.parametrize("options", [{"window": 0}, {"confidence": -0.1}, {"placeholder": -1}, {"placeholder": 6}], ids=str)
def test_bad_options_are_refused(options: dict[str, Any]):
    with pytest.raises(UnknownOption, match=next(iter(options))):
        treewright.generate(load(TABLE), [1], "lexical_units", options, max_new_tokens=2)
