"""The verify-cost task end to end on random weights, and the acceptance curve it takes."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from treewright.bench.costs import Round
from treewright.bench.main import run
from treewright.bench.verify_cost import BARE, lane_name, read_curve, records
from treewright.core.errors import ContextError, InputError, ModelError

SMALL = ["--models", "random:tiny", "--claims", "1,4", "--repeats", "1", "--context", "8", "--threads", "1"]


def test_a_run_writes_a_record_for_every_shape_size_dtype_and_batch(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "cost.jsonl"
    assert run("verify-cost", [*SMALL, "--batches", "1,2", "--dtypes", "float32", "--mat", "3=1.9", "--json", str(path)]) == 0
    found = [json.loads(line) for line in path.read_text().splitlines()]
    keys = [(r["dtype"], r["batch"], r["shape"], r["claims"]) for r in found]
    assert sorted(keys) == sorted(("float32", b, s, c) for b in (1, 2) for s in ("tree", "chain") for c in (1, 4))
    for record in found:
        assert record["task"] == "verify-cost" and record["model"] == "random:tiny" and record["compiled"] is False
        assert record["parameters"] == 22_688 and record["machine"]["threads"] == 1 and "torch" in record["versions"]
        assert record["ms"] == pytest.approx(record["forward_ms"] + record["outside_ms"])
        assert record["ratio_to_transformers"] == pytest.approx(record["ms"] / record["transformers_ms"])
        one = next(r for r in found if (r["batch"], r["shape"], r["claims"]) == (record["batch"], record["shape"], 1))
        assert record["ratio_to_one_claim"] == pytest.approx(record["ms"] / one["ms"])
        assert record["best_nodes"] == (3 if record["shape"] == "tree" else None)
    out = capsys.readouterr().out
    assert "random:tiny (0 M), float32, batch 2" in out and "3 nodes, at most" in out


def test_ratios_between_compiled_and_eager() -> None:
    found = {
        BARE: {1: Round(0.004, 0.004), 8: Round(0.008, 0.008)},
        lane_name("tree", False): {1: Round(0.006, 0.005), 8: Round(0.009, 0.007)},
        lane_name("tree", True): {1: Round(0.002, 0.001), 8: Round(0.003, 0.002)},
    }
    listed = {(r["compiled"], r["claims"]): r for r in records(found, ["tree"], [False, True], {7: 2.1, 63: 9.0})}
    assert listed[True, 8]["eager_over_compiled"] == pytest.approx(3.0)
    assert listed[False, 8]["eager_over_compiled"] is None
    assert listed[True, 8]["ratio_to_one_claim"] == pytest.approx(1.5)
    assert listed[True, 1]["ratio_to_transformers"] == pytest.approx(0.5)
    # 63 nodes were never timed, so they are no candidate.
    assert (listed[True, 1]["best_nodes"], listed[True, 1]["best_gain"]) == (7, pytest.approx(2.1 * 2 / 3))


def speed_record(nodes: int | None, tokens_per_call: float, **other: object) -> str:
    options = {} if nodes is None else {"nodes": nodes}
    base = {"recipe": "token_recycling", "temperature": 0.0, "batch": 1, "options": options, "tokens_per_call": tokens_per_call}
    return json.dumps(base | other)


def test_an_acceptance_curve_is_read_from_a_speed_run(tmp_path: Path) -> None:
    path = tmp_path / "speed.jsonl"
    lines = [
        speed_record(7, 9.9), speed_record(15, 2.4), speed_record(7, 1.9),
        speed_record(31, 9.9, temperature=1.0), speed_record(31, 9.9, batch=8), speed_record(31, 9.9, recipe="jacobi"),
    ]  # fmt: skip
    path.write_text("\n".join(lines))
    assert read_curve(path) == {7: 1.9, 15: 2.4}
    path.write_text(speed_record(7, 1.9, node_choice={"mat": {"3": 1.5, "7": 1.8}}))
    assert read_curve(path) == {3: 1.5, 7: 1.8}
    path.write_text(speed_record(7, 1.9))
    with pytest.raises(InputError, match="does not hold token_recycling with two numbers of nodes"):
        read_curve(path)


def test_what_cannot_be_measured_is_refused() -> None:
    with pytest.raises(ModelError, match="random:7b"):
        run("verify-cost", ["--models", "random:7b", "--dtypes", "float32"])
    with pytest.raises(ContextError, match="--context 5000"):
        run("verify-cost", [*SMALL, "--context", "5000"])


@pytest.mark.slow
def test_the_compiled_step_is_timed_beside_the_eager_one(tmp_path: Path) -> None:
    path = tmp_path / "cost.jsonl"
    argv = [*SMALL, "--batches", "1", "--dtypes", "float32", "--shapes", "tree", "--compile", "--json", str(path)]
    assert run("verify-cost", argv) == 0
    found = [json.loads(line) for line in path.read_text().splitlines()]
    assert sorted((r["compiled"], r["claims"]) for r in found) == [(False, 1), (False, 4), (True, 1), (True, 4)]
    assert all(r["eager_over_compiled"] > 0 for r in found if r["compiled"])
