"""What the tests of selection share: candidates by hand, a table with a tokenizer of digits, the exact law of a choice."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import pytest

from treewright.api import build_parts
from treewright.core.recipe import Recipe
from treewright.core.registry import entry
from treewright.core.request import Sampling
from treewright.core.selection import Candidate
from treewright.models.loading import Loaded
from treewright.models.tables import Table
from treewright.testing.bench import Bench, Setting
from treewright.testing.definition import plain_law
from treewright.testing.selection import joint_outcomes, pool_of


class Digits:
    """Token 0 is special; the others are spelled as numbers with blanks between."""

    chat_template = None
    eos_token_id = 0

    def decode(self, ids: Sequence[int], **options: Any) -> str:
        return " ".join(str(token) for token in ids if token)

    def __call__(self, text: str) -> dict[str, list[int]]:
        return {"input_ids": [int(word) for word in text.split()]}


@pytest.fixture
def table() -> Callable[..., Loaded]:
    """table(vocabulary): an exact table with a tokenizer; token 0 ends a text."""

    def make(vocabulary: int = 5, seed: int = 3) -> Loaded:
        model = Table(vocabulary, seed)
        return Loaded("table", model, Digits(), model)  # type: ignore[arg-type]

    return make


def pool(*texts: str, logprobs: Sequence[float] | None = None, reasons: Sequence[str] | None = None) -> list[Candidate]:
    found = []
    for sample, text in enumerate(texts):
        tokens = [ord(character) for character in text]
        logprob = 0.0 if logprobs is None else logprobs[sample]
        reason: Any = "stop" if reasons is None else reasons[sample]
        found.append(Candidate(sample, tokens, text, reason, logprob=logprob))
    return found


@pytest.fixture(name="pool")
def pool_fixture() -> Callable[..., list[Candidate]]:
    """pool("a", "b", logprobs=..., reasons=...): candidates of those texts, a token for each character."""
    return pool


@pytest.fixture
def chooser() -> Callable[..., Callable[..., list[int]]]:
    """chooser(method, **options)(candidates, **scorers): the indices that the method's selector gives."""

    def make(method: str, **options: Any) -> Callable[..., list[int]]:
        module = entry(method).load()
        selector = module.parts(module.Config(**options)).select
        return lambda candidates, **scorers: selector.select("prompt", candidates, scorers)

    return make


@pytest.fixture
def laws_of() -> Callable[..., tuple[dict, dict]]:
    """laws_of(method, options, scorers): the exact law of one plain text on a table of three tokens, of which 2 ends a text, and
    that of the text which the method chooses of two, over every outcome of both, with rows given up as the engine does."""

    def enumerate_both(method: str, options: dict, scorers: dict | None = None) -> tuple[dict, dict]:
        recipe = Recipe.of(method, {**options, "candidates": 2})
        setting = Setting("two", Sampling(1.0), tokens=3, stop_ids=(2,), fenced=False)
        case = Bench(lambda: build_parts(recipe)).case(setting)
        law: dict[tuple[int, ...], float] = {}
        for engine, probability in joint_outcomes(case, patient=False):
            candidates = pool_of(case, engine, case.row)
            best = engine.selector.select("", candidates, scorers or {})[0]  # type: ignore[union-attr]
            tokens = tuple(candidates[best].tokens)
            law[tokens] = law.get(tokens, 0.0) + probability
        return plain_law(case), law

    return enumerate_both
