"""DEL: the choice of the exit against brute force, counters against a second account kept by hand."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import treewright
from treewright.core.claims import ABSENT
from treewright.core.errors import CapabilityError, InputError, UnknownOption
from treewright.core.request import Sampling
from treewright.core.session import Capabilities
from treewright.methods.speculate.del_exit import Config, DynamicExit, ExitStatistics, tokens_per_layer
from treewright.models.tables import Table
from treewright.testing import laws

TABLE = Table(6, seed=7, sharpness=2.0)
PROMPTS = [(1, 0), (3,), (5, 2, 4, 0)]


def by_brute_force(alpha: list[float], layers: int, lengths: int) -> tuple[int, int, float]:
    """(exit, length, tokens per layer), the first of the best."""
    best = (1, 0, -np.inf)
    for exit, share in enumerate(alpha, start=1):
        for length in range(lengths):
            value = sum(share**power for power in range(length + 1)) / (length * exit + layers)
            if value > best[2] + 1e-12:
                best = (exit, length, value)
    return best


@pytest.mark.parametrize("seed", range(12))
def test_exit_and_length_of_the_most_tokens_per_layer(seed: int):
    chance = np.random.default_rng(seed)
    layers = int(chance.integers(2, 20))
    right = chance.integers(1, 30, layers - 1)
    exits = ExitStatistics(np.stack([chance.integers(1, 9, layers - 1), right]).astype(float), np.ones((2, layers - 1)))
    exits.choose(layers, 18)
    alpha = right / exits.counts.sum(axis=0)
    exit, length, value = by_brute_force(alpha.tolist(), layers, 18)
    assert (exits.exit, exits.length) == (exit, length)
    assert tokens_per_layer(alpha, layers, 18)[exit - 1, length] == pytest.approx(value)


def test_an_exit_that_is_always_right_and_one_that_never_is():
    value = tokens_per_layer(np.array([0.0, 1.0, np.nan]), 4, 5)
    assert value[0].tolist() == [1 / 4, 1 / 5, 1 / 6, 1 / 7, 1 / 8]
    assert value[1].tolist() == [1 / 4, 2 / 6, 3 / 8, 4 / 10, 5 / 12]
    assert (value[2] == -np.inf).all()


def test_counters_by_hand():
    exits = ExitStatistics.of(2)
    assert not exits.begun
    exits.choose(3, 18)
    assert (exits.exit, exits.length) == (1, 1)
    exits.learn(np.array([[True, True], [False, True]]), np.array([[0.9, 0.8], [0.3, 0.6]]), omega=0.5)
    exits.learn(np.array([[False, True]]), np.array([[0.2, 0.4]]), omega=0.5)
    assert exits.counts.tolist() == [[1.5, 0.0], [0.5, 2.0]]
    assert exits.sureness == pytest.approx(np.array([[0.35, 0.0], [0.45, 1.1]]))
    exits.exit = 1
    assert exits.threshold == pytest.approx((0.35 / 1.5 + 0.9) / 2)
    exits.exit = 2
    assert np.isnan(exits.threshold)


def softmax(logits: np.ndarray) -> np.ndarray:
    weights = np.exp(logits - logits.max())
    return weights / weights.sum()


class Account:
    """A row's rounds told once more, in plain Python over the table."""

    def __init__(self, config: Config) -> None:
        self.config, self.exit, self.length = config, 1, 1
        self.counts = {(layer, right): [0.0, 0.0] for layer in range(1, 8) for right in (False, True)}
        self.rounds = 0

    def drafts(self, text: list[int], room: int) -> list[int]:
        if self.rounds:
            pairs = [(self.counts[layer, True][0], self.counts[layer, False][0]) for layer in range(1, 8)]
            shares = [right / (right + wrong) for right, wrong in pairs]
            self.exit, self.length, _ = by_brute_force(shares, 8, self.config.tokens)
        wrong, right = self.counts[self.exit, False], self.counts[self.exit, True]
        limit = (wrong[1] / wrong[0] + right[1] / right[0]) / 2 if wrong[0] and right[0] else -1.0
        found: list[int] = []
        most = 1 if not self.rounds else self.length if self.config.stop == "length" else self.config.tokens
        while len(found) < min(most, room):
            law = softmax(TABLE.exit_logits([*text, *found], self.exit))
            found.append(int(law.argmax()))
            if self.config.stop == "confidence" and law.max() < limit:
                break
        return found

    def learn(self, text: list[int], drafts: list[int]) -> None:
        for count in self.counts.values():
            count[0], count[1] = count[0] * self.config.omega, count[1] * self.config.omega
        for place in range(len(drafts) + 1):
            prefix = [*text, *drafts[:place]]
            truth = int(TABLE.logits(prefix).argmax())
            for layer in range(1, 8):
                law = softmax(TABLE.exit_logits(prefix, layer))
                count = self.counts[layer, bool(law.argmax() == truth)]
                count[0], count[1] = count[0] + 1, count[1] + law.max()
            if TABLE.exit_logits(prefix, self.exit).argmax() != truth:
                break
        self.rounds += 1


