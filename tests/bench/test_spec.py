"""The Spec-Bench protocol on a tiny model: every figure is there, the picture is drawn, categories are Spec-Bench's."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import pytest

from treewright.bench.main import run
from treewright.bench.prompt_sets import CATEGORIES, read_prompts
from treewright.core.errors import InputError


@pytest.fixture(scope="module")
def questions(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two questions of each task, in the file's own form."""
    data = tmp_path_factory.mktemp("data")
    (data / "spec_bench").mkdir()
    names = ["writing", "coding", "translation", "summarization", "qa", "math_reasoning", "rag"] * 2
    with gzip.open(data / "spec_bench/question.jsonl.gz", "wt") as file:
        for number, category in enumerate(names):
            file.write(json.dumps({"question_id": number, "category": category, "turns": [f"say {number}", "more"]}) + "\n")
    return data


def test_tasks_are_those_of_the_benchmark(questions: Path) -> None:
    prompts = read_prompts(questions, list(CATEGORIES), 2)
    assert [prompt.text for prompt in prompts] == [
        "say 0", "say 7", "say 2", "say 9", "say 3", "say 10", "say 4", "say 11", "say 5", "say 12", "say 6", "say 13",
    ]  # fmt: skip
    with pytest.raises(InputError, match="has 2 records for 'qa'"):
        read_prompts(questions, ["qa"], 3)
    with pytest.raises(InputError, match="qa needs --data DIR"):
        read_prompts(None, ["qa"], 1)


def test_a_run(model_folder: Path, questions: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out, picture = tmp_path / "spec.jsonl", tmp_path / "spec.svg"
    small = ["--prompts", "1", "--max-new-tokens", "12", "--repeats", "1", "--threads", "1", "--dtype", "float32"]
    code = run("spec", [
        "--model", str(model_folder), "--data", str(questions), "--domains", "qa,rag",
        "--methods", "prompt_lookup,token_recycling:nodes=7",
        "--peers", "transformers", "--temperatures", "0", *small, "--json", str(out), "--plot", str(picture),
    ])  # fmt: skip
    printed = capsys.readouterr().out
    assert code == 0 and picture.stat().st_size > 1000
    assert "## All domains, temperature 0, batch 1" in printed and "## The cost model beside the measurement" in printed
    records = [json.loads(line) for line in out.read_text().splitlines()]
    whole = [one for one in records if one["task"] == "speed" and one["domain"] == "all" and one["texts"] == "all"]
    assert [one["method"] for one in whole] == ["plain", "prompt_lookup", "token_recycling:nodes=7", "transformers"]
    for one in whole[:3]:
        assert sum(one["calls_by_columns"].values()) == one["model_calls"]
        # Only the last round of a text may be cut off by its length.
        gained = sum(one["accepted_by_depth"]) + one["model_calls"]
        assert 0 <= gained - one["new_tokens"] <= 2 * 12
    assert whole[2]["claims_per_round"] > 0 and whole[3]["claims_per_round"] is None
    promised = [one for one in records if one["task"] == "predict"]
    assert {one["method"] for one in promised} == {"prompt_lookup", "token_recycling:nodes=7"}
    assert all(one["predicted_ratio_to_plain"] > 0 and one["error"] is not None for one in promised)


def test_a_picture_that_cannot_be_drawn_is_refused_before_the_run(model_folder: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"suffix is '\.txt'"):
        run("spec", ["--model", str(model_folder), "--plot", str(tmp_path / "x.txt")])
    with pytest.raises(InputError, match="does not exist; create it first"):
        run("spec", ["--model", str(model_folder), "--plot", str(tmp_path / "none/x.png")])
