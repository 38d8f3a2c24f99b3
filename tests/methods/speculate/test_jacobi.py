"""Jacobi decoding against the iteration written down by itself."""

from __future__ import annotations

import pytest

from treewright.core.request import Sampling
from treewright.models.tables import Table

TABLE = Table(6, seed=1, order=2, sharpness=2.0)
PROMPTS = [(1, 2, 3), (0,), (5, 4)]


def iterated(prompt: tuple[int, ...], block: int, count: int) -> list[list[int]]:
    """What each round of the moving-block Jacobi iteration emits: y[i] = argmax p(. | text, y[<i]) for the whole block at
    once; the part in front that did not change is final, and the first changed place with it."""
    text, guess, rounds = list(prompt), [], []
    while len(text) - len(prompt) < count:
        guess = (guess + [text[-1]] * block)[:block]
        new = [int(TABLE.logits([*text, *guess[:i]]).argmax()) for i in range(block + 1)]
        kept = next((i for i in range(block) if guess[i] != new[i]), block)
        rounds.append(new[: kept + 1])
        text += new[: kept + 1]
        guess = new[kept + 1 :]
    return rounds


@pytest.mark.parametrize("block", [1, 2, 3, 7])
def test_rounds_are_those_of_the_iteration(block, decode):
    decoded = decode(TABLE, "jacobi", PROMPTS, {"block": block}, max_new_tokens=40)
    for number, prompt in enumerate(PROMPTS):
        emitted = [step.emitted for step in decoded.trace(number).steps]
        expected = iterated(prompt, block, 40)
        # Near the limit the block is cut, so the last rounds may be told apart; their text may not.
        whole = [step for step in emitted if step][: len(expected) - block]
        assert whole == expected[: len(whole)]
        assert decoded.tokens[number] == [token for tokens in expected for token in tokens][:40]


@pytest.mark.parametrize("block", [1, 2, 3, 8])
def test_text_is_greedy_and_rounds_are_at_most_tokens(block, decode, greedy_text):
    decoded = decode(TABLE, "jacobi", PROMPTS, {"block": block}, max_new_tokens=30)
    assert decoded.tokens == [greedy_text(TABLE, prompt, 30) for prompt in PROMPTS]
    for number in range(3):
        assert decoded.rounds(number) <= 30
        assert all(step.emitted for step in decoded.trace(number).steps)


def test_whole_blocks_once_the_guess_is_a_fixed_point(decode):
    """This table's text soon stays at one token, which the block then holds in every place."""
    decoded = decode(Table(5, seed=0, order=1), "jacobi", [(1,)], {"block": 5}, max_new_tokens=40)
    assert [len(step.emitted) for step in decoded.trace().steps[4:7]] == [6] * 3


def test_block_is_cut_by_the_limit_on_columns(decode, greedy_text):
    decoded = decode(TABLE, "jacobi", PROMPTS, {"block": 9}, columns=12, max_new_tokens=12)
    assert decoded.tokens == [greedy_text(TABLE, prompt, 12) for prompt in PROMPTS]
    assert {len(step.token) for step in decoded.trace().steps[:3]} == {4}


def test_one_call_a_round(decode):
    trace = decode(TABLE, "jacobi", PROMPTS[:1], max_new_tokens=20).trace()
    assert [call.kind for call in trace.calls] == ["score"] * len(trace.steps)


def test_sampled_tokens_are_those_of_plain_sampling(decode):
    settings = dict(max_new_tokens=30, sampling=Sampling(temperature=1.0), seed=4)
    decoded = decode(TABLE, "jacobi", PROMPTS, {"block": 4}, **settings)
    assert decoded.tokens == decode(TABLE, "plain", PROMPTS, **settings).tokens
    assert decoded.accepted() > 0