@pytest.mark.parametrize("stop", ["confidence", "length"])
def test_rounds_are_those_of_an_account_by_hand(stop: Any, decode: Any):
    config = Config(tokens=5, omega=0.8, stop=stop)
    options = {"tokens": 5, "omega": 0.8, "stop": stop}
    decoded = decode(TABLE, "del_exit", PROMPTS, options, max_new_tokens=40)
    exits: set[int] = set()
    for row, prompt in enumerate(PROMPTS):
        account, text = Account(config), list(prompt)
        for step in decoded.trace(row).steps:
            drafts = account.drafts(text, len(prompt) + 40 - len(text) - 1)
            assert [token for token in step.token[1:] if token != ABSENT] == drafts
            account.learn(text, drafts)
            exits.add(account.exit)
            text += step.emitted
    assert len(exits) > 2


def test_layers_run_by_each_call(decode: Any, watcher: Any):
    """A draft runs its exit's layers, in a batch of one; the first round drafts one token with one layer."""
    exits: list[float] = []

    def look(outcome: Any) -> None:
        learnt = outcome.round.memories.row((0, 0), "del_exit", lambda: ExitStatistics.of(7))
        exits.extend([learnt.exit / 8] * (outcome.round.forest.columns - 1))

    # The observer before the method's own would be told first; the exit of a round is settled when it is proposed.
    decoded = decode(TABLE, "del_exit", [PROMPTS[0]], {"tokens": 4}, observers=[watcher(look)], max_new_tokens=30)
    calls = decoded.trace().calls
    assert [call.share for call in calls if call.kind == "sketch"] == exits
    assert [call.kind for call in calls][:2] == ["sketch", "score"] and calls[0].share == 1 / 8
    assert {call.share for call in calls if call.kind == "score"} == {1.0}


def test_rows_alone_draft_as_in_a_batch(decode: Any):
    settings = dict(max_new_tokens=20, sampling=Sampling(0.8), seed=5)
    batch = decode(TABLE, "del_exit", PROMPTS, {"tokens": 4}, **settings)
    for row, prompt in enumerate(PROMPTS[:1]):
        alone = decode(TABLE, "del_exit", [prompt], {"tokens": 4}, **settings)
        assert alone.tokens[0] == batch.tokens[row]
        ours = [[token for token in step.token if token != ABSENT] for step in batch.trace(row).steps]
        assert [step.token for step in alone.trace().steps] == ours


@pytest.mark.parametrize("options", [{"tokens": 2, "stop": "length"}, {"tokens": 2, "omega": 0.0}], ids=str)
def test_the_law_holds_under_other_options(options: dict[str, Any]):
    assert laws.lossless("del_exit", options).worst <= 1e-9


def test_greedy_text_of_networks_is_that_of_plain_decoding(says_what_plain_says: Any):
    says_what_plain_says("del_exit", {"tokens": 6})


def test_bad_options_are_one_sentence(deep: Any):
    for options in ({"tokens": 0}, {"omega": 1.5}, {"stop": "never"}):
        with pytest.raises((InputError, UnknownOption), match=next(iter(options))):
            treewright.generate(deep("llama"), [1, 2], "del_exit", options)
    with pytest.raises(CapabilityError, match=r"the model has 1; give one with 2 or more"):
        DynamicExit(Config()).fits(Capabilities(layers=1))


def test_a_model_without_layers_is_refused(deep: Any):
    with pytest.raises(CapabilityError, match="needs layers"):
        treewright.generate(deep("mamba"), [1, 2], "del_exit")
