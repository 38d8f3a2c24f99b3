from __future__ import annotations

import pytest

from treewright.bench import main as bench


def test_the_rest_of_the_line_goes_to_the_task(run, monkeypatch):
    asked = []
    monkeypatch.setattr(bench, "run", lambda task, arguments: asked.append((task, arguments)) or 3)
    assert run("bench", "speed", "--quick", "--help", "x").code == 3
    assert asked == [("speed", ["--quick", "--help", "x"])]


def test_bad_input_is_one_line(refused):
    assert (
        "unknown bench task 'nix'; allowed: acceptance, draft, masked, predict, profile, spec, speed, stream, verify-cost"
        in refused("bench", "nix")
    )
    assert "no task given" in refused("bench")


@pytest.mark.parametrize("task", ["acceptance", "draft", "profile", "speed", "stream", "verify-cost", "masked"])
def test_tasks_have_help(run, task):
    outcome = run("bench", task, "--help")
    assert outcome.code == 0 and f"treewright bench {task}" in outcome.out
