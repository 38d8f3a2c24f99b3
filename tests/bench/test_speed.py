"""The speed task end to end on a tiny random model."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from treewright.bench import nodes
from treewright.bench.main import run
from treewright.core.errors import ContextError, InputError
from treewright.core.roles import Round, TargetLaw
from treewright.parts.verify import sample_then_match

COMMON = {
    "task", "machine", "versions", "model", "parameters", "dtype", "device", "compiled", "prompt_set", "max_new_tokens",
    "ignore_eos", "seed", "repeats", "node_choice", "domain", "texts", "method", "recipe", "options", "peer", "lossless",
    "temperature", "batch", "units", "prompts", "new_tokens", "model_calls", "draft_calls", "calls_per_token",
    "tokens_per_call", "row_rounds", "seconds", "ms_per_token", "unit_seconds", "unit_tokens", "outside_ms_per_round",
    "ratio_to_transformers", "ratio_to_plain", "repetition", "equal", "rows_compared", "rows_identical", "divergences", "roles",
    "claims_per_round", "tried_by_depth", "accepted_by_depth", "calls_by_columns", "draft_share", "reading_seconds",
}  # fmt: skip


def speed(folder: Path, tmp_path: Path, *argv: str) -> tuple[int, list[dict[str, Any]]]:
    path = tmp_path / "speed.jsonl"
    small = ["--prompts", "2", "--max-new-tokens", "16", "--repeats", "1", "--threads", "1", "--dtype", "float32"]
    code = run("speed", ["--model", str(folder), *small, "--json", str(path), *argv])
    return code, [json.loads(line) for line in path.read_text().splitlines()]


@pytest.fixture(scope="module")
def raced(model_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    argv = ["--batches", "1,2", "--temperatures", "0,1", "--domains", "prose,sql", "--methods", "token_recycling:nodes=7,jacobi"]
    code, found = speed(model_folder, tmp_path_factory.mktemp("speed"), *argv)
    assert code == 0
    return found


def cell(found: list[dict[str, Any]], **wanted: Any) -> list[dict[str, Any]]:
    return [record for record in found if all(record[key] == value for key, value in wanted.items())]


def test_every_line_stands_alone(raced: list[dict[str, Any]]) -> None:
    assert all(set(record) == COMMON for record in raced)
    assert {record["prompt_set"]["hash"] for record in raced} == {raced[0]["prompt_set"]["hash"]}
    assert raced[0]["machine"]["threads"] == 1 and raced[0]["versions"]["torch"]


def test_every_contestant_is_in_every_cell(raced: list[dict[str, Any]]) -> None:
    ours = ["plain", "token_recycling:nodes=7", "jacobi", "transformers"]
    for temperature in (0.0, 1.0):
        for domain in ("prose", "sql", "all"):
            alone = cell(raced, temperature=temperature, domain=domain, batch=1, texts="all")
            assert [record["method"] for record in alone] == [*ours, "transformers:prompt_lookup"]
            assert [record["units"] for record in alone] == [4 if domain == "all" else 2] * 5
            batch = cell(raced, temperature=temperature, domain=domain, batch=2, texts="all")
            assert [record["method"] for record in batch] == ours


def test_ratios_are_those_of_the_raw_seconds(raced: list[dict[str, Any]]) -> None:
    for record in raced:
        assert record["seconds"] == pytest.approx(sum(record["unit_seconds"]))
        assert record["new_tokens"] == sum(record["unit_tokens"]) == 16 * sum(map(len, record["prompts"]))
        assert record["ms_per_token"] == pytest.approx(1000 * record["seconds"] / record["new_tokens"])
        same = {key: record[key] for key in ("temperature", "batch", "domain", "texts")}
        for name in ("transformers", "plain"):
            reference = cell(raced, method=name, **same)[0]
            ratio = record[f"ratio_to_{name}"]
            assert ratio["value"] == pytest.approx(reference["ms_per_token"] / record["ms_per_token"])
            if record["units"] > 1:
                assert ratio["low"] <= ratio["value"] + 1e-9 and ratio["value"] <= ratio["high"] + 1e-9


def test_counts(raced: list[dict[str, Any]]) -> None:
    for record in raced:
        assert record["calls_per_token"] == pytest.approx(record["model_calls"] * record["batch"] / record["new_tokens"])
        if record["method"] in ("plain", "transformers"):
            assert record["calls_per_token"] == record["tokens_per_call"] == 1.0
        if record["method"] == "jacobi" and record["batch"] == 1:
            assert record["tokens_per_call"] == pytest.approx(1 / record["calls_per_token"])
        assert (record["outside_ms_per_round"] is None) == record["peer"]
        assert (record["reading_seconds"] is None) == record["peer"]


def test_greedy_texts_are_equal_and_sampled_ones_are_not_judged(raced: list[dict[str, Any]]) -> None:
    for record in cell(raced, temperature=0.0):
        assert record["equal"] is True and record["divergences"] == []
        assert record["rows_identical"] == record["rows_compared"] == record["units"] * record["batch"]
    assert all(record["equal"] is None for record in cell(raced, temperature=1.0))


def test_texts_of_low_repetition_stand_apart(raced: list[dict[str, Any]]) -> None:
    for record in raced:
        if record["texts"] != "all" and record["method"] == "plain":
            assert record["repetition"] < 0.3
        assert record["texts"] in ("all", "repetition < 0.3")


def test_a_sabotaged_method_is_caught(
    model_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    honest = sample_then_match.weighted_walk

    def careless(round: Round, law: TargetLaw, row: int) -> tuple[list[int], int, list[float]]:
        """Takes the first claim unseen, as a verifier would that forgot to look."""
        first = round.forest.shape.children(row)[0]
        usable = first and round.forest.token[row, first[0]] >= 0 and round.number == 5
        return ([first[0]], law.draw(row, first[0])[0], [0.0, 0.0]) if usable else honest(round, law, row)

    monkeypatch.setattr(sample_then_match, "weighted_walk", careless)
    argv = ["--batches", "1", "--temperatures", "0", "--domains", "prose", "--methods", "jacobi"]
    code, found = speed(model_folder, tmp_path, *argv)
    assert code == 1
    assert {record["method"]: record["equal"] for record in cell(found, texts="all")} == {
        "plain": True, "jacobi": False, "transformers": True, "transformers:prompt_lookup": True,
    }  # fmt: skip
    broken = cell(found, texts="all", method="jacobi")[0]["divergences"][0]
    assert not broken["excused"] and broken["found"] != broken["expected"]
    assert "BROKEN" in capsys.readouterr().out


def test_nodes_and_assisted_decoding(model_folder: Path, tmp_path: Path) -> None:
    argv = ["--with", f"draft={model_folder}", "--batches", "1", "--temperatures", "0", "--domains", "code", "--nodes", "7"]
    code, found = speed(model_folder, tmp_path, *argv, "--methods", "token_recycling,speculative_sampling", "--set", "tokens=3")
    by_name = {record["method"]: record for record in cell(found, texts="all")}
    assert code == 0 and by_name["token_recycling"]["options"] == {"nodes": 7}
    assert by_name["speculative_sampling"]["draft_calls"] > 0 and by_name["transformers:assisted"]["peer"]
    assert by_name["speculative_sampling"]["roles"] == {"draft": str(model_folder)}


def test_the_tree_size_can_be_measured(model_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(nodes, "CANDIDATES", (1, 7, 15))
    monkeypatch.setattr(nodes, "TOKENS", 8)
    argv = ["--batches", "1", "--temperatures", "0", "--domains", "sql", "--peers", "none", "--methods", "token_recycling"]
    _, found = speed(model_folder, tmp_path, *argv, "--nodes", "auto")
    choice = found[0]["node_choice"]
    chosen = cell(found, method="token_recycling")[0]
    assert chosen["options"] == {"nodes": choice["nodes"]} and set(choice["mat"]) == {"1", "7", "15"}
    assert str(choice["nodes"]) in choice["mat"]
    assert chosen["ratio_to_transformers"] is None and choice["predicted"] > 0


@pytest.mark.parametrize(
    ("argv", "error", "message"),
    [
        (["--max-new-tokens", "600"], ContextError, "model '.*tiny' has 512 positions"),
        (["--methods", "no_such"], InputError, "unknown method 'no_such'"),
        (["--peers", "vllm"], InputError, "unknown peer 'vllm'"),
        (["--model", "random:tiny"], InputError, "has no tokenizer"),
    ],
)
def test_wrong_input_is_refused_before_anything_is_written(
    model_folder: Path, tmp_path: Path, argv: list[str], error: type[Exception], message: str
) -> None:
    argv = ["--model", str(model_folder), "--quick", "--json", str(tmp_path / "x.jsonl"), *argv]
    with pytest.raises(error, match=message):
        run("speed", argv)
    assert not (tmp_path / "x.jsonl").exists()


def test_a_model_for_a_role_that_nobody_has_is_refused(model_folder: Path) -> None:
    with pytest.raises(InputError, match=r"--with expert=.*no method or peer of this run uses that role; used: none"):
        run("speed", ["--model", str(model_folder), "--with", f"expert={model_folder}", "--quick"])
