"""What a result says as JSON, and that tokens, calls and tokens per call agree wherever they are printed."""

from __future__ import annotations

import dataclasses
import json
import math
import re

import pytest

import treewright as tw
from treewright.cli.answers import FIELDS, answer
from treewright.core.result import Result, Sample

PROMPT = "Once upon a time"
ACCOUNT = re.compile(r"(\d+) tokens.*, (\d+) model calls, ([\d.]+) tokens per call")
WEIGHTED = ("--method", "smc", "--set", "particles=4", "--regex", "[a-z]{2,5}", "--temperature", 1, "-n", 2)


def test_every_field_of_a_result_is_written() -> None:
    result = Result("a", [1], "stop", [-1.0], -math.inf, log_evidence=-math.inf)
    result.samples, result.trace.notes = [Sample("a", [1], "stop"), Sample("b", [2], "stop")], {"selection": {}}
    record = answer(result)
    assert set(record) == set(FIELDS) == {f.name for f in dataclasses.fields(Result)} - {"trace"} | {
        "model_calls", "tokens_per_call", "selection"
    }  # fmt: skip
    assert record["log_evidence"] is None and record["log_weight"] is None
    json.dumps(record, allow_nan=False)


def test_evidence_and_logprobs_are_in_json_and_in_rows(run, model, tmp_path):
    expected = tw.generate(
        model, PROMPT, "smc", {"particles": 4}, temperature=1.0, n=2, max_new_tokens=8, constraint=tw.regex("[a-z]{2,5}"),
        logprobs=True,
    )  # fmt: skip
    line = (*WEIGHTED, "--model", model, "--max-new-tokens", 8, "--logprobs")
    record = json.loads(run("generate", PROMPT, *line, "--json").out)
    source, destination = tmp_path / "in.jsonl", tmp_path / "out.jsonl"
    source.write_text(json.dumps({"prompt": PROMPT}) + "\n")
    assert run("generate", "--input", source, "--output", destination, *line).code == 0
    row = json.loads(destination.read_text())
    assert expected.log_evidence is not None
    for found in (record, row):
        assert found["log_evidence"] == expected.log_evidence and found["log_weight"] == expected.log_weight
        assert found["logprobs"] == expected.logprobs and found["selection"] == expected.trace.notes["selection"]
        assert [one["logprobs"] for one in found["samples"]] == [one.logprobs for one in expected.samples]


def test_what_weighs_nothing_has_no_evidence(run, model):
    record = json.loads(run("generate", PROMPT, "--model", model, "--max-new-tokens", 4, "--json").out)
    assert not {"log_evidence", "logprobs", "selection"} & set(record)


def test_logprobs_without_a_place_are_refused(refused, model):
    assert "--logprobs was given" in refused("generate", "hi", "--model", model, "--logprobs")


def test_a_row_may_not_use_a_written_name(refused, model, tmp_path):
    source = tmp_path / "in.jsonl"
    source.write_text('{"prompt": "a", "log_evidence": 1}\n')
    line = ("--input", source, "--output", tmp_path / "out.jsonl")
    assert 'field "log_evidence" is one that the output line writes itself' in refused("generate", "--model", model, *line)


@pytest.mark.parametrize(
    ("line", "tokens"),
    [
        (("-n", 3, "--temperature", 1), 30),
        (("-n", 3, "--temperature", 1, "--method", "token_recycling"), 30),
        (("--method", "mbr", "--set", "candidates=5", "-n", 2, "--temperature", 1), 20),
        (("--method", "beam", "-n", 2), 20),
        (("--method", "best_first_beam"), 10),
    ],
)
def test_figures_are_tokens_of_all_samples_over_calls_of_all_rows(run, model, line, tokens):
    shared = ("--model", model, "--max-new-tokens", 10, "--ignore-eos", "--dtype", "float32")
    outcome = run("generate", PROMPT, *shared, *line, "--json")
    record = json.loads(outcome.out)
    written = [float(number) for number in ACCOUNT.search(outcome.err).groups()]
    assert sum(len(one["tokens"]) for one in record["samples"]) == tokens
    assert written == [tokens, record["model_calls"], pytest.approx(tokens / record["model_calls"], abs=0.006)]
    assert record["tokens_per_call"] == pytest.approx(tokens / record["model_calls"], abs=1e-4)
    if "-n" not in line:
        name = line[line.index("--method") + 1]
        rows = json.loads(run("compare", PROMPT, "--methods", name, *shared, "--repeats", 1, "--json").out)
        assert rows[1]["model_calls"] == record["model_calls"]
        assert rows[1]["tokens_per_call"] == pytest.approx(record["tokens_per_call"], abs=1e-4)


def test_samples_in_waves_are_all_counted(model):
    """Two rows at once, five samples: three waves, of which the first alone was counted once."""
    found = tw.generate(model, PROMPT, temperature=1.0, n=5, max_new_tokens=6, ignore_eos=True, batch_rows=2)
    assert found.trace.model_calls == 18 and found.tokens_per_call == pytest.approx(30 / 18)
    assert found.trace.tokens_per_call == 1.0


def test_a_search_counts_hypotheses_and_a_selection_candidates(run, model):
    line = ("--model", model, "--max-new-tokens", 5, "--ignore-eos")
    search = run("generate", PROMPT, *line, "--method", "beam", "-n", 2, "--json")
    selection = json.loads(search.out)["selection"]
    assert set(selection) == {"hypotheses", "order"} and set(selection["order"]) <= set(range(selection["hypotheses"]))
    assert f"(chosen among {selection['hypotheses']} hypotheses)" in search.err
    single = run("generate", PROMPT, *line, "--method", "best_first_beam", "--json")
    assert json.loads(single.out)["selection"] == {"hypotheses": 1, "order": [0]}
    assert "(chosen among 1 hypothesis)" in single.err
    drawn = run("generate", PROMPT, *line, "--method", "mbr", "--set", "candidates=3", "--temperature", 1)
    assert "(chosen among 3 candidates)" in drawn.err
