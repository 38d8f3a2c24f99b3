"""Whole runs: training, resuming, finishing early, exporting and distilling."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from transformers import AutoTokenizer, LlamaForCausalLM

from treewright.train import checkpoint
from treewright.train.checkpoint import CheckpointError
from treewright.train.recipes import RECIPES, Recipe, find_recipe, run

TOKENS_PER_STEP = 4 * 32  # of the `recipe` fixture


class KilledError(Exception):
    """Stands for a kill signal between two steps."""


def _kill_after(lines: int):
    """A log that stops the run when it receives its `lines`-th line."""
    seen: list[str] = []

    def log(line: str) -> None:
        seen.append(line)
        if len(seen) == lines:
            raise KilledError

    return log


def test_a_run_learns_and_exports(recipe: Recipe, no_data: Path, tmp_path: Path):
    lines: list[str] = []
    preview = tmp_path / "preview"
    export = run(recipe, no_data, tmp_path / "run", preview=preview, log=lines.append)

    progress = checkpoint.load(tmp_path / "run")[2]
    first, last = progress.losses[0][1], progress.losses[-1][1]
    assert progress.tokens == recipe.tokens
    assert set(last) == {"json", "sql"}
    assert last["json"] < first["json"] < 5.8  # 5.8 is the log of the vocabulary size
    assert any("tokens/s" in line for line in lines)
    assert (preview / "model.safetensors").is_file()
    assert "early checkpoint" in (preview / "README.md").read_text()
    assert "early checkpoint" not in (export / "README.md").read_text()


def test_the_export_loads_and_stores_the_embeddings_once(recipe: Recipe, no_data: Path, tmp_path: Path):
    export = run(recipe, no_data, tmp_path / "run", tokens=2 * TOKENS_PER_STEP)
    with safe_open(export / "model.safetensors", "pt") as weights:
        names = list(weights.keys())
        assert "lm_head.weight" not in names
        assert all(weights.get_tensor(name).dtype == torch.bfloat16 for name in names)
    model = LlamaForCausalLM.from_pretrained(export)
    tokenizer = AutoTokenizer.from_pretrained(export)
    text = 'a "naïve"\n\tdef f(x): return 1234  # ☃'
    ids = tokenizer(text, return_tensors="pt").input_ids
    assert tokenizer.decode(ids[0]) == text
    assert model(ids).logits.shape == (1, ids.shape[1], 320)
    assert tokenizer.eos_token_id == model.generation_config.eos_token_id == 0
    assert tokenizer.pad_token_id == 1
    assert json.loads((export / "tokenizer_config.json").read_text())["model_max_length"] == 64


def test_a_killed_and_resumed_run_gives_the_same_weights(recipe: Recipe, no_data: Path, tmp_path: Path):
    run(recipe, no_data, tmp_path / "whole")
    with pytest.raises(KilledError):
        # Lines 1 and 2 describe the run; reports follow at steps 5, 10 and 15, with the
        # evaluation and the checkpoint of step 10 in between.
        run(recipe, no_data, tmp_path / "cut", log=_kill_after(6))
    assert checkpoint.load(tmp_path / "cut")[2].step == 10
    run(recipe, no_data, tmp_path / "cut", resume=True)

    whole, cut = (checkpoint.load(tmp_path / name) for name in ("whole", "cut"))
    assert cut[2].step == whole[2].step == 20
    assert cut[2].losses == whole[2].losses
    for name, weight in whole[0].items():
        assert torch.equal(weight, cut[0][name]), name


def test_a_resumed_run_can_have_a_smaller_budget(recipe: Recipe, no_data: Path, tmp_path: Path):
    with pytest.raises(KilledError):
        run(recipe, no_data, tmp_path, log=_kill_after(6))
    run(recipe, no_data, tmp_path, resume=True, tokens=13 * TOKENS_PER_STEP)
    progress = checkpoint.load(tmp_path)[2]
    assert progress.step == 13
    assert progress.schedule.decay_start == 10 * TOKENS_PER_STEP


@pytest.mark.parametrize(("text", "steps"), [("", 13), (str(3 * TOKENS_PER_STEP), 13), ("1", 11)])
def test_the_finish_file_begins_the_decay_once(recipe: Recipe, no_data: Path, tmp_path: Path, text: str, steps: int):
    def log(line: str) -> None:
        if line.startswith("step 10 "):
            (tmp_path / "finish").write_text(text)

    run(recipe, no_data, tmp_path, tokens=1000 * TOKENS_PER_STEP, log=log)
    progress = checkpoint.load(tmp_path)[2]
    assert progress.schedule.decay_start == 10 * TOKENS_PER_STEP
    assert progress.step == steps
    assert not (tmp_path / "finish").exists()


def test_a_finish_file_that_is_no_number_is_reported_and_ignored(recipe: Recipe, no_data: Path, tmp_path: Path):
    lines: list[str] = []
    (tmp_path / "finish").write_text("soon")
    run(recipe, no_data, tmp_path, log=lines.append)
    assert checkpoint.load(tmp_path)[2].tokens == recipe.tokens
    assert any("'soon'" in line and "token count" in line for line in lines)


def test_a_draft_learns_from_its_teacher(recipe: Recipe, draft_recipe: Recipe, no_data: Path, tmp_path: Path):
    teacher = run(recipe, no_data, tmp_path / "tiny")
    export = run(draft_recipe, no_data, tmp_path / "tiny-draft")
    assert (export / "tokenizer.json").read_text() == (teacher / "tokenizer.json").read_text()
    losses = checkpoint.load(tmp_path / "tiny-draft")[2].losses
    assert losses[-1][1]["json"] < losses[0][1]["json"]


def test_a_teacher_that_is_missing_or_of_another_vocabulary_is_an_error(
    recipe: Recipe, draft_recipe: Recipe, no_data: Path, tmp_path: Path
):
    with pytest.raises(ValueError, match="no exported model"):
        run(draft_recipe, no_data, tmp_path / "draft", teacher=tmp_path / "none")
    teacher = run(recipe, no_data, tmp_path / "tiny", tokens=TOKENS_PER_STEP)
    other = replace(draft_recipe, architecture=replace(draft_recipe.architecture, vocabulary_size=400))
    with pytest.raises(ValueError, match=r"320 tokens.*400"):
        run(other, no_data, tmp_path / "draft", teacher=teacher)


def test_run_folders_are_not_overwritten_or_resumed_by_mistake(recipe: Recipe, no_data: Path, tmp_path: Path):
    with pytest.raises(CheckpointError, match="start the run without resume"):
        run(recipe, no_data, tmp_path, resume=True)
    run(recipe, no_data, tmp_path, tokens=2 * TOKENS_PER_STEP)
    with pytest.raises(CheckpointError, match="already holds a checkpoint"):
        run(recipe, no_data, tmp_path)
    with pytest.raises(ValueError, match="already spent"):
        run(recipe, no_data, tmp_path, resume=True, tokens=TOKENS_PER_STEP)


def test_the_bundled_recipes_have_the_sizes_they_promise():
    with pytest.raises(ValueError, match="'nope' does not exist; choose one of default"):
        find_recipe("nope")
    default, draft = RECIPES["default"], RECIPES["default-draft"]
    assert sum(default.mixture.values()) == pytest.approx(1)
    assert draft.teacher == default.name
    assert default.architecture.build(0).num_parameters() == pytest.approx(6.2e6, rel=0.02)
    assert draft.architecture.build(0).num_parameters() == pytest.approx(1e6, rel=0.1)
