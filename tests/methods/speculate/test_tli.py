"""TLI: q' by hand, the law by going through all outcomes, and the limits that the paper names."""

from __future__ import annotations

import numpy as np
import pytest

from treewright.core.request import Request, Sampling
from treewright.core.roles import Parts
from treewright.methods.speculate import specinfer, tli
from treewright.models.tables import Table
from treewright.testing.bench import Fence
from treewright.testing.enumerate import Case, exact_law, outcomes, total_variation
from treewright.testing.laws import plain_law

A, B, AB = range(3)
OWN_B, OWN_BA, OWN_A = range(3)
PROMPTS = ((A,), (B, AB, A, B), (AB, AB))
WARPED = Sampling(0.8, top_p=0.9, repetition_penalty=1.3, presence_penalty=0.4)


def case(models, module, options, row=0, tokens=3, sampling=WARPED, fenced=False) -> Case:
    request = Request(PROMPTS, max_new_tokens=tokens, sampling=sampling)
    fences = (Fence(3),) if fenced else ()
    return Case(request, models, lambda: module.parts(module.Config(**options)).join(Parts(constrain=fences)), row)


def softmax(logits: np.ndarray) -> np.ndarray:
    weights = np.exp(logits - logits.max())
    return weights / weights.sum()


@pytest.mark.parametrize(("row", "fenced"), [(0, True), (1, False), (2, True)])
@pytest.mark.parametrize(("module", "options"), [(tli, {"tokens": 2}), (specinfer, {"expansion": (2, 1)})])
def test_the_law_is_the_targets_with_penalties_and_a_constraint(module, options, row, fenced, translated):
    """The chain, and a tree that knows nothing of vocabularies."""
    enumerated = case(translated("shared"), module, options, row, fenced=fenced)
    assert total_variation(exact_law(enumerated, 60_000), plain_law(enumerated)) < 1e-12


@pytest.mark.parametrize(("prompt", "own"), [((A,), [OWN_A]), ((B, AB, A, B), [OWN_B, OWN_A, OWN_B, OWN_A, OWN_B])])
@pytest.mark.parametrize("seed", [1, 2, 3])
def test_a_draft_is_accepted_with_the_sum_of_min_p_and_the_renormalised_q(prompt, own, seed, translated):
    """ "ab" is no draft token, so the prompt's is written as a and b; "ba" is no target token, so q' leaves it out."""
    models = translated("shared", seed=seed)
    request = Request((prompt,), max_new_tokens=2, sampling=Sampling(1.0))
    enumerated = Case(request, models, lambda: tli.parts(tli.Config(1)))
    accepted = sum(chance for _, chance, steps in outcomes(enumerated) if steps[0].accepted)
    p, q = softmax(models["target"].logits(prompt)), softmax(Table(3, seed + 50).logits(own))
    cut = np.array([q[OWN_A], q[OWN_B], 0.0]) / (q[OWN_A] + q[OWN_B])
    assert accepted == pytest.approx(np.minimum(p, cut).sum(), abs=1e-12)


@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_one_vocabulary_is_speculative_sampling(temperature, translated, decode):
    """Token for token, claim for claim, whether the ids are the same or only the tokens are."""
    inner = Table(3, 51)

    class Reordered:
        """The same law under the draft's ids: 0 is b, 1 is ab, 2 is a."""

        capabilities = inner.capabilities
        order = (B, AB, A)

        def logits(self, prefix):
            return inner.logits([self.order[token] for token in prefix])[list(self.order)]

        def open(self, text, opening, record):
            other = Table(3, 0)
            other.logits = self.logits
            return other.open(text, opening, record)

    settings = dict(max_new_tokens=30, sampling=Sampling(temperature), seed=3)
    expected = decode(Table(3, 1), "speculative_sampling", PROMPTS, {"tokens": 3}, inner, **settings)
    same = translated("shared", draft=(b"a", b"b", b"ab"), inner=inner)["draft"]
    other = translated("shared", draft=(b"b", b"ab", b"a"), inner=Reordered())["draft"]
    for draft in (inner, same, other) if temperature == 0 else (inner, same):
        found = decode(Table(3, 1), "tli", PROMPTS, {"tokens": 3}, draft, **settings)
        assert found.tokens == expected.tokens
        assert [s.token for s in found.trace(1).steps] == [s.token for s in expected.trace(1).steps]
    assert expected.accepted() > 5


@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_nothing_in_common_drafts_nothing(temperature, translated, decode, watcher):
    claimed = watcher(lambda outcome: (outcome.round.forest.token[:, 1:] >= 0).any())
    models = translated("shared", draft=(b"x", b"y", b"z"))
    settings = dict(max_new_tokens=12, sampling=Sampling(temperature), seed=3)
    found = decode(models["target"], "tli", PROMPTS, {"tokens": 3}, models["draft"], observers=[claimed], **settings)
    assert found.tokens == decode(models["target"], "plain", PROMPTS, **settings).tokens
    assert not any(claimed.seen)


def test_a_batch_is_its_rows(translated, decode):
    models = translated("shared")
    together = decode(models["target"], "tli", PROMPTS, {}, models["draft"], max_new_tokens=20)
    for row, prompt in enumerate(PROMPTS):
        alone = decode(models["target"], "tli", [prompt], {}, models["draft"], max_new_tokens=20)
        assert alone.tokens[0] == together.tokens[row]
        claims = [
            [[token for token in step.token if token >= 0] for step in one]
            for one in (alone.trace().steps, together.trace(row).steps)
        ]
        assert claims[0] == claims[1]


def test_claims_are_tokens_that_both_have(translated, decode, watcher):
    tokens = watcher(lambda outcome: outcome.round.forest.token[:, 1:].ravel().tolist())
    models = translated("shared")
    decode(models["target"], "tli", PROMPTS, {}, models["draft"], [tokens], max_new_tokens=30, sampling=Sampling(1.0))
    assert {token for seen in tokens.seen for token in seen} - {-1} == {A, B}
