"""The sample plug-in, installed as a wheel would install it, is listed, runs, composes and passes the law it claims."""

import json
import os
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

PLUGIN = Path(__file__).parents[2] / "examples" / "plugin"


@pytest.fixture(scope="module")
def installed(tmp_path_factory) -> dict[str, str]:
    """An environment in which the package is installed: its folder on the path, its metadata beside it."""
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
    paths = [str(site), *filter(None, [os.environ.get("PYTHONPATH")])]
    return {**os.environ, "PYTHONPATH": os.pathsep.join(paths), "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}


def run(environment: dict[str, str], code: str) -> str:
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120, env=environment, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_it_is_listed_without_torch(installed):
    listed = json.loads(
        run(
            installed,
            "import sys\nfrom treewright.cli.main import main\ncode = main(['methods', '--json'])\n"
            "assert 'torch' not in sys.modules\nsys.exit(code)",
        )
    )
    (card,) = [card for card in listed if card["name"] == "bigram"]
    assert card["family"] == "speculate" and card["lossless"] and card["card"] is None


def test_it_keeps_its_law_and_composes(installed):
    found = run(
        installed,
        "import treewright as tw\nfrom treewright.testing.matrix import cells, on_tables\n"
        "report = tw.laws.lossless('bigram', {'tokens': 2})\n"
        "assert report.worst < 1e-9 and report.total('accepted') > 0\n"
        "chosen = cells(['bigram'], pairwise=True)\n"
        "assert all(on_tables(cell).passed for cell in chosen)\n"
        "model = tw.load('default', dtype='float32')\n"
        "prompt = 'The cat saw the cat. The'\n"
        "ours, plain = (tw.generate(model, prompt, name, max_new_tokens=24) for name in ('bigram', 'plain'))\n"
        "assert ours.tokens == plain.tokens and ours.trace.model_calls < plain.trace.model_calls\n"
        "print(len(chosen))",
    )
    assert int(found) >= 8
