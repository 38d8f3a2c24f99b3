"""Values as they are written on the command line; the option files that the repository ships can be read."""

from __future__ import annotations

from pathlib import Path

import pytest

from treewright.bench import spec, speed, verify_cost
from treewright.bench.arguments import assignment, listed, pair, positive

CONFIGURATIONS = Path(__file__).resolve().parents[2] / "benchmarks"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("k=4", ("k", 4)), ("jacobi.block=3", ("jacobi.block", 3)), ("match=earliest", ("match", "earliest")),
        ("full=true", ("full", True)), ("expansion=[2, 1]", ("expansion", [2, 1])),
    ],
)  # fmt: skip
def test_assignments(text: str, expected: tuple[str, object]) -> None:
    assert assignment(text) == expected


def test_lists_and_pairs() -> None:
    assert listed(positive)("1, 8,") == (1, 8)
    assert pair("draft=123") == ("draft", "123")


@pytest.mark.parametrize("name", ["speed.args", "speed-compiled.args"])
def test_the_shipped_speed_configurations(name: str) -> None:
    args = speed.arguments([f"@{CONFIGURATIONS / name}", "--prompts", "9"])
    assert args.model == "default" and args.nodes == "auto" and args.prompts == 9
    assert args.compile == (name == "speed-compiled.args")


def test_the_shipped_spec_configuration() -> None:
    args = spec.arguments([f"@{CONFIGURATIONS / 'spec.args'}"])
    assert (args.prompts, args.max_new_tokens, args.repeats, args.batches) == (6, 96, 2, (1,))
    assert args.methods == ("auto", "token_recycling:nodes=15", "suffix", "prompt_lookup")
    assert args.temperatures == (0.0, 1.0) and args.roles == [("draft", "default-draft")] and args.exports == []


def test_the_shipped_verify_cost_configuration() -> None:
    args = verify_cost.arguments([f"@{CONFIGURATIONS / 'verify-cost.args'}"])
    assert args.models == verify_cost.MODELS and args.claims == verify_cost.CLAIMS and args.compile


def test_quick_shrinks_what_was_not_said() -> None:
    args = speed.arguments(["--quick", "--repeats", "5"])
    assert (args.prompts, args.repeats, args.batches) == (2, 5, (1,))
