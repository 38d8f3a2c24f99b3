"""Weights of rows stand beside tokens: a dead end counts for a row that runs into it, and for no row that ended before."""

from __future__ import annotations

import math
from collections.abc import Hashable
from typing import Any

import numpy as np
import pytest

from treewright.core.request import Budget, Sampling
from treewright.core.roles import Parts
from treewright.models.tables import Table
from treewright.parts.verify.rejection import Rejection
from treewright.parts.verify.sample_then_match import SampleThenMatch

PROMPTS = [[1], [3, 2], [2, 2, 4]]
VERIFIERS = [SampleThenMatch, Rejection]
SAMPLINGS = [Sampling(), Sampling(1.0)]


class NothingAfter:
    """A constraint that allows every token until `count` of them stand, and then none."""

    def __init__(self, count: int, vocabulary: int = 5) -> None:
        self.count, self.vocabulary = count, vocabulary

    def mask(self, row: Hashable, continuation: np.ndarray) -> np.ndarray:
        return np.full(self.vocabulary, len(continuation) < self.count)

    def allowed(self, row: Hashable, continuation: np.ndarray, token: int) -> bool:
        return len(continuation) < self.count


@pytest.fixture
def rows(play: Any) -> Any:
    """rows(verifier, drafts, **request): the ended rows under a constraint that leads nowhere after three tokens; drafts
    know the way, and past its end."""

    def run(verifier: Any, drafts: int | None, **request: Any) -> list[Any]:
        parts = Parts(verify=verifier(), constrain=(NothingAfter(3),))
        engine = play(Table(5, seed=1, sharpness=6.0), PROMPTS, drafts=drafts, parts=parts, max_new_tokens=9, **request)
        return list(engine.finished.values())

    return run


@pytest.mark.parametrize("drafts", [None, 1, 2, 4])
@pytest.mark.parametrize("sampling", SAMPLINGS, ids=["greedy", "sampling"])
@pytest.mark.parametrize("verifier", VERIFIERS)
def test_a_row_that_runs_into_a_dead_end_weighs_nothing(rows: Any, verifier: Any, sampling: Sampling, drafts: int | None) -> None:
    for row in rows(verifier, drafts, sampling=sampling):
        assert (len(row.tokens), row.finish, row.log_weight) == (3, "dead_end", -math.inf)


@pytest.mark.parametrize(
    ("how", "length", "reason"),
    [({"stop": ("xxx",)}, 3, "stop"), ({"stop": ("xx",)}, 2, "stop"), ({"budget": Budget(tokens=3)}, 3, "budget")],
)
@pytest.mark.parametrize("drafts", [None, 1, 2, 4])
@pytest.mark.parametrize("sampling", SAMPLINGS, ids=["greedy", "sampling"])
@pytest.mark.parametrize("verifier", VERIFIERS)
def test_a_row_that_ended_before_does_not_know_of_it(
    rows: Any, verifier: Any, sampling: Sampling, drafts: int | None, how: dict[str, Any], length: int, reason: str
) -> None:
    """Drafts that go on behind the last token meet the dead end there, and the row does not."""
    for row in rows(verifier, drafts, sampling=sampling, decode=lambda ids: "x" * len(ids), **how):
        assert (len(row.tokens), row.finish, row.log_weight) == (length, reason, 0.0)
