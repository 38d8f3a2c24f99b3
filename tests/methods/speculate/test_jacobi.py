"""Jacobi decoding against the iteration written down by itself."""

from __future__ import annotations

from typing import Any

import pytest

import treewright
from treewright.core.claims import ABSENT
from treewright.core.errors import InputError, UnknownOption
from treewright.core.request import Sampling
from treewright.methods.speculate.jacobi import Config
from treewright.models.tables import Table
from treewright.testing import laws

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


@pytest.mark.parametrize("mode", ["sliding", "blocks"])
def test_sampled_tokens_are_those_of_plain_sampling(mode, decode):
    settings = dict(max_new_tokens=30, sampling=Sampling(temperature=1.0), seed=4)
    decoded = decode(TABLE, "jacobi", PROMPTS, {"block": 4, "mode": mode}, **settings)
    assert decoded.tokens == decode(TABLE, "plain", PROMPTS, **settings).tokens
    assert decoded.accepted() > 0


def parallel_jacobi(text: list[int], length: int, initial: int | None) -> list[tuple[list[int], list[int]]]:
    """The paper's iteration of `length` positions behind a text, y[i] = argmax p(. | text, y[<i]) for all i at once, until what
    each position reads is known to stay: for each iteration what was guessed of places not yet final, and what became final."""
    guess = [text[-1] if initial is None else initial] * length
    final, iterations = 0, []
    while final < length:
        new = [int(TABLE.logits([*text, *guess[:i]]).argmax()) for i in range(length)]
        same = next((i for i in range(length) if guess[i] != new[i]), length)
        # The place that changed first had read nothing but final ones.
        iterations.append((guess[final : length - 1], new[final : same + 1]))
        guess, final = new, min(length, same + 1)
    return iterations


@pytest.mark.parametrize("initial", [None, 4])
@pytest.mark.parametrize("block", [1, 2, 5, 24, 30])
def test_blocks_are_iterated_one_after_another(block, initial, decode):
    """A block as long as the text, or longer, is parallel Jacobi; a block of one position guesses nothing."""
    options = {"mode": "blocks", "block": block, "initial": initial}
    decoded = decode(TABLE, "jacobi", PROMPTS, options, max_new_tokens=24)
    for number, prompt in enumerate(PROMPTS):
        text, expected = list(prompt), []
        while len(text) < len(prompt) + 24:
            iterations = parallel_jacobi(text, min(block, len(prompt) + 24 - len(text)), initial)
            expected += iterations
            text += [token for _, final in iterations for token in final]
        steps = [step for step in decoded.trace(number).steps if step.emitted]
        assert [([t for t in step.token[1:] if t != ABSENT], step.emitted) for step in steps] == expected
        assert [token for _, final in expected for token in final] == decoded.tokens[number]
        assert block < 5 or len(expected) < 24


def test_blocks_of_one_position_are_plain_decoding_call_for_call(decode):
    blocks, plain = (
        decode(TABLE, method, PROMPTS, options, max_new_tokens=20)
        for method, options in (("jacobi", {"mode": "blocks", "block": 1}), ("plain", {}))
    )
    for number in range(3):
        calls = [[(call.model, call.kind, call.columns) for call in one.trace(number).calls] for one in (blocks, plain)]
        assert calls[0] == calls[1]
        assert blocks.trace(number).steps == plain.trace(number).steps


@pytest.mark.parametrize("options", [{"mode": "blocks", "block": 7}, {"initial": 2}, {"mode": "blocks", "initial": 0}], ids=str)
@pytest.mark.parametrize("columns", [None, 9, 3])
def test_every_form_writes_the_greedy_text(options, columns, decode, greedy_text):
    decoded = decode(TABLE, "jacobi", PROMPTS, options, columns=columns, max_new_tokens=30)
    assert decoded.tokens == [greedy_text(TABLE, prompt, 30) for prompt in PROMPTS]
    assert all(step.emitted for number in range(3) for step in decoded.trace(number).steps)
    for number, prompt in enumerate(PROMPTS):
        assert columns or decode(TABLE, "jacobi", [prompt], options, max_new_tokens=30).rounds(0) == decoded.rounds(number)


def test_laws_hold():
    for options in ({"mode": "blocks", "block": 3}, {"initial": 0}):
        assert laws.lossless("jacobi", options).total("accepted") > 0


@pytest.mark.parametrize(
    ("options", "match"),
    [({"block": 0}, "block is 0"), ({"mode": "hybrid"}, "mode is hybrid"), ({"initial": -1}, "initial is -1")],
)
def test_bad_options(options: dict[str, Any], match: str):
    with pytest.raises(InputError, match=match):
        Config(**options)


def test_an_initial_token_that_the_model_lacks_is_refused():
    with pytest.raises(UnknownOption, match=r"option 'initial' is 6; allowed: a token id from 0 to 5"):
        treewright.generate(treewright.load(TABLE), [1, 2], "jacobi", {"initial": 6}, max_new_tokens=2)
