"""A promise in tokens a second beside measured peers: figures whose answer is known, and what does not compare is refused."""

from __future__ import annotations

import importlib.util
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from treewright.bench.beside import beside_table, check_same_texts, paces
from treewright.bench.main import run
from treewright.bench.records import Run, SpeedRecord
from treewright.core.errors import InputError

ALL = ("all", "all", 0.0)
RUN = Run("m, float32, eager", "a", 8)


def record(method: str, units: list[float], peer: bool = False, **other: Any) -> SpeedRecord:
    """A record of units of ten tokens that took so many seconds."""
    one = SpeedRecord(RUN, method, "all", "all", 0.0, 1, peer, None, None, 10 * len(units), sum(units), 0.0)
    return replace(one, **other)


MEASURED = [
    record("plain", [0.1, 0.3]), record("auto", [0.05, 0.05]), record("transformers", [0.4, 0.4], True),
    record("transformers:prompt_lookup", [0.1, 0.1], True), record("openvino", [0.2, 0.2], True),
    record("openvino:prompt_lookup", [0.1, 0.15], True),
]  # fmt: skip


def test_the_promise_is_a_multiple_of_plain_decoding_as_it_was_measured() -> None:
    found = {one.method: one for one in paces({("auto", ALL): 3.0, ("suffix", ALL): 2.0}, MEASURED)}
    assert list(found)[:3] == ["plain", "auto", "suffix"]
    assert found["plain"].predicted is None and found["plain"].measured == pytest.approx(50)
    assert found["auto"].predicted == pytest.approx(150) and found["auto"].measured == pytest.approx(200)
    assert found["suffix"].predicted == pytest.approx(100) and found["suffix"].measured is None
    assert found["openvino"].predicted is None


def test_reading_the_prompts_is_as_slow_for_everyone() -> None:
    (_, auto) = paces({("auto", ALL): 3.0}, [record("plain", [0.1, 0.3], reading=0.1), record("auto", [0.1])])
    assert auto.predicted == pytest.approx(20 / (0.1 + 0.3 / 3))


def test_it_is_compared_with_transformers_plain_and_the_better_mode_of_the_other() -> None:
    (auto,) = (one for one in paces({("auto", ALL): 3.0}, MEASURED) if one.method == "auto")
    assert auto.over == {"transformers": ("transformers", 25.0), "openvino": ("openvino:prompt_lookup", 80.0)}
    slower = [one for one in MEASURED if one.method != "openvino:prompt_lookup"]
    assert paces({}, slower)[0].over["openvino"] == ("openvino", 50.0)
    line = next(line for line in beside_table([auto]).splitlines() if line.startswith("| auto"))
    cells = [cell.strip() for cell in line.strip("|").split("|")]
    assert cells == ["auto", "all", "all", "0", "150.0", "200.0", "6.00", "8.00", "1.88", "2.50"]
    assert "\n- openvino's better mode, all, all, temperature 0: openvino:prompt_lookup" in beside_table([auto])


def test_a_mode_that_is_not_plain_generation_is_named_for_transformers_too() -> None:
    assert "\n- transformers" not in beside_table(paces({}, MEASURED))
    alone = paces({}, [one for one in MEASURED if one.method != "transformers"])
    assert alone[0].over["transformers"] == ("transformers:prompt_lookup", 100.0)
    assert "\n- transformers, all, all, temperature 0: transformers:prompt_lookup" in beside_table(alone)


def test_cells_are_apart_and_those_without_plain_decoding_are_left_out() -> None:
    other = [record("plain", [1.0], texts="few"), record("auto", [1.0], domain="sql"), record("plain", [2.0], temperature=1.0)]
    found = paces({("auto", ("all", "few", 0.0)): 2.0}, [*MEASURED, *other])
    assert [(one.method, one.predicted) for one in found if one.cell == ("all", "few", 0.0)] == [("plain", None), ("auto", 20.0)]
    assert not [one for one in found if one.cell[0] == "sql"]
    assert next(one for one in found if one.cell == ("all", "all", 1.0)).over == {}


