"""The benchmark of masked samplers on exact answers: what is counted, and what a line says."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace

import pytest

from treewright.bench import masked
from treewright.bench.main import run
from treewright.train.list_tasks import INSTRUCTIONS


@pytest.fixture
def oracle(monkeypatch: pytest.MonkeyPatch) -> None:
    """A `generate` that copies every list, in one call of 12 slots or, as FreeDave, in two of 24."""

    def generate(loaded, prompt, method, options, max_new_tokens):
        words = prompt.partition("\n")[0].removeprefix("List: ")
        calls = [SimpleNamespace(kind="score", rows=2, columns=12)] * 2 if method == "free_dave" else []
        calls = calls or [SimpleNamespace(kind="score", rows=1, columns=12)]
        return SimpleNamespace(text=" " + words, tokens=[len(words)], trace=SimpleNamespace(calls=calls))

    monkeypatch.setattr(masked, "generate", generate)


def test_a_sampler_is_scored_by_its_answers_and_calls(oracle, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "records.jsonl"
    assert run("masked", ["--model", "default-draft", "--problems", "3", "--json", str(out)]) == 0
    records = [json.loads(line) for line in out.read_text().splitlines()]
    assert len(records) == len(masked.CONTESTANTS) * len(INSTRUCTIONS)
    found = {(record["sampler"], record["operation"]): record for record in records}
    assert found["one a step", "copy"]["right"] == 1 and found["one a step", "reverse"]["right"] == 0
    assert found["FreeDave, 4 drafts", "sort"]["calls"] == 2 and found["FreeDave, 4 drafts", "sort"]["slots"] == 48
    assert all(record["same"] == 1 for record in records)
    assert all(record["model"] == "default-draft" and record["versions"]["torch"] for record in records)
    printed = capsys.readouterr().out
    assert "3 held-out problems of each of 10 tasks, a canvas of 8 slots" in printed
    assert "| copy " in printed and "| threshold 0.9 " in printed


def test_every_contestant_is_a_method_with_its_options() -> None:
    from treewright.api import build_parts
    from treewright.core.recipe import Recipe

    for method, options in masked.CONTESTANTS.values():
        assert build_parts(Recipe.of(method, dict(options))).verify is not None
