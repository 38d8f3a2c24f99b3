"""What the library refuses, the command says in one line, with exit code 2."""

from __future__ import annotations

import pytest


@pytest.mark.parametrize(
    ("line", "words"),
    [
        (["--method", "beam", "--set", "beams=1000000000000"], ["beam.beams=1000000000000", "GiB are free", "at most"]),
        (["--method", "contrastive_search", "--set", "k=100000"], ["option 'k' is 100000", "the tokens that the model has"]),
        (["--method", "token_recycling", "--set", "k=9"], ["'token_recycling.k' is 9", "from 1 to 8"]),
        (["--method", "token_recycling", "--set", "k=true"], ["'token_recycling.k' is True", "allowed: an integer"]),
        (["--method", "token_recycling", "--set", 'k="8"'], ["'token_recycling.k' is '8'", "allowed: an integer"]),
        (["--method", "momentum", "--set", "alpha=NaN"], ["'momentum.alpha' is nan", "a finite number"]),
        (["--method", "momentum", "--set", "resistance=[0, Infinity]"], ["'momentum.resistance'", "a list of finite numbers"]),
        (["--method", "beam", "--set", "length_penalty=Infinity"], ["'beam.length_penalty' is inf", "a finite number"]),
        (["--method", "dola", "--set", "alpha=0.1", "--set", "dola.alpha=0.2"], ["'alpha' and 'dola.alpha' are one", "once"]),
        (["--presence-penalty", "nan"], ["presence_penalty is nan", "a finite number"]),
        (["--frequency-penalty", "inf"], ["frequency_penalty is inf", "a finite number"]),
        (["--repetition-penalty", "inf"], ["repetition_penalty is inf", "a finite number"]),
        (["--budget-seconds", "nan"], ["budget seconds is nan"]),
        (
            ["--method", "best_of_n", "--temperature", "1", "--with", "reward=default"],
            ["a reward is 'default', which is a language model", "sequence classifier"],
        ),
    ],
)
def test_generate(refused, model, line, words):
    sentence = refused("generate", "hi", "--model", model, *line)
    for word in words:
        assert word in sentence


def test_compare(refused, model):
    line = ("--model", model, "--methods", "plain,beam", "--set", "beams=1000000000000")
    assert "GiB are free" in refused("compare", "hi", *line)
    assert "'momentum.alpha' is nan" in refused("compare", "hi", "--model", model, "--methods", "momentum", "--set", "alpha=NaN")


def test_a_file_of_prompts(refused, model, tmp_path):
    source, destination = tmp_path / "rows.jsonl", tmp_path / "answers.jsonl"
    source.write_text('{"prompt": "hi"}\n')
    line = ("--model", model, "--input", source, "--output", destination, "--method", "momentum", "--set", "k=100000")
    assert "option 'k' is 100000" in refused("generate", *line)


def test_a_search_that_finds_too_few_says_so(run, model):
    line = ("hi", "--model", model, "--method", "beam", "--choice", "ab", "--choice", "cd", "--max-new-tokens", 6)
    short = run("generate", *line, "-n", 4)
    assert short.code == 0 and "2 of the 4 texts that were asked for, no other was found" in short.err
    assert '"missing": 2' in run("generate", *line, "-n", 4, "--json").out
    enough = run("generate", *line, "-n", 2, "--json")
    assert "asked for" not in enough.err and "missing" not in enough.out
