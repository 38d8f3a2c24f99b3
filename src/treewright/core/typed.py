"""Values read as their annotations say, strictly: what a caller gives in place of a number is refused, never guessed at.

One rule for the fields of a request and for the options of every method. An integer may be numpy's, a whole number will do
for a float, a list for a tuple; a bool is no number, text is none either, and a float is finite. An option that may be without
limit says so by another word, such as `float | Literal["never"]`.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from functools import cache
from numbers import Integral, Real
from types import NoneType, UnionType
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

from treewright.core.errors import InputError

WORDS = {bool: "True or False", int: "an integer", float: "a finite number", str: "text", NoneType: "None", Any: "anything"}

SEVERAL = {int: "integers", float: "finite numbers", str: "texts"}


class WrongType(Exception):
    """A value is not of its annotation."""


def read(value: Any, annotation: Any) -> Any:
    """The value as the annotation has it. Raises WrongType."""
    if annotation is Any:
        return value
    origin, arguments = get_origin(annotation), get_args(annotation)
    if origin in (Union, UnionType):
        return _read_one_of(value, arguments)
    if origin is Literal:
        return _held(value, any(type(value) is type(one) and value == one for one in arguments))
    if origin is tuple:
        return _read_tuple(value, arguments)
    if annotation is int:
        return int(_held(value, isinstance(value, Integral) and not isinstance(value, bool)))
    if annotation is float:
        return _read_number(value)
    return _held(value, isinstance(value, origin or annotation))


def _held(value: Any, holds: bool) -> Any:
    if not holds:
        raise WrongType
    return value


def _read_number(value: Any) -> Any:
    try:
        number = float(_held(value, isinstance(value, Real) and not isinstance(value, bool)))
    except OverflowError as error:  # a whole number beyond all floats
        raise WrongType from error
    _held(value, math.isfinite(number))
    return value if isinstance(value, (int, float)) else number


def _read_one_of(value: Any, annotations: tuple[Any, ...]) -> Any:
    for annotation in annotations:
        try:
            return read(value, annotation)
        except WrongType:
            continue
    raise WrongType


def _read_tuple(value: Any, arguments: tuple[Any, ...]) -> tuple[Any, ...]:
    _held(value, isinstance(value, (list, tuple)))
    if arguments[-1:] != (Ellipsis,):
        _held(value, len(value) == len(arguments))
        return tuple(map(read, value, arguments))
    if arguments[0] is int and all(type(part) is int for part in value):  # prompts are long
        return tuple(value)
    return tuple(read(part, arguments[0]) for part in value)


def words(annotation: Any) -> str:
    """What an annotation allows, for a sentence."""
    origin, arguments = get_origin(annotation), get_args(annotation)
    if origin in (Union, UnionType):
        return " or ".join(map(words, arguments))
    if origin is Literal:
        return " or ".join(map(repr, arguments))
    if origin is tuple and arguments[-1:] == (Ellipsis,):
        return f"a list of {SEVERAL[arguments[0]]}" if arguments[0] in SEVERAL else f"a list, each {words(arguments[0])}"
    if origin is tuple:
        return f"({', '.join(map(words, arguments))})"
    return WORDS.get(annotation) or f"a {getattr(annotation, '__name__', annotation)}"


def shown(value: Any) -> str:
    """A value as a sentence names it: its repr, cut where it is long."""
    written = repr(value)
    return written if len(written) <= 60 else f"{written[:57]}..."


@cache
def field_types(owner: type) -> Mapping[str, Any]:
    """The annotations of a dataclass by field, resolved."""
    hints = get_type_hints(owner)
    return {field.name: hints[field.name] for field in dataclasses.fields(owner)}


def check_fields(owner: Any, names: Mapping[str, str] | None = None) -> None:
    """Reads every field of a frozen dataclass as its annotation says, in place. `names`: what the user calls a field, where that
    is another name. Raises InputError."""
    kind: type = type(owner)
    for field, annotation in field_types(kind).items():
        given = getattr(owner, field)
        try:
            value = read(given, annotation)
        except WrongType:
            name = (names or {}).get(field, field)
            raise InputError(f"{name} is {shown(given)}; allowed: {words(annotation)}") from None
        object.__setattr__(owner, field, value)
