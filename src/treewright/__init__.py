"""treewright: every published way of decoding a language model, and all of them compose."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

# Where each public name lives; imported on first use, so that `import treewright` costs nothing.
_HOMES = {
    "generate": "api", "stream": "api", "load": "models.loading", "load_reward": "models.rewards",
    "Budget": "core.request", "Result": "core.result",
    "Trace": "core.trace", "Recipe": "core.recipe", "Card": "core.card", "TreewrightError": "core.errors",
    "find": "core.registry", "methods": "core.registry", "compare": "interop.compare", "hf": "interop.hf",
    "laws": "testing.laws",
    "json_schema": "core.grammar", "regex": "core.grammar", "grammar": "core.grammar", "choice": "core.grammar",
    "check": "core.grammar",
}  # fmt: skip
_MODULES = {"hf", "laws"}
__all__ = [*_HOMES, "__version__"]

if TYPE_CHECKING:
    from treewright.api import generate as generate
    from treewright.api import stream as stream
    from treewright.models.loading import load as load


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'treewright' has no attribute '{name}'; it has: {', '.join(sorted(__all__))}")
    module = importlib.import_module(f"treewright.{_HOMES[name]}")
    return module if name in _MODULES else getattr(module, name)


def __dir__() -> list[str]:
    return sorted(__all__)
