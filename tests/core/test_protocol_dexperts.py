"""Protocol: DExperts with a rewritten prompt. Steering asks two more models about the same claims, one of them after a
prompt of its own, and a tree draft of the composed law stays exact."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pytest

from treewright.core.claims import Law
from treewright.core.errors import ContextError, InputError
from treewright.core.randomness import DRAFT
from treewright.core.request import Request, Sampling
from treewright.core.roles import Parts, Round
from treewright.engine.loop import Engine, Run
from treewright.models.tables import Table
from treewright.parts.verify.rejection import Rejection
from treewright.parts.verify.sample_then_match import SampleThenMatch
from treewright.testing.enumerate import Case, exact_law, total_variation

PROMPTS = ((1,), (0, 2, 1))
MODELS = {"target": Table(3, seed=1), "expert": Table(3, seed=2), "anti": Table(3, seed=3), "draft": Table(3, seed=4)}


class DExperts:
    """Toy steering: z + alpha (z_expert - z_anti) within the base model's nucleus; the expert is told to be good."""

    models = ("expert", "anti")

    def __init__(self, alpha: float = 1.5, nucleus: float = 0.9, instruction: Sequence[int] = (2, 2)) -> None:
        self.alpha, self.nucleus, self.instruction = alpha, nucleus, tuple(instruction)

    def prompt(self, model: str, prompt: Sequence[int]) -> Sequence[int]:
        return [*prompt, *self.instruction] if model == "expert" else prompt

    def steer(self, logits: np.ndarray, others: Mapping[str, np.ndarray], prefix: np.ndarray, row: tuple[int, int]) -> np.ndarray:
        chance = np.exp(logits - logits.max()) / np.exp(logits - logits.max()).sum()
        order = np.argsort(-chance, kind="stable")
        outside = order[np.cumsum(chance[order]) - chance[order] >= self.nucleus]
        steered = logits + self.alpha * (others["expert"] - others["anti"])
        steered[outside] = -np.inf
        return steered


class TwoGuesses:
    """Toy drafter: two independent draws from a model that knows nothing of the steering."""

    def propose(self, round: Round) -> None:
        if round.depth_left < 1:
            return
        answers = round.sessions["draft"].score(round.forest)
        law = round.draft_law(np.stack([answers.row(row, 0) for row in range(round.rows)]))
        token = [
            [round.randomness.index(law[row], key, round.position(row, 0), DRAFT, trial) for trial in range(2)]
            for row, key in enumerate(round.keys)
        ]
        round.forest.grow([0, 0], np.where(round.deepest[:, None] > 0, token, -1), Law.IID, {0: law})


def composed(row: int, tokens: int, alpha: float, nucleus: float, instruction: tuple[int, ...]) -> dict[tuple, float]:
    """The law by its formula: p_base (p_expert / p_anti)^alpha in the base nucleus, normalised."""
    law: dict[tuple, float] = {(): 1.0}
    for _ in range(tokens):
        longer = {}
        for new, mass in law.items():
            base, expert, anti = (
                np.exp(MODELS[name].logits([*PROMPTS[row], *added, *new]))
                for name, added in (("target", ()), ("expert", instruction), ("anti", ()))
            )
            order = sorted(range(3), key=lambda token: -base[token])
            kept = next(order[:size] for size in (1, 2, 3) if base[order[:size]].sum() / base.sum() >= nucleus)
            weight = {token: base[token] * (expert[token] / anti[token]) ** alpha for token in kept}
            longer |= {(*new, token): mass * value / sum(weight.values()) for token, value in weight.items()}
        law = longer
    return law


def law_of(parts: Parts, row: int, tokens: int = 3) -> dict[tuple[int, ...], float]:
    request = Request(prompts=PROMPTS, max_new_tokens=tokens, sampling=Sampling(1.0))
    return exact_law(Case(request, MODELS, lambda: parts, row=row))


@pytest.mark.parametrize("row", [0, 1])
@pytest.mark.parametrize("drafted", [False, True])
def test_the_law_is_the_composed_law(row: int, drafted: bool) -> None:
    steer = (DExperts(),)
    plain, drafts = Parts(verify=SampleThenMatch(), steer=steer), Parts(TwoGuesses(), Rejection(), steer=steer, claims=3)
    wanted = composed(row, 3, 1.5, 0.9, (2, 2))
    assert total_variation(law_of(drafts if drafted else plain, row), wanted) < 1e-12
    # The test could not see a prompt that was not rewritten if it made no difference.
    assert total_variation(composed(row, 3, 1.5, 0.9, ()), wanted) > 0.01


def test_alpha_zero_is_the_base_nucleus_and_equal_experts_cancel() -> None:
    nucleus = composed(1, 3, 0.0, 0.9, ())
    assert total_variation(law_of(Parts(verify=SampleThenMatch(), steer=(DExperts(alpha=0.0),)), 1), nucleus) < 1e-12
    request = Request(prompts=PROMPTS, max_new_tokens=3, sampling=Sampling(1.0))
    same = MODELS | {"anti": MODELS["expert"]}
    parts = Parts(verify=SampleThenMatch(), steer=(DExperts(instruction=()),))
    assert total_variation(exact_law(Case(request, same, lambda: parts, row=1)), nucleus) < 1e-12


def test_a_round_costs_one_call_of_each_model(decode) -> None:
    parts = Parts(verify=SampleThenMatch(), steer=(DExperts(),))
    engine = Engine(Run(Request(prompts=PROMPTS, max_new_tokens=5), MODELS, parts))
    for _ in engine.run():
        pass
    calls = [call.model for call in engine.traces[0, 0].calls]
    assert {name: calls.count(name) for name in MODELS} == {"target": 5, "expert": 5, "anti": 5, "draft": 0}


def test_a_rewritten_prompt_has_to_leave_a_token_and_to_fit() -> None:
    class Nothing(DExperts):
        def prompt(self, model: str, prompt: Sequence[int]) -> Sequence[int]:
            return []

    def engine(steer: DExperts, most: int | None = None) -> Engine:
        expert = Table(3, seed=2)
        expert.capabilities = expert.capabilities.__class__(vocabulary=3, max_length=most)
        request = Request(prompts=((0, 1),), max_new_tokens=9)
        return Engine(Run(request, MODELS | {"expert": expert}, Parts(verify=SampleThenMatch(), steer=(steer,))))

    with pytest.raises(InputError, match="prompt 0 was rewritten to 0 tokens"):
        engine(Nothing())
    with pytest.raises(ContextError, match="prompt 0 has 4 tokens as model 'expert' reads it, which has 4 positions"):
        engine(DExperts(), most=4)
    run = engine(DExperts(), most=7)
    for _ in run.run():
        pass
    assert len(run.finished[0, 0].tokens) == 3 and run.finished[0, 0].finish == "length"
