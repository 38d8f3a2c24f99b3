from __future__ import annotations

import json
from pathlib import Path

import pytest

import treewright as tw
from treewright.cli.rows import OutputFile

PROMPTS = ["one", "two two", "one", "four", "five five five", "one", "seven"]


@pytest.fixture
def source(tmp_path) -> Path:
    file = tmp_path / "in.jsonl"
    file.write_text("".join(json.dumps({"prompt": prompt, "id": f"r{i}"}) + "\n" for i, prompt in enumerate(PROMPTS)))
    return file


@pytest.fixture
def decode(run, model, source, tmp_path):
    """Runs the file through the command; returns the outcome and the output's lines."""

    def decode(*more, output="out.jsonl", temperature=1, rows=3):
        line = ("--model", model, "--temperature", temperature, "--max-new-tokens", 12, "--ignore-eos", "--batch-rows", rows)
        outcome = run("generate", "--input", source, "--output", tmp_path / output, *line, *more)
        file = tmp_path / output
        return outcome, file.read_text(encoding="utf-8").splitlines() if file.exists() else []

    return decode


def test_every_row_is_answered_in_order(decode, model):
    outcome, lines = decode("--json", temperature=0)
    records = [json.loads(line) for line in lines]
    assert [record["id"] for record in records] == [f"r{i}" for i in range(len(PROMPTS))]
    assert [record["tokens"] for record in records] == [
        result.tokens for result in tw.generate(model, PROMPTS, max_new_tokens=12, ignore_eos=True)
    ]
    assert {record["finish_reason"] for record in records} == {"length"} and "7 decoded" in outcome.err
    account = json.loads(outcome.out)
    assert account["decoded"] == 7 and account["already"] == 0 and account["tokens"] == 84 and account["model_calls"] == 36


def test_the_first_batch_is_that_of_the_api(decode, model):
    _, lines = decode()
    expected = tw.generate(model, PROMPTS[:3], temperature=1.0, max_new_tokens=12, ignore_eos=True)
    assert [json.loads(line)["text"] for line in lines[:3]] == [result.text for result in expected]


def test_batches_share_no_noise(decode):
    _, lines = decode()
    texts = [json.loads(lines[row])["text"] for row, prompt in enumerate(PROMPTS) if prompt == "one"]
    assert len(set(texts)) == 3


def test_a_finished_run_decodes_nothing(decode):
    _, before = decode()
    outcome, after = decode("--json")
    assert after == before and json.loads(outcome.out) | {"seconds": 0} == {
        "rows": 7, "already": 7, "decoded": 0, "tokens": 0, "model_calls": 0, "seconds": 0,
    }  # fmt: skip


@pytest.mark.parametrize("keep", [0, 1, 3, 4, 6])
def test_a_run_that_lost_its_end_gives_the_same_file(decode, tmp_path, keep):
    _, whole = decode()
    file = tmp_path / "out.jsonl"
    file.write_text("\n".join([*whole[:keep], whole[keep][:50]]), encoding="utf-8")
    outcome, resumed = decode()
    assert outcome.code == 0 and resumed == whole and f"{keep} were there" in outcome.err


def test_an_interrupted_run_goes_on_without_repeating(decode, monkeypatch):
    _, whole = decode(output="whole.jsonl")
    append, batches = OutputFile.append, []

    def interrupt(self, answers):
        if batches:
            raise KeyboardInterrupt
        batches.append(answers)
        append(self, answers)

    with monkeypatch.context() as patched:
        patched.setattr(OutputFile, "append", interrupt)
        outcome, part = decode()
    assert outcome.code == 130 and part == whole[:3]
    outcome, lines = decode("--json")
    assert lines == whole and json.loads(outcome.out)["model_calls"] == 24


def test_several_samples(decode):
    _, lines = decode("-n", 2)
    for record in map(json.loads, lines):
        assert len(record["samples"]) == 2 and record["samples"][0]["text"] == record["text"]


def test_other_settings_are_refused(decode, refused, source, model, tmp_path):
    _, before = decode()
    line = ["generate", "--input", source, "--output", tmp_path / "out.jsonl", "--model", model]
    line += ["--max-new-tokens", 12, "--ignore-eos"]
    for other in (["--temperature", 0.5], ["--temperature", 1, "--seed", 1], ["--temperature", 1, "--batch-rows", 2]):
        assert "another model, method or settings" in refused(*line, "--batch-rows", 3, *other)
    assert (tmp_path / "out.jsonl").read_text(encoding="utf-8").splitlines() == before


def test_greedy_text_does_not_depend_on_the_size_of_the_batches(decode, tmp_path):
    _, whole = decode(temperature=0)
    (tmp_path / "out.jsonl").write_text("\n".join(whole[:2]) + "\n", encoding="utf-8")
    outcome, resumed = decode(temperature=0, rows=5)
    assert outcome.code == 0 and resumed == whole


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ('{"prompt": ""}', "prompt 0 is empty"),
        (json.dumps({"prompt": "x" * 100}), "prompt 0 has 100 tokens"),
        ('{"tokens": [1, 99999]}', "token id 99999"),
        ('{"prompt": "x", "samples": 1}', 'field "samples"'),
        ("{broken", "not JSON"),
    ],
)
def test_one_bad_row_is_named_before_anything_is_decoded(refused, model, source, tmp_path, line, words):
    with source.open("a") as file:
        file.write(line + "\n")
    sentence = refused("generate", "--input", source, "--output", tmp_path / "out.jsonl", "--model", model, "--batch-rows", 2)
    assert f"{source}, line 8: " in sentence and words in sentence
    assert not (tmp_path / "out.jsonl").exists()


def test_a_bad_option_blames_no_row(refused, model, source, tmp_path):
    line = ("generate", "--input", source, "--output", tmp_path / "out.jsonl", "--model", model)
    sentence = refused(*line, "--method", "token_recycling", "--set", "nodes=many")
    assert "'token_recycling.nodes'" in sentence and "line" not in sentence and not (tmp_path / "out.jsonl").exists()
    assert "--with draft=MODEL" in refused(*line, "--method", "specinfer")


def test_output_folder_must_exist(refused, model, source, tmp_path):
    assert "no folder" in refused("generate", "--input", source, "--output", tmp_path / "no" / "out.jsonl", "--model", model)
