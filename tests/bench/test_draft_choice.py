"""The cost model beside simulations, brute force and the engine's own rounds."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest

from treewright.api import Loaded, generate, load
from treewright.bench.draft_choice import Draft, best, expected_tokens, matches, replay, required_alpha, throughput
from treewright.core.errors import InputError

COSTS = {1: 0.010, 2: 0.0104, 8: 0.012, 16: 0.016, 32: 0.030}
GAMMAS = range(32)


@pytest.mark.parametrize(("alpha", "gamma"), [(0.2, 1), (0.7, 4), (0.9, 12)])
def test_the_formulas_are_what_a_simulation_finds(alpha: float, gamma: int) -> None:
    count = 40_000
    accepted = np.random.default_rng(7).random((count, gamma)) < alpha
    tokens = 1 + np.cumprod(accepted, axis=1).sum(axis=1)
    # A round is 1 + min(G, gamma) with G geometric; five standard errors of its exact variance.
    law = [alpha**got * (1 - alpha if got < gamma else 1.0) for got in range(gamma + 1)]
    mean = sum((1 + got) * chance for got, chance in enumerate(law))
    variance = sum((1 + got - mean) ** 2 * chance for got, chance in enumerate(law))
    error = 5 * math.sqrt(variance / count)
    assert expected_tokens(alpha, gamma) == pytest.approx(mean, abs=1e-12)
    assert expected_tokens(alpha, gamma) == pytest.approx(tokens.mean(), abs=error)
    seconds = count * (gamma * 0.002 + np.interp(gamma + 1, list(COSTS), list(COSTS.values())))
    relative = error / mean
    assert throughput(Draft("d", 0.002, alpha), gamma, COSTS) == pytest.approx(
        tokens.sum() / seconds, rel=relative / (1 - relative)
    )


def test_closed_limits() -> None:
    for gamma in range(9):
        assert expected_tokens(0.0, gamma) == 1 and expected_tokens(1.0, gamma) == gamma + 1
        assert expected_tokens(0.6, gamma) == pytest.approx((1 - 0.6 ** (gamma + 1)) / (1 - 0.6), abs=1e-12)
    # No drafts is plain decoding, whatever the draft costs.
    assert throughput(Draft("d", 3.0, 0.5), 0, COSTS) == 1 / COSTS[1]
    none = best([Draft("d", 0.002, 0.0)], COSTS, GAMMAS)
    assert (none.gamma, none.tokens_per_round, none.ratio) == (0, 1.0, 1.0)
    sure = best([Draft("d", 0.0, 1.0)], {1: 1.0, 32: 1.0}, GAMMAS)
    assert (sure.gamma, sure.ratio) == (31, 32.0)


def test_a_draft_pays_where_its_acceptance_is_more_than_its_share_of_a_call() -> None:
    """One draft where claims cost nothing: (1 + alpha) / (1 + c) > 1 iff alpha > c."""
    flat = {1: 1.0, 8: 1.0}
    for share in (0.1, 0.5, 0.9):
        assert best([Draft("d", share, share + 0.01)], flat, range(8)).gamma > 0
        assert best([Draft("d", share, share - 0.01)], flat, range(8)).gamma == 0


def test_the_best_is_what_brute_force_finds() -> None:
    random = np.random.default_rng(3)
    for _ in range(30):
        drafts = [Draft(str(number), random.uniform(0, 0.006), random.random()) for number in range(3)]
        chosen = best(drafts, COSTS, GAMMAS)
        every = {}
        for one, gamma in itertools.product(drafts, GAMMAS):
            tokens = sum(one.alpha**k for k in range(gamma + 1))
            every[one.name, gamma] = tokens / (gamma * one.seconds + np.interp(gamma + 1, list(COSTS), list(COSTS.values())))
        name, gamma = max(every, key=lambda key: every[key])
        assert (chosen.draft.name, chosen.gamma) == (name, gamma)
        assert chosen.tokens_per_second == pytest.approx(every[name, gamma])
        assert chosen.ratio == pytest.approx(every[name, gamma] * COSTS[1])


def test_latency_decides_before_quality() -> None:
    """The paper's finding: a draft that is accepted less but is faster wins."""
    deep, wide = Draft("deep", 0.005, 0.8), Draft("wide", 0.001, 0.7)
    assert best([deep, wide], COSTS, GAMMAS).draft is wide


