"""Protocol: a draft tree grown level by level. Claims stay live from one score call to the next, and the law is exact."""

from __future__ import annotations

import numpy as np
import pytest

from treewright.core.claims import ABSENT, Law
from treewright.core.randomness import DRAFT
from treewright.core.request import Request, Sampling
from treewright.core.roles import Parts, Round
from treewright.models.tables import Table
from treewright.parts.verify.rejection import Rejection
from treewright.testing.definition import plain_law
from treewright.testing.enumerate import Case, exact_law, total_variation
from treewright.testing.reports import Coverage


class LevelByLevel:
    """Toy drafter: each level's children are drawn without replacement from the draft model's answer to the level above."""

    def __init__(self, widths: tuple[int, ...], law: Law = Law.SWOR) -> None:
        self.widths, self.law = widths, law

    def propose(self, round: Round) -> None:
        level, before = range(1), None
        for width in self.widths[: round.depth_left]:
            answers = round.sessions["draft"].score(round.forest)
            if before is not None:
                assert np.array_equal(before.logits, answers.logits[:, : before.logits.shape[1]]), "a live claim's answer moved"
            above = [parent for parent in level for _ in range(width)]
            token, laws = np.full((round.rows, len(above)), ABSENT), {}
            for place, parent in enumerate(above):
                laws.setdefault(parent, round.draft_law(np.stack([answers.row(row, parent) for row in range(round.rows)])))
                for row, key in enumerate(round.keys):
                    depth = int(round.forest.shape.depth[0, parent])
                    left = laws[parent][row].copy()
                    left[[token[row, other] for other in range(place) if above[other] == parent]] = 0
                    if left.any() and depth < round.deepest[row]:
                        trial = round.forest.columns + place
                        token[row, place] = round.randomness.index(left, key, round.position(row, depth), DRAFT, trial)
            level, before = round.forest.grow(above, token, self.law, laws), answers


def case_of(drafter: LevelByLevel) -> Case:
    target = Table(3, seed=1, sharpness=1.5)
    models = {"target": target, "draft": Table(3, seed=2, like=target, likeness=0.4)}
    request = Request(prompts=((1,), (0, 2, 1)), max_new_tokens=3, sampling=Sampling(1.0))
    return Case(request, models, lambda: Parts(propose=drafter, verify=Rejection(), claims=9), row=1)


@pytest.mark.parametrize("widths", [(2, 1), (1, 2)])
def test_a_tree_grown_level_by_level_has_the_exact_law(widths: tuple[int, ...]) -> None:
    case, coverage = case_of(LevelByLevel(widths)), Coverage()
    assert total_variation(exact_law(case, coverage=coverage), plain_law(case)) < 1e-12
    assert coverage.accepted and coverage.siblings == 2


def test_a_tree_that_names_the_wrong_law_is_biased() -> None:
    case = case_of(LevelByLevel((2, 1), Law.IID))
    assert total_variation(exact_law(case), plain_law(case)) > 0.01


def test_a_level_costs_one_draft_call_and_the_tree_one_target_call(decode) -> None:
    target = Table(5, seed=1)
    parts = Parts(propose=LevelByLevel((2, 2, 1)), verify=Rejection(), claims=12)
    done = decode(target, parts, [[1, 2], [3]], draft=Table(5, seed=1), max_new_tokens=9, sampling=Sampling(1.0), seed=4)
    calls = [call.model for call in done.trace().calls]
    rounds = max(done.rounds(0), done.rounds(1))
    assert calls.count("target") == rounds
    assert calls[:4] == ["draft", "draft", "draft", "target"]
    # The draft is the target, so the first child of every level is accepted: four tokens a round.
    assert rounds == 3
