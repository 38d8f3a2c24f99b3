"""Plain decoding against a loop over the table, and its verifier against drafters that are always right, wrong or silent."""

from __future__ import annotations

import numpy as np
import pytest

from treewright.core.claims import Forest
from treewright.core.randomness import DRAW, Keyed, inverse_cdf
from treewright.core.request import Sampling
from treewright.core.roles import Parts
from treewright.models.tables import Table
from treewright.parts.verify.rejection import Rejection
from treewright.parts.verify.sample_then_match import SampleThenMatch

TABLE = Table(6, seed=4, sharpness=2.0)
PROMPTS = [(1, 2, 3), (0,), (5, 5)]


class ChainDrafter:
    """Claims a chain of `length` tokens: the table's own greedy text, or at every place another token."""

    def __init__(self, right: bool, length: int) -> None:
        self.right, self.length = right, length

    def propose(self, round) -> None:
        token = np.zeros((round.rows, self.length), np.int64)
        for row in range(round.rows):
            text = round.text.of(row).tolist()
            for place in range(self.length):
                best = int(TABLE.logits(text).argmax())
                token[row, place] = best if self.right else (best + 1) % TABLE.vocabulary
                text.append(int(token[row, place]))
        round.forest.grow(range(self.length), token)


class EveryToken:
    """Claims all tokens, and all tokens after each of them: whatever is drawn was claimed."""

    def propose(self, round) -> None:
        size = TABLE.vocabulary
        every = np.broadcast_to(np.arange(size), (round.rows, size))
        first = round.forest.grow([0] * size, every)
        round.forest.grow([parent for parent in first for _ in range(size)], np.tile(every, (1, size)))


def test_greedy_is_the_largest_logit_again_and_again(decode, greedy_text):
    decoded = decode(TABLE, "plain", PROMPTS, max_new_tokens=15)
    assert decoded.tokens == [greedy_text(TABLE, prompt, 15) for prompt in PROMPTS]
    assert len({token for text in decoded.tokens for token in text}) > 3


def test_one_call_for_each_token(decode):
    trace = decode(TABLE, "plain", PROMPTS, max_new_tokens=15).trace()
    assert trace.model_calls == 15
    assert trace.tokens_per_call == 1
    assert all(step.token[1:] == [] and step.accepted == [] for step in trace.steps)


def test_sampling_draws_by_inverse_cdf_with_the_noise_of_the_position(decode):
    decoded = decode(TABLE, "plain", PROMPTS, max_new_tokens=12, sampling=Sampling(temperature=0.8, top_k=4), seed=9)
    noise = Keyed(9)
    for number, prompt in enumerate(PROMPTS):
        text = list(prompt)
        for _ in range(12):
            scaled = TABLE.logits(text) / 0.8
            scaled = np.where(scaled < np.sort(scaled)[-4], -np.inf, scaled)
            law = np.exp(scaled - scaled.max())
            text.append(inverse_cdf(law, noise.uniform((number, 0), len(text), DRAW)))
        assert decoded.tokens[number] == text[len(prompt) :]


@pytest.mark.parametrize("verifier", [SampleThenMatch, Rejection])
@pytest.mark.parametrize("length", [1, 2, 5])
def test_drafter_that_is_always_right(verifier, length, decode, greedy_text):
    parts = Parts(propose=ChainDrafter(True, length), verify=verifier(), claims=length + 1)
    decoded = decode(TABLE, parts, PROMPTS, max_new_tokens=20)
    assert decoded.tokens == [greedy_text(TABLE, prompt, 20) for prompt in PROMPTS]
    assert decoded.rounds() == -(-20 // (length + 1))


@pytest.mark.parametrize("verifier", [SampleThenMatch, Rejection])
def test_drafter_that_is_always_wrong(verifier, decode, greedy_text):
    decoded = decode(TABLE, Parts(propose=ChainDrafter(False, 4), verify=verifier(), claims=5), PROMPTS, max_new_tokens=10)
    assert decoded.tokens == [greedy_text(TABLE, prompt, 10) for prompt in PROMPTS]
    assert decoded.rounds() == 10
    assert decoded.accepted() == 0


@pytest.mark.parametrize("verifier", [SampleThenMatch, Rejection])
@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_drafter_that_says_nothing(verifier, temperature, decode):
    settings = dict(max_new_tokens=10, sampling=Sampling(temperature=temperature))
    silent = decode(TABLE, Parts(verify=verifier()), PROMPTS, **settings)
    assert silent.tokens == decode(TABLE, "plain", PROMPTS, **settings).tokens
    assert silent.rounds() == 10


@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_every_token_claimed_at_every_place(temperature, decode):
    """Sample-then-match emits plain decoding's own tokens, three at a time: two claims are always met."""
    settings = dict(max_new_tokens=18, sampling=Sampling(temperature=temperature))
    decoded = decode(TABLE, Parts(propose=EveryToken(), verify=SampleThenMatch(), claims=43), PROMPTS, **settings)
    assert decoded.tokens == decode(TABLE, "plain", PROMPTS, **settings).tokens
    assert [len(step.emitted) for step in decoded.trace().steps] == [3] * 6


@pytest.mark.parametrize("verifier", [SampleThenMatch, Rejection])
def test_end_of_text_inside_a_draft_ends_the_row(verifier, decode, greedy_text):
    expected = greedy_text(TABLE, PROMPTS[0], 20)
    end = expected[3]
    parts = Parts(propose=ChainDrafter(True, 6), verify=verifier(), claims=7)
    decoded = decode(TABLE, parts, PROMPTS[:1], max_new_tokens=20, eos_ids=(end,))
    assert decoded.tokens == [expected[: expected.index(end) + 1]]
    assert decoded.engine.finished[0, 0].finish == "stop"


def test_forest_of_plain_is_the_frontier():
    forest = Forest(np.array([4, 2]))
    assert forest.columns == 1
    assert forest.token.tolist() == [[4], [2]]