@pytest.mark.parametrize("seconds", [0.0, 0.001, 0.004])
@pytest.mark.parametrize("alpha", [0.55, 0.8, 0.97])
def test_required_alpha_inverts_the_promise(seconds: float, alpha: float) -> None:
    gain = best([Draft("d", seconds, alpha)], COSTS, GAMMAS).ratio
    assert gain > 1
    assert required_alpha(gain, seconds, COSTS, GAMMAS) == pytest.approx(alpha, abs=1e-6)
    (one_gamma,) = {best([Draft("d", seconds, alpha)], COSTS, [4]).ratio}
    assert required_alpha(one_gamma, seconds, COSTS, [4]) == pytest.approx(alpha, abs=1e-6)


def test_required_alpha_at_its_ends() -> None:
    assert required_alpha(1.0, 0.002, COSTS, GAMMAS) == 0.0
    most = best([Draft("d", 0.002, 1.0)], COSTS, GAMMAS).ratio
    assert required_alpha(most, 0.002, COSTS, GAMMAS) == pytest.approx(1.0, abs=1e-6)
    with pytest.raises(
        InputError, match=rf"a gain of 9 is out of reach for a draft of 2 ms a call: .* would be {most:.2f}; give"
    ):
        required_alpha(9, 0.002, COSTS, GAMMAS)


def test_bad_input() -> None:
    with pytest.raises(InputError, match=r"alpha of draft 'd' is 1\.2; allowed: a number from 0 to 1"):
        Draft("d", 0.1, 1.2)
    with pytest.raises(InputError, match="seconds of draft 'd' is nan; allowed: a number >= 0"):
        Draft("d", math.nan, 0.2)
    with pytest.raises(InputError, match=r"alpha is -0\.1; allowed"):
        expected_tokens(-0.1, 2)
    with pytest.raises(InputError, match="gamma is -1; allowed: an integer >= 0"):
        expected_tokens(0.1, -1)
    with pytest.raises(InputError, match=r"no cost is known for 41 claims; measured: 1, 2, 8, 16, 32"):
        throughput(Draft("d", 0.1, 0.2), 40, COSTS)
    with pytest.raises(InputError, match=r"the list of drafts is \[\]; allowed: at least one"):
        best([], COSTS, GAMMAS)
    with pytest.raises(InputError, match=r"the list of gammas is \[\]; allowed: at least one"):
        best([Draft("d", 0.1, 0.2)], COSTS, [])
    with pytest.raises(InputError, match="gain is 0; allowed: a number > 0"):
        required_alpha(0, 0.1, COSTS, GAMMAS)
    with pytest.raises(InputError, match="gamma is -2; allowed"):
        replay([1], [2], lambda text, count: [], -2)


def test_matches_are_counted_up_to_the_first_that_differs() -> None:
    assert matches([1, 2, 9, 4], [1, 2, 3, 4]) == 2
    assert matches([], [1]) == 0 and matches([1, 2], [1, 2, 3]) == 2 and matches([5], [1]) == 0


def test_replay_by_hand() -> None:
    text = [1, 2, 3, 4, 5, 6, 7]
    assert replay([0], text, lambda known, count: text[len(known) - 1 :][:count], 3) == [4, 3]
    assert replay([0], text, lambda known, count: [9] * count, 3) == [1] * 7
    assert replay([0], text, lambda known, count: text[len(known) - 1 :][:count], 0) == [1] * 7
    assert replay([0], [], lambda known, count: [], 3) == []


@pytest.mark.parametrize("gamma", [1, 3, 6])
def test_replay_finds_the_rounds_that_decoding_makes(gamma: int) -> None:
    """A draft beside which the target was never asked: the same rounds as the engine's, round by round."""
    target, draft = load("random:tiny"), load("random:tiny")
    _spoil(draft)
    settings = {"max_new_tokens": 40, "ignore_eos": True}
    asked = []

    def propose(text, count):
        asked.append(count)
        return generate(draft, list(text), max_new_tokens=count, ignore_eos=True).tokens

    for prompt in ([5, 9, 2], [70, 3]):
        recorded = generate(target, prompt, **settings).tokens
        decoded = generate(target, prompt, "speculative_sampling", {"tokens": gamma}, {"draft": draft}, **settings)
        found = replay(prompt, recorded, propose, gamma)
        assert found == [len(step.emitted) for step in decoded.trace.steps]
        assert sum(found) == 40 and max(found) > 1
    assert max(asked) == gamma


def _spoil(loaded: Loaded) -> None:
    """Weights a little off, so that some drafts are accepted and some are not."""
    import torch

    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for weights in loaded.model.parameters():
            weights += 0.05 * weights.std() * torch.randn(weights.shape, generator=generator) if weights.dim() > 1 else 0
