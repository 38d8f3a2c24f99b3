"""DoLa against its formulas and a loop of bare forwards, its identities, and drafters and constraints with it."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from treewright.core.errors import InputError
from treewright.core.exits import Others
from treewright.core.request import Sampling
from treewright.core.roles import Parts
from treewright.methods.steer.dola import Config, DoLa, bucket, parts
from treewright.models.tables import Table
from treewright.parts.verify.sample_then_match import SampleThenMatch
from treewright.testing.bench import Fence
from treewright.testing.definition import plain_law
from treewright.testing.enumerate import exact_law, total_variation

PROMPTS = [[5, 9, 2, 5, 9], [1], [3, 3, 8, 40, 17, 2, 11]]
NORM = {"llama": "model.norm", "gpt2": "transformer.ln_f"}
HEAVY = Sampling(0.0, repetition_penalty=1.2)
NOWHERE = np.array([0]), (0, 0)


def softmax(logits):
    weights = np.exp(logits - logits.max())
    return weights / weights.sum()


def kl(p, q):
    return float((p * np.log(p / q)).sum())


def jensen_shannon(p, q):
    middle = (p + q) / 2
    return kl(p, middle) / 2 + kl(q, middle) / 2


def released(p, q):
    middle = (p + q) / 2
    return kl(middle, p) + kl(middle, q)


DIVERGENCE = {"jensen_shannon": jensen_shannon, "released": released}


def by_formula(final, early, alpha, divergence):
    """Scores [V] and the place of the premature layer among `early`."""
    p, laws = softmax(final), [softmax(logits) for logits in early]
    farthest = int(np.argmax([DIVERGENCE[divergence](p, q) for q in laws]))
    return np.where(p >= alpha * p.max() * (1 - 1e-12), np.log(p) - np.log(laws[farthest]), -np.inf), farthest


def with_layers(*rows):
    """Exit layers whose logits are these rows, the last one the model's own; without a norm they are twice as large."""
    rows = np.array(rows)
    return Others({}, len(rows) - 1, lambda layers, norm: rows[list(layers)] * (1 if norm else 2))


@pytest.mark.parametrize("divergence", DIVERGENCE)
@pytest.mark.parametrize("norm", [True, False])
def test_scores_follow_the_formula(divergence, norm):
    chance, picked = np.random.default_rng(0), set()
    for _ in range(40):
        rows = chance.normal(size=(5, 7)) * chance.choice([0.5, 2, 4], size=(5, 1))
        config = Config(layers=(0, 1, 3), alpha=0.2, divergence=divergence, norm=norm)
        scores = DoLa(config).steer(rows[4], with_layers(*rows), *NOWHERE)
        expected, farthest = by_formula(rows[4], rows[[0, 1, 3]] * (1 if norm else 2), 0.2, divergence)
        picked.add(farthest)
        assert np.array_equal(scores > -np.inf, expected > -np.inf)
        assert np.allclose(scores[scores > -np.inf], expected[expected > -np.inf])
    assert picked == {0, 1, 2}


def test_the_released_divergence_picks_other_layers():
    chance = np.random.default_rng(1)
    laws = [[softmax(row) for row in chance.normal(size=(4, 6)) * 3] for _ in range(200)]
    picked = [[int(np.argmax([far(p, q) for q in early])) for p, *early in laws] for far in DIVERGENCE.values()]
    assert 20 < sum(one != other for one, other in zip(*picked, strict=True)) < 180


def test_alpha_zero_forbids_nothing_and_alpha_one_leaves_the_best():
    rows = np.random.default_rng(2).normal(size=(3, 6))
    assert np.isfinite(DoLa(Config((0,), alpha=0.0)).steer(rows[2], with_layers(*rows), *NOWHERE)).all()
    best = DoLa(Config((0,), alpha=1.0)).steer(rows[2], with_layers(*rows), *NOWHERE)
    assert np.flatnonzero(best > -np.inf).tolist() == [rows[2].argmax()]


