from __future__ import annotations

import io
import json
import subprocess
import sys

import pytest

import treewright as tw

PROMPT = "Once upon a time"


def test_prints_the_text_and_an_account(run, model):
    expected = tw.generate(model, PROMPT, "token_recycling", max_new_tokens=20, ignore_eos=True)
    outcome = run("generate", PROMPT, "--model", model, "--method", "token_recycling", "--max-new-tokens", 20, "--ignore-eos")
    assert outcome.code == 0
    assert outcome.out == expected.text + "\n"
    account = f"token_recycling: 20 tokens, {expected.trace.model_calls} model calls, {expected.trace.tokens_per_call:.2f} tokens"
    assert outcome.err.startswith(account) and outcome.err.count("\n") == 1


def test_streams_the_same_text_on_a_terminal(run, model, monkeypatch, capsys):
    arguments = ("generate", PROMPT, "--model", model, "--max-new-tokens", 20, "--ignore-eos")
    plain = run(*arguments)
    pieces: list[str] = []
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    monkeypatch.setattr("builtins.print", lambda *values, **how: pieces.append(values[0] + how.get("end", "\n")))
    assert run(*arguments).code == 0
    assert "".join(pieces) == plain.out and len(pieces) > 5


def test_settings_reach_the_request(run, model):
    flags = (
        "--temperature 0.9 --top-k 40 --top-p 0.95 --min-p 0.01 --typical-p 0.9 --repetition-penalty 1.1 --presence-penalty 0.2 "
        "--frequency-penalty 0.1 --seed 7 --max-new-tokens 24 --min-new-tokens 3 -n 2 --ignore-eos"
    )
    expected = tw.generate(
        model, PROMPT, "prompt_lookup", {"tokens": 4}, temperature=0.9, top_k=40, top_p=0.95, min_p=0.01, typical_p=0.9,
        repetition_penalty=1.1, presence_penalty=0.2, frequency_penalty=0.1, seed=7, max_new_tokens=24, min_new_tokens=3, n=2,
        ignore_eos=True,
    )  # fmt: skip
    record = json.loads(
        run("generate", PROMPT, "--model", model, "--method", "prompt_lookup", "--set", "tokens=4", *flags.split(), "--json").out
    )
    assert [sample["tokens"] for sample in record["samples"]] == [sample.tokens for sample in expected.samples]
    assert record["tokens"] == expected.tokens and record["text"] == expected.text and record["finish_reason"] == "length"
    assert record["options"] == {"prompt_lookup.tokens": 4} and record["method"] == "prompt_lookup"
    assert record["model_calls"] == expected.trace.model_calls
    assert record["tokens_per_call"] == pytest.approx(48 / expected.trace.model_calls, abs=1e-4)
    assert record["seconds"] > record["seconds_in_model"] > 0


def test_samples_are_set_apart(run, model):
    out = run("generate", PROMPT, "--model", model, "-n", 2, "--temperature", 1, "--max-new-tokens", 4, "--ignore-eos").out
    assert out.startswith("--- sample 1 of 2\n") and "\n--- sample 2 of 2\n" in out


def test_stop_strings(run, model):
    whole = run("generate", PROMPT, "--model", model, "--max-new-tokens", 20, "--ignore-eos").out
    stop = whole[8:10]
    cut = run("generate", PROMPT, "--model", model, "--max-new-tokens", 20, "--ignore-eos", "--stop", "@@@", "--stop", stop)
    assert cut.out == whole[: whole.index(stop)] + "\n" and cut.err.rstrip().endswith("(stop)")


def test_budget(run, model):
    outcome = run("generate", PROMPT, "--model", model, "--budget-calls", 3, "--ignore-eos", "--json")
    assert json.loads(outcome.out)["finish_reason"] == "budget" and json.loads(outcome.out)["model_calls"] == 3


def test_draft_model_and_dtype(run, model, draft):
    arguments = ("--max-new-tokens", 12, "--ignore-eos", "--dtype", "float64", "--model", model)
    with_draft = run("generate", PROMPT, *arguments, "--method", "speculative_sampling", "--with", f"draft={draft}")
    assert with_draft.out == run("generate", PROMPT, *arguments).out != ""


