"""Typical acceptance against its definition over all leaf paths, its limits, and how far its law is from plain decoding's."""

from __future__ import annotations

import math

import numpy as np
import pytest

import treewright
from treewright import laws
from treewright.core.errors import CompositionError, UnknownOption
from treewright.core.randomness import Keyed
from treewright.core.recipe import Recipe
from treewright.core.roles import Parts
from treewright.methods.speculate.typical_acceptance import Config, TypicalAcceptance, parts
from treewright.models.loading import load
from treewright.models.tables import Table
from treewright.testing.enumerate import exact_law, total_variation


def made(**options):
    return lambda: parts(Config(**options))


def softmax(logits):
    weights = np.exp(logits - logits.max())
    return weights / weights.sum()


def by_definition(case, threshold, alpha, widths):
    """The law of a text whose drafts are the draft model's most probable tokens: all leaf paths, their accepted beginnings, the
    longest of those, then one token of the target's."""
    target, draft = case.models["target"], case.models["draft"]
    most = case.request.max_new_tokens

    def leaves(prefix, depth):
        if depth == len(widths):
            return [[]]
        ranked = np.argsort(-draft.logits(prefix), kind="stable")[: widths[depth]].tolist()
        return [[token, *rest] for token in ranked for rest in leaves([*prefix, token], depth + 1)]

    def accepted(prefix, leaf):
        score, taken = 0.0, []
        for token in leaf:
            law = softmax(target.logits([*prefix, *taken]))
            if not law[token] > min(threshold, alpha * math.exp((law * np.log(law + 1e-5)).sum())):
                break
            taken.append(token)
            score += math.log(law[token])
        return len(taken), score, taken

    law, waiting = {}, [((), 1.0)]
    while waiting:
        new, chance = waiting.pop()
        if len(new) == most:
            law[new] = law.get(new, 0.0) + chance
            continue
        prefix, room = [*case.request.prompts[case.row], *new], most - len(new) - 1
        taken = max((accepted(prefix, leaf[:room]) for leaf in leaves(prefix, 0)), key=lambda found: found[:2])[2]
        for token, probability in enumerate(softmax(target.logits([*prefix, *taken]))):
            waiting.append(((*new, *taken, token), chance * probability))
    return law


@pytest.mark.parametrize("widths", [(2, 1), (1, 1), (2, 2)])
@pytest.mark.parametrize(("threshold", "alpha"), [(0.09, 0.3), (0.3, 0.9), (0.0, 1.0)])
def test_the_law_is_that_of_the_definition(tree_case, widths, threshold, alpha):
    case = tree_case(made(threshold=threshold, alpha=alpha), widths=widths, row=1)
    assert total_variation(exact_law(case), by_definition(case, threshold, alpha, widths)) < 1e-12


def test_it_is_not_lossless_and_how_far_it_is(tree_case):
    """Total variation of the first three tokens from plain decoding's, with all siblings' and chains' drafts: it falls with the
    threshold, and is none where nothing passes."""

    def distance(threshold, alpha):
        case = tree_case(made(threshold=threshold, alpha=alpha))
        return total_variation(exact_law(case), laws.plain_law(case))

    found = [distance(*options) for options in ((0.0, 1.0), (0.09, 0.3), (0.3, 1.0), (0.6, 4.0), (1.0, 4.0))]
    assert found == sorted(found, reverse=True)
    assert found[1] == pytest.approx(0.582, abs=0.001)
    assert found[-1] < 1e-12


def test_where_nothing_passes_the_text_is_plain_decodings_token_for_token(tree_case):
    for seed in range(4):
        for row_law in ("delta", "swor"):
            case = tree_case(made(threshold=1.0, alpha=4.0), row_law, tokens=12)
            plain = tree_case(lambda: Parts(), widths=(), tokens=12)
            assert case.learn(Keyed(seed), {}) == plain.learn(Keyed(seed), {})


def test_temperature_0_is_greedy_decoding(tree_case):
    for row in range(3):
        case = tree_case(made(), widths=(2, 2), temperature=0.0, row=row, tokens=10)
        assert exact_law(case) == {text: pytest.approx(1) for text in laws.plain_law(case)}


