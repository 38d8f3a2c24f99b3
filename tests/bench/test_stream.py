"""The stream: its make-up, that memories last and are nobody else's, noise, and what is said of those that adapt."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from treewright.bench import stream
from treewright.bench.contestants import Ours, Outcome, Setting
from treewright.bench.main import run
from treewright.bench.race import Unit
from treewright.bench.stream import NOISE, NOISE_TOKENS, in_stream, noise_units
from treewright.bench.stream_report import beside_best, report, verdicts
from treewright.core.errors import CompositionError, InputError, UnknownMethod, UnknownOption

CONFIGURATIONS = Path(__file__).resolve().parents[2] / "benchmarks"


def units(domain: str, count: int) -> list[Unit]:
    return [Unit(domain, (number,), ((number,),)) for number in range(count)]


def test_kinds_of_text_come_again_and_no_unit_twice() -> None:
    given = [*units("prose", 4), *units("sql", 3), *units("code", 1)]
    found = in_stream(given, 2, seed=0)
    assert sorted(found, key=given.index) == given
    visits = [unit.domain for index, unit in enumerate(found) if index == 0 or found[index - 1].domain != unit.domain]
    assert 3 <= len(visits) <= 5
    first, second = found[:4], found[4:]
    assert {unit.domain for unit in first} == {"prose", "sql", "code"} and {unit.domain for unit in second} == {"prose", "sql"}
    for domain in ("prose", "sql"):
        assert [unit.numbers for unit in found if unit.domain == domain] == sorted(
            unit.numbers for unit in found if unit.domain == domain
        )
    assert found == in_stream(given, 2, seed=0)
    orders = {tuple(unit.domain for unit in in_stream(given, 2, seed)) for seed in range(9)}
    assert len(orders) > 3


def test_noise_is_uniform_over_the_vocabulary_and_hot() -> None:
    found = noise_units(7, first=10, count=40, rows=3, heat=2.5, seed=1)
    assert [unit.numbers for unit in found[:2]] == [(10, 11, 12), (13, 14, 15)] and len(found) == 40
    tokens = [token for unit in found for prompt in unit.prompts for token in prompt]
    assert len(tokens) == 40 * 3 * NOISE_TOKENS
    counts = [tokens.count(token) for token in range(7)]
    assert sum(counts) == len(tokens) and min(counts) > 0.85 * len(tokens) / 7
    assert found == noise_units(7, 10, 40, 3, 2.5, 1) != noise_units(7, 10, 40, 3, 2.5, 2)
    assert all(unit.temperature == 2.5 and unit.domain == NOISE for unit in found)
    assert found[0].setting(Setting(0.0, 3, 8, 0, True)) == Setting(2.5, 3, 8, 0, True)


def test_a_run(model_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    heats: list[tuple[str, str, float]] = []
    memories: list[tuple[str, dict[Any, Any]]] = []
    plain_run = Ours.run

    def spy(self: Ours, prompts: Sequence[Sequence[int]], setting: Setting, seed: int) -> Outcome:
        heats.append((self.name, NOISE if len(prompts[0]) == NOISE_TOKENS else "text", setting.temperature))
        if not any(known is self.loaded.memories for name, known in memories if name == self.name):
            memories.append((self.name, self.loaded.memories))
        return plain_run(self, prompts, setting, seed)

    monkeypatch.setattr(Ours, "run", spy)
    out = tmp_path / "stream.jsonl"
    code = run("stream", [
        "--model", str(model_folder), "--dtype", "float32", "--threads", "1", "--domains", "sql,code", "--prompts", "2",
        "--max-new-tokens", "12", "--repeats", "1", "--temperatures", "0,1", "--batches", "1",
        "--methods", "token_recycling:nodes=7,prompt_lookup", "--adaptive", "token_recycling:nodes=7", "--json", str(out),
    ])  # fmt: skip
    assert code == 0
    records = [json.loads(line) for line in out.read_text().splitlines()]
    segments = [record for record in records if record["task"] == "stream"]
    assert {(kind, heat) for _, kind, heat in heats} == {(NOISE, 2.0), ("text", 0.0), ("text", 1.0)}
    # Two settings of a warm-up and a repeat each: four memories for each method, which last from prompt to prompt.
    assert len({id(known) for _, known in memories}) == len(memories) == 3 * 4
    for heat in (0.0, 1.0):
        here = [record for record in segments if record["temperature"] == heat]
        assert {record["domain"] for record in here} == {"sql", "code", NOISE, "all"} and len(here) == 3 * 4
        whole = {record["method"]: record for record in here if record["domain"] == "all"}
        assert {name for name, record in whole.items() if record["adaptive"]} == {"token_recycling:nodes=7"}
        assert all(record["units"] == 6 and record["new_tokens"] == 72 for record in whole.values())
        best = whole[whole["plain"]["best_fixed"]]
        assert best["ratio_to_best_fixed"]["value"] == 1 and best["method"] != "token_recycling:nodes=7"
        for record in here:
            judged = heat == 0 and record["domain"] != NOISE
            assert record["equal"] is (True if judged else None)
            assert record["rows_compared"] == (0 if not judged else 4 if record["domain"] == "all" else 2)
            assert record["row_rounds"] * record["tokens_per_call"] == pytest.approx(record["new_tokens"])
    said = [record for record in records if record["task"] == "stream verdict"]
    assert [record["temperature"] for record in said] == [0.0, 1.0]
    printed = capsys.readouterr().out
    assert "temperature 1, batch 1" in printed and "whole stream: token_recycling:nodes=7 is" in printed


def record(method: str, domain: str, seconds: Sequence[float], plain: float) -> dict[str, Any]:
    tokens = [10] * len(seconds)
    return {
        "method": method, "domain": domain, "temperature": 0.0, "batch": 1, "unit_seconds": list(seconds), "unit_tokens": tokens,
        "ms_per_token": 1000 * sum(seconds) / sum(tokens), "ratio_to_plain": {"value": plain, "low": None, "high": None},
        "new_tokens": sum(tokens), "row_rounds": 5, "tokens_per_call": sum(tokens) / 5, "seconds": sum(seconds), "equal": None,
        "divergences": [],
    }  # fmt: skip


def test_what_is_said_of_those_that_adapt() -> None:
    found = beside_best([
        record("plain", "all", [2.0, 2.0], 1.0), record("fixed", "all", [1.0, 2.5], 4 / 3.5),
        record("auto", "all", [1.0, 2.0], 4 / 3), record("plain", "sql", [2.0], 1.0), record("fixed", "sql", [1.0], 2.0),
        record("auto", "sql", [1.0], 2.0), record("plain", NOISE, [2.0], 1.0), record("fixed", NOISE, [2.5], 0.8),
        record("auto", NOISE, [2.0], 0.95),
    ], {"auto"})  # fmt: skip
    (verdict,) = verdicts(found)
    assert (verdict.best_fixed, verdict.worst_segment, verdict.worst.value) == ("fixed", NOISE, 0.95)
    assert verdict.whole.value == pytest.approx(3.5 / 3) and verdict.whole.low is not None
    ratios = {(one["method"], one["domain"]): one["ratio_to_best_fixed"]["value"] for one in found}
    assert ratios["auto", NOISE] == pytest.approx(1.25) and ratios["plain", "sql"] == pytest.approx(0.5)
    printed = report(found, [verdict])
    assert "- whole stream: auto is 1.17 [" in printed and "- worst segment: auto is 0.95 of plain (noise)" in printed


@pytest.mark.parametrize(
    ("given", "error", "said"),
    [
        ("--methods suffix,jakobi", UnknownMethod, r"--methods 'jakobi': unknown method 'jakobi'; allowed: .*mean 'jacobi'\?"),
        ("--methods auto:node=3", UnknownOption, r"--methods 'auto:node=3': unknown option 'node' for auto; allowed: adapt, k,"),
        ("--methods auto:nodes", InputError, r"--methods 'auto:nodes': 'nodes' is not OPTION=VALUE; write METHOD or METHOD:"),
        ("--methods auto:nodes=2:nodes=3", InputError, r"--methods 'auto:nodes=2:nodes=3': 'nodes' stands twice; write METHOD"),
        ("--methods auto+", InputError, r"--methods 'auto\+': method is 'auto\+'; write names joined by '\+'"),
        ("--methods :nodes=3", InputError, r"--methods ':nodes=3': method is ''; write names joined by '\+'"),
        ("--methods auto+suffix", CompositionError, r"--methods 'auto\+suffix': '"),
        ("--methods all,auto", InputError, r"--methods all,auto: 'all' stands for .* alone; give --methods all, or names$"),
        ("--methods suffix", InputError, r"--methods suffix has no 'auto', which --adaptive .*, or add auto to --methods$"),
        (
            "--methods suffix:depth=3 --adaptive suffix", InputError,
            r"--adaptive suffix is no method of this run; add it to --methods, .*; allowed: suffix:depth=3; did you mean",
        ),
        ("--methods plain,suffix --adaptive plain", InputError, r"--adaptive plain adapts to nothing; leave it out"),
        ("--methods auto:nodes=0", UnknownOption, r"--methods 'auto:nodes=0': option 'auto.nodes' is 0; allowed: an integer"),
        ("--methods auto --set nodes=0", UnknownOption, r"--methods 'auto': option 'auto.nodes' is 0; allowed: an integer"),
        ("--methods auto,plain,suffix,auto", InputError, r"method 'auto' stands twice in --methods; name it once, or"),
        ("--methods auto,disco", CompositionError, r"--methods 'disco': 'disco' says when to stop drafting .* with a drafter"),
        ("--methods all --adaptive nope", InputError, r"--adaptive nope is no method of this run; .* allowed: .*token_recycling"),
        ("--methods all --adaptive dexperts", InputError, r"--adaptive dexperts is no method of this run"),
        ("--methods suffix --adaptive ,", InputError, r"--adaptive: an empty list; give at least one entry"),
    ],
)  # fmt: skip
def test_a_wrong_list_of_methods_is_named_before_the_model_is_loaded(given: str, error: type[Exception], said: str) -> None:
    with pytest.raises(error, match=said):
        run("stream", ["--model", "no such model", *given.split()])


@pytest.mark.parametrize(
    ("given", "error", "said"),
    [
        ("--methods all --adaptive medusa", InputError, r"--adaptive medusa is no method of this run; .* allowed: .*auto"),
        ("--methods auto --set lenght=3", UnknownOption, r"no method in this run has the option 'lenght'"),
    ],
)  # fmt: skip
def test_what_only_the_model_or_the_method_knows_is_named_before_the_race(
    given: str, error: type[Exception], said: str, model_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Ours, "run", lambda *_: pytest.fail("it began"))
    with pytest.raises(error, match=said):
        run("stream", ["--model", str(model_folder), "--domains", "sql", "--prompts", "1", "--batches", "1", *given.split()])


def test_options(tmp_path: Path) -> None:
    args = stream.arguments([f"@{CONFIGURATIONS / 'stream.args'}"])
    assert args.methods == stream.METHODS and args.batches == (1, 8) and args.visits == 2 and args.noise_temperature == 2
    assert args.peers == ("none",)
    assert stream.arguments(["--methods", "suffix,auto:nodes=7,auto"]).adaptive == ("auto:nodes=7", "auto")
    assert stream.arguments(["--methods", "suffix,automatic,Auto:nodes=7"]).adaptive == ("automatic", "Auto:nodes=7")
    assert stream.arguments(["--methods", "all"]).adaptive == ("auto",)
    with pytest.raises(InputError, match="makes no noise"):
        stream.arguments(["--noise-temperature", "0"])
    with pytest.raises(InputError, match="unrecognized arguments: --peers"):
        stream.arguments(["--peers", "transformers"])
