"""A profile that is measured is one that Sequoia reads."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from treewright.api import Loaded, generate, load
from treewright.bench.main import run
from treewright.bench.profile import measure_acceptance, shares
from treewright.core.errors import InputError
from treewright.core.trace import Step
from treewright.methods.speculate.sequoia import Profile

FAST = ["--claims", "2,4", "--width", "5", "--max-new-tokens", "5", "--repeats", "1", "--threads", "1"]


@pytest.fixture(scope="module")
def draft_folder(model_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The target with weights a little off."""
    folder, loaded = tmp_path_factory.mktemp("models") / "draft", load(model_folder)
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for weights in loaded.model.parameters():
            if weights.dim() > 1:
                weights += 0.3 * weights.std() * torch.randn(weights.shape, generator=generator)
    loaded.model.save_pretrained(folder)
    loaded.tokenizer.save_pretrained(folder)  # type: ignore[union-attr]
    return folder


@pytest.mark.parametrize("temperature", ["0", "1"])
def test_what_is_written_is_what_sequoia_reads(
    temperature: str, model_folder: Path, draft_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path, out = tmp_path / "profile.json", tmp_path / "out"
    given = ["--model", str(model_folder), "--with", f"draft={draft_folder}", "--temperature", temperature, *FAST]
    assert run("profile", [*given, "--output", str(path), "--json", str(out)]) == 0
    found, written = Profile.read(str(path)), json.loads(path.read_text())
    assert found.acceptance == tuple(written["acceptance"]) and len(found.acceptance) == 5
    assert 0 < sum(found.acceptance) < 1 and found.acceptance[0] == max(found.acceptance)
    assert found.draft_seconds == written["draft_seconds"] > 0
    assert [size for size, _ in found.target_seconds] == [1, 2, 4] and all(seconds > 0 for _, seconds in found.target_seconds)
    record = json.loads(out.read_text())
    assert record["task"] == "profile" and record["profile"] == written and record["temperature"] == float(temperature)
    assert f"--set profile={path}" in capsys.readouterr().out
    target, draft = load(model_folder), load(draft_folder)
    options = {"profile": str(path), "learn": False}
    decoded = generate(target, "Once upon", "sequoia", options, {"draft": draft}, max_new_tokens=12, ignore_eos=True)
    assert decoded.tokens == generate(target, "Once upon", max_new_tokens=12, ignore_eos=True).tokens
    assert max(len(step.token) for step in decoded.trace.steps) <= 4


@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_the_target_as_its_own_draft_takes_the_first_child(temperature: float, tiny: Loaded) -> None:
    assert measure_acceptance(tiny, tiny, 3, temperature, 4) == [1.0, 0.0, 0.0]


def step(children: int, accepted: list[int]) -> Step:
    return Step(0, [5] * (1 + children), [-1] + [0] * children, accepted, [7] * (len(accepted) + 1))


def test_shares_are_of_the_rounds_that_drew_children() -> None:
    steps = [step(3, [1]), step(3, [3]), step(3, []), step(3, [1]), step(0, [])]
    assert shares(steps, 3) == [0.5, 0.0, 0.25]


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (["--with", "judge=tiny"], "--with judge=...: a profile is of a target and its draft model; give --with draft=MODEL"),
        (["--with", "draft"], "'draft' is not of the form KEY=VALUE"),
        (["--output", "nowhere/profile.json"], "--output nowhere/profile.json: not a file in a folder that exists"),
        (["--width", "64"], "--width is 64; allowed on a CPU: 1 to 63"),
        (["--width", "0"], "'0' is not an integer >= 1"),
        (["--max-new-tokens", "1"], "no round drew children of the frontier; give --max-new-tokens 2 or more"),
    ],
)
def test_bad_options(given: list[str], said: str, model_folder: Path, tmp_path: Path) -> None:
    named = str(model_folder)
    base = ["--model", named, "--with", f"draft={named}", "--output", str(tmp_path / "profile.json"), *FAST]
    with pytest.raises(InputError) as error:
        run("profile", [*base, *given])
    assert said in str(error.value)
    assert not (tmp_path / "profile.json").exists()


def test_the_draft_model_and_the_file_must_be_given(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="the following arguments are required: --with"):
        run("profile", ["--output", str(tmp_path / "p")])
    with pytest.raises(InputError, match="the following arguments are required: --output"):
        run("profile", ["--with", "draft=default-draft"])