def test_the_bar_follows_the_entropy_and_both_options_are_monotone():
    flat, sharp = np.full(8, 0.125), np.array([0.93] + [0.01] * 7)
    rule = TypicalAcceptance(Config())
    assert rule.bar(flat) == pytest.approx(0.3 * 0.125, rel=1e-3)
    assert rule.bar(sharp) == 0.09
    for law in (flat, sharp):
        bars = [
            TypicalAcceptance(Config(threshold=t, alpha=a)).bar(law) for t, a in ((0, 0.3), (0.05, 0.3), (0.09, 0.3), (0.09, 9))
        ]
        assert bars == sorted(bars)


def test_it_joins_drafters_and_rows_of_a_batch_are_those_rows_alone():
    recipe = "token_recycling+typical_acceptance"
    model, prompts = load(Table(9, seed=4, order=2, sharpness=2.5)), [[1, 2, 3], [5], [7, 8, 7, 8, 1]]
    settings = dict(max_new_tokens=24, temperature=1.0, seed=3)
    together = treewright.generate(model, prompts, recipe, **settings)
    exact = treewright.generate(load(model.model), prompts, "token_recycling", **settings)
    assert sum(r.trace.model_calls for r in together) < sum(r.trace.model_calls for r in exact)
    for prompt in prompts:
        drafted = dict(options={"tokens": 3}, models={"draft": load(Table(9, seed=5))}, **settings)
        alone = treewright.generate(load(model.model), prompt, "speculative_sampling+typical_acceptance", **drafted)
        batch = treewright.generate(
            load(model.model), [prompt, [2], [3, 3]], "speculative_sampling+typical_acceptance", **drafted
        )
        assert alone.tokens == batch[0].tokens


@pytest.mark.parametrize("drafter", ["token_recycling", "auto", "suffix"])
def test_the_text_is_the_same_alone_in_a_batch_and_after_other_runs(drafter):
    settings, recipe = dict(max_new_tokens=16, temperature=1.0, seed=3), f"{drafter}+typical_acceptance"
    model, prompts = load(Table(9, seed=4, order=2, sharpness=2.5)), [[1, 2, 3], [5], [7, 8, 7, 8, 1]]
    alone = treewright.generate(model, prompts[0], recipe, **settings)
    batch = treewright.generate(model, prompts, recipe, **settings)
    treewright.generate(model, [[3, 1], [2]], drafter, **settings)  # This one learns.
    again = treewright.generate(model, prompts, recipe, **settings)
    assert batch[0].tokens == alone.tokens
    assert [result.tokens for result in again] == [result.tokens for result in batch]
    assert any(step.accepted for result in batch for step in result.trace.steps)


def test_a_large_batch_does_not_shorten_the_drafts_that_a_text_depends_on():
    settings = dict(models={"draft": load(Table(9, 5))}, max_new_tokens=24, temperature=1.0)
    prompts = [[token, 1] for token in range(9)] + [[1, token] for token in range(7)]
    together = treewright.generate(load(Table(9, 4)), prompts, "specinfer+typical_acceptance", **settings)
    alone = treewright.generate(load(Table(9, 4)), prompts[:1], "specinfer+typical_acceptance", **settings)
    assert together[0].tokens == alone[0].tokens


def test_constraints_hold():
    model = load(Table(6, seed=2, sharpness=0.5))
    found = treewright.generate(
        model, [1, 2], "token_recycling+typical_acceptance", {"threshold": 0.0}, max_new_tokens=20, temperature=1.0, top_k=1
    )
    assert found.tokens == treewright.generate(model, [1, 2], max_new_tokens=20).tokens


@pytest.mark.parametrize("other", ["beam", "smc", "best_first_beam", "plain"])
def test_what_drafts_nothing_is_no_company(other):
    with pytest.raises(CompositionError, match=f"'{other}' drafts nothing.*join 'typical_acceptance' with a drafter"):
        Recipe.of(f"{other}+typical_acceptance")


def test_claims_that_are_no_drafts_are_no_company():
    with pytest.raises(CompositionError, match="no drafts but its definition"):
        treewright.generate(load(Table(6, 0)), [1, 2], "contrastive_search+typical_acceptance", max_new_tokens=3)


@pytest.mark.parametrize("options", [{"threshold": -0.1}, {"threshold": 1.1}, {"alpha": -1.0}], ids=str)
def test_bad_options_are_refused(options):
    with pytest.raises(UnknownOption, match=next(iter(options))):
        treewright.generate(load(Table(4, 0)), [1], "token_recycling+typical_acceptance", options, max_new_tokens=2)
