"""Values read by their annotations: what is taken, what it becomes, what is refused, and how a sentence puts it."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from fractions import Fraction
from typing import Any, Literal

import numpy as np
import pytest

from treewright.core.errors import InputError
from treewright.core.typed import WrongType, check_fields, read, shown, words


@pytest.mark.parametrize(
    ("annotation", "given", "becomes"),
    [
        (int, 3, 3), (int, np.int64(3), 3), (int, 10**400, 10**400), (float, 3, 3), (float, 0.5, 0.5),
        (float, np.float32(0.5), 0.5), (float, Fraction(1, 2), 0.5), (bool, True, True), (str, "a", "a"), (Any, None, None),
        (int | None, None, None), (bool | Literal["never"], "never", "never"), (Literal["low"] | tuple[int, ...], [1, 2], (1, 2)),
        (tuple[int, ...], [np.int64(1), 2], (1, 2)), (tuple[tuple[int, float], ...], [[1, 2.0]], ((1, 2.0),)),
        (tuple[int, ...], (), ()),
    ],
)  # fmt: skip
def test_what_is_taken(annotation, given, becomes):
    value = read(given, annotation)
    assert value == becomes and type(value) is type(becomes)


@pytest.mark.parametrize(
    ("annotation", "given"),
    [
        (int, True), (int, "3"), (int, 3.0), (int, None), (int, np.bool_(True)), (float, True), (float, "0.5"), (float, math.nan),
        (float, math.inf), (float, -math.inf), (float, np.float32("nan")), (float, 10**400), (float, 1j), (bool, 1),
        (bool, "yes"),
        (str, b"a"), (str, 5), (int | None, "x"), (Literal[1, 2], True), (Literal["a"], "b"), (tuple[int, ...], "12"),
        (tuple[int, ...], 5), (tuple[int, ...], [1, True]), (tuple[int, ...], {1, 2}), (tuple[int, float], (1,)),
        (tuple[float, ...], (0.0, math.inf)),
    ],
)  # fmt: skip
def test_what_is_refused(annotation, given):
    with pytest.raises(WrongType):
        read(given, annotation)


def test_words():
    assert words(int | None) == "an integer or None"
    assert words(bool | Literal["never"]) == "True or False or 'never'"
    assert words(tuple[float, ...]) == "a list of finite numbers"
    assert words(tuple[tuple[int, float], ...]) == "a list, each (an integer, a finite number)"
    assert shown("x" * 100) == "'" + "x" * 56 + "..."


@dataclass(frozen=True, slots=True)
class Given:
    count: int = 1
    share: float = 0.5
    ids: tuple[int, ...] = field(default=())

    def __post_init__(self) -> None:
        check_fields(self, {"count": "n"})


def test_fields_are_read_in_place_and_named_as_the_user_does():
    assert Given(np.int64(2), np.float32(0.25), [np.int64(7)]) == Given(2, 0.25, (7,))  # type: ignore[arg-type]
    with pytest.raises(InputError, match=r"n is '2'; allowed: an integer$"):
        Given("2")  # type: ignore[arg-type]
    with pytest.raises(InputError, match=r"share is nan; allowed: a finite number$"):
        Given(share=math.nan)