def test_forbidden_tokens_are_no_part_of_either_law():
    rows = np.random.default_rng(3).normal(size=(3, 6)) * 3
    rows[0, 0], rows[1, 0], rows[2, 0] = 30.0, -30.0, 40.0
    masked = np.where(np.arange(6) == 0, -np.inf, rows[2])
    scores = DoLa(Config((0, 1), alpha=0.01)).steer(masked, with_layers(*rows), *NOWHERE)
    expected, _ = by_formula(rows[2, 1:], rows[:2, 1:], 0.01, "jensen_shannon")
    assert scores[0] == -np.inf
    assert np.allclose(np.exp(scores[1:]), np.exp(expected))


def test_far_away_logits_stay_numbers():
    rows = np.array([[0.0, 900.0, -900.0], [900.0, 0.0, -2000.0]])
    for divergence in DIVERGENCE:
        scores = DoLa(Config((0,), alpha=0.0, divergence=divergence)).steer(rows[1], with_layers(*rows), *NOWHERE)
        assert np.isfinite(scores).all()


@pytest.mark.parametrize(
    ("layers", "tied", "low", "high"),
    [
        (32, False, range(0, 16, 2), range(16, 32, 2)),
        (32, True, range(2, 16, 2), range(16, 32, 2)),
        (40, False, range(0, 20, 2), range(20, 40, 2)),
        (80, False, range(0, 20, 2), range(60, 80, 2)),
        (80, True, range(2, 20, 2), range(60, 80, 2)),
        (6, True, [2], [3, 5]), (4, True, [2], [2]), (3, True, [2], [1]), (2, True, [1], [1]), (1, True, [0], [0]),
        (2, False, [0], [1]), (1, False, [0], [0]),
    ],
)  # fmt: skip
def test_buckets(layers, tied, low, high):
    assert bucket("low", layers, tied) == list(low)
    assert bucket("high", layers, tied) == list(high)


def test_the_last_layer_as_the_premature_one_changes_nothing(case_of, causal, decode):
    for temperature in (0.0, 1.0):
        ours = exact_law(case_of("plain+dola", {"layers": (8,)}, temperature, tokens=4))
        assert ours == exact_law(case_of("plain", None, temperature, tokens=4))
    steered = decode(causal("llama"), together({"layers": (6,)}), PROMPTS, max_new_tokens=12)
    assert steered.tokens == decode(causal("llama"), "plain", PROMPTS, max_new_tokens=12).tokens


def together(options=None, **other):
    return Parts(verify=SampleThenMatch()).join(parts(Config(**(options or {})))).join(Parts(**other))


def slow(network, family, prompt, count, config, candidates):
    """DoLa by its paper, with forwards of the whole text and the model's modules by their names."""
    text = list(prompt)
    norm = network.get_submodule(NORM[family]) if config.norm else torch.nn.Identity()
    for _ in range(count):
        with torch.no_grad():
            output = network(torch.tensor([text]), use_cache=False, output_hidden_states=True)
            early = [network.lm_head(norm(output.hidden_states[layer][0, -1])).numpy() for layer in candidates]
        scores, _ = by_formula(output.logits[0, -1].numpy(), early, config.alpha, config.divergence)
        for token in set(text):
            scores[token] *= 1.2 if scores[token] < 0 else 1 / 1.2
        text.append(int(scores.argmax()))
    return text[len(prompt) :]


@pytest.mark.parametrize(
    ("family", "options", "candidates"),
    [
        ("llama", {}, [0, 2]),
        ("llama", {"layers": "high", "divergence": "released", "norm": False}, [3, 5]),
        ("llama", {"layers": (1, 4), "alpha": 0.02}, [1, 4]),
        ("gpt2", {}, [2]),
        ("gpt2", {"layers": "high"}, [3, 5]),
    ],
)
def test_it_equals_a_loop_of_bare_forwards(family, options, candidates, network, causal, decode):
    done = decode(causal(family), together(options), PROMPTS, max_new_tokens=10, sampling=HEAVY)
    expected = [slow(network(family), family, prompt, 10, Config(**options), candidates) for prompt in PROMPTS]
    assert done.tokens == expected
    assert expected != decode(causal(family), "plain", PROMPTS, max_new_tokens=10, sampling=HEAVY).tokens
    assert done.trace().model_calls == 10


