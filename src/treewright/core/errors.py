"""Every error a user can meet: one sentence that names the value, what was allowed, and what to do.

TreewrightError
├── InputError            a value in the request is wrong (prompt, length, seed, file ...)
│   ├── UnknownMethod     no method of that name
│   ├── UnknownOption     a method has no such option, or the option refuses the value
│   ├── ContextError      the prompt does not fit the model
│   └── ConstraintError   the constraint is malformed, not supported, or allows nothing
├── ModelError            the model cannot be loaded
│   └── CapabilityError   the model lacks what the method needs
└── CompositionError      two parts that cannot work together
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class TreewrightError(Exception):
    """Base of all errors that treewright raises on purpose."""


class InputError(TreewrightError, ValueError):
    """A value in the request is wrong."""


class UnknownMethod(InputError):
    """No method of that name is installed."""


class UnknownOption(InputError):
    """A method has no such option, or the option refuses the value."""


class ContextError(InputError):
    """The prompt does not fit into the model's context."""


class ConstraintError(InputError):
    """The constraint is malformed, uses what is not supported, or allows no text."""


class ModelError(TreewrightError):
    """A model cannot be loaded."""


class CapabilityError(ModelError):
    """The model lacks something that the method needs."""


class CompositionError(TreewrightError, ValueError):
    """Two parts of a recipe cannot work together."""


def choices(wanted: str, allowed: Iterable[str], also: Iterable[str] = ()) -> str:
    """The tail of an error sentence: what was allowed, and the nearest allowed name if one is near. also: names that are
    understood and not listed."""
    names = sorted(allowed)
    near = difflib.get_close_matches(wanted, [*names, *sorted(also)], n=1)
    hint = f"; did you mean '{near[0]}'?" if near else ""
    return f"allowed: {', '.join(names) or 'nothing'}{hint}"


def require(holds: bool, name: str, value: object, allowed: str) -> None:
    """Raises InputError where a value is out of its range: its name, the value, what is allowed."""
    if not holds:
        raise InputError(f"{name} is {value}; allowed: {allowed}")
