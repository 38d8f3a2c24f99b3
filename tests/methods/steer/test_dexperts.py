"""DExperts against its formula, its identities, and every drafter under it."""

from __future__ import annotations

import numpy as np
import pytest

from treewright.methods.steer.dexperts import Config, DExperts
from treewright.testing.definition import plain_law
from treewright.testing.enumerate import exact_law, total_variation


def softmax(logits):
    weights = np.exp(logits - logits.max())
    return weights / weights.sum()


@pytest.mark.parametrize(("alpha", "filter_p"), [(2.0, 0.9), (3.2, 0.5), (-1.0, 1.0)])
def test_the_law_is_the_product_of_experts_in_the_base_nucleus(case_of, alpha, filter_p):
    case = case_of("plain+dexperts", {"alpha": alpha, "filter_p": filter_p}, tokens=2, vocabulary=4)
    prompt, expected = case.request.prompts[case.row], {(): 1.0}
    for _ in range(2):
        longer = {}
        for new, mass in expected.items():
            base, expert, anti = (softmax(case.models[n].logits([*prompt, *new])) for n in ("target", "expert", "anti_expert"))
            order = sorted(range(4), key=lambda token: -base[token])
            nucleus = next(order[:size] for size in range(1, 5) if base[order[:size]].sum() >= filter_p - 1e-12)
            weights = {token: base[token] * (expert[token] / anti[token]) ** alpha for token in nucleus}
            longer |= {(*new, token): mass * weight / sum(weights.values()) for token, weight in weights.items()}
        expected = longer
    assert total_variation(exact_law(case), expected) < 1e-9


def test_alpha_zero_is_the_base_model(case_of):
    ours = exact_law(case_of("plain+dexperts", {"alpha": 0.0, "filter_p": 1.0}))
    assert total_variation(ours, exact_law(case_of("plain"))) < 1e-12


def test_equal_experts_cancel():
    logits, same = np.array([1.0, 2.0, 0.5]), np.array([3.0, -1.0, 0.0])
    steered = DExperts(Config(filter_p=1.0)).steer(logits, {"expert": same, "anti_expert": same}, np.array([1]), (0, 0))
    assert np.array_equal(steered, logits)


@pytest.mark.parametrize("temperature", [0.0, 1.0])
@pytest.mark.parametrize(
    ("method", "options"),
    [
        ("token_recycling", {"k": 2, "nodes": 4}), ("prompt_lookup", {"tokens": 2}), ("jacobi", {"block": 2}),
        ("speculative_sampling", {"tokens": 2}), ("specinfer", {"expansion": [2, 1]}),
    ],
)  # fmt: skip
def test_drafters_keep_the_steered_law(case_of, method, options, temperature):
    case = case_of(f"{method}+dexperts", {**options, "alpha": 1.5}, temperature)
    assert total_variation(exact_law(case), plain_law(case)) < 1e-9
