"""Joint laws whose true conditionals are the model, so that what a sampler emits can be compared with what it should."""

from __future__ import annotations

from collections.abc import Callable
from itertools import product
from typing import Any

import numpy as np
import pytest

from treewright.api import build_parts
from treewright.core.recipe import Recipe
from treewright.core.request import Request, Sampling
from treewright.models.tables import JointTable
from treewright.testing.enumerate import Case, exact_law

Law = dict[tuple[int, ...], float]


@pytest.fixture(scope="session")
def joint_of() -> Callable[[JointTable], Law]:
    def joint(table: JointTable) -> Law:
        return {tokens: float(table.joint[tokens]) for tokens in product(range(table.vocabulary), repeat=table.slots)}

    return joint


@pytest.fixture(scope="session")
def law_of() -> Callable[..., Law]:
    """The law that a method emits on a joint table, every outcome of its randomness played, at temperature 1."""

    def law(table: JointTable, method: str, options: dict[str, Any], temperature: float = 1.0) -> Law:
        recipe = Recipe.of(method, options)
        request = Request(((0, 1),), max_new_tokens=table.slots, sampling=Sampling(temperature))
        return exact_law(Case(request, {"target": table}, lambda: build_parts(recipe)))

    return law


@pytest.fixture(scope="session")
def total_correlation() -> Callable[[np.ndarray], float]:
    """Of a joint law [V, V, ...] in nats: the sum of the slots' entropies less the entropy of all together."""

    def entropy(law: np.ndarray) -> float:
        law = law.ravel()[law.ravel() > 0]
        return float(-(law * np.log(law)).sum())

    def correlation(joint: np.ndarray) -> float:
        axes = range(joint.ndim)
        single = [joint.sum(axis=tuple(other for other in axes if other != axis)) for axis in axes]
        return sum(map(entropy, single)) - entropy(joint)

    return correlation
