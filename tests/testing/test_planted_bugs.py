"""Every bug that a lossless method can hide is planted here, and the law must see it; without the bug the law must hold.

The names of `BUGS` are those of the list in docs/architecture.md. Bugs of a model's session and memory ("stale memory after
a rejection", "NaN in padding", "off by one" in positions) are planted in test_planted_session_bugs.py.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from treewright.core import randomness
from treewright.core.claims import ABSENT, Law
from treewright.core.roles import Outcome, Round, TargetLaw, Verdict
from treewright.engine import law as engine_law
from treewright.engine.law import PulledLaw
from treewright.engine.rows import Row
from treewright.engine.writer import Writer
from treewright.ops import residual as exact
from treewright.parts.propose import draft_model
from treewright.parts.verify import rejection, sample_then_match
from treewright.parts.verify.rejection import Rejection
from treewright.parts.verify.sample_then_match import SampleThenMatch
from treewright.testing import laws
from treewright.testing.drafters import TreeDrafter
from treewright.testing.laws import LawBroken

CHAIN = ("speculative_sampling", {"tokens": 2})
ONE = ("speculative_sampling", {"tokens": 1})
PAIR = ("specinfer", {"expansion": (2,)})
TRIPLE = ("specinfer", {"expansion": (3,)})
RECYCLING = ("token_recycling", {"k": 3, "nodes": 4})
LOOKUP = ("prompt_lookup", {"tokens": 3})

Patch = pytest.MonkeyPatch
Check = Callable[[], Any]


def table_law(method: tuple[str, dict[str, Any]], **how: Any) -> Check:
    return lambda: laws.lossless(method[0], method[1], **how)


# --- wrong residual -------------------------------------------------------------------------------------------------


def redraws_from_the_target(patch: Patch) -> Check:
    def forgets(target: np.ndarray, draft: np.ndarray | None, token: int, law: Law) -> Any:
        return target, draft

    patch.setattr(rejection, "after_rejection", forgets)
    return table_law(CHAIN)


def residual_of_absolute_differences(patch: Patch) -> Check:
    def wrong(target: np.ndarray, draft: np.ndarray) -> np.ndarray:
        left = np.abs(target - draft)
        return left / left.sum() if left.sum() > 0 else target

    patch.setattr(exact, "residual", wrong)
    return table_law(ONE)


def deterministic_residual_for_a_drawn_claim(patch: Patch) -> Check:
    def wrong(target: np.ndarray, draft: np.ndarray | None, token: int, law: Law) -> Any:
        return exact.without(target, token), draft

    patch.setattr(rejection, "after_rejection", wrong)
    return table_law(ONE)


# --- proposal not renormalised in a tree ----------------------------------------------------------------------------


def zeroed(law: np.ndarray, token: int) -> np.ndarray:
    left = law.copy()
    left[token] = 0.0
    return left


def draft_law_without_renormalising(patch: Patch) -> Check:
    patch.setattr(exact, "without", zeroed)
    return table_law(PAIR)


def draft_law_that_keeps_refused_tokens(patch: Patch) -> Check:
    patch.setattr(rejection, "after_rejection", lambda target, draft, token, law: (exact.residual(target, draft), draft))
    return table_law(TRIPLE)


def residual_without_renormalising_in_a_tree(patch: Patch) -> Check:
    patch.setattr(exact, "residual", lambda target, draft: np.maximum(target - draft, 1e-300))
    return table_law(PAIR)


# --- off by one -----------------------------------------------------------------------------------------------------


def verifies_with_the_law_of_the_child(patch: Patch) -> Check:
    class Shifted:
        def __init__(self, law: PulledLaw, columns: int) -> None:
            self._law, self._columns, self.greedy = law, columns, law.greedy

        def probs(self, row: int, column: int) -> np.ndarray:
            return self._law.probs(row, min(column + 1, self._columns - 1))

        def draw(self, row: int, column: int) -> tuple[int, float]:
            return self._law.draw(row, min(column + 1, self._columns - 1))

    class Verifier(SampleThenMatch):
        def verify(self, round: Round, law: TargetLaw) -> Verdict:
            return super().verify(round, Shifted(law, round.forest.columns))  # type: ignore[arg-type]

    return table_law(RECYCLING, alter=lambda parts: replace(parts, verify=Verifier()))


def bonus_from_the_law_of_the_parent(patch: Patch) -> Check:
    class Verifier(Rejection):
        def _walk(self, round: Round, law: TargetLaw, row: int) -> tuple[list[int], int]:
            path, token = super()._walk(round, law, row)
            if path and not round.forest.shape.children(row)[path[-1]]:
                token = law.draw(row, path[-2] if len(path) > 1 else 0)[0]
            return path, token

    return table_law(ONE, alter=lambda parts: replace(parts, verify=Verifier()))


def noise_of_the_frontier_at_every_depth(patch: Patch) -> Check:
    patch.setattr(Round, "position", lambda self, row, depth: int(self.text.length[row]))
    return table_law(RECYCLING)


def prefix_without_its_last_token(patch: Patch) -> Check:
    whole = PulledLaw.prefix
    patch.setattr(PulledLaw, "prefix", lambda self, row, column: whole(self, row, column)[:-1])
    return table_law(("plain", {}))


def constraint_and_penalty_at_the_frontier_s_prefix(patch: Patch) -> Check:
    patch.setattr(PulledLaw, "prefix", lambda self, row, column: self._round.text.of(row))
    return table_law(LOOKUP)


def draft_law_of_the_neighbouring_row(patch: Patch) -> Check:
    class Verifier(Rejection):
        def verify(self, round: Round, law: TargetLaw) -> Verdict:
            round.forest.q = {column: np.roll(q, 1, axis=0) for column, q in round.forest.q.items()}
            return super().verify(round, law)

    return table_law(ONE, alter=lambda parts: replace(parts, verify=Verifier()))


def one_claim_more_than_was_accepted(patch: Patch) -> Check:
    def walk(round: Round, law: TargetLaw, row: int) -> tuple[list[int], int, list[float]]:
        path, token, weights = sample_then_match_walk(round, law, row)
        children = round.forest.shape.children(row)[path[-1] if path else 0]
        present = [child for child in children if round.forest.token[row, child] != ABSENT]
        return path + present[:1], token, weights

    sample_then_match_walk = sample_then_match.weighted_walk
    patch.setattr(sample_then_match, "weighted_walk", walk)
    return table_law(RECYCLING)


# --- siblings re-sorted ---------------------------------------------------------------------------------------------


def siblings_by_falling_probability(patch: Patch) -> Check:
    class Verifier(Rejection):
        def try_children(
            self, round: Round, target: np.ndarray, row: int, column: int, depth: int, children: list[int]
        ) -> tuple[int | None, np.ndarray]:
            q = round.forest.q.get(column)
            if q is not None:
                children = sorted(children, key=lambda child: -q[row, round.forest.token[row, child]])
            return super().try_children(round, target, row, column, depth, children)

    return table_law(PAIR, alter=lambda parts: replace(parts, verify=Verifier()))


# --- an argmax draft with softmax ratios ----------------------------------------------------------------------------


def argmax_draft_called_a_draw(patch: Patch) -> Check:
    patch.setattr(draft_model, "_drawn", lambda round, law, count, *rest: np.argsort(-law)[:count].tolist())
    return table_law(CHAIN)


def top_two_called_draws_without_replacement(patch: Patch) -> Check:
    patch.setattr(draft_model, "_drawn", lambda round, law, count, *rest: np.argsort(-law)[:count].tolist())
    return table_law(PAIR)


def drawn_by_the_warped_law_but_said_to_be_unwarped(patch: Patch) -> Check:
    class Verifier(Rejection):
        def verify(self, round: Round, law: TargetLaw) -> Verdict:
            round.forest.q = {column: np.sqrt(q) / np.sqrt(q).sum(-1, keepdims=True) for column, q in round.forest.q.items()}
            return super().verify(round, law)

    return table_law(ONE, alter=lambda parts: replace(parts, verify=Verifier()))


# --- constraint applied after the accept ratio ----------------------------------------------------------------------


def constraint_after_the_accept_ratio(patch: Patch) -> Check:
    class Verifier(Rejection):
        def verify(self, round: Round, law: TargetLaw) -> Verdict:
            self.fenced = law
            free = PulledLaw(round, replace(law._parts, constrain=()))  # type: ignore[attr-defined]
            return super().verify(round, law if law.greedy else free)

        def try_children(
            self, round: Round, target: np.ndarray, row: int, column: int, depth: int, children: list[int]
        ) -> tuple[int | None, np.ndarray]:
            allowed = self.fenced.probs(row, column) > 0
            children = [child for child in children if allowed[round.forest.token[row, child]]]
            accepted, left = super().try_children(round, target, row, column, depth, children)
            left = np.where(allowed, left, 0.0)
            return accepted, left if left.any() else self.fenced.probs(row, column)

    return table_law(CHAIN, alter=lambda parts: replace(parts, verify=Verifier()))


def constraint_on_the_emitted_token_only(patch: Patch) -> Check:
    class Verifier(SampleThenMatch):
        def verify(self, round: Round, law: TargetLaw) -> Verdict:
            free = PulledLaw(round, replace(law._parts, constrain=()))  # type: ignore[attr-defined]
            verdict = super().verify(round, free)
            for row, path in enumerate(verdict.paths):
                verdict.extra[row] = law.draw(row, path[-1] if path else 0)[0]
            return verdict

    return table_law(RECYCLING, alter=lambda parts: replace(parts, verify=Verifier()))


# --- noise shared by drafter and verifier ---------------------------------------------------------------------------


def drafter_uses_the_noise_of_the_draw(patch: Patch) -> Check:
    patch.setattr(draft_model, "DRAFT", randomness.DRAW)
    return table_law(ONE)


def drafter_uses_the_noise_of_the_acceptance(patch: Patch) -> Check:
    patch.setattr(draft_model, "DRAFT", randomness.ACCEPT)
    return table_law(ONE)


def residual_drawn_with_the_noise_of_the_acceptance(patch: Patch) -> Check:
    patch.setattr(rejection, "DRAW", randomness.ACCEPT)
    return table_law(ONE)


# --- truncation after observe ---------------------------------------------------------------------------------------


def truncation_after_observe(patch: Patch) -> Check:
    apply = Writer.apply

    def late(self: Writer, round: Round, rows: Sequence[Row], verdict: Verdict, asked: int) -> Outcome:
        whole = replace(verdict, paths=[list(path) for path in verdict.paths])
        tokens = [[int(round.forest.token[row, c]) for c in path] + [verdict.extra[row]] for row, path in enumerate(whole.paths)]
        apply(self, round, rows, verdict, asked)
        return Outcome(round, whole, tokens)

    patch.setattr(Writer, "apply", late)
    return table_law(RECYCLING)


# --- beside the list: what else a law of this kind must see ---------------------------------------------------------


def draws_again_after_no_match(patch: Patch) -> Check:
    class Verifier(SampleThenMatch):
        def verify(self, round: Round, law: TargetLaw) -> Verdict:
            verdict = super().verify(round, law)
            for row, path in enumerate(verdict.paths):
                column = path[-1] if path else 0
                if not law.greedy and round.forest.shape.children(row)[column]:
                    place = round.position(row, len(path))
                    verdict.extra[row] = round.randomness.index(law.probs(row, column), round.keys[row], place, randomness.SEARCH)
            return verdict

    return table_law(RECYCLING, alter=lambda parts: replace(parts, verify=Verifier()))


def independent_draws_with_repeats_left_out(patch: Patch) -> Check:
    draw = TreeDrafter._draw

    def unique(self: TreeDrafter, *where: Any) -> list[int]:
        drawn = draw(self, *where)
        return [token if token not in drawn[:index] else ABSENT for index, token in enumerate(drawn)]

    patch.setattr(TreeDrafter, "_draw", unique)
    return lambda: laws.exact_verifier(Rejection, ("iid",))


def trusts_a_warm_memory(patch: Patch) -> Check:
    class Verifier(SampleThenMatch):
        def verify(self, round: Round, law: TargetLaw) -> Verdict:
            rounds = round.memories.model("rounds", list)
            rounds.append(round.number)
            verdict = super().verify(round, law)
            if len(rounds) > 5 and not law.greedy:
                verdict.extra = [int(law.probs(row, path[-1] if path else 0).argmax()) for row, path in enumerate(verdict.paths)]
            return verdict

    return table_law(RECYCLING, alter=lambda parts: replace(parts, verify=Verifier()))


def chance_from_elsewhere(patch: Patch) -> Check:
    generator = np.random.default_rng(5)

    class Verifier(SampleThenMatch):
        def verify(self, round: Round, law: TargetLaw) -> Verdict:
            if generator.random() < 0.5 and not law.greedy:
                round.randomness.accept(0.5, round.keys[0], 1)
                round.randomness.accept(0.5, round.keys[1], 1)
            return super().verify(round, law)

    return table_law(RECYCLING, alter=lambda parts: replace(parts, verify=Verifier()))


def penalties_forgotten(patch: Patch) -> Check:
    patch.setattr(engine_law, "penalised", lambda logits, prefix, prompt, sampling: logits.astype(np.float64))
    return table_law(("plain", {}))


def nothing_is_ever_proposed(patch: Patch) -> Check:
    class Silent:
        def propose(self, round: Round) -> None:
            """Adds no claim."""

    return table_law(RECYCLING, alter=lambda parts: replace(parts, propose=Silent()))


BUGS: dict[str, list[Callable[..., Check]]] = {
    "wrong residual": [redraws_from_the_target, residual_of_absolute_differences, deterministic_residual_for_a_drawn_claim],
    "proposal not renormalised in a tree": [
        draft_law_without_renormalising, draft_law_that_keeps_refused_tokens, residual_without_renormalising_in_a_tree,
    ],
    "off by one": [
        verifies_with_the_law_of_the_child, bonus_from_the_law_of_the_parent, noise_of_the_frontier_at_every_depth,
        prefix_without_its_last_token, constraint_and_penalty_at_the_frontier_s_prefix, draft_law_of_the_neighbouring_row,
        one_claim_more_than_was_accepted,
    ],
    "siblings re-sorted": [siblings_by_falling_probability],
    "an argmax draft with softmax ratios": [
        argmax_draft_called_a_draw, top_two_called_draws_without_replacement, drawn_by_the_warped_law_but_said_to_be_unwarped,
    ],
    "constraint applied after the accept ratio": [constraint_after_the_accept_ratio, constraint_on_the_emitted_token_only],
    "noise shared by drafter and verifier": [
        drafter_uses_the_noise_of_the_draw, drafter_uses_the_noise_of_the_acceptance,
        residual_drawn_with_the_noise_of_the_acceptance,
    ],
    "truncation after observe": [truncation_after_observe],
    "beside the list": [
        draws_again_after_no_match, independent_draws_with_repeats_left_out, trusts_a_warm_memory, chance_from_elsewhere,
        penalties_forgotten, nothing_is_ever_proposed,
    ],
}  # fmt: skip
PLANTED = [(kind, plant) for kind, plants in BUGS.items() for plant in plants]


@pytest.mark.parametrize(("kind", "plant"), PLANTED, ids=[plant.__name__ for _, plant in PLANTED])
def test_the_law_sees_the_planted_bug(kind: str, plant: Callable[[Patch], Check]) -> None:
    with pytest.MonkeyPatch.context() as patch, pytest.raises(LawBroken) as broken:
        plant(patch)()
    assert any(character.isdigit() for character in str(broken.value)), "the message carries its numbers"


@pytest.mark.parametrize("method", [RECYCLING, LOOKUP], ids=str)
def test_without_the_bug_the_law_holds(method: tuple[str, dict[str, Any]]) -> None:
    """Of CHAIN, test_claims.py says so, of ONE, PAIR and TRIPLE, test_laws.py."""
    assert laws.lossless(*method).worst <= 1e-9
