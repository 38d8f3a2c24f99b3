"""The repository as a whole: one version, small weights, nothing that points at the machine it was written on."""

from __future__ import annotations

import re
import shutil
import subprocess
import tomllib
from pathlib import Path

import pytest

import treewright
from treewright.cli.catalogue import catalogue
from treewright.core.registry import methods

MOST_MEGABYTES_BUNDLED = 40
# Spelled in two halves, so that this file does not hold what it looks for.
WORKPLACE = "/" + "work/"


@pytest.fixture(scope="module")
def tracked(root) -> list[Path]:
    """Files that git holds, or would hold with the next commit."""
    if shutil.which("git") is None or not (root / ".git").exists():
        pytest.skip("not a git checkout")
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard"], cwd=root, capture_output=True, text=True, check=True
    )  # fmt: skip
    return [root / line for line in listed.stdout.splitlines() if (root / line).is_file()]


def test_one_version(root):
    project = tomllib.loads((root / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    changelog = (root / "CHANGELOG.md").read_text(encoding="utf-8")
    newest = re.search(r"^## \[?v?(\d+\.\d+\.\d+)", changelog, re.MULTILINE)
    assert newest is not None, "CHANGELOG.md has no entry that begins with '## ' and a version"
    assert project["version"] == treewright.__version__ == newest.group(1)


def test_bundled_models_are_small(root):
    bundled = [path for path in (root / "src" / "treewright" / "bundled").rglob("*") if path.is_file()]
    assert sum(path.stat().st_size for path in bundled) < MOST_MEGABYTES_BUNDLED * 1_000_000


def test_bundled_models_have_a_card_each(root):
    for weights in (root / "src" / "treewright" / "bundled").glob("*/*.safetensors"):
        assert (weights.parent / "README.md").exists(), f"{weights.parent.name} has no model card"


def test_no_file_names_the_workplace(tracked, root):
    naming = []
    for path in tracked:
        try:
            text = path.read_text(encoding="utf-8")
        except UnicodeDecodeError:
            continue
        naming += [f"{path.relative_to(root)}:{n}" for n, line in enumerate(text.splitlines(), 1) if WORKPLACE in line]
    assert naming == []


def test_tests_mirror_the_package(root):
    """tests/<room>/ for every room that is tested; no __init__.py, so that equal names do not clash."""
    rooms = {path.name for path in (root / "src" / "treewright").iterdir() if path.is_dir()}
    folders = {path.name for path in (root / "tests").iterdir() if path.is_dir() and not path.name.startswith("_")}
    assert folders - rooms <= {"house", "examples", "docs"}
    assert list((root / "tests").rglob("__init__.py")) == []


def test_licence_is_named_once(root):
    project = tomllib.loads((root / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert project["license"] == "Apache-2.0"
    assert "Apache License" in (root / "LICENSE").read_text(encoding="utf-8")


def test_the_page_of_methods_holds_nothing_stale(root):
    """A method that is not on the page yet is for `make lint` to say, so that adding one takes two files."""
    written = (root / "docs/methods.md").read_text(encoding="utf-8")
    listed = [card for card in methods() if f"### `{card.name}`\n" in written]
    assert listed and written == catalogue(listed), "run `make page`"
