"""Every installed method passes the laws it claims; a third party's method can be checked by the same call."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import treewright
from treewright.core import registry
from treewright.core.build import build_parts
from treewright.core.card import Card
from treewright.core.errors import CapabilityError, UnknownMethod
from treewright.core.recipe import Recipe
from treewright.core.registry import Entry, methods
from treewright.core.roles import Parts
from treewright.models.loading import Loaded, load
from treewright.models.tables import AnyOrderTable, Table
from treewright.parts.steer.own_prompt import OwnPrompt
from treewright.parts.verify.rejection import Rejection
from treewright.parts.verify.sample_then_match import SampleThenMatch
from treewright.testing import laws
from treewright.testing.bench import parts_of, with_drafter
from treewright.testing.drafters import LAWS
from treewright.testing.reports import LawBroken

# Trees and chains of other forms than a method's defaults have in six columns.
FORMS: list[tuple[str, dict[str, Any]]] = [
    ("speculative_sampling", {"tokens": 1}),
    ("specinfer", {"expansion": (2,)}),
    ("specinfer", {"expansion": (2, 1)}),
    ("specinfer", {"expansion": (1, 2)}),
    ("specinfer", {"expansion": (3,)}),
    ("token_recycling", {"nodes": 2, "k": 2, "learn_prompt": False}),
    ("prompt_lookup", {"match": "earliest", "full": True, "tokens": 2}),
    ("jacobi", {"block": 1}),
    ("lookahead", {"level": 3, "window": 2, "guesses": 2}),
    ("suffix", {"mode": "path", "offset": 1.0, "shared": False}),
    ("suffix", {"own": False, "factor": 3.0}),
    ("rest", {"fresh": 1, "length": 2, "longest": 2, "shortest": 1}),
    ("aded", {"update": "llm_topk", "iterations": 12}),
    ("stand", {"draws": "likeliest"}),
]


@pytest.mark.parametrize(("method", "options"), FORMS, ids=str)
def test_the_law_holds_for_other_drafts(method: str, options: dict[str, Any]) -> None:
    report = laws.lossless(method, options)
    assert report.worst <= 1e-9
    assert 0 < report.total("accepted") < report.total("proposed")


def test_trees_are_tested_with_siblings() -> None:
    assert laws.lossless("specinfer", {"expansion": (3,)}).total("siblings") == 3


def test_rows_that_depend_on_their_neighbours_are_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    class Turns(OwnPrompt):
        """Every other claim that is looked at, whosever it is, is read upside down."""

        looks = 0

        def steer(self, logits: Any, others: Any, prefix: Any, row: Any) -> Any:
            self.looks += 1
            return -logits if self.looks % 2 else logits

    monkeypatch.setattr(laws, "parts_of", lambda *_: (lambda: Parts(verify=SampleThenMatch(), steer=(Turns(),)), ()))
    with pytest.raises(LawBroken, match=r"plain, seed 0, temperature 0: after prompt .* in a batch"):
        laws.row_independent("plain")


@pytest.mark.parametrize("method", ["typical_acceptance", "lantern_pp", "d3"])
def test_memory_that_rows_or_runs_share_is_seen_where_drafts_decide(method: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Parts, "apart", False)
    with pytest.raises(LawBroken, match=rf"token_recycling\+{method}, seed"):
        laws.row_independent(method)


def keeps_its_batch(card: Card) -> bool:
    options = {f"{card.name}.{name}": value for name, value in card.tables}
    return "propose" in card.roles and build_parts(Recipe.of(card.name, options)).row_drafts


@pytest.mark.parametrize("drafter", [card.name for card in methods() if keeps_its_batch(card)])
def test_drafters_that_keep_their_batch_draft_for_each_row_alone(drafter: str) -> None:
    assert not parts_of(f"{drafter}+typical_acceptance", None)[0]().apart
    assert laws.row_independent(f"{drafter}+typical_acceptance", seeds=3).worst == 0


LEARNING = ["auto", "suffix", "banditspec", "sequoia", "swift", "speculative_sampling+disco"]


@pytest.mark.parametrize("drafter", LEARNING)
def test_drafters_that_learn_are_fresh_for_each_row_where_drafts_decide(drafter: str) -> None:
    recipe = f"{drafter}+typical_acceptance"
    assert parts_of(recipe, None)[0]().apart
    assert laws.row_independent(recipe, seeds=1).worst == 0


@pytest.mark.parametrize(("control", "options"), [("disco", {"tokens": 2, "rule": "heuristic"}), ("specdec_pp", {"most": 3})])
def test_a_controller_stands_beside_a_drafter_with_options_of_its_own(control: str, options: dict[str, Any]) -> None:
    make, roles = parts_of(control, options)
    assert make().propose is not None and make().control is not None and roles == ("draft",)
    assert with_drafter(f"banditspec+{control}") == f"banditspec+{control}" and with_drafter("auto") == "auto"
    assert laws.lossless(control, options, claims=4).total("accepted")


@pytest.mark.parametrize("card", methods(), ids=lambda card: card.name)
def test_every_claim_on_a_card_is_a_law(card: Card) -> None:
    for claim in card.claims:
        assert claim in laws.__all__
        assert callable(getattr(treewright.laws, claim))


@pytest.mark.parametrize("verifier", [Rejection, SampleThenMatch])
@pytest.mark.parametrize("law", LAWS)
def test_verifiers_are_exact_for_every_law_of_drafts(verifier: type, law: str) -> None:
    report = laws.exact_verifier(verifier, (law,))
    assert report.worst <= 1e-9
    assert report.total("accepted") > 0


def test_sample_then_match_follows_plain_and_rejection_does_not() -> None:
    assert laws.follows_plain("token_recycling")
    assert laws.follows_plain("jacobi")
    assert not laws.follows_plain("speculative_sampling", {"tokens": 2})


def test_a_model_family_scores_trees_as_its_bare_forward_does(tiny_gemma: Loaded) -> None:
    for model in (tiny_gemma, load(Table(6, 1))):
        assert laws.tree_scoring(model).relative < 1e-12


def test_a_prompt_longer_than_the_window_is_scored_right(tiny_gemma: Loaded) -> None:
    prompts = [list(range(30)), [5], list(range(17, 40))]
    assert laws.tree_scoring(tiny_gemma, prompts=prompts, seed=3).relative < 1e-12


THEIRS = '''
"""Drafts that repeat the last token. {remark}"""
from dataclasses import dataclass, replace
import numpy as np
from treewright.core.roles import Parts
from treewright.parts.verify.sample_then_match import SampleThenMatch

CARD = {{
    "title": "Theirs", "year": 2026, "link": "", "card": None, "aliases": [], "roles": ["propose", "verify"],
    "models": [], "needs": {needs}, "claims": ["lossless"],
}}

@dataclass(frozen=True)
class Config:
    """
    width: tokens drafted
    """
    width: int = 2

class Repeat:
    def __init__(self, width):
        self.width = width
    def propose(self, round):
        round.forest.grow(range(self.width), np.repeat(round.forest.token[:, :1], self.width, axis=1))

class Verifier(SampleThenMatch):
    def verify(self, round, law):
        verdict = super().verify(round, law)
        {spoil}
        return verdict

def parts(config):
    return Parts(propose=Repeat(config.width), verify=Verifier(), claims=config.width + 1)
'''


@pytest.fixture
def plug_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Installs THEIRS as the method `their_method`."""

    def install(spoil: str = "pass", needs: str = '["left_to_right", "tree"]') -> None:
        path = tmp_path / "their_method.py"
        path.write_text(THEIRS.format(remark="", spoil=spoil, needs=needs))
        monkeypatch.syspath_prepend(tmp_path)
        monkeypatch.delitem(__import__("sys").modules, "their_method", raising=False)
        installed = {**registry.entries(), "their_method": Entry(path, "speculate", "their_method")}
        monkeypatch.setattr(registry, "entries", lambda: installed)

    return install


