"""The law of lossy methods: with the options of their limit, which stand on their cards, they are plain decoding."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from treewright.core.card import AT_LIMIT
from treewright.core.errors import InputError
from treewright.core.recipe import Recipe
from treewright.core.request import Sampling
from treewright.core.roles import Parts
from treewright.parts.verify.rejection import Rejection
from treewright.parts.verify.sample_then_match import SampleThenMatch
from treewright.testing.against_plain import TOLERANCE, drafts, greedy_cases, sampled
from treewright.testing.bench import CLAIMS, GREEDY, SETTINGS, Bench, Setting, parts_of
from treewright.testing.drafters import LAWS, TreeDrafter
from treewright.testing.reports import CaseReport, LawBroken, LawReport

BARE = (Setting("temperature", Sampling(0.8), fenced=False), SETTINGS[3])
"""What a method is asked that refuses constraints and penalties."""


def lossless_at_limit(
    method: str, options: Mapping[str, Any] | None = None, *, laws: tuple[str, ...] = LAWS, seed: int = 1, most: int = 20_000
) -> LawReport:
    """A method that is lossy by design emits exactly the law of plain decoding where its rule is exact: with the options that
    its card gives as `limit`.

    Run as `lossless` is, greedy and sampling. A rule of acceptance and a driver, which judge drafts of others, do so over trees
    of each law of `exact_verifier`, verified by it or, for a driver, by sample-then-match where drafts are deterministic and
    exact rejection where they are drawn. A method that refuses constraints and penalties runs without.

    options: put in the limit's place where they name the same ones, others beside it; so that a rule that is not at its limit
    breaks the law. laws: the laws that drafts are drawn by.

    Raises LawBroken; InputError for a method whose card names no limit; CapabilityError where exact tables lack what the method
    needs. Cost: about a second, and half a second for each law of drafts.
    """
    recipe = Recipe.of(method)
    limit = {f"{card.name}.{name}": value for card in recipe.cards() for name, value in card.limit}
    if not limit:
        raise InputError(f"the card of '{method}' has no limit in which it is lossless; give it \"limit\" and the options of it")
    given = {f"{owner}.{name}": value for owner, name, value in Recipe.of(method, options).options}
    make, roles = parts_of(method, limit | given)
    seats = {role for card in recipe.cards() for role in card.roles}
    if {"accept", "drive"} & seats and not {"propose", "verify"} & seats:
        cases = _over_drafts(method, make, roles, laws, seed, most)
    else:
        cases = _alone(method, make, roles, seed, most)
    return LawReport(AT_LIMIT, method, TOLERANCE, cases)


def _alone(method: str, make: Callable[[], Parts], roles: tuple[str, ...], seed: int, most: int) -> list[CaseReport]:
    bench, parts = Bench(make, roles), make()
    settings = BARE if parts.one_law else SETTINGS
    greedy = greedy_cases(method, bench, seed, fenced=not parts.one_law, sampling=Sampling() if parts.one_law else GREEDY)
    return greedy if parts.greedy else [*sampled(method, bench, seed, most, settings), *greedy]


def _over_drafts(
    method: str, make: Callable[[], Parts], roles: tuple[str, ...], laws: tuple[str, ...], seed: int, most: int
) -> list[CaseReport]:  # fmt: skip
    cases: list[CaseReport] = []
    for law, widths in drafts(laws):
        verifier = SampleThenMatch if law == "delta" else Rejection

        def drafted(law: str = law, widths: tuple[int, ...] = widths, verifier: type[Any] = verifier) -> Parts:
            return Parts(propose=TreeDrafter(law, widths), verify=verifier(), claims=CLAIMS).join(make())

        bench, subject = Bench(drafted, tuple(sorted({*roles, "draft"}))), f"{method}, {law} {widths}"
        cases += [*sampled(subject, bench, seed, most, SETTINGS[:2]), *greedy_cases(subject, bench, seed)]
    if not sum(case.coverage.proposed for case in cases):
        raise LawBroken(f"{method} was joined to drafters that proposed nothing, so nothing was tested")
    return cases
