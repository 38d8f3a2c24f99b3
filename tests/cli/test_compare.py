from __future__ import annotations

import json

import pytest

import treewright as tw
from treewright.cli.compare import options_by_method
from treewright.core.errors import UnknownOption

PROMPT = "Once upon a time"
FIELDS = {
    "method", "text", "tokens", "equal", "identical", "model_calls", "tokens_per_call", "seconds", "ratio_to_plain",
    "ratio_to_peer", "note",
}  # fmt: skip


@pytest.fixture
def compare(run, model, draft):
    def compare(methods, *more, prompt=PROMPT):
        settings = ("--max-new-tokens", 16, "--ignore-eos", "--repeats", 1, "--dtype", "float32")
        return run("compare", prompt, "--model", model, "--methods", methods, *settings, *more)

    return compare


def test_json(compare, model, draft):
    outcome = compare("prompt_lookup,speculative_sampling", "--with", f"draft={draft}", "--against", "transformers", "--json")
    rows = {row["method"]: row for row in json.loads(outcome.out)}
    assert list(rows) == ["plain", "prompt_lookup", "speculative_sampling", "transformers"]
    expected = tw.generate(tw.load(model, dtype="float32"), PROMPT, max_new_tokens=16, ignore_eos=True)
    for row in rows.values():
        assert set(row) == FIELDS
        assert row["equal"] is True and row["note"] == "" and row["text"] == expected.text and row["tokens"] == expected.tokens
        assert row["seconds"] > 0 and row["ratio_to_plain"] > 0
        assert row["tokens_per_call"] * row["model_calls"] == pytest.approx(16)
    assert rows["plain"]["model_calls"] == 16 and rows["plain"]["ratio_to_plain"] == 1 == rows["transformers"]["ratio_to_peer"]


def test_table_and_texts(compare, model):
    outcome = compare("plain,token_recycling", "--set", "token_recycling.nodes=5")
    lines = outcome.out.splitlines()
    assert outcome.code == 0 and lines[0].split()[:3] == ["method", "text", "model"]
    table = {line.split()[0]: line.split()[1:] for line in lines[1:3]}
    assert table["plain"][:3] == ["equal", "16", "1.00"] and table["token_recycling"][0] == "equal"
    assert "plain, token_recycling" in lines
    text = tw.generate(tw.load(model, dtype="float32"), PROMPT, max_new_tokens=16, ignore_eos=True).text
    assert f"{PROMPT}{text}".splitlines()[0] in outcome.out


def test_picture(compare, tmp_path):
    outcome = compare("plain,prompt_lookup", "--plot", tmp_path / "picture.png")
    assert (tmp_path / "picture.png").read_bytes().startswith(b"\x89PNG") and "drew" in outcome.err


def test_options_go_to_those_that_have_them():
    recipes = ["plain", "prompt_lookup", "speculative_sampling", "token_recycling"]
    assert options_by_method(recipes, {"tokens": 3, "token_recycling.k": 4}) == {
        "plain": {}, "prompt_lookup": {"tokens": 3}, "speculative_sampling": {"tokens": 3},
        "token_recycling": {"token_recycling.k": 4},
    }  # fmt: skip
    with pytest.raises(UnknownOption, match="belongs to none of plain, prompt_lookup"):
        options_by_method(["plain", "prompt_lookup"], {"nodes": 3})
    with pytest.raises(UnknownOption, match="did you mean 'tokens'"):
        options_by_method(["prompt_lookup"], {"token": 3})


@pytest.mark.parametrize(
    ("line", "words"),
    [
        (["hi", "--methods", "plain,nix"], "unknown method 'nix'"),
        (["hi", "--methods", "plain,plain"], "names 'plain' twice"),
        (["hi", "--methods", "plain,specinfer"], "--with draft=MODEL"),
        (["hi", "--methods", "plain", "--against", "nix"], "unknown peer 'nix'"),
        (["hi", "--methods", "plain", "--set", "a=1"], "unknown option 'a'"),
        (["hi", "--methods", "plain", "--plot", "no/folder/a.png"], "no folder"),
        (["hi", "--methods", "plain", "--plot", "a.gif"], "allowed: .png, .svg, .pdf"),
        (["", "--methods", "plain"], "prompt 0 is empty"),
        (["hi"], "--methods"),
    ],
)
def test_bad_input_is_one_line(refused, model, line, words):
    assert words in refused("compare", *line, "--model", model, "--max-new-tokens", 4)
