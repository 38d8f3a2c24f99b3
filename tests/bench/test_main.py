"""Tasks by name, help, and options from files."""

from __future__ import annotations

from pathlib import Path

import pytest

from treewright.bench.main import TASKS, run
from treewright.core.errors import InputError


def test_an_unknown_task_is_refused_with_the_tasks() -> None:
    with pytest.raises(InputError, match=r"unknown bench task 'sped'.*did you mean 'speed'"):
        run("sped", [])


@pytest.mark.parametrize("task", sorted(TASKS))
def test_help_ends_well(task: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(task, ["--help"]) == 0
    assert f"treewright bench {task}" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("task", "argv", "message"),
    [
        ("speed", ["--batches", "0"], "'0' is not an integer >= 1"),
        ("speed", ["--temperatures", "-1"], "'-1' is not a number >= 0"),
        ("speed", ["--temperatures", ","], "an empty list"),
        ("speed", ["--with", "draft"], "'draft' is not of the form KEY=VALUE"),
        ("speed", ["--what"], "unrecognized arguments: --what"),
        ("speed", ["--batches", "4", "--prompts", "2"], "--batches 4 needs as many prompts"),
        ("speed", ["--json", "/nowhere/at/all/x.jsonl"], "folder /nowhere/at/all does not exist"),
        ("speed", ["--hash", "0", "--prompts", "8"], "the prompt set has hash 737e9bb020264d35, not --hash 0"),
        ("verify-cost", ["--shapes", "tree,bush"], "unknown shape 'bush'"),
        ("verify-cost", ["--mat", "7"], "'7' is neither N=MAT,... nor a file"),
        ("verify-cost", ["--mat", "7=x"], "'7=x' is not N=MAT"),
    ],
)
def test_a_wrong_option_is_one_sentence(task: str, argv: list[str], message: str) -> None:
    with pytest.raises(InputError, match=message) as caught:
        run(task, argv)
    assert "\n" not in str(caught.value)


def test_options_come_from_files_too(tmp_path: Path) -> None:
    path = tmp_path / "options.args"
    path.write_text("# what is measured\n--domains prose,code   # two of them\n--hash 0\n")
    with pytest.raises(InputError, match="not --hash 0"):
        run("speed", [f"@{path}"])
