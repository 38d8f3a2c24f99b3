"""Methods that choose, on a real model and on the command line: composition, JSON, files, streams, comparison, refusals."""

from __future__ import annotations

import json
from typing import Any

import pytest

import treewright as tw
from treewright.core.errors import InputError

PROMPTS = ["Once upon a time", "3 + 4 =", "abcabcab"]
SETTINGS: dict[str, Any] = dict(max_new_tokens=14, temperature=1.0, seed=5)
LINE = ("--max-new-tokens", 10, "--temperature", 1, "--seed", 5)


@pytest.fixture(scope="module")
def target(model):
    return tw.load(model, dtype="float64")


@pytest.fixture(scope="module")
def reward(model, tmp_path_factory) -> str:
    """A random classifier of two labels over the tokenizer of the model."""
    import torch
    import transformers

    tokenizer = transformers.AutoTokenizer.from_pretrained(model)
    torch.manual_seed(1)
    config = transformers.LlamaConfig(
        vocab_size=len(tokenizer), hidden_size=16, num_hidden_layers=1, num_attention_heads=2, num_key_value_heads=2,
        intermediate_size=32, max_position_embeddings=200, initializer_range=0.5, id2label={0: "bad", 1: "good"},
    )  # fmt: skip
    folder = tmp_path_factory.mktemp("models") / "judge"
    transformers.LlamaForSequenceClassification(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return f"{folder}#good"


@pytest.mark.parametrize("method", ["mbr", "first_finish", "self_consistency"])
def test_any_drafter_and_steering_go_with_it_in_ragged_batches(target, model, method):
    """token_recycling emits the tokens of plain sampling, so the candidates and the choice are those without it."""
    others = {"expert": tw.load(model, dtype="float64"), "anti_expert": target}
    name, options = f"dexperts+{method}", {f"{method}.candidates": 4, "dexperts.filter_p": 1.0, "dexperts.alpha": 0.5}
    alone = tw.generate(target, PROMPTS, name, options, others, n=2, stop=["e"], **SETTINGS)
    for batch_rows in (5, 16):
        drafted = tw.generate(
            target, PROMPTS, f"token_recycling+{name}", options | {"nodes": 6}, others, n=2, stop=["e"], batch_rows=batch_rows,
            **SETTINGS,
        )  # fmt: skip
        assert [[s.tokens for s in one.samples] for one in drafted] == [[s.tokens for s in one.samples] for one in alone]
    assert all(len(one.samples) == 2 for one in alone)


def test_candidates_obey_the_constraint(target):
    found = tw.generate(
        target, "hi", "token_recycling+mbr", {"candidates": 5, "nodes": 6}, n=5, constraint=tw.regex("[ab]{3}"), **SETTINGS
    )
    assert all(set(sample.text) <= {"a", "b"} and len(sample.text) == 3 for sample in found.samples)


def test_a_stream_and_a_streamer_get_the_chosen_text_at_once(target):
    expected = tw.generate(target, "hi", "mbr", {"candidates": 4}, **SETTINGS)
    assert list(tw.stream(target, "hi", "mbr", options={"candidates": 4}, **SETTINGS)) == [expected.text]
    heard: list[list[int]] = []

    class Streamer:
        def put(self, value: Any) -> None:
            heard.append(value.tolist())

        def end(self) -> None:
            heard.append([])

    tw.generate(target, "hi", "mbr", {"candidates": 4}, stream=Streamer(), **SETTINGS)
    assert heard == [expected.tokens, []]


def test_logprobs_come_only_where_they_were_asked_for(target):
    options = {"candidates": 3, "by": "likelihood"}
    assert tw.generate(target, "hi", "best_of_n", options, **SETTINGS).logprobs is None
    asked = tw.generate(target, "hi", "best_of_n", options, logprobs=True, **SETTINGS)
    assert len(asked.logprobs) == len(asked.tokens)


def test_command_and_json(run, model, reward):
    found = run(
        "generate", "hi", "--model", model, "--method", "best_of_n", "--set", "candidates=5", "--with", f"reward={reward}",
        "-n", 3, "--json", *LINE,
    )  # fmt: skip
    record = json.loads(found.out)
    judge = tw.load_reward(reward)
    expected = tw.generate(
        model, "hi", "best_of_n", {"candidates": 5}, {"reward": judge}, n=3, max_new_tokens=10, temperature=1.0, seed=5
    )
    assert [sample["text"] for sample in record["samples"]] == [sample.text for sample in expected.samples]
    scores = judge.score("hi", [sample["text"] for sample in record["samples"]])
    assert scores == sorted(scores, reverse=True) and record["text"] == record["samples"][0]["text"]
    assert record["selection"]["candidates"] == 5 and len(record["selection"]["order"]) == 5
    assert record["model_calls"] == expected.trace.model_calls


def test_a_file_of_prompts(run, model, reward, tmp_path):
    source, destination = tmp_path / "in.jsonl", tmp_path / "out.jsonl"
    source.write_text("".join(json.dumps({"prompt": prompt}) + "\n" for prompt in PROMPTS))
    line = ("--input", source, "--output", destination, "--method", "best_of_n", "--set", "candidates=3")
    assert run("generate", "--model", model, *line, "--with", f"reward={reward}", *LINE).code == 0
    assert len(destination.read_text().splitlines()) == 3


def test_compare_says_that_the_law_is_another(run, model, target, reward):
    settings = dict(max_new_tokens=8, temperature=1.0)
    plain = tw.generate(target, "hi", **settings).text
    other = {"reward": lambda prompt, text: text != plain}
    rows = tw.compare(target, "hi", ["best_of_n"], models=other, repeats=1, **settings)
    assert not rows[1].equal and rows[1].note == "chosen among 8 candidates, which is another law than plain decoding's"
    assert tw.compare(target, "hi", ["mbr"], options={"mbr": {"candidates": 1}}, repeats=1, **settings)[1].identical
    line = ("compare", "hi", "--methods", "best_of_n", "--model", model, "--with", f"reward={reward}", "--json", *LINE)
    assert json.loads(run(*line, "--repeats", 1).out)[1]["method"] == "best_of_n"


@pytest.mark.parametrize(
    ("line", "words"),
    [
        (["--method", "mbr"], "temperature is 0 and mbr chooses among 32 candidates"),
        (["--method", "mbr", "-n", 33, "--temperature", 1], "n is 33 and mbr chooses among 32 candidates"),
        (["--method", "best_of_n", "--temperature", 1], "(--with reward=FOLDER)"),
        (["--method", "best_of_n", "--temperature", 1, "--with", "reward=./nix"], "cannot load reward model './nix'"),
        (["--method", "mbr+self_consistency"], "both take the single seat 'select'"),
        (["--method", "mbr", "--with", "reward=./nix", "--temperature", 1], "./nix"),
    ],
)
def test_refusals_are_one_line(refused, model, line, words):
    assert words in refused("generate", "hi", "--model", model, "--max-new-tokens", 4, *line)


def test_compare_refuses_before_anything_runs(refused, model):
    line = ("compare", "hi", "--methods", "mbr", "--model", model, "--max-new-tokens", 4)
    assert "temperature is 0" in refused(*line)


def test_transformers_generate_has_no_place_for_it():
    with pytest.raises(tw.TreewrightError, match="'mbr' chooses among finished texts"):
        tw.hf.custom_generate("token_recycling+mbr")


def test_show_says_when_a_judge_is_needed(run):
    assert "reward (where by is 'reward')" in run("show", "best_of_n").out
    assert json.loads(run("show", "best_of_n", "--json").out)["scorers"] == [{"role": "reward", "when": [["by", "reward"]]}]


def test_what_a_function_raises_is_said_in_a_sentence(model):
    with pytest.raises(InputError, match=r"the role .reward. failed on 2 texts.*ZeroDivisionError"):
        tw.generate(tw.load(model), "a", "best_of_n", {"candidates": 2}, {"reward": lambda prompt, text: 1 / 0}, temperature=1.0)
