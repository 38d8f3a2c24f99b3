"""Tables that line up, records that stand alone on their line."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from treewright.bench.report import interval, markdown, number, record_writer
from treewright.bench.statistics import Interval


def test_a_table_lines_up() -> None:
    assert markdown(("name", "ms"), [("a", "1.00"), ("longer", "12.50")]) == (
        "| name   |    ms |\n"
        "| ------ | ----: |\n"
        "| a      |  1.00 |\n"
        "| longer | 12.50 |"
    )  # fmt: skip


def test_figures_that_are_not_there_are_dashes() -> None:
    assert (number(None), number(1.234), number(1.234, 1)) == ("-", "1.23", "1.2")
    assert interval(None) == "-"
    assert interval(Interval(2.0, None, None)) == "2.00"
    assert interval(Interval(2.0, 1.5, 2.5)) == "2.00 [1.50, 2.50]"


def test_records_are_lines_and_are_there_when_the_run_breaks(tmp_path: Path) -> None:
    path = tmp_path / "out.jsonl"
    with pytest.raises(RuntimeError), record_writer(path) as write:
        write({"a": 1})
        write({"b": [1, 2]})
        raise RuntimeError
    assert [json.loads(line) for line in path.read_text().splitlines()] == [{"a": 1}, {"b": [1, 2]}]


def test_a_record_with_a_number_that_json_lacks_is_refused(tmp_path: Path) -> None:
    with record_writer(tmp_path / "out.jsonl") as write, pytest.raises(ValueError, match="Out of range float"):
        write({"ratio": float("nan")})
    with record_writer(None) as write:
        write({"a": 1})
