"""The rooms of the methods. Called, the package lists their cards: `treewright.methods` is the public function's name as well,
and Python puts a package in that place as soon as one of its modules is imported."""

from __future__ import annotations

import sys
from types import ModuleType

from treewright.core import registry
from treewright.core.card import Card


class Methods(ModuleType):
    """The package as a function."""

    def __call__(self, family: str | None = None) -> list[Card]:
        """The cards of all methods; see `treewright.core.registry.methods`."""
        return registry.methods(family)


sys.modules[__name__].__class__ = Methods
