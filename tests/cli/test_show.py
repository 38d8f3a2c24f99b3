from __future__ import annotations

import json

import pytest


def test_json(run):
    record = json.loads(run("show", "token_recycling", "--json").out)
    assert record["name"] == "token_recycling" and record["link"].endswith("2408.08696") and record["lossless"] is True
    assert {"family", "title", "year", "card", "aliases", "roles", "models", "needs", "claims", "summary"} <= set(record)
    options = {option["name"]: option for option in record["options"]}
    assert options["k"]["default"] == 8 and options["k"]["help"]


@pytest.mark.parametrize("words", ["TR", "turning trash into treasure", "Turning Trash"])
def test_alias_and_title(run, words):
    assert run("show", words).out.startswith("token_recycling (speculate)\n")


def test_text_names_paper_options_and_models(run):
    text = run("show", "speculative_sampling").out
    assert "https://arxiv.org/abs/2211.17192" in text and "--with draft=MODEL" in text and "lossless" in text
    assert any(line.split()[:2] == ["tokens", "5"] for line in text.splitlines())


def test_unknown(refused):
    assert "no method matches 'nonsense'" in refused("show", "nonsense")
