"""A method is one file and one test: the card, the options, the parts, and laws that exist for every claim."""

from __future__ import annotations

import ast
import dataclasses
import re
import subprocess
import sys
from pathlib import Path

import pytest

from treewright.core.card import FIELDS, read_card
from treewright.core.registry import entries

ROLES = {
    "propose", "verify", "accept", "control", "draw", "select", "drive", "observe", "steer", "constrain"
}  # fmt: skip
NEEDS = {
    "left_to_right", "any_order", "tree", "hidden", "exit_layers", "layers", "attention_heads", "embeddings", "gradients",
}  # fmt: skip


def cards(method_files: list[Path]):
    return [read_card(path, path.parent.name) for path in method_files]


def test_there_are_methods(method_files):
    assert {"plain", "token_recycling", "lookahead", "specinfer"} <= {path.stem for path in method_files}


def test_every_method_file_is_installed(method_files):
    assert {path.stem for path in method_files} <= set(entries())


def test_card_config_and_parts_are_there(method_files):
    for path in method_files:
        tree = ast.parse(path.read_text(encoding="utf-8"))
        assigned = {t.id for node in tree.body if isinstance(node, ast.Assign) for t in node.targets if isinstance(t, ast.Name)}
        classes = {node.name for node in tree.body if isinstance(node, ast.ClassDef)}
        functions = {node.name: node for node in tree.body if isinstance(node, ast.FunctionDef)}
        assert "CARD" in assigned, path
        assert "Config" in classes, path
        assert [argument.arg for argument in functions["parts"].args.args] == ["config"], path


def test_cards_are_filled_in(method_files):
    for card in cards(method_files):
        assert card.title and card.summary, card.name
        assert card.link.startswith("https://") or card.name == "plain", card.name
        assert "treewright" not in card.link, f"{card.name}: a link leads to what others published"
        assert card.card is None or card.card >= 0, card.name
        assert card.roles and set(card.roles) <= ROLES, card.name
        assert set(card.needs) <= NEEDS, card.name
        options = {option.name for option in card.options}
        assert options >= {option for scorer in card.scorers for option, _ in scorer.when}, card.name
        assert len(set(card.aliases)) == len(card.aliases), card.name
    assert set(FIELDS) >= {"title", "claims", "needs", "roles"}


def test_no_two_methods_share_a_name_a_card_or_an_alias(method_files):
    known = cards(method_files)
    numbers = [card.card for card in known if card.card is not None]
    names = [name.casefold() for card in known for name in (card.name, *card.aliases)]
    titles = [card.title for card in known]
    for listed in (numbers, names, titles):
        assert sorted(set(listed)) == sorted(listed)


def test_every_claim_is_a_law(method_files, sources):
    laws = next(source for source in sources if source.name == "treewright.testing.laws")
    listed = next(node for node in laws.tree.body if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "__all__")
    known = set(ast.literal_eval(listed.value))
    for card in cards(method_files):
        assert card.claims, card.name
        assert set(card.claims) <= known, card.name


def test_one_test_file_for_each_method(method_files, root):
    for path in method_files:
        test = root / "tests" / "methods" / path.parent.name / f"test_{path.stem}.py"
        assert test.exists(), f"{path.stem} has no test; write {test.relative_to(root)}"
        assert "def test_" in test.read_text(encoding="utf-8")
    stems = {path.stem for path in method_files}
    tests = {path.stem.removeprefix("test_") for path in (root / "tests" / "methods").glob("*/test_*.py")}
    assert tests == stems


def test_the_readme_names_what_is_there_and_counts_it_rightly(method_files, root):
    """The front page names some methods of each room; the page of all of them is generated."""
    text = (root / "README.md").read_text(encoding="utf-8")
    what_is_here = text[text.index("## What is here") : text.index("Names join with")]
    first_cells = [line.split("|")[1] for line in what_is_here.splitlines() if line.startswith("| `")]
    stems = {path.stem for path in method_files}
    listed = {name for cell in first_cells for name in re.findall(r"`(\w+)`", cell)}
    assert len(listed) > 20 and sorted(listed - stems) == [], "the README names methods that are not there"
    assert "docs/methods.md" in what_is_here
    for page in ("README.md", "docs/index.md"):
        counts = re.findall(r"\b(\d+) (?:[a-z-]+ ){0,2}methods\b", (root / page).read_text(encoding="utf-8"))
        assert set(map(int, counts)) <= {len(stems)}, f"{page} counts {counts} methods; there are {len(stems)}"


@pytest.mark.parametrize("name", sorted(entries()))
def test_options_are_read_from_the_source_as_they_are(name):
    """What the card lists without importing is what the dataclass holds; every option has a line of help."""
    found = entries()[name]
    config = found.load().Config
    assert dataclasses.is_dataclass(config) and config.__dataclass_params__.frozen
    listed = {option.name: option.default for option in found.card.options}
    assert listed == {field.name: field.default for field in dataclasses.fields(config)}
    assert all(option.help for option in found.card.options)
    config()


@pytest.mark.parametrize("name", sorted(entries()))
def test_roles_of_the_card_are_the_seats_that_are_taken(name):
    found = entries()[name]
    module = found.load()
    parts = module.parts(module.Config())
    taken = {"propose": parts.propose, "verify": parts.verify, "control": parts.control}
    taken |= {"draw": parts.draw, "select": parts.select, "accept": parts.accept, "drive": parts.drive}
    seats = {seat for seat, part in taken.items() if part is not None}
    seats |= {seat for seat in ("observe", "steer", "constrain") if getattr(parts, seat)}
    assert seats == set(found.card.roles)


def test_listing_methods_imports_nothing_heavy():
    program = (
        "import sys\n"
        "sys.argv = ['treewright', 'methods', '--json']\n"
        "from treewright.cli.main import main\n"
        "try:\n    main()\n"
        "except SystemExit as end:\n    assert not end.code, end.code\n"
        "heavy = {'torch', 'transformers', 'scipy', 'matplotlib'} & set(sys.modules)\n"
        "assert not heavy, heavy\n"
    )
    ran = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60)
    assert ran.returncode == 0, ran.stderr
    assert "token_recycling" in ran.stdout


def test_the_package_itself_imports_nothing_heavy():
    program = "import sys, treewright; assert not {'torch', 'transformers', 'numpy'} & set(sys.modules), 'heavy'"
    ran = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60)
    assert ran.returncode == 0, ran.stderr
