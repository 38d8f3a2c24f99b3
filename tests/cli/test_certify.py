from __future__ import annotations

import dataclasses
import json

import pytest

from treewright.testing import certify as certificates


@dataclasses.dataclass
class Row:
    method: str
    check: str
    passed: bool
    detail: str = "as it should be"
    seconds: float = 0.5

    def to_json(self):
        return dataclasses.asdict(self)


@pytest.fixture
def checks(monkeypatch):
    """Replaces the checks by rows that pass or not, and tells what was asked for."""
    asked = {}

    def replace(*passed: bool):
        def certify(target, methods, models):
            asked.update(methods=methods, roles=sorted(models))
            return [Row("plain", f"check {number}", holds) for number, holds in enumerate(passed)]

        monkeypatch.setattr(certificates, "certify", certify)
        return asked

    return replace


def test_plain_decoding_is_certified(run, model):
    outcome = run("certify", "--model", model, "--dtype", "float64", "--methods", "plain", "--json")
    rows = json.loads(outcome.out)
    assert outcome.code == 0 and all(row["passed"] for row in rows) and "plain" in {row["method"] for row in rows}
    assert {"method", "check", "passed", "detail", "seconds"} <= set(rows[0])


def test_a_failed_check_is_exit_code_1(run, model, checks):
    checks(True, False, True)
    outcome = run("certify", "--model", model)
    lines = outcome.out.splitlines()
    assert outcome.code == 1 and lines[-1] == "3 checks, 1 failed"
    assert ["FAILED" in line for line in lines[1:4]] == [False, True, False]
    assert run("certify", "--model", model, "--json").code == 1


def test_all_passed_is_exit_code_0(run, model, draft, checks):
    asked = checks(True, True)
    outcome = run("certify", "--model", model, "--methods", "plain,specinfer", "--with", f"draft={draft}")
    assert outcome.code == 0 and outcome.out.splitlines()[-1] == "2 checks, all passed"
    assert asked == {"methods": ["plain", "specinfer"], "roles": ["draft"]}
    run("certify", "--model", model)
    assert asked == {"methods": None, "roles": []}


@pytest.mark.parametrize(
    ("line", "words"),
    [
        (["--methods", "nix"], "unknown method 'nix'"),
        (["--methods", "plain,plain"], "names 'plain' twice"),
        (["--methods", "plain+"], "names joined by '+'"),
        (["--with", "draft"], "ROLE=MODEL"),
        (["--methods", "plain", "--with", "draft=x"], "role 'draft'; allowed: nothing"),
        (["--with", "draught=x"], "did you mean 'draft'?"),
        (["--model", "./no/such/folder"], "cannot load model"),
    ],
)
def test_bad_input_is_one_line(refused, model, line, words):
    assert words in refused("certify", "--model", model, *line)
