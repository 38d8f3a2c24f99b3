"""Methods by name. The name is the file: `methods/<family>/<name>.py`, or the same layout in an installed plug-in that
declares `[project.entry-points."treewright.methods"]  <name> = "package.module"`. Nobody edits a list."""

from __future__ import annotations

import importlib
import importlib.util
import threading
from dataclasses import dataclass
from functools import cache
from importlib import metadata
from pathlib import Path
from types import ModuleType

from treewright.core.card import Card, read_card
from treewright.core.errors import InputError, UnknownMethod, choices

GROUP = "treewright.methods"
ROOMS = Path(__file__).resolve().parent.parent / "methods"


NAMELIKE = 4
"""Words of the longest alias that is a name; a longer one is a title: it is understood, and never suggested."""

_parsing = threading.Lock()


@cache
def _card(path: Path, family: str) -> Card:
    # One at a time: two threads that parsed at once made CPython 3.11.7's parser fail.
    with _parsing:
        return read_card(path, family)


@dataclass(frozen=True, slots=True)
class Entry:
    """A method that is installed: its file, and the module to import when it is used."""

    path: Path
    family: str
    module: str

    @property
    def card(self) -> Card:
        """Read from the file when it is first asked for, so that who names one method reads one file."""
        return _card(self.path, self.family)

    def load(self) -> ModuleType:
        """The method's module, with its `Config` and `parts`."""
        return importlib.import_module(self.module)


@cache
def entries() -> dict[str, Entry]:
    """All installed methods by name; ours first, then plug-ins. Imports no method."""
    found: dict[str, Entry] = {}
    for path in sorted(ROOMS.glob("*/[a-z]*.py")):
        family = path.parent.name
        found[path.stem] = Entry(path, family, f"treewright.methods.{family}.{path.stem}")
    for point in metadata.entry_points(group=GROUP):
        path = _source(point.value)
        if point.name in found:
            raise InputError(f"plug-in method '{point.name}' ({point.value}) has the name of an installed one; rename it")
        if path.stem != point.name:
            raise InputError(f"plug-in method '{point.name}' points at {path.name}; name the file {point.name}.py")
        found[point.name] = Entry(path, path.parent.name, point.value)
    return found


def _source(module: str) -> Path:
    """The file of a module, found without importing the module itself (its packages are imported)."""
    spec = importlib.util.find_spec(module)
    if spec is None or spec.origin is None:
        raise InputError(f"plug-in method module '{module}' cannot be found; reinstall its package")
    return Path(spec.origin)


def entry(name: str) -> Entry:
    """The method of this name, or of this alias: letter case aside, and spaces, hyphens and underscores alike. A name goes
    before an alias. Raises UnknownMethod with the nearest names, and for an alias of several methods."""
    installed = entries()
    found = called(name)
    if found is None:
        aliases = [alias for one in installed.values() for alias in one.card.aliases if len(alias.split()) <= NAMELIKE]
        raise UnknownMethod(f"unknown method '{name}'; {choices(name, installed, aliases)}")
    return installed[found]


def called(name: str) -> str | None:
    """The name of the method that is called so, None for no method."""
    installed = entries()
    if name in installed:
        return name
    cards = [found.card for found in installed.values()]
    owners = [card.name for card in cards if _spelled(name) == _spelled(card.name)]
    owners = owners or [card.name for card in cards if _spelled(name) in map(_spelled, card.aliases)]
    if len(owners) > 1:
        raise UnknownMethod(f"'{name}' is an alias of {' and '.join(sorted(owners))}; give one of these names")
    return owners[0] if owners else None


def _spelled(name: str) -> str:
    return name.strip().casefold().replace("-", "_").replace(" ", "_")


def methods(family: str | None = None) -> list[Card]:
    """The cards of all installed methods, or of one family, by name. Raises InputError for an unknown family."""
    cards = sorted((found.card for found in entries().values()), key=lambda card: card.name)
    families = {card.family for card in cards}
    if family is not None and family not in families:
        raise InputError(f"unknown family '{family}'; {choices(family, families)}")
    return [card for card in cards if family in (None, card.family)]


def find(words: str) -> Card:
    """The card of the method that `words` names, as `entry` understands them, or else of the only one that has them in its
    paper's title. Raises UnknownMethod otherwise."""
    found = called(words)
    if found is not None:
        return entry(found).card
    wanted, cards = words.casefold().strip(), methods()
    partial = [card for card in cards if wanted and wanted in card.title.casefold()]
    if len(partial) != 1:
        matching = f"{len(partial)} methods match" if partial else "no method matches"
        names = ", ".join(card.name for card in partial or cards)
        raise UnknownMethod(f"{matching} '{words}'; give a name, an alias or part of a title of one of: {names}")
    return partial[0]
