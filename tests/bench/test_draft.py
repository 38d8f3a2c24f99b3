"""`bench draft`: the table, the records and what it refuses."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from treewright.bench.draft import draft
from treewright.bench.draft_choice import Draft, best, required_alpha
from treewright.bench.main import run
from treewright.core.errors import InputError

COSTS = {1: 0.010, 8: 0.012, 16: 0.016}


@pytest.fixture
def cost(tmp_path: Path) -> str:
    lines = [
        {"task": "verify-cost", "model": "m", "dtype": "bfloat16", "compiled": False, "batch": batch, "shape": "tree", 
         "claims": size, "ms": 1000 * batch * seconds} for batch in (1, 2) for size, seconds in COSTS.items()
    ]  # fmt: skip
    (tmp_path / "cost").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return str(tmp_path / "cost")


def test_a_draft_is_read_in_milliseconds() -> None:
    assert draft("small=2.5:0.7") == Draft("small", 0.0025, 0.7)
    assert draft("a=b=1:1") == Draft("a=b", 0.001, 1.0)


def test_a_table_and_a_record_for_each_draft(cost: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "out"
    given = ["--cost", cost, "--draft", "fast=1:0.7", "--draft", "slow=20:0.9", "--gain", "1.5", "--json", str(out)]
    assert run("draft", given) == 0
    printed = capsys.readouterr().out
    fast, slow = (json.loads(line) for line in out.read_text().splitlines())
    chosen = best([Draft("fast", 0.001, 0.7)], COSTS, range(16))
    assert (fast["gamma"], fast["ratio_to_plain"]) == (chosen.gamma, chosen.ratio)
    assert fast["required_alpha"] == required_alpha(1.5, 0.001, COSTS, range(16))
    assert (slow["gamma"], slow["ratio_to_plain"], slow["required_alpha"]) == (0, 1.0, None)
    assert fast["place"] == "m, bfloat16, eager" and fast["task"] == "draft" and fast["gain"] == 1.5
    assert "## m, bfloat16, eager, batch 1" in printed and "alpha for x 1.5" in printed and "out of reach" in printed
    assert f"Take fast with {chosen.gamma} drafts a round: {chosen.ratio:.2f} times plain decoding." in printed


def test_costs_of_the_batch_and_only_the_given_chains(cost: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "out"
    assert run("draft", ["--cost", cost, "--draft", "d=1:0.7", "--batch", "2", "--gammas", "2,3", "--json", str(out)]) == 0
    twice = {size: 2 * seconds for size, seconds in COSTS.items()}
    chosen = best([Draft("d", 0.001, 0.7)], twice, [0, 2, 3])
    record = json.loads(out.read_text())
    assert (record["gamma"], record["tokens_per_second"]) == (3, chosen.tokens_per_second)
    assert "alpha for" not in capsys.readouterr().out


def test_where_no_draft_pays_it_says_so(cost: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("draft", ["--cost", cost, "--draft", "d=30:0.9"]) == 0
    assert "No draft pays: plain decoding is the fastest." in capsys.readouterr().out


@pytest.mark.parametrize("text", ["2.5:0.7", "=2:0.7", "d=2", "d=:0.7", "d=2:1.1", "d=-1:0.5", "d=nan:0.5", "d=inf:0.5", "d=1:x"])
def test_a_draft_that_is_none_is_named(text: str, cost: str) -> None:
    with pytest.raises(InputError, match=rf"argument --draft: '{text}' is not NAME=MS:ALPHA .* such as small=2.5:0.7"):
        run("draft", ["--cost", cost, "--draft", text])


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ([], "the following arguments are required: --draft"),
        (["--draft", "d=1:0.5", "--draft", "d=2:0.5"], "--draft names 'd' twice; give each draft a name of its own"),
        (["--draft", "d=1:0.5", "--gain", "0"], "'0' is not a number > 0"),
        (["--draft", "d=1:0.5", "--gain", "much"], "'much' is not a number > 0"),
        (["--draft", "d=1:0.5", "--gammas", "0"], "'0' is not an integer >= 1"),
        (["--draft", "d=1:0.5", "--gammas", "16"], "no cost is known for 17 claims; measured: 1, 8, 16"),
        (["--draft", "d=1:0.5", "--batch", "3"], "the costs hold no trees at batch 3; run bench verify-cost with --batches 3"),
    ],
)
def test_bad_options(given: list[str], said: str, cost: str) -> None:
    with pytest.raises(InputError) as error:
        run("draft", ["--cost", cost, *given])
    assert said in str(error.value)


def test_a_file_without_costs_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"none is no file; give what `treewright bench verify-cost --json FILE` wrote"):
        run("draft", ["--cost", str(tmp_path / "none"), "--draft", "d=1:0.5"])