def test_standard_input_is_taken_as_it_is(run, model, monkeypatch):
    expected = tw.generate(model, "two\nlines\n", max_new_tokens=8, ignore_eos=True).text
    monkeypatch.setattr(sys, "stdin", io.StringIO("two\nlines\n"))
    assert run("generate", "-", "--model", model, "--max-new-tokens", 8, "--ignore-eos").out == expected + "\n"


def test_standard_input_that_is_not_text(refused, model, monkeypatch):
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"caf\xe9"), encoding="utf-8"))
    assert "not UTF-8" in refused("generate", "-", "--model", model)


def test_trace_can_be_read_back_and_knows_its_words(run, model, tmp_path):
    file = tmp_path / "trace.json"
    line = ("--method", "token_recycling", "--max-new-tokens", 16, "--ignore-eos", "--trace", file)
    text = run("generate", PROMPT, "--model", model, *line).out
    trace = tw.Trace.from_json(file.read_text())
    assert sum(len(step.emitted) for step in trace.steps) == trace.new_tokens == 16
    assert trace.notes["prompt"] == PROMPT and trace.notes["text"] + "\n" == text
    assert {str(token) for step in trace.steps for token in step.token if token >= 0} <= set(trace.notes["pieces"])


@pytest.mark.parametrize(
    ("line", "words"),
    [
        (["hi", "--method", "token_recyclin"], ["unknown method 'token_recyclin'", "did you mean 'token_recycling'?"]),
        (["hi", "--method", "plain+"], ["names joined by '+'"]),
        (["hi", "--method", "token_recycling", "--set", "node=3"], ["unknown option 'node'", "did you mean 'nodes'?"]),
        (["hi", "--set", "nodes=3"], ["unknown option 'nodes' for plain"]),
        (
            ["hi", "--method", "token_recycling", "--set", "nodes=many"],
            ["'token_recycling.nodes'", "'many'", "allowed: an integer"],
        ),
        (["hi", "--method", "specinfer"], ["role 'draft'", "--with draft=MODEL"]),
        (["hi", "--with", "draft"], ["--with is 'draft'", "ROLE=MODEL"]),
        (["hi", "--method", "token_recycling+prompt_lookup"], ["single seat 'propose'"]),
        ([""], ["prompt 0 is empty"]),
        (["x" * 200], ["prompt 0 has 200 tokens", "96 positions", "at most 95"]),
        ([], ["no prompt"]),
        (["hi", "--temperature", "-1"], ["temperature is -1.0", "a number >= 0"]),
        (["hi", "--temperature", "warm"], ["--temperature", "number"]),
        (["hi", "--top-p", "1.5"], ["top_p is 1.5"]),
        (["hi", "--max-new-tokens", "0"], ["max_new_tokens is 0"]),
        (["hi", "-n", "0"], ["n is 0"]),
        (["hi", "--budget-calls", "0"], ["budget model_calls is 0"]),
        (["hi", "--stop", ""], ["stop is"]),
        (["hi", "--dtype", "int8"], ["unknown dtype 'int8'", "bfloat16"]),
        (["hi", "--device", "toaster"], ["unknown device 'toaster'"]),
        (["hi", "--method", "token_recycling", "--set", "nodes=81"], ["'token_recycling.nodes' is 81", "from 1 to 80"]),
        (["hi", "--model", "./no/such/folder"], ["cannot load model './no/such/folder'", "no such folder"]),
        (["hi", "--trace", "no/such/folder/trace.json"], ["--trace", "no folder"]),
        (["hi", "--input", "rows.jsonl"], ["--input and --output go together"]),
        (["--output", "rows.jsonl"], ["--input and --output go together"]),
    ],
)
def test_bad_input_is_one_line(refused, model, line, words):
    chosen = line if "--model" in line else [*line, "--model", model]
    sentence = refused("generate", *chosen)
    for word in words:
        assert word in sentence


def test_a_process_of_its_own_says_one_line(model):
    """Also where transformers, freshly imported, would like to say more while the model loads."""
    line = [sys.executable, "-m", "treewright.cli.main", "generate", "hi", "--model", model, "--method", "specinfer"]
    process = subprocess.run(line, capture_output=True, text=True, timeout=120)
    assert process.returncode == 2 and process.stdout == ""
    assert process.stderr.count("\n") == 1 and "--with draft=MODEL" in process.stderr