@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_a_row_does_not_depend_on_its_neighbours(causal, decode, temperature):
    """The released code would choose one layer for all rows."""
    law = Sampling(temperature, repetition_penalty=1.2)
    batch = decode(causal("llama"), together(), PROMPTS, max_new_tokens=10, sampling=law)
    two = decode(causal("llama"), together(), PROMPTS[:2], max_new_tokens=10, sampling=law)
    one = decode(causal("llama"), together(), PROMPTS[:1], max_new_tokens=10, sampling=law)
    assert batch.tokens[:2] == two.tokens and two.tokens[:1] == one.tokens
    queued = decode(causal("llama"), together(), PROMPTS, max_new_tokens=10, sampling=law, batch_rows=1)
    assert queued.tokens == batch.tokens


@pytest.mark.parametrize("temperature", [0.0, 1.0])
@pytest.mark.parametrize("method", ["token_recycling", "prompt_lookup", "jacobi"])
def test_drafters_give_the_same_tokens_in_fewer_calls(method, temperature, causal, decode):
    from treewright.core.registry import entry

    law = Sampling(temperature, repetition_penalty=1.05)
    module = entry(method).load()
    drafted = module.parts(module.Config()).join(parts(Config("high", alpha=0.3)))
    prompts = [[5, 9, 2] * 4, [1, 7]]
    ours = decode(causal("llama"), drafted, prompts, max_new_tokens=24, sampling=law)
    one_by_one = together({"layers": "high", "alpha": 0.3})
    assert ours.tokens == decode(causal("llama"), one_by_one, prompts, max_new_tokens=24, sampling=law).tokens
    assert ours.accepted() > 0


@pytest.mark.parametrize("temperature", [0.0, 1.0])
@pytest.mark.parametrize(("method", "options"), [("token_recycling", {"k": 2, "nodes": 4}), ("specinfer", {"expansion": [2, 1]})])
def test_the_law_is_exact_under_drafters(case_of, method, options, temperature):
    options = {**options, "layers": "high", "norm": False}
    case = case_of(f"{method}+dola", options, temperature, tokens=2 if temperature else 8)
    law = plain_law(case)
    assert total_variation(exact_law(case), law) < 1e-9
    for other in ({"layers": "high"}, {"layers": "low", "norm": False}) if temperature else ():
        assert total_variation(plain_law(case_of("plain+dola", other, tokens=2)), law) > 1e-3


def test_a_constraint_holds(decode):
    table, fence = Table(5, seed=1), Fence(5)
    done = decode(table, together(constrain=(fence,)), [[1], [2, 0, 1]], max_new_tokens=12)
    for tokens in done.tokens:
        assert all(fence.mask((0, 0), np.array(tokens[:at]))[token] for at, token in enumerate(tokens))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"layers": ()}, "layers is"),
        ({"layers": (3, -1)}, "layers is"),
        ({"alpha": 1.5}, "alpha is 1.5"),
        ({"alpha": -0.1}, "alpha is -0.1"),
    ],
)
def test_bad_options(options, message):
    with pytest.raises(InputError, match=message):
        Config(**options)


def test_a_layer_that_the_model_does_not_have(decode):
    with pytest.raises(InputError, match=r"layers is \(2, 9\); allowed: low, high, or numbers from 0 to 8"):
        decode(Table(4, seed=1), together({"layers": (2, 9)}), [[1]], max_new_tokens=2)


def test_options_come_as_words_and_lists():
    from treewright.api import build_parts
    from treewright.core.recipe import Recipe

    assert build_parts(Recipe.of("dola", {"layers": [2, 4], "norm": False})).layers
    with pytest.raises(InputError, match=r"dola\.layers"):
        build_parts(Recipe.of("dola", {"layers": "middle"}))
