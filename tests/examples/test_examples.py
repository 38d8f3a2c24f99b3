"""Every example runs as written. One has a process of its own, in which nothing was imported before it."""

import os
import runpy
import subprocess
import sys
from pathlib import Path

import pytest

EXAMPLES = sorted((Path(__file__).parents[2] / "examples").glob("[0-9]*.py"))
ALONE = "05_prove_it"


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_example_runs_and_prints(path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert len(path.read_text().splitlines()) <= 60
    if path.stem != ALONE:
        runpy.run_path(str(path), run_name="__main__")
        assert capsys.readouterr().out.strip()
        return
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}
    done = subprocess.run([sys.executable, str(path)], capture_output=True, text=True, timeout=120, env=environment, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip()


def test_one_example_is_run_in_a_process() -> None:
    assert ALONE in [path.stem for path in EXAMPLES]
