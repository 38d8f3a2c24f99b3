"""The equality rule over many texts: identical, excused by a margin within the noise, or broken."""

from __future__ import annotations

import json
from collections.abc import Sequence

import numpy as np
import pytest
import torch

from treewright.api import Loaded, generate, load
from treewright.bench.equality import Equality, Referee, Replay, change_of

PROMPTS = [[5, 6, 7, 8], [40, 41, 42]]


def greedy(loaded: Loaded, tokens: int = 20) -> list[list[int]]:
    results = generate(loaded, PROMPTS, max_new_tokens=tokens, ignore_eos=True, batch_rows=1)
    return [result.tokens for result in results]  # type: ignore[union-attr]


@pytest.fixture(scope="module")
def rough(model_folder) -> Loaded:
    return load(model_folder, dtype="bfloat16")


@pytest.fixture(scope="module")
def texts(rough: Loaded) -> list[list[int]]:
    return greedy(rough)


def other(logits: np.ndarray, place: int) -> int:
    """The token of the place-th largest logit."""
    return int(np.argsort(logits)[-place])


def changed(tokens: Sequence[int], index: int, token: int) -> list[int]:
    return [*tokens[:index], token, *tokens[index + 1 :]]


def test_a_replay_chooses_the_reference_again(rough: Loaded, texts: list[list[int]]) -> None:
    replay = Referee(rough, PROMPTS, texts).replay(1)
    assert replay.logits.argmax(-1).tolist() == texts[1]
    assert 0 <= replay.change < 1 and 0 <= replay.peer_change < 1


def test_all_forwards_agree_in_float64(model_folder) -> None:
    exact = load(model_folder, dtype="float64")
    replay = Referee(exact, PROMPTS, greedy(exact)).replay(0)
    assert replay.change < 1e-10 and replay.peer_change < 1e-10


def test_the_change_is_that_of_the_distance_of_the_two_best() -> None:
    one = np.array([[0.0, 5.0, 3.0], [1.0, 0.0, 4.0]])
    same_shift = one + 7.0
    assert change_of(one, same_shift) == pytest.approx(0.0)
    assert change_of(one, one + np.array([[9.0, 0.0, 0.5], [0.25, 9.0, 0.0]])) == pytest.approx(0.5)


def test_equal_texts_pass(rough: Loaded, texts: list[list[int]]) -> None:
    referee = Referee(rough, PROMPTS, texts)
    assert referee.judge(1, list(texts[1]), peer=False) is None
    assert referee._replays == {}


def test_in_an_exact_dtype_nothing_is_excused(tiny: Loaded) -> None:
    texts = greedy(tiny)
    referee = Referee(tiny, PROMPTS, texts)
    parted = referee.judge(0, changed(texts[0], 6, (texts[0][6] + 1) % 300), peer=True)
    assert parted is not None and not parted.divergence.excused and parted.divergence.index == 6
    assert json.loads(json.dumps(parted.to_json(), allow_nan=False))["margin"] is None
    assert referee._replays == {}


def test_a_margin_within_the_noise_is_excused(rough: Loaded, texts: list[list[int]], monkeypatch: pytest.MonkeyPatch) -> None:
    referee = Referee(rough, PROMPTS, texts)
    logits = referee.replay(0).logits[3]
    second, third = other(logits, 2), other(logits, 3)
    between = float(logits.max() - (logits[second] + logits[third]) / 2)
    monkeypatch.setattr(referee, "noise", lambda prompt, peer: between)
    near, far = (referee.judge(0, changed(texts[0], 3, token), peer=False) for token in (second, third))
    assert near is not None and near.divergence.excused
    assert near.divergence.margin == pytest.approx(float(logits.max() - logits[second]))
    assert far is not None and not far.divergence.excused


def test_a_text_that_ends_early_or_late_is_broken(rough: Loaded, texts: list[list[int]]) -> None:
    referee = Referee(rough, PROMPTS, texts)
    short, long = (referee.judge(0, tokens, peer=False) for tokens in (texts[0][:-1], [*texts[0], 3]))
    assert short is not None and (short.divergence.index, short.divergence.found) == (19, None)
    assert long is not None and (long.divergence.index, long.divergence.expected) == (20, None)
    assert not short.divergence.excused and not long.divergence.excused


def test_noise_is_the_largest_over_texts_and_only_peers_have_theirs(rough: Loaded, texts: list[list[int]]) -> None:
    referee = Referee(rough, PROMPTS, texts)
    nothing = torch.zeros(1, 1).numpy()
    referee._replays = {0: Replay(nothing, 0.1, 0.4), 1: Replay(nothing, 0.2, 0.05)}
    assert referee.noise(0, peer=False) == 0.2
    assert referee.noise(1, peer=True) == 0.4


def test_the_tally(tiny: Loaded) -> None:
    texts = greedy(tiny)
    parted = Referee(tiny, PROMPTS, texts).judge(0, texts[1], peer=False)
    assert parted is not None
    assert Equality(rows=2).equal and not Equality(2, [parted]).equal