def test_the_table_is_of_all_domains_where_there_are_several() -> None:
    several = paces({}, [*MEASURED, *(replace(one, domain="sql") for one in MEASURED)])
    assert "| sql" not in beside_table(several) and "| all" in beside_table(several)
    assert "| sql" in beside_table([one for one in several if one.cell[0] == "sql"])


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"prompts": "b"}, "--run has prompts of hash a and --measured b, so their texts do not compare"),
        ({"max_new_tokens": 9}, "--run has --max-new-tokens 8 and --measured 9.*run both with the same"),
    ],
)
def test_other_texts_are_refused(changes: dict[str, Any], message: str) -> None:
    check_same_texts(RUN, RUN)
    with pytest.raises(InputError, match=message):
        check_same_texts(RUN, replace(RUN, **changes))


RACE = [
    "--methods", "prompt_lookup", "--temperatures", "0", "--batches", "1", "--prompts", "1", "--domains", "prose,sql",
    "--max-new-tokens", "12", "--repeats", "1", "--threads", "1",
]  # fmt: skip


@pytest.fixture(scope="module")
def measured(model_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The files of a whole sequence on a tiny model: two runs and a curve of costs."""
    folder = tmp_path_factory.mktemp("sequence")
    model = str(model_folder)
    run("speed", ["--model", model, *RACE, "--json", str(folder / "run")])
    cost = [
        "--models", model, "--dtypes", "float32", "--batches", "1", "--claims", "4,11,12", "--shapes", "tree", "--repeats", "2",
    ]  # fmt: skip
    run("verify-cost", [*cost, "--context", "16", "--json", str(folder / "cost")])
    return folder


def given(folder: Path, there: str) -> list[str]:
    return ["--run", str(folder / "run"), "--cost", str(folder / "cost"), "--measured", str(folder / there)]


def test_the_whole_sequence(measured: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = measured / "out"
    assert run("predict", [*given(measured, "run"), "--json", str(out)]) == 0
    printed = capsys.readouterr().out
    assert "### Tokens a second, beside what was measured there" in printed and "x transformers, predicted" in printed
    found = [json.loads(line) for line in out.read_text().splitlines()]
    (ours,) = (one for one in found if one["task"] == "beside" and one["method"] == "prompt_lookup" and one["domain"] == "sql"
               and one["texts"] == "all")  # fmt: skip
    (promise,) = (one for one in found if one["task"] == "predict" and one["domain"] == "sql" and one["texts"] == "all")
    ran = [json.loads(line) for line in (measured / "run").read_text().splitlines()]
    (plain,) = (one for one in ran if (one["method"], one["domain"], one["texts"]) == ("plain", "sql", "all"))
    assert 0 < plain["reading_seconds"] < plain["seconds"]
    rounds = (plain["seconds"] - plain["reading_seconds"]) / promise["predicted_ratio_to_plain"]
    assert ours["predicted_tokens_per_second"] == pytest.approx(12 / (plain["reading_seconds"] + rounds))
    assert ours["compared_with"]["transformers"]["mode"] == "transformers"


def test_a_measurement_of_another_model_or_of_other_texts_is_refused(measured: Path) -> None:
    lines = [json.loads(line) for line in (measured / "run").read_text().splitlines()]
    for name, changes in (("model", {"model": "random:9b"}), ("length", {"max_new_tokens": 13})):
        (measured / name).write_text("".join(json.dumps(line | changes) + "\n" for line in lines))
    with pytest.raises(
        InputError, match=r"--measured ran random:9b, float32, eager, but --cost holds .*, float32, eager; give the"
    ):
        run("predict", given(measured, "model"))
    with pytest.raises(InputError, match="--run has --max-new-tokens 12 and --measured 13"):
        run("predict", given(measured, "length"))


@pytest.mark.skipif(importlib.util.find_spec("openvino_genai") is None, reason="needs treewright[peers]")
def test_openvino_stands_beside_the_promise(measured: Path, model_folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from treewright.api import load
    from treewright.interop.openvino_export import export

    export(load(model_folder), measured / "export")
    run("speed", ["--model", str(model_folder), *RACE, "--export", f"openvino={measured / 'export'}", "--json",
                  str(measured / "there")])  # fmt: skip
    capsys.readouterr()
    assert run("predict", given(measured, "there")) == 0
    printed = capsys.readouterr().out
    assert "x openvino's better mode, predicted" in printed and "\n| openvino:prompt_lookup" in printed
