"""The source of the package, parsed once: house rules read it and import nothing of it."""

from __future__ import annotations

import ast
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PACKAGE = ROOT / "src" / "treewright"


@dataclass(frozen=True)
class Source:
    """One module of the package: its dotted name, file, text and syntax tree."""

    name: str
    path: Path
    text: str = field(repr=False)
    tree: ast.Module = field(repr=False)

    @property
    def room(self) -> str:
        """The folder under treewright/, or the module's own name where it lies in none."""
        return self.name.split(".")[1] if "." in self.name else ""

    def __str__(self) -> str:
        return str(self.path.relative_to(ROOT))


@cache
def read_sources() -> tuple[Source, ...]:
    sources = []
    for path in sorted(PACKAGE.rglob("*.py")):
        parts = path.relative_to(PACKAGE.parent).with_suffix("").parts
        name = ".".join(parts[:-1] if parts[-1] == "__init__" else parts)
        text = path.read_text(encoding="utf-8")
        sources.append(Source(name, path, text, ast.parse(text)))
    return tuple(sources)


@pytest.fixture(scope="session")
def root() -> Path:
    return ROOT


@pytest.fixture(scope="session")
def sources() -> tuple[Source, ...]:
    """Every module of the package."""
    return read_sources()


@pytest.fixture(scope="session")
def method_files() -> list[Path]:
    return sorted(PACKAGE.glob("methods/*/[a-z]*.py"))
