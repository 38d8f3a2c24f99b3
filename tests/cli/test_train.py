from __future__ import annotations

import pytest

from treewright.train import recipes
from treewright.train.checkpoint import CheckpointError


def test_flags_reach_the_recipe(run, tmp_path, monkeypatch):
    asked = {}

    def train(recipe, data, out, **settings):
        asked.update(recipe=recipe.name, data=data, out=out, **settings)
        settings["log"]("step 1")
        return tmp_path / "finished"

    monkeypatch.setattr(recipes, "run", train)
    folders = ("--data", tmp_path, "--out", tmp_path / "o", "--export", tmp_path / "e", "--teacher", tmp_path / "t")
    outcome = run("train", "default-draft", *folders, "--tokens", 5, "--resume")
    asked.pop("log")
    assert asked == {
        "recipe": "default-draft", "data": tmp_path, "out": tmp_path / "o", "tokens": 5, "resume": True,
        "export": tmp_path / "e", "teacher": tmp_path / "t",
    }  # fmt: skip
    assert outcome.out == f"{tmp_path / 'finished'}\n" and outcome.err == "step 1\n"


@pytest.mark.parametrize("error", [ValueError("no teacher there"), CheckpointError("no checkpoint there")])
def test_what_the_recipe_refuses_is_one_line(refused, tmp_path, monkeypatch, error):
    def train(*arguments, **settings):
        raise error

    monkeypatch.setattr(recipes, "run", train)
    assert str(error) in refused("train", "default", "--data", tmp_path)


def test_bad_input_is_one_line(refused, tmp_path):
    assert "'nix' does not exist" in refused("train", "nix", "--data", tmp_path)
    assert "is not a folder" in refused("train", "default", "--data", tmp_path / "missing")
    assert "--data" in refused("train", "default")
    assert "--tokens" in refused("train", "default", "--data", tmp_path, "--tokens", 0)


def test_corpora_that_are_not_there(refused, tmp_path):
    assert str(tmp_path) in refused("train", "default", "--data", tmp_path, "--out", tmp_path / "out")
