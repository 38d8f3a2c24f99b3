"""The sample plug-in, installed as a wheel would install it, is listed, runs, composes and passes the law it claims."""

import json
import os
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

import treewright as tw
from treewright.core import registry
from treewright.testing.matrix import cells, on_tables

PLUGIN = Path(__file__).parents[2] / "examples" / "plugin"


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder in which the package is installed: its code, and its metadata beside it."""
    site = tmp_path_factory.mktemp("site")
    project = tomllib.loads((PLUGIN / "pyproject.toml").read_text())["project"]
    (site / "treewright_bigram").symlink_to(PLUGIN / "treewright_bigram")
    information = site / f"{project['name'].replace('-', '_')}-{project['version']}.dist-info"
    information.mkdir()
    (information / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {project['name']}\nVersion: {project['version']}\n")
    lines = [
        f"[{group}]\n" + "".join(f"{k} = {v}\n" for k, v in points.items()) for group, points in project["entry-points"].items()
    ]
    (information / "entry_points.txt").write_text("\n".join(lines))
    return site


@pytest.fixture
def installed(site: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The package installed for this process."""
    monkeypatch.syspath_prepend(site)
    registry.entries.cache_clear()
    yield
    registry.entries.cache_clear()


def test_it_is_listed_without_torch(site: Path) -> None:
    code = (
        "import sys\nfrom treewright.cli.main import main\ncode = main(['methods', '--json'])\n"
        "assert 'torch' not in sys.modules\nsys.exit(code)"
    )
    paths = [str(site), *filter(None, [os.environ.get("PYTHONPATH")])]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(paths)}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120, env=environment, check=False)
    assert done.returncode == 0, done.stderr
    (card,) = [card for card in json.loads(done.stdout) if card["name"] == "bigram"]
    assert card["family"] == "speculate" and card["lossless"] and card["card"] is None


def test_it_keeps_its_law_and_composes(installed: None) -> None:
    report = tw.laws.lossless("bigram", {"tokens": 2})
    assert report.worst < 1e-9 and report.total("accepted") > 0
    chosen = cells(["bigram"], pairwise=True)
    assert len(chosen) >= 8
    assert all(on_tables(cell).passed for cell in chosen)
    model = tw.load("default", dtype="float32")
    prompt = "The cat saw the cat. The"
    ours, plain = (tw.generate(model, prompt, name, max_new_tokens=24) for name in ("bigram", "plain"))
    assert ours.tokens == plain.tokens and ours.trace.model_calls < plain.trace.model_calls
