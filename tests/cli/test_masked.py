"""A masked model on the command line: compared with, and certified against, its static decoding."""

from __future__ import annotations

import json

import pytest

from treewright.core.errors import InputError
from treewright.models.loading import load
from treewright.models.random_weights import random_masked
from treewright.parts.diffuse.static import Static
from treewright.testing.certify import certify

PROMPT = "List: bird dog cat\nReverse the list:"
SHORT = ("--max-new-tokens", 6, "--repeats", 1, "--dtype", "float32")


def rows(outcome):
    assert outcome.code == 0, outcome.err
    return {row["method"]: row for row in json.loads(outcome.out)}


def test_compare_with_the_static_decoding(run):
    line = ("compare", PROMPT, "--model", "default-masked", "--methods", "fast_dllm,freedave", *SHORT)
    found = rows(run(*line, "--json"))
    assert list(found) == ["llada", "fast_dllm", "free_dave"]
    assert found["free_dave"]["identical"] and found["free_dave"]["tokens"] == found["llada"]["tokens"]
    assert found["free_dave"]["model_calls"] <= found["llada"]["model_calls"] == 6
    for row in found.values():
        assert row["tokens_per_call"] == pytest.approx(len(row["tokens"]) / row["model_calls"])
        assert row["equal"] == row["identical"] == (not row["note"])
    assert "to llada" in run(*line).out.splitlines()[0]


def test_another_schedule_is_said(run):
    line = ("compare", "hi", "--model", "default-masked", "--methods", "free_dave", *SHORT, "--json")
    note = rows(run(*line, "--set", "free_dave.tokens=3"))["free_dave"]["note"]
    assert note in ("", "it equals llada with tokens=3; give llada the same options")
    same = rows(run(*line, "--methods", "llada,free_dave", "--set", "tokens=3"))
    assert same["free_dave"]["identical"] and same["llada"]["model_calls"] == 2


@pytest.mark.parametrize(
    ("line", "words"),
    [
        (["compare", "hi", "--methods", "plain"], "methods that fit it: fast_dllm, free_dave, llada"),
        (["compare", "hi", "--methods", "llada", "--against", "transformers"], "fills slots in any order, which peers do not"),
        (["compare", "hi", "--methods", "llada", "--choice", "a"], "fills slots in any order; use a causal model"),
        (["certify", "--methods", "llada"], "does not claim to equal a static decoding"),
        (["certify", "--method", "token_recycling"], "which model 'default-masked' does not have"),
        (["certify", "--matrix"], "leave out --matrix"),
        (["certify", "default"], "give it once"),
    ],
)
def test_refusals_are_one_line(refused, line, words):
    assert words in refused(*line, "--model", "default-masked")


@pytest.fixture(scope="module")
def masked():
    return load(random_masked(seed=1))


def test_free_dave_is_certified(masked):
    found = certify(masked, new_tokens=8)
    assert [row.check for row in found] == [
        "law on any-order tables", *(f"tokens of llada at temperature {t}, batch {b}" for t in (0, 1) for b in (1, 4))
    ]  # fmt: skip
    assert all(row.passed and row.method == "free_dave" for row in found)
    assert found[1].numbers["model_calls"] < found[1].numbers["static_calls"] == 32
    json.dumps([row.to_json() for row in found], allow_nan=False)
    with pytest.raises(InputError, match="models is"):
        certify(masked, models={"draft": masked})


def test_a_planted_bug_fails(masked, monkeypatch):
    """Drafts are checked by a schedule that chooses the next token id."""
    clean = Static.plan

    def plan(self, round, answers, row, column, canvas, most):
        steps = clean(self, round, answers, row, column, canvas, most)
        return [[(slot, (token + (column > 0)) % 20) for slot, token in step] for step in steps]

    monkeypatch.setattr(Static, "plan", plan)
    found = certify(masked, ["free_dave"], new_tokens=8, tables=False)
    assert not all(row.passed for row in found) and any("differs at new token" in row.detail for row in found)
