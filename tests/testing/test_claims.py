"""Every claim of every card is run here, from the card alone; nobody lists a method or a law to have it run."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from treewright.core.card import Card
from treewright.core.registry import methods
from treewright.testing import laws

TESTS = Path(__file__).resolve().parents[1] / "methods"
CLAIMS = [(card, claim) for card in methods() for claim in card.claims]
FEW_LAWS = {"laws": ("delta", "mixed")}
SHORTER: dict[str, dict[str, Any]] = {"composable": FEW_LAWS, "lossless_at_limit": FEW_LAWS}
"""Arguments that keep a law to a few seconds: one law of drafts for each verifier, all settings."""


def asks_for_a_method_alone(law: Callable[..., Any]) -> bool:
    """Whether a law can be called with nothing but the name of a method."""
    first, *others = inspect.signature(law).parameters.values()
    return first.name == "method" and all(one.default is not one.empty for one in others)


def is_run_by_its_own_test(card: Card, claim: str, folder: Path = TESTS) -> bool:
    test = folder / card.family / f"test_{card.name}.py"
    return test.exists() and f"laws.{claim}(" in test.read_text(encoding="utf-8")


@pytest.mark.parametrize(("card", "claim"), CLAIMS, ids=[f"{card.name}-{claim}" for card, claim in CLAIMS])
def test_a_claim_holds(card: Card, claim: str) -> None:
    law = getattr(laws, claim)
    if not asks_for_a_method_alone(law):
        wanted = f"call laws.{claim}(...) in tests/methods/{card.family}/test_{card.name}.py"
        assert is_run_by_its_own_test(card, claim), f"nobody runs '{claim}' of {card.name}; {wanted}"
        return
    report = law(card.name, **SHORTER.get(claim, {}))
    if report is not True:
        assert report.worst <= report.tolerance
        assert report.total("outcomes") > 0, "the law looked at nothing"


def test_laws_that_need_more_than_a_method_are_known() -> None:
    functions = {name: law for name, law in vars(laws).items() if name in laws.__all__ and inspect.isfunction(law)}
    alone = {name for name, law in functions.items() if asks_for_a_method_alone(law)}
    assert {claim for _, claim in CLAIMS} <= alone >= {"lossless", "selects", "composable", "follows_plain"}
    assert not alone & {"tree_scoring", "exact_verifier", "plain_law", "total_variation"}


def test_a_claim_that_nobody_runs_is_seen(tmp_path: Path) -> None:
    card = methods()[0]
    (tmp_path / card.family).mkdir()
    test = tmp_path / card.family / f"test_{card.name}.py"
    assert not is_run_by_its_own_test(card, "tree_scoring", tmp_path)
    test.write_text("def test_it(): ...\n")
    assert not is_run_by_its_own_test(card, "tree_scoring", tmp_path)
    test.write_text("def test_it():\n    laws.tree_scoring(model)\n")
    assert is_run_by_its_own_test(card, "tree_scoring", tmp_path)
