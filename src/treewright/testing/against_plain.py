"""Cases of a law that compare with plain decoding: the exact law of a run through the engine against the definition's."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from treewright.core.request import Sampling
from treewright.testing.bench import GREEDY, PROMPTS, SETTINGS, Bench, Setting
from treewright.testing.definition import plain_law
from treewright.testing.enumerate import Case, exact_law, total_variation
from treewright.testing.reports import CaseReport, Coverage, LawBroken

TOLERANCE = 1e-9
FEW = 40
"""A row with at most this many outcomes is enumerated one token further."""


def drafts(laws: Sequence[str]) -> list[tuple[str, tuple[int, ...]]]:
    """A law of drafts and the widths of a tree's levels, for each tree that laws try: siblings, and a chain."""
    return [(law, widths) for law in laws for widths in (((1,),) if law == "mixed" else ((2,), (1, 1)))]


def sampled(subject: str, bench: Bench, seed: int, most: int, settings: Sequence[Setting] = SETTINGS) -> list[CaseReport]:
    """The joint law of a row's first tokens in each setting, all outcomes played, against plain decoding's."""
    reports = []
    for setting in settings:
        report = _check(subject, setting.name, bench.case(setting, seed), most)
        if report.coverage.outcomes <= FEW:
            longer = replace(setting, tokens=setting.tokens + 1)
            report = _check(subject, setting.name, bench.case(longer, seed), most)
        reports.append(report)
    return reports


def greedy_cases(
    subject: str, bench: Bench, seed: int, sampling: Sampling = GREEDY, fenced: bool = True
) -> list[CaseReport]:  # fmt: skip
    """Temperature 0 has one outcome, so more tokens, more tables and every row are affordable. sampling, fenced: penalties and
    the constraint, for a method that takes them."""
    reports = []
    for row in range(len(PROMPTS)):
        for warm in (False, True):
            setting = Setting(
                "temperature 0", sampling, row, tokens=12, vocabulary=5, warm=warm, stop_ids=(4,), min_new_tokens=6,
                fenced=fenced,
            )  # fmt: skip
            reports.append(_check(subject, setting.name, bench.case(setting, seed + row), most=2))
    return reports


def _check(subject: str, name: str, case: Case, most: int) -> CaseReport:
    coverage = Coverage()
    law = exact_law(case, most, coverage)
    expected = plain_law(case)
    distance = total_variation(law, expected)
    if not distance <= TOLERANCE:
        worst = max({*law, *expected}, key=lambda tokens: abs(law.get(tokens, 0.0) - expected.get(tokens, 0.0)))
        raise LawBroken(
            f"{subject}, {name}: total variation {distance:.3g} from plain decoding over {coverage.outcomes} outcomes "
            f"(allowed {TOLERANCE:g}); after prompt {case.request.prompts[case.row]} the tokens {worst} have probability "
            f"{law.get(worst, 0.0):.6g} and should have {expected.get(worst, 0.0):.6g}"
        )
    return CaseReport(name, distance, coverage)
