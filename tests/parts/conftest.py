"""A vocabulary of a few tokens, some of several bytes, so that languages can be checked by brute force."""

from __future__ import annotations

import pytest
from llguidance import LLTokenizer

from treewright.testing.vocabulary import TOKENS, toy_vocabulary


@pytest.fixture(scope="session")
def vocabulary() -> LLTokenizer:
    return toy_vocabulary()


@pytest.fixture(scope="session")
def tokens() -> list[bytes]:
    return list(TOKENS)
