from __future__ import annotations

import subprocess
import sys

import pytest

from treewright import __version__
from treewright.cli import main as entry
from treewright.core.errors import ModelError


def test_version(run):
    assert run("--version").out == f"treewright {__version__}\n"


def test_help_names_every_verb(run):
    outcome = run("--help")
    assert outcome.code == 0
    for verb in entry.VERBS:
        assert f"\n  {verb} " in outcome.out


@pytest.mark.parametrize("verb", sorted(entry.VERBS))
def test_every_verb_has_help(run, verb):
    outcome = run(verb, "--help")
    assert outcome.code == 0 and f"treewright {verb}" in outcome.out and outcome.err == ""


def test_unknown_verb(refused):
    assert "unknown command 'generat'" in refused("generat") and "did you mean 'generate'?" in refused("generat")


def test_no_verb(refused):
    assert "give a command" in refused()


@pytest.mark.parametrize("verb", ["methods", "generate", "compare", "certify", "plot", "train", "bench speed"])
def test_unknown_flag(refused, verb):
    assert "--nonsense" in refused(*verb.split(), "--nonsense")


def test_errors_of_several_lines_become_one(refused, monkeypatch):
    def fail(arguments):
        raise ModelError("first\nsecond")

    monkeypatch.setattr("treewright.cli.methods.run", fail)
    assert refused("methods") == "treewright methods: first second\n"


def test_other_exceptions_are_not_hidden(run, monkeypatch):
    def fail(arguments):
        raise ZeroDivisionError

    monkeypatch.setattr("treewright.cli.methods.run", fail)
    with pytest.raises(ZeroDivisionError):
        run("methods")


def test_interrupt(run, monkeypatch):
    def fail(arguments):
        raise KeyboardInterrupt

    monkeypatch.setattr("treewright.cli.methods.run", fail)
    assert run("methods").code == 130


def in_process(code: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)


@pytest.mark.parametrize("line", [["methods"], ["methods", "--json"], ["show", "plain"], ["--help"], ["generate", "--help"]])
def test_light_commands_import_nothing_heavy(line):
    code = (
        "import sys, time; from treewright.cli.main import main; code = main(" + repr(line) + "); "
        "heavy = {'torch', 'transformers', 'numpy', 'matplotlib'} & set(sys.modules); "
        "sys.stderr.write(f'{code} {sorted(heavy)}')"
    )
    assert in_process(code).stderr == "0 []"


def test_methods_is_quick():
    """Processor time of the whole process, which, unlike wall time, other work on the machine hardly changes."""
    code = "import sys, time; from treewright.cli.main import main; main(['methods']); sys.stderr.write(str(time.process_time()))"
    assert any(float(in_process(code).stderr) < 0.3 for _ in range(3))


def test_a_reader_that_goes_away_is_no_error():
    code = "from treewright.cli.main import main; import sys; sys.exit(main(['methods', '--json']))"
    process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    process.stdout.close()
    errors = process.stderr.read()
    assert process.wait(timeout=60) == 141 and errors == b""
