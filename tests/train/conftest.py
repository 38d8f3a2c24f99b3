"""A recipe small enough to train in a second, on documents made in memory."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from treewright.train import corpus, synthetic_json, synthetic_sql
from treewright.train.corpus import Source
from treewright.train.language_model import Optimization
from treewright.train.recipes import Architecture, Recipe
from treewright.train.token_store import Window

TOKENS_PER_STEP = 4 * 32


@pytest.fixture(autouse=True)
def one_thread():
    """The models are too small for two threads to help, and one makes sums repeatable."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture
def recipe(monkeypatch: pytest.MonkeyPatch) -> Recipe:
    sources = (
        Source("few_json", "json", generate=lambda: synthetic_json.documents(500, seed=3)),
        Source("few_sql", "sql", generate=lambda: synthetic_sql.documents(400, seed=2)),
    )
    for source in sources:
        monkeypatch.setitem(corpus.SOURCES, source.name, source)
    return Recipe(
        name="tiny",
        summary="a test model",
        architecture=Architecture(16, 1, 2, 32, vocabulary_size=320, max_positions=64),
        tokens=20 * TOKENS_PER_STEP,
        optimization=Optimization(
            peak_learning_rate=1e-2,
            window=Window(4, 32),
            long_window=Window(2, 64),
            long_every=4,
            micro_sequences=2,
            warm_up_tokens=2 * TOKENS_PER_STEP,
            checkpoint_tokens=10 * TOKENS_PER_STEP,
            report_tokens=5 * TOKENS_PER_STEP,
            evaluation_windows=2,
            compiled=False,
        ),
        mixture={"few_json": 0.6, "few_sql": 0.4},
    )


@pytest.fixture
def draft_recipe(recipe: Recipe) -> Recipe:
    architecture = replace(recipe.architecture, hidden_size=8, heads=1)
    return replace(recipe, name="tiny-draft", architecture=architecture, teacher="tiny")


@pytest.fixture
def no_data(tmp_path: Path) -> Path:
    """A data folder without files: the tiny recipe generates all its documents."""
    return tmp_path / "data"
