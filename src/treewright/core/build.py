"""From a recipe, which is data, to the live parts of one run."""

from __future__ import annotations

from collections.abc import Mapping
from functools import reduce
from typing import Any

from treewright.core.errors import CompositionError, UnknownOption
from treewright.core.recipe import Recipe
from treewright.core.registry import entry
from treewright.core.roles import Parts
from treewright.core.typed import WrongType, field_types, read, shown, words


def build_parts(recipe: Recipe) -> Parts:
    """The live roles of a recipe; plain decoding's verifier where no method brings one. Raises UnknownOption, and
    CompositionError for a controller without a drafter, or with one that never asks it."""
    brought = parts_by_method(recipe)
    built = reduce(Parts.join, brought.values(), Parts())
    if built.control is not None and built.propose is None:
        control = next(name for name, parts in brought.items() if parts.control is not None)
        raise CompositionError(
            f"'{control}' says when to stop drafting and drafts nothing itself; give it with a drafter, such as "
            f"speculative_sampling+{control}"
        )
    if built.asked and not built.asks:
        control = next(name for name, parts in brought.items() if parts.asked)
        drafter = next(name for name, parts in brought.items() if parts.propose is not None)
        raise CompositionError(
            f"'{control}' decides after each draft of a chain whether to go on, and '{drafter}' never asks it; join it to one "
            "that drafts a chain from a model, such as speculative_sampling"
        )
    if built.verify is None:
        built.verify = entry("plain").load().parts(entry("plain").load().Config()).verify
    return built


def parts_by_method(recipe: Recipe) -> dict[str, Parts]:
    """What each method of a recipe brings. Raises UnknownOption."""
    brought = {}
    for name in recipe.methods:
        module = entry(name).load()
        brought[name] = module.parts(read_config(name, module.Config, recipe.options_of(name)))
    return brought


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
