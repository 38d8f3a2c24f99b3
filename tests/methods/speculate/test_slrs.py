"""SLRS: psi against a sum over all texts, the law by going through all outcomes, acceptance, and the bound on beginnings."""

from __future__ import annotations

import numpy as np
import pytest

from treewright.core.errors import CapabilityError
from treewright.core.request import Request, Sampling
from treewright.core.roles import Parts
from treewright.methods.speculate import slem, slrs
from treewright.models.tables import Table
from treewright.testing.bench import Fence
from treewright.testing.enumerate import Case, exact_law, outcomes, total_variation
from treewright.testing.laws import plain_law

A, B, AB = range(3)
OWN = (b"b", b"ba", b"a")
PROMPTS = ((A,), (B, AB, A, B), (AB, AB))


def softmax(logits: np.ndarray) -> np.ndarray:
    weights = np.exp(logits - logits.max())
    return weights / weights.sum()


def psi_by_hand(draft: Table, own: list[int]) -> np.ndarray:
    """Only "a" is the beginning of a longer token: what follows it decides between a and ab."""
    psi, first = np.zeros(3), softmax(draft.logits(own))
    psi[B] = first[0] + first[1]
    after = softmax(draft.logits([*own, 2]))
    psi[AB] = first[2] * (after[0] + after[1])
    psi[A] = first[2] * after[2]
    return psi


@pytest.mark.parametrize(("prompt", "own"), [((B,), [0]), ((B, A, B), [0, 2, 0])])
@pytest.mark.parametrize("seed", [1, 2, 3])
def test_acceptance_is_the_sum_of_min_p_and_psi(prompt, own, seed, translated):
    models, draft = translated("own", seed=seed), Table(3, seed + 50)
    request = Request((prompt,), max_new_tokens=2, sampling=Sampling(1.0))
    accepted = {
        module.__name__: sum(
            chance
            for _, chance, steps in outcomes(
                Case(request, models, lambda module=module, o=options: module.parts(module.Config(*o)))
            )
            if steps[0].accepted
        )
        for module, options in ((slrs, (1,)), (slem, (2,)))
    }
    p, psi = softmax(models["target"].logits(prompt)), psi_by_hand(draft, own)
    assert psi.sum() == pytest.approx(1)
    assert accepted[slrs.__name__] == pytest.approx(np.minimum(p, psi).sum(), abs=1e-12)
    assert accepted[slem.__name__] == pytest.approx(p @ psi, abs=1e-12)
    assert accepted[slrs.__name__] > accepted[slem.__name__]


@pytest.mark.parametrize(("row", "fenced"), [(0, True), (1, False), (2, True)])
@pytest.mark.parametrize("tokens", [1, 2])
def test_the_law_is_the_targets_with_penalties_and_a_constraint(row, fenced, tokens, translated):
    request = Request(PROMPTS, max_new_tokens=3, sampling=Sampling(0.8, top_p=0.9, repetition_penalty=1.3))
    parts = lambda: slrs.parts(slrs.Config(tokens)).join(Parts(constrain=(Fence(3),) if fenced else ()))  # noqa: E731
    case = Case(request, translated("own"), parts, row)
    assert total_variation(exact_law(case, 60_000), plain_law(case)) < 1e-12


def test_a_longer_target_token_has_more_beginnings(translated):
    """ "a", "ab" and "aba" begin "abab": with {b, ba, a} they are written in 1, 1 and 2 ways."""
    target = (b"a", b"b", b"abab")
    translation = translated("own", target=target)["draft"].capabilities.translation
    found = slrs.Beginnings.of(translation, 4)
    assert sorted(found.texts) == [b"", b"a", b"ab", b"aba", b"aba"]
    with pytest.raises(CapabilityError, match=r"more than 3; set slrs\.most higher, or use slem or tli"):
        slrs.Beginnings.of(translation, 3)


def test_the_law_with_deeper_beginnings(translated):
    request = Request(((B,), (A, A)), max_new_tokens=2, sampling=Sampling(1.0))
    models = translated("own", target=(b"a", b"b", b"abab"))
    for row in range(2):
        case = Case(request, models, lambda: slrs.parts(slrs.Config(2)), row)
        assert total_variation(exact_law(case, 60_000), plain_law(case)) < 1e-12


def test_what_the_target_cannot_spell_is_left_out_of_the_law(translated):
    request = Request(((B,), (A, A)), max_new_tokens=2, sampling=Sampling(1.0))
    models = translated("own", draft=(b"b", b"x", b"a"))
    case = Case(request, models, lambda: slrs.parts(slrs.Config(1)))
    assert total_variation(exact_law(case, 60_000), plain_law(case)) < 1e-12


def test_too_many_beginnings_are_refused_in_a_run(translated, decode):
    models = translated("own", target=(b"a", b"b", b"abababab"))
    with pytest.raises(CapabilityError, match=r"more than 2; set slrs\.most higher"):
        decode(models["target"], "slrs", PROMPTS, {"most": 2}, models["draft"], max_new_tokens=4)


def test_greedy_text_and_calls(translated, decode, greedy_text):
    """One draft call for each draft, however many beginnings it asks about."""
    models = translated("own")
    decoded = decode(models["target"], "slrs", PROMPTS, {"tokens": 2}, models["draft"], max_new_tokens=20)
    assert decoded.tokens == [greedy_text(models["target"], prompt, 20) for prompt in PROMPTS]
    assert decoded.accepted() > 3
    calls = [call.model for call in decoded.trace().calls if call.kind == "score"]
    assert calls[:6] == ["draft", "draft", "target"] * 2


@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_one_vocabulary_is_speculative_sampling(temperature, decode):
    settings = dict(max_new_tokens=20, sampling=Sampling(temperature), seed=2)
    ours = decode(Table(4, 1), "slrs", [(1,), (2, 3)], {"tokens": 3}, Table(4, 2), **settings)
    theirs = decode(Table(4, 1), "speculative_sampling", [(1,), (2, 3)], {"tokens": 3}, Table(4, 2), **settings)
    assert ours.tokens == theirs.tokens


def test_nothing_that_the_target_can_spell_drafts_nothing(translated, decode, greedy_text):
    models = translated("own", draft=(b"x", b"y"))
    decoded = decode(models["target"], "slrs", PROMPTS, {}, models["draft"], max_new_tokens=8)
    assert decoded.tokens == [greedy_text(models["target"], prompt, 8) for prompt in PROMPTS]
    assert decoded.accepted() == 0
