"""Methods by name. The name is the file: `methods/<family>/<name>.py`, or the same layout in an installed plug-in that
declares `[project.entry-points."treewright.methods"]  <name> = "package.module"`. Nobody edits a list."""

from __future__ import annotations

import importlib
import importlib.util
from dataclasses import dataclass
from functools import cache
from importlib import metadata
from pathlib import Path
from types import ModuleType

from treewright.core.card import Card, read_card
from treewright.core.errors import InputError, UnknownMethod, choices

GROUP = "treewright.methods"
ROOMS = Path(__file__).resolve().parent.parent / "methods"


@dataclass(frozen=True, slots=True)
class Entry:
    """A method that is installed: its card and the module to import when it is used."""

    card: Card
    module: str

    def load(self) -> ModuleType:
        """The method's module, with its `Config` and `parts`."""
        return importlib.import_module(self.module)


@cache
def entries() -> dict[str, Entry]:
    """All installed methods by name; ours first, then plug-ins. Imports no method."""
    found: dict[str, Entry] = {}
    for path in sorted(ROOMS.glob("*/[a-z]*.py")):
        family = path.parent.name
        found[path.stem] = Entry(read_card(path, family), f"treewright.methods.{family}.{path.stem}")
    for point in metadata.entry_points(group=GROUP):
        path = _source(point.value)
        if point.name in found:
            raise InputError(f"plug-in method '{point.name}' ({point.value}) has the name of an installed one; rename it")
        if path.stem != point.name:
            raise InputError(f"plug-in method '{point.name}' points at {path.name}; name the file {point.name}.py")
        found[point.name] = Entry(read_card(path, path.parent.name), point.value)
    return found


def _source(module: str) -> Path:
    """The file of a module, found without importing the module itself (its packages are imported)."""
    spec = importlib.util.find_spec(module)
    if spec is None or spec.origin is None:
        raise InputError(f"plug-in method module '{module}' cannot be found; reinstall its package")
    return Path(spec.origin)


def entry(name: str) -> Entry:
    """The method called `name`. Raises UnknownMethod with the nearest names."""
    installed = entries()
    if name not in installed:
        raise UnknownMethod(f"unknown method '{name}'; {choices(name, installed)}")
    return installed[name]


def methods(family: str | None = None) -> list[Card]:
    """The cards of all installed methods, or of one family, by name. Raises InputError for an unknown family."""
    cards = sorted((found.card for found in entries().values()), key=lambda card: card.name)
    families = {card.family for card in cards}
    if family is not None and family not in families:
        raise InputError(f"unknown family '{family}'; {choices(family, families)}")
    return [card for card in cards if family in (None, card.family)]


def find(words: str) -> Card:
    """The card whose name, alias or title matches `words`, letter case aside; part of a title is enough if only one
    method has it. Raises UnknownMethod otherwise."""
    wanted = words.casefold().strip()
    cards = [found.card for found in entries().values()]
    exact = [card for card in cards if wanted in {card.name, *(alias.casefold() for alias in card.aliases)}]
    partial = exact or [card for card in cards if wanted and wanted in card.title.casefold()]
    if len(partial) != 1:
        found = f"{len(partial)} methods match" if partial else "no method matches"
        names = ", ".join(card.name for card in partial or cards)
        raise UnknownMethod(f"{found} '{words}'; give a name, an alias or part of a title of one of: {names}")
    return partial[0]
