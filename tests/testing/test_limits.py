"""The law of limits: it is broken by every method that claims it and is not at its limit, and cards are read with care."""

from __future__ import annotations

from typing import Any

import pytest

from treewright import laws
from treewright.core.card import AT_LIMIT, read_card
from treewright.core.errors import InputError
from treewright.core.registry import entry, methods
from treewright.methods.speculate.lantern_pp import Relaxed

BEYOND: dict[str, dict[str, Any]] = {
    "d3": {"alpha": 0.7}, "ead": {"threshold": 1.0, "least": 1}, "lantern_pp": {"bound": 1.0},
    "lexical_units": {"confidence": 0.6}, "reward_guided": {"threshold": "-inf"},
    "typical_acceptance": {"threshold": 0.5},
}  # fmt: skip


def test_lossy_methods_claim_it():
    assert {card.name for card in methods() if AT_LIMIT in card.claims} >= set(BEYOND)
    assert not any(card.lossless for card in methods() if card.limit)


@pytest.mark.parametrize("method", BEYOND)
def test_the_law_is_broken_beyond_the_limit(method):
    with pytest.raises(laws.LawBroken, match=rf"^{method}, .* from plain decoding"):
        laws.lossless_at_limit(method, BEYOND[method], laws=("delta",))


def test_drafts_are_judged_and_some_accepted():
    report = laws.lossless_at_limit("lantern_pp", {"refuse": "all"}, laws=("swor", "mixed"))
    assert report.worst < 1e-9 and 0 < report.total("accepted") < report.total("proposed")


def test_a_wrong_residual_at_the_limit_is_seen(monkeypatch):
    monkeypatch.setattr(Relaxed, "refuse", lambda self, target, draft, token, law: (target, draft))
    with pytest.raises(laws.LawBroken, match="lantern_pp, swor"):
        laws.lossless_at_limit("lantern_pp", laws=("swor",))


def test_a_method_without_a_limit_is_refused():
    with pytest.raises(InputError, match="the card of 'token_recycling' has no limit"):
        laws.lossless_at_limit("token_recycling")


def test_the_limit_is_shown_with_the_claim():
    assert entry("lantern_pp").card.limit == (("bound", 0.0),)
    assert entry("lantern_pp").card.claims_told == "row_independent, lossless_at_limit (bound = 0.0)"
    assert entry("plain").card.claims_told == ", ".join(entry("plain").card.claims)


@pytest.mark.parametrize(
    ("claims", "limit", "said"),
    [
        (["row_independent", AT_LIMIT], "{}", "go together"),
        (["row_independent"], '{"width": 1}', "go together"),
        ([AT_LIMIT], '{"widht": 1}', "limit of option 'widht'; its Config has width"),
    ],
)
def test_cards_whose_limit_says_nothing_are_refused(claims, limit, said, tmp_path):
    file = tmp_path / "theirs.py"
    file.write_text(
        '"""Theirs."""\nCARD = {"title": "T", "year": 2026, "link": "", "card": None, "aliases": [], "roles": [], "models": [],\n'
        f'"needs": [], "claims": {claims}, "limit": {limit}}}\nclass Config:\n    width: int = 2\n'
    )
    with pytest.raises(InputError, match=said):
        read_card(file, "speculate")
