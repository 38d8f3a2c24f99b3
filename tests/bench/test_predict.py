"""Promises from counts and costs whose answer is known."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from treewright.bench.main import run
from treewright.bench.predict import curves, predict, predictions
from treewright.bench.records import CostRecord, Line, Rounds, SpeedRecord, read_records
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
PLACE = Line("here", "speed", {})


def read(*lines: dict[str, Any]) -> list[SpeedRecord]:
    return [SpeedRecord.of(replace(PLACE, values=line)) for line in lines]


def rounds(**other: Any) -> Rounds:
    (one,) = read(record(**other))
    assert one.rounds is not None
    return one.rounds


COSTS = {1: 0.010, 8: 0.012, 16: 0.016}


def test_tokens_times_what_a_plain_round_costs_over_what_a_round_costs() -> None:
    assert predict(rounds(), COSTS, outside=0.0005) == pytest.approx(2 * 10.5 / 13)
    mixed = rounds(calls_by_columns={"1": 5, "16": 5})
    assert predict(mixed, COSTS, outside=0.0) == pytest.approx(2 * 10 / 14)


def test_a_draft_model_costs_its_share_of_a_call() -> None:
    assert predict(rounds(draft_share=0.5), COSTS, outside=0.0) == pytest.approx(2 * 10 / 18)


def test_promises_beside_measurements_there() -> None:
    (here,) = predictions(read(PLAIN, record()), COSTS)
    assert here.measured == 1.6 and here.error == pytest.approx(here.predicted / 1.6 - 1)
    (elsewhere,) = predictions(read(PLAIN, record()), COSTS, measured=[])
    assert elsewhere.measured is None and elsewhere.error is None
    unknown = dict.fromkeys(("tokens_per_call", "claims_per_round", "calls_by_columns", "outside_ms_per_round", "draft_share"))
    others = record(peer=True, **unknown), record(calls_by_columns={"17": 1}), record(calls_by_columns={})
    assert predictions(read(PLAIN, *others), COSTS) == []
    (unmeasured,) = predictions(read(PLAIN, record(ratio_to_plain=None)), COSTS)
    assert unmeasured.measured is None


def files(tmp_path: Path) -> list[str]:
    cost = [
        {"task": "verify-cost", "model": "m", "dtype": "bfloat16", "compiled": False, "batch": 1, "shape": "tree", "claims": size,
         "ms": 1000 * seconds} for size, seconds in COSTS.items()
    ]  # fmt: skip
    tmp_path.mkdir(exist_ok=True)
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
    with pytest.raises(InputError, match="no trees at batch 2"):
        curves(read_records(tmp_path / "cost", "verify-cost", CostRecord.of), 2)
    (tmp_path / "cost").write_text("\n".join((tmp_path / "cost").read_text().splitlines()[1:]))
    with pytest.raises(InputError, match=r"the costs of m, bfloat16, eager hold no round of 1 claim; measured: 8, 16; run bench"):
        run("predict", given)


INTEGERS, NUMBERS = "an integer from 1 to 1000000000", "a number from 0 to 1000000000"


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("no json", "the line is no json; allowed: a JSON object"),
        ('{"task": "speed"', 'the line is {"task": "speed"; allowed: a JSON object'),
        ("[1, 2]", "the line is [1, 2]; allowed: a JSON object"),
        ("7", "the line is 7; allowed: a JSON object"),
        ("null", "the line is null; allowed: a JSON object"),
        ("[" * 100_000, f"the line is {'[' * 57}...; allowed: a JSON object"),
        ("{}", "task is missing; allowed: text"),
        ({"task": 3}, "task is 3; allowed: text"),
        ({"method": None}, "method is null; allowed: text"),
        ({"domain": ["all"]}, 'domain is ["all"]; allowed: text'),
        ({"peer": "no"}, 'peer is "no"; allowed: true or false'),
        ({"temperature": "0"}, f'temperature is "0"; allowed: {NUMBERS}'),
        ({"temperature": -1}, f"temperature is -1; allowed: {NUMBERS}"),
        ({"batch": 1.0}, f"batch is 1.0; allowed: {INTEGERS}"),
        ({"batch": True}, f"batch is true; allowed: {INTEGERS}"),
        ({"batch": 0}, f"batch is 0; allowed: {INTEGERS}"),
        ({"tokens_per_call": None}, f"tokens_per_call is null; allowed: {NUMBERS}"),
        ({"tokens_per_call": math.nan}, f"tokens_per_call is NaN; allowed: {NUMBERS}"),
        ({"claims_per_round": math.inf}, f"claims_per_round is Infinity; allowed: {NUMBERS}"),
        ({"claims_per_round": 10**400}, f"claims_per_round is 1{'0' * 56}...; allowed: {NUMBERS}"),
        ({"outside_ms_per_round": []}, f"outside_ms_per_round is []; allowed: {NUMBERS}"),
        ({"draft_share": "much"}, f'draft_share is "much"; allowed: {NUMBERS}'),
        ({"calls_by_columns": None}, "calls_by_columns is null; allowed: an object"),
        ({"calls_by_columns": [8]}, "calls_by_columns is [8]; allowed: an object"),
        ({"calls_by_columns": {"8": 0}}, f"calls_by_columns.8 is 0; allowed: {INTEGERS}"),
        ({"calls_by_columns": {"8": "10"}}, f'calls_by_columns.8 is "10"; allowed: {INTEGERS}'),
        ({"calls_by_columns": {"-8": 1}}, f'calls_by_columns."-8" stands for a number of columns; allowed: {INTEGERS}'),
        ({"calls_by_columns": {"all": 1}}, f'calls_by_columns."all" stands for a number of columns; allowed: {INTEGERS}'),
        ({"prompt_set": {"hash": 7}}, "prompt_set.hash is 7; allowed: text"),
        ({"unit_tokens": [64, 0]}, "unit_tokens is [64, 0]; allowed: a list of integers from 1 to 1000000000"),
        ({"unit_seconds": []}, "unit_seconds is []; allowed: a list of numbers from 1e-09 to 1000000000"),
        ({"reading_seconds": "0.1"}, f'reading_seconds is "0.1"; allowed: {NUMBERS}, or null'),
        ({"ratio_to_plain": 1.6}, "ratio_to_plain is 1.6; allowed: an object, or null"),
        ({"ratio_to_plain": {}}, "ratio_to_plain.value is missing; allowed: a number from 1e-09 to 1000000000"),
        ({"ratio_to_plain": {"value": 0}}, "ratio_to_plain.value is 0; allowed: a number from 1e-09 to 1000000000"),
    ],
    ids=lambda value: str(value)[:40],
)  # fmt: skip
def test_a_malformed_line_of_a_run_is_named(line: str | dict[str, Any], said: str, tmp_path: Path) -> None:
    written = line if isinstance(line, str) else json.dumps(record() | line)
    path, given, good = tmp_path / "run", files(tmp_path), files(tmp_path / "good")
    path.write_text(f"{json.dumps(PLAIN)}\n\n{written}\n")
    for argv in (given, [*good, "--measured", str(path)]):
        with pytest.raises(InputError) as error:
            run("predict", argv)
        assert str(error.value) == f"{path}, line 3: {said}; give what `treewright bench speed --json FILE` wrote"


@pytest.mark.parametrize("key", sorted(set(record()) - {"task"}))
def test_a_missing_key_is_named(key: str, tmp_path: Path) -> None:
    given, line = files(tmp_path), record()
    del line[key]
    (tmp_path / "run").write_text(json.dumps(line))
    with pytest.raises(InputError, match=rf"run, line 1: {key} is missing; allowed: .*; give what `treewright bench speed"):
        run("predict", given)


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"model": 3}, "model is 3; allowed: text"), ({"compiled": 0}, "compiled is 0; allowed: true or false"),
        ({"claims": "8"}, f'claims is "8"; allowed: {INTEGERS}'),
        ({"ms": 0}, "ms is 0; allowed: a number from 1e-09 to 1000000000"),
        ({"ms": [1]}, "ms is [1]; allowed: a number from 1e-09 to 1000000000"),
        ({"ms": math.nan}, "ms is NaN; allowed: a number from 1e-09 to 1000000000"),
    ],
    ids=str,
)  # fmt: skip
def test_a_malformed_line_of_the_costs_is_named(wrong: dict[str, Any], said: str, tmp_path: Path) -> None:
    given, path = files(tmp_path), tmp_path / "cost"
    lines = path.read_text().splitlines()
    lines[1] = json.dumps(json.loads(lines[1]) | wrong)
    path.write_text("\n".join(lines))
    with pytest.raises(InputError) as error:
        run("predict", given)
    assert str(error.value) == f"{path}, line 2: {said}; give what `treewright bench verify-cost --json FILE` wrote"


def test_records_of_other_tasks_are_passed_over_and_other_bytes_are_not(tmp_path: Path) -> None:
    given = files(tmp_path)
    with (tmp_path / "run").open("a") as file:
        file.write('{"task": "predict", "method": 3}\n')
    assert run("predict", given) == 0
    (tmp_path / "run").write_bytes(b"\xff\xfe")
    with pytest.raises(InputError, match="run is no UTF-8 text"):
        run("predict", given)


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
