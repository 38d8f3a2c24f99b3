"""Promises from counts and costs whose answer is known."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from treewright.bench.main import run
from treewright.bench.predict import curves, predict, predictions, read_records
from treewright.core.errors import InputError


def record(method: str = "token_recycling", **other: Any) -> dict[str, Any]:
    return {
        "task": "speed", "method": method, "domain": "all", "texts": "all", "temperature": 0.0, "batch": 1, "peer": False,
        "tokens_per_call": 2.0, "claims_per_round": 7.0, "calls_by_columns": {"8": 10}, "outside_ms_per_round": 1.0,
        "draft_share": 0.0, "model": "m", "dtype": "bfloat16", "compiled": False, "prompt_set": {"hash": "a"},
        "max_new_tokens": 64, "unit_tokens": [64], "unit_seconds": [0.5],
        "ratio_to_plain": {"value": 1.6, "low": None, "high": None},
    } | other  # fmt: skip


PLAIN = record("plain", tokens_per_call=1.0, calls_by_columns={"1": 10}, claims_per_round=0.0, outside_ms_per_round=0.5)
COSTS = {1: 0.010, 8: 0.012, 16: 0.016}


def test_tokens_times_what_a_plain_round_costs_over_what_a_round_costs() -> None:
    assert predict(record(), COSTS, outside=0.0005) == pytest.approx(2 * 10.5 / 13)
    mixed = record(calls_by_columns={"1": 5, "16": 5})
    assert predict(mixed, COSTS, outside=0.0) == pytest.approx(2 * 10 / 14)


def test_a_draft_model_costs_its_share_of_a_call() -> None:
    assert predict(record(draft_share=0.5), COSTS, outside=0.0) == pytest.approx(2 * 10 / 18)


def test_promises_beside_measurements_there() -> None:
    (here,) = predictions([PLAIN, record()], COSTS)
    assert here.measured == 1.6 and here.error == pytest.approx(here.predicted / 1.6 - 1)
    (elsewhere,) = predictions([PLAIN, record()], COSTS, measured=[])
    assert elsewhere.measured is None and elsewhere.error is None
    assert predictions([PLAIN, record(peer=True), record(calls_by_columns={"17": 1})], COSTS) == []


def files(tmp_path: Path) -> list[str]:
    cost = [
        {"task": "verify-cost", "model": "m", "dtype": "bfloat16", "compiled": False, "batch": 1, "shape": "tree", "claims": size,
         "ms": 1000 * seconds} for size, seconds in COSTS.items()
    ]  # fmt: skip
    for name, lines in (("run", [PLAIN, record()]), ("cost", cost)):
        (tmp_path / name).write_text("".join(json.dumps(line) + "\n" for line in lines))
    return ["--run", str(tmp_path / "run"), "--cost", str(tmp_path / "cost")]


def test_the_task_prints_a_table_for_each_curve(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "out"
    assert run("predict", [*files(tmp_path), "--measured", str(tmp_path / "run"), "--json", str(out)]) == 0
    printed = capsys.readouterr().out
    assert "## m, bfloat16, eager, batch 1" in printed and "token_recycling" in printed and "+1 %" in printed
    lines = [json.loads(line) for line in out.read_text().splitlines()]
    (line,) = (line for line in lines if line["task"] == "predict")
    assert line["place"] == "m, bfloat16, eager" and line["predicted_ratio_to_plain"] == pytest.approx(2 * 10.5 / 13)


def test_bad_files(tmp_path: Path) -> None:
    given = files(tmp_path)
    with pytest.raises(InputError, match="holds nothing at batch 3"):
        run("predict", [*given, "--batch", "3"])
    with pytest.raises(InputError, match="holds no record of `bench speed`"):
        run("predict", ["--run", given[3], "--cost", given[3]])
    with pytest.raises(InputError, match="is no file"):
        run("predict", ["--run", str(tmp_path / "none"), "--cost", given[3]])
    (tmp_path / "run").write_text("no json\n")
    with pytest.raises(InputError, match="does not hold one JSON record a line"):
        read_records(tmp_path / "run", "speed")
    with pytest.raises(InputError, match="no trees at batch 2"):
        curves(read_records(tmp_path / "cost", "verify-cost"), 2)


def test_a_file_without_plain_decoding_is_named(tmp_path: Path) -> None:
    given = files(tmp_path)
    (tmp_path / "run").write_text(json.dumps(record()) + "\n")
    with pytest.raises(
        InputError, match=r"run has no record of `plain` beside 'token_recycling' \(domain all.*give the whole file"
    ):
        run("predict", given)
    (tmp_path / "run").write_text("".join(json.dumps(line) + "\n" for line in (PLAIN, record(temperature=1.0))))
    with pytest.raises(InputError, match=r"temperature 1, batch 1"):
        run("predict", given)
