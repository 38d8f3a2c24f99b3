"""From a recipe, which is data, to the live parts of one run."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from treewright.core.errors import UnknownOption
from treewright.core.recipe import Recipe
from treewright.core.registry import entry
from treewright.core.roles import Parts
from treewright.core.typed import WrongType, field_types, read, shown, words


def build_parts(recipe: Recipe) -> Parts:
    """The live roles of a recipe; plain decoding's verifier where no method brings one. Raises UnknownOption."""
    built = Parts()
    for name in recipe.methods:
        module = entry(name).load()
        built = built.join(module.parts(read_config(name, module.Config, recipe.options_of(name))))
    if built.verify is None:
        built.verify = entry("plain").load().parts(entry("plain").load().Config()).verify
    return built


def read_config(name: str, config: type, options: Mapping[str, Any]) -> Any:
    """A method's Config from options, each as its field's annotation says. Raises UnknownOption."""
    expected, values = field_types(config), {}
    for option, value in options.items():
        try:
            values[option] = read(value, expected[option])
        except WrongType:
            raise UnknownOption(f"option '{name}.{option}' is {shown(value)}; allowed: {words(expected[option])}") from None
    try:
        return config(**values)
    except ValueError as error:
        option, rest = str(error).split(" ", 1)
        raise UnknownOption(f"option '{name}.{option}' {rest}") from error
