"""What the tests of steering share: the law of a recipe on exact tables, through the engine."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from treewright.core.request import Sampling
from treewright.testing.bench import Bench, Setting, parts_of
from treewright.testing.enumerate import Case


@pytest.fixture(scope="session")
def case_of() -> Callable[..., Case]:
    """case_of(method, options, temperature): three ragged rows; the second one's law is asked for."""

    def make(method: str, options: dict | None = None, temperature: float = 1.0, tokens: int = 3, vocabulary: int = 3) -> Case:
        parts, roles = parts_of(method, options)
        setting = Setting(method, Sampling(temperature), tokens=tokens, vocabulary=vocabulary, fenced=False, warm=True)
        return Bench(parts, roles, likeness=0.3).case(setting)

    return make
