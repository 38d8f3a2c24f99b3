"""What a drafter reads from a file is read once in a run and kept, rows that are decoded apart and arms included."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from treewright.core.build import build_parts
from treewright.core.recipe import Recipe
from treewright.core.request import Sampling
from treewright.methods.speculate import aded, rest, suffix
from treewright.models.tables import Table
from treewright.parts.propose.corpus import write_corpus

TABLE = Table(6, seed=3, sharpness=2.0)
PROMPTS = [[1, 2, 3], [0], [5, 4], [2, 2]]
CORPUS = [[1, 2, 3, 4, 5, 0], [0, 3, 1, 5, 4, 2, 2, 0, 1]]
CLAIMS = {"rest": "nodes", "aded": "nodes", "suffix": "tokens"}
"""How each names the most claims of a round."""
READERS: dict[str, Any] = {"rest": rest, "aded": aded, "suffix": suffix}


@pytest.fixture
def reads(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Which methods read their corpus, one entry a reading."""
    seen: list[str] = []

    def counted(name: str, read: Callable[..., Any]) -> Callable[..., Any]:
        return lambda *given: seen.append(name) or read(*given)

    for name, module in READERS.items():
        monkeypatch.setattr(module, "read_corpus", counted(name, module.read_corpus))
    return seen


@pytest.mark.parametrize("method", READERS)
def test_rows_that_are_decoded_apart_share_the_corpus_and_nothing_that_was_learned(
    method: str, reads: list[str], tmp_path: Path, decode: Any
) -> None:
    write_corpus(tmp_path / "corpus.npz", CORPUS)
    recipe = Recipe.of(f"{method}+typical_acceptance", {f"{method}.corpus": str(tmp_path / "corpus.npz")})
    assert build_parts(recipe).apart
    settings: dict[str, Any] = dict(max_new_tokens=24, sampling=Sampling(1.0), seed=4)
    kept: dict[Any, Any] = {}
    together = decode(TABLE, build_parts(recipe), PROMPTS, memories=kept, **settings)
    assert reads == [method], "once for four rows"
    assert decode(TABLE, build_parts(recipe), PROMPTS, memories=kept, **settings).tokens == together.tokens
    assert reads == [method], "and kept for the next run"
    turned = decode(TABLE, build_parts(recipe), PROMPTS[:1], memories={}, **settings)
    assert turned.tokens == together.tokens[:1], "with nobody before it"
    assert reads == [method] * 2


@pytest.mark.parametrize("method", READERS)
def test_arms_share_the_corpus(method: str, reads: list[str], tmp_path: Path, decode: Any) -> None:
    write_corpus(tmp_path / "corpus.npz", CORPUS)
    arms = [f"{method}:corpus={tmp_path / 'corpus.npz'}:{CLAIMS[method]}={most}" for most in (2, 5)]
    memories: dict[Any, Any] = {}
    decode(TABLE, build_parts(Recipe.of("banditspec", {"arms": arms})), PROMPTS, memories=memories, max_new_tokens=12)
    assert reads == [method] and sum(key[0] == "loaded" for key in memories) == 1
    assert sum(key[1][0] == method for key in memories if isinstance(key[0], tuple)) == 2, "each arm learns for itself"
