"""Methods by name: cards read from source, names found, recipes composed; what is wrong is said with what is allowed."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

from treewright.core import registry
from treewright.core.card import parse_head, read_card
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


def test_every_alias_names_its_method_wherever_a_method_is_named() -> None:
    for card in registry.methods():
        for alias in card.aliases:
            assert registry.entry(alias).card is registry.entry(card.name).card, alias
            assert not set(alias) & set("+,."), f"{card.name}: alias '{alias}' cannot be written in a recipe"
    assert registry.entry("Speculative-Decoding").card.name == "speculative_sampling"


def test_a_recipe_of_aliases_holds_names() -> None:
    recipe = Recipe.of("MSS+experts", {"mss.expansion": [2, 1], "experts.alpha": 1.0, "filter_p": 0.5})
    assert recipe == Recipe.of("specinfer+dexperts", {"expansion": [2, 1], "alpha": 1.0, "dexperts.filter_p": 0.5})
    assert recipe.to_json()["method"] == "specinfer+dexperts"
    with pytest.raises(CompositionError, match="method 'specinfer' stands twice"):
        Recipe.of("MSS+specinfer")


@pytest.fixture
def installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two methods with the alias "x", one of which is called "y", which is an alias of the other."""
    entries = {}
    for name, aliases in {"y": '["x"]', "toy": '["x", "y", "a paper with so many words"]'}.items():
        path = tmp_path / f"{name}.py"
        path.write_text(METHOD.replace('["x"]', aliases))
        entries[name] = registry.Entry(path, "search", name)
    monkeypatch.setattr(registry, "entries", lambda: entries)


def test_an_alias_of_several_is_refused_and_a_name_goes_first(installed: None) -> None:
    for ask in (registry.entry, registry.find, Recipe.of):
        with pytest.raises(UnknownMethod, match="'X' is an alias of toy and y; give one of these names"):
            ask("X")
    assert registry.entry("Y").card.name == "y"


def test_a_title_is_understood_and_never_suggested(installed: None) -> None:
    assert registry.entry("A Paper with so many words").card.name == "toy"
    with pytest.raises(UnknownMethod, match=r"unknown method 'a paper with so many word'; allowed: toy, y$"):
        registry.entry("a paper with so many word")


def test_one_name_reads_one_file(installed: None) -> None:
    registry.entries()["toy"].path.write_text("NOTHING = 1")
    assert registry.entry("y").card.name == "y"
    with pytest.raises(InputError, match="its literal CARD must have"):
        registry.methods()


def test_the_head_of_a_file_says_what_the_whole_file_says() -> None:
    for found in registry.entries().values():
        text = found.path.read_text(encoding="utf-8")
        head, whole = parse_head(text, "head").body, ast.parse(text).body
        assert len(head) < len(whole), found.path
        assert [ast.dump(node) for node in head] == [ast.dump(node) for node in whole[: len(head)]]
        assert any(isinstance(node, ast.ClassDef) and node.name == "Config" for node in head)


@pytest.mark.parametrize(
    "text",
    [
        'CARD = 1\nclass Config:\n    """\nclass B:\n"""\n    size: int = 3\nx = 1\n',
        "CARD = 1\nclass Config:\n    size: int = (\n3)\n    x: int = 4\n",
        "class Config:\n    size: int = 3\nx = 1\nCARD = 1\n",
        '"""\nCARD\nclass Config:\nx\n"""\nCARD = 1\nclass Config:\n    size: int = 3',
        "CARD = 1\n",
    ],
)
def test_where_the_head_cannot_be_cut_the_whole_file_is_read(text: str) -> None:
    assert ast.dump(parse_head(text, "file")) == ast.dump(ast.parse(text))


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
