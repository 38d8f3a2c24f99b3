"""A model that must not be asked: whoever opens a session on it has let a bad request through."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest

import treewright as tw
from treewright.models.tables import Table

SLOT_BYTES = 1024


class Untouched(Table):
    """An exact table whose capabilities claim memory, and which nobody may open."""

    def __init__(self) -> None:
        super().__init__(7, seed=0)
        self.capabilities = dataclasses.replace(self.capabilities, slot_bytes=SLOT_BYTES)

    def open(self, *arguments: Any) -> Any:
        raise AssertionError("the model was opened")


@pytest.fixture
def untouched() -> Any:
    return tw.load(Untouched())
