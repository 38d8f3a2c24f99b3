"""The list task: its answers, its held-out part, and a whole small run."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from random import Random

import pytest
from transformers import AutoModelForSeq2SeqLM, AutoTokenizer

import treewright as tw
from treewright.train import checkpoint
from treewright.train.corpus import is_held_out
from treewright.train.encoder_decoder import TOKENIZER
from treewright.train.list_operations import OPERATIONS, WORDS, draw, solve
from treewright.train.recipes import find_recipe, run


def test_answers_are_right():
    words = ["dog", "cat", "sun"]
    assert solve("copy", words, [False] * 3) == words
    assert solve("reverse", words, [False] * 3) == ["sun", "cat", "dog"]
    assert solve("sort", words, [False] * 3) == ["cat", "dog", "sun"]
    assert solve("marked", words, [True, False, True]) == ["dog", "sun"]


def test_held_out_lists_are_never_drawn_for_training():
    random = Random(0)
    for held_out in (False, True):
        drawn = [draw(random, held_out) for _ in range(40)]
        assert all(is_held_out(prompt) == held_out for _, prompt, _ in drawn)
        assert {operation for operation, _, _ in drawn} == set(OPERATIONS)
        assert all(answer.startswith(" ") for _, _, answer in drawn)


def test_every_word_is_one_token():
    tokenizer = AutoTokenizer.from_pretrained(TOKENIZER)
    assert len(set(WORDS)) == len(WORDS)
    assert all(len(tokenizer(f" {word}")["input_ids"]) == 1 for word in WORDS)


def test_a_run_stops_goes_on_and_exports(tmp_path: Path):
    recipe = replace(
        find_recipe("default-seq2seq"), hidden_size=32, intermediate_size=32, layers=1, batch=4, checkpoint_steps=10,
        evaluation_examples=8, warm_up_tokens=20,
    )  # fmt: skip
    lines: list[str] = []
    run(recipe, out=tmp_path / "run", tokens=100, log=lines.append)
    done = checkpoint.load(tmp_path / "run")[2]
    export = run(recipe, out=tmp_path / "run", tokens=300, resume=True, log=lines.append)
    progress = checkpoint.load(tmp_path / "run")[2]
    assert progress.tokens >= 300 > done.tokens and progress.step > done.step
    assert any("held-out answers right" in line for line in lines)
    assert AutoModelForSeq2SeqLM.from_pretrained(export).generation_config.decoder_start_token_id == 0
    assert "| reverse |" in (export / "README.md").read_text()
    text = tw.generate(str(export), "reverse: cat dog", "token_recycling", max_new_tokens=6)
    assert text.tokens == tw.generate(str(export), "reverse: cat dog", max_new_tokens=6).tokens


def test_bad_input(tmp_path: Path):
    with pytest.raises(ValueError, match="takes no data"):
        run("default-seq2seq", tmp_path, tmp_path / "run")
    with pytest.raises(ValueError, match="needs the folder"):
        run("default", out=tmp_path / "run")