def test_a_third_party_checks_its_method(plug_in: Callable[..., None]) -> None:
    plug_in()
    report = laws.lossless("their_method", {"width": 2})
    assert report.worst <= 1e-9
    assert report.total("accepted") > 0
    assert report.to_json()["subject"] == "their_method"


def test_a_third_party_s_lossy_method_is_told_so(plug_in: Callable[..., None]) -> None:
    plug_in(spoil="verdict.extra = [0 if token == 1 else token for token in verdict.extra]")
    with pytest.raises(laws.LawBroken, match=r"their_method.*total variation [01].* should have"):
        laws.lossless("their_method")


def test_a_need_that_tables_lack_is_named(plug_in: Callable[..., None]) -> None:
    plug_in(needs='["attention_heads"]')
    with pytest.raises(CapabilityError, match=r"their_method.*attention_heads"):
        laws.lossless("their_method")


def test_an_unknown_method_is_named() -> None:
    with pytest.raises(UnknownMethod, match="specinfre"):
        laws.lossless("specinfre")


def test_tree_scoring_refuses_wrong_logits() -> None:
    right = Table(6, 1)
    with pytest.raises(laws.LawBroken, match="tree scoring"):
        laws.tree_scoring(load(right), reference=lambda prompt, new: Table(6, 2).logits([*prompt, *new]))


def test_any_order_models_are_no_left_to_right_tables() -> None:
    assert AnyOrderTable(3, 1).capabilities.missing(["left_to_right"]) == ["left_to_right"]
