"""Methods by name: cards read from source, names found, recipes composed; what is wrong is said with what is allowed."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from treewright.core import registry
from treewright.core.card import read_card
from treewright.core.errors import CompositionError, InputError, UnknownMethod, UnknownOption
from treewright.core.recipe import Recipe

METHOD = '''"""First line
and second.

More."""
import does_not_exist
CARD = {"title": "T", "year": 2024, "link": "l", "card": 3, "aliases": ["x"], "roles": ["verify"], "models": [],
        "needs": [], "claims": ["lossless"]}
class Config:
    """
    size: how many
    """
    size: int = 3
    kind: str | None = None
    FIXED = 4
'''


def test_a_card_is_read_without_importing_its_file(tmp_path: Path) -> None:
    path = tmp_path / "toy.py"
    path.write_text(METHOD)
    card = read_card(path, "search")
    assert (card.name, card.family, card.card, card.aliases, card.lossless) == ("toy", "search", 3, ("x",), True)
    assert card.summary == "First line and second."
    assert [(option.name, option.type, option.default, option.help) for option in card.options] == [
        ("size", "int", 3, "how many"), ("kind", "str | None", None, "")
    ]  # fmt: skip


def test_a_card_says_what_its_further_models_must_have(tmp_path: Path) -> None:
    path = tmp_path / "toy.py"
    path.write_text(METHOD)
    assert read_card(path, "search").models_need == ()
    path.write_text(METHOD.replace('"models": []', '"models": {"draft": ["layers", "hidden"], "judge": []}'))
    card = read_card(path, "search")
    assert card.models == ("draft", "judge")
    assert card.models_need == (("draft", ("layers", "hidden")), ("judge", ()))


@pytest.mark.parametrize(("broken", "found"), [("X = 1", "no CARD"), ('CARD = {"title": "T"}', "fields title")])
def test_a_file_without_its_card_is_refused(tmp_path: Path, broken: str, found: str) -> None:
    path = tmp_path / "toy.py"
    path.write_text(broken)
    with pytest.raises(InputError, match=f"{found}; its literal CARD must have title"):
        read_card(path, "search")


def test_listing_methods_imports_neither_torch_nor_any_method() -> None:
    code = (
        "import sys; from treewright.core.registry import methods; names = [c.name for c in methods()]; "
        "assert 'plain' in names and names == sorted(names); "
        "heavy = ('torch', 'transformers', 'numpy'); "
        "print([m for m in sys.modules if m.split('.')[0] in heavy or m.startswith('treewright.methods.')])"
    )
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert shown.stdout.strip() == "[]"


@pytest.mark.parametrize("words", ["token_recycling", "recycling", "TR", "turning trash into treasure"])
def test_a_paper_is_found_by_name_alias_and_title(words: str) -> None:
    assert registry.find(words).name == "token_recycling"


def test_what_is_not_found_is_answered_with_the_nearest() -> None:
    with pytest.raises(UnknownMethod, match=r"unknown method 'token_recyclin'; allowed: .*did you mean 'token_recycling'"):
        registry.entry("token_recyclin")
    with pytest.raises(UnknownMethod, match="no method matches 'quantum'"):
        registry.find("quantum")
    with pytest.raises(UnknownMethod, match=r"\d+ methods match 'decoding'"):
        registry.find("decoding")
    with pytest.raises(InputError, match=r"unknown family 'speculat'; allowed: .*did you mean 'speculate'"):
        registry.methods("speculat")


def test_a_recipe_places_options_and_is_plain_data() -> None:
    recipe = Recipe.of("token_recycling", {"nodes": 15, "token_recycling.k": 4})
    assert recipe == Recipe(("token_recycling",), (("token_recycling", "k", 4), ("token_recycling", "nodes", 15)))
    assert recipe.to_json() == {"method": "token_recycling", "options": {"token_recycling.k": 4, "token_recycling.nodes": 15}}
    assert recipe.options_of("token_recycling") == {"k": 4, "nodes": 15} and hash(recipe) is not None
    assert Recipe.of("specinfer", {"expansion": [2, 1]}).options == (("specinfer", "expansion", (2, 1)),)
    assert str(recipe) == "token_recycling (token_recycling.k=4, token_recycling.nodes=15)"


@pytest.mark.parametrize(
    ("method", "options", "error", "message"),
    [
        ("plain+", {}, InputError, r"method is 'plain\+'; write names joined by '\+'"),
        ("nothing", {}, UnknownMethod, "unknown method 'nothing'"),
        ("plain+plain", {}, CompositionError, "method 'plain' stands twice"),
        ("token_recycling+prompt_lookup", {}, CompositionError, "both take the single seat 'propose'; choose one"),
        ("token_recycling", {"node": 3}, UnknownOption, "unknown option 'node'.*did you mean 'nodes'"),
        ("token_recycling", {"plain.nodes": 3}, UnknownOption, "unknown option 'plain.nodes'"),
    ],
)
def test_a_recipe_that_makes_no_sense_is_refused(method: str, options: dict, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        Recipe.of(method, options)
