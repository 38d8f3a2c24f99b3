"""Training a masked model: what is hidden, what a causal model's weights become, and a whole run."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import AutoTokenizer

from treewright.models.loading import BUNDLED, load
from treewright.models.masked import MaskedModel
from treewright.train import checkpoint, masked_model
from treewright.train.export import load_exported
from treewright.train.masked_model import bidirectional, hidden_cross_entropy, hide
from treewright.train.recipes import Bidirectional, Recipe, run

MASK = 9


def hidden(answer: list[bool], times: int, seed: int = 0):
    ids = torch.arange(len(answer)).repeat(times, 1)
    slots = torch.tensor(answer).repeat(times, 1)
    return hide(ids, slots, torch.ones_like(slots), 4, MASK, np.random.default_rng(seed))


def test_a_uniform_number_of_the_answers_slots_is_hidden() -> None:
    rows = hidden([False, True, True, True, False], 6000)
    counts = (rows.ids == MASK).sum(1)
    assert [float((counts == k).float().mean()) for k in (1, 2, 3)] == pytest.approx([1 / 3] * 3, abs=0.03)
    assert (rows.ids[:, [0, 4]] != MASK).all()
    single = rows.ids[counts == 1]
    assert [float((single[:, slot] == MASK).float().mean()) for slot in (1, 2, 3)] == pytest.approx([1 / 3] * 3, abs=0.04)


def test_weights_count_hidden_slots_alone_and_sum_to_one() -> None:
    rows = hidden([False, False, True, True, True], 200)
    assert torch.allclose(rows.weights.sum(1), torch.ones(200))
    looked_at = rows.ids.gather(1, rows.slots)
    assert ((looked_at == MASK) == (rows.weights > 0))[:, :3].all() and (rows.weights[:, 3:] == 0).all()
    assert (rows.tokens[rows.weights > 0] == rows.slots[rows.weights > 0]).all()


def test_a_causal_models_weights_carry_over() -> None:
    """One token attends to itself alone, with or without a causal mask, so both models say the same of it."""
    start, _ = load_exported(BUNDLED / "default-draft")
    both = tuple(range(start.config.num_hidden_layers))
    model = bidirectional(start, both, start.config.vocab_size).eval()
    with torch.no_grad():
        one = torch.tensor([[7]])
        assert torch.allclose(model(one).logits[..., :-1], start(one).logits, atol=1e-4)
        # Of two tokens the first one sees the second only without the mask.
        two = torch.tensor([[7, 8]])
        assert not torch.allclose(model(two).logits[0, 0, :-1], start(two).logits[0, 0], atol=1e-2)
    assert len(bidirectional(start, both[:1], 4096).model.layers) == 1


def test_the_loss_is_the_mean_cross_entropy_of_what_is_hidden() -> None:
    start, _ = load_exported(BUNDLED / "default-draft")
    model = bidirectional(start, (0,), start.config.vocab_size).eval()
    rows = hide(
        torch.randint(0, 99, (3, 6)), torch.tensor([[False, True, True, True, True, False]] * 3),
        torch.ones(3, 6, dtype=torch.bool), 4, 4096, np.random.default_rng(0),
    )  # fmt: skip
    with torch.no_grad():
        logits = model(rows.ids).logits.log_softmax(-1)
        loss = float(hidden_cross_entropy(model, rows))
    expected = []
    for row in range(3):
        slots = (rows.ids[row] == 4096).nonzero()[:, 0].tolist()
        tokens = [int(rows.tokens[row, slot - 1]) for slot in slots]
        expected.append(-float(torch.stack([logits[row, s, t] for s, t in zip(slots, tokens, strict=True)]).mean()))
    assert loss == pytest.approx(np.mean(expected), rel=0.02)


@pytest.fixture
def masked_recipe(recipe: Recipe, monkeypatch: pytest.MonkeyPatch) -> Recipe:
    monkeypatch.setattr(masked_model, "LIST_ROWS", 4)
    settings = replace(recipe.optimization, window=masked_model.Window(4, 64), long_every=0, evaluation_windows=1)
    architecture = Bidirectional(layers=(0,))
    return replace(recipe, name="tiny-masked", teacher="default-draft", architecture=architecture, optimization=settings)


def test_a_run_trains_resumes_and_exports_a_model_that_decodes(masked_recipe: Recipe, no_data: Path, tmp_path: Path) -> None:
    import treewright

    teacher = BUNDLED / "default-draft"
    tokens = 4 * 256
    export = run(masked_recipe, no_data, tmp_path / "whole", tokens=tokens, teacher=teacher)
    losses = checkpoint.load(tmp_path / "whole")[2].losses
    assert {"wrong copy", "wrong shuffle", "json", "sql"} <= set(losses[-1][1])
    again = run(
        masked_recipe, no_data, tmp_path / "whole", teacher=teacher, resume=True, tokens=tokens, export=tmp_path / "again"
    )
    assert (again / "model.safetensors").read_bytes() == (export / "model.safetensors").read_bytes()

    card = (export / "README.md").read_text()
    assert "fill-mask" in card and "begun with layers of `default-draft`" in card and "| wrong copy |" in card
    assert json.loads((export / "config.json").read_text())["mask_token_id"] == 4096
    assert AutoTokenizer.from_pretrained(export).mask_token_id == 4096
    loaded = load(str(export))
    assert isinstance(loaded.protocol, MaskedModel)
    done = treewright.generate(loaded, "List: cat bus dog\nCopy the list:", "llada", max_new_tokens=4)
    assert 1 <= len(done.tokens) <= 4
