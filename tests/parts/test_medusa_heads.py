"""Medusa heads: their arithmetic against numpy, the public checkpoint format, and files that are not what they should be."""

from __future__ import annotations

import json
import pickle
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn

from treewright.core.errors import CapabilityError, InputError
from treewright.core.session import Capabilities
from treewright.parts.heads.medusa_file import check_choices, open_heads, save_heads
from treewright.parts.heads.medusa_heads import MedusaHeads
from treewright.parts.heads.source import RANDOM, HeadsSource

HIDDEN, VOCABULARY, HEADS = 6, 11, 3


def drawn(heads: MedusaHeads, seed: int = 0) -> MedusaHeads:
    generator = torch.Generator().manual_seed(seed)
    for weight in heads.requires_grad_(False).parameters():
        weight.normal_(generator=generator)
    return heads.double()


@pytest.fixture(params=[True, False], ids=["shared projection", "own projections"])
def heads(request: pytest.FixtureRequest) -> MedusaHeads:
    return drawn(MedusaHeads(HIDDEN, VOCABULARY, HEADS, layers=2, tied=request.param))


@pytest.fixture
def states() -> torch.Tensor:
    return torch.randn(4, 5, HIDDEN, generator=torch.Generator().manual_seed(1), dtype=torch.float64)


def test_arithmetic_is_that_of_the_paper(heads: MedusaHeads, states: torch.Tensor):
    found = heads(states).numpy()
    weights = {name: value.numpy() for name, value in heads.state_dict().items()}
    assert found.shape == (HEADS, 4, 5, VOCABULARY)
    for head in range(HEADS):
        x = states.numpy()
        for block in range(2):
            z = x @ weights[f"blocks.{head}.{block}.linear.weight"].T + weights[f"blocks.{head}.{block}.linear.bias"]
            x = x + z / (1 + np.exp(-z))
        expected = x @ weights[f"projections.{0 if heads.tied else head}.weight"].T
        np.testing.assert_allclose(found[head], expected, rtol=1e-12, atol=1e-12)


def test_untrained_heads_say_what_the_target_says(states: torch.Tensor):
    projection = torch.randn(VOCABULARY, HIDDEN, dtype=torch.float64)
    for tied in (True, False):
        heads = MedusaHeads(HIDDEN, VOCABULARY, HEADS, tied=tied).double()
        heads.start_from(projection)
        assert torch.equal(heads(states), (states @ projection.T).expand(HEADS, -1, -1, -1))


def test_heads_come_back_as_they_were_written(heads: MedusaHeads, states: torch.Tensor, tmp_path: Path):
    save_heads(heads, tmp_path, {"medusa_choices": [[0], [1], [0, 0]]}, torch.float64)
    found = open_heads(str(tmp_path))
    assert (found.hidden_size, found.vocabulary, found.heads, found.layers) == (HIDDEN, VOCABULARY, HEADS, 2)
    assert (found.tied, found.choices) == (heads.tied, ((0,), (1,), (0, 0)))
    assert torch.equal(found.load(dtype=torch.float64)(states), heads(states))
    config = json.loads((tmp_path / "config.json").read_text())
    assert (config["medusa_num_heads"], config["medusa_num_layers"]) == (HEADS, 2)


def published() -> tuple[nn.ModuleList, dict[str, torch.Tensor]]:
    """Heads as the released code builds them: for each a sequence of blocks and a linear layer, saved as a list."""

    class Block(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.linear = nn.Linear(HIDDEN, HIDDEN)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x + nn.functional.silu(self.linear(x))

    torch.manual_seed(3)
    released = nn.ModuleList(nn.Sequential(Block(), nn.Linear(HIDDEN, VOCABULARY, bias=False)) for _ in range(HEADS)).double()
    return released, released.state_dict()


@pytest.mark.parametrize("prefix", ["", "medusa_head."])
@pytest.mark.parametrize("name", ["medusa_lm_head.pt", "medusa_lm_head.safetensors"])
def test_public_checkpoints_are_read(name: str, prefix: str, states: torch.Tensor, tmp_path: Path):
    released, weights = published()
    assert {"0.0.linear.weight", "0.0.linear.bias", "2.1.weight"} < weights.keys()
    renamed = {prefix + key: value for key, value in weights.items()}
    (torch.save if name.endswith(".pt") else save_file)(renamed, tmp_path / name)
    # The configuration of published heads is known to be wrong about their number.
    (tmp_path / "config.json").write_text('{"medusa_num_heads": 2, "medusa_num_layers": 1}')
    for place in (tmp_path, tmp_path / name):
        found = open_heads(str(place))
        assert (found.heads, found.layers, found.tied, found.choices) == (HEADS, 1, False, ())
        expected = torch.stack([head(states) for head in released])
        torch.testing.assert_close(found.load(dtype=torch.float64)(states), expected)


def test_our_files_are_public_ones(tmp_path: Path):
    heads = drawn(MedusaHeads(HIDDEN, VOCABULARY, HEADS, tied=False))
    save_heads(heads, tmp_path, {}, torch.float64)
    released, _ = published()
    released.load_state_dict(load_file(tmp_path / "medusa_lm_head.safetensors"))
    x = torch.ones(2, HIDDEN, dtype=torch.float64)
    torch.testing.assert_close(torch.stack([head(x) for head in released]), heads(x))


def test_a_shared_projection_is_written_once(tmp_path: Path):
    save_heads(MedusaHeads(HIDDEN, VOCABULARY, HEADS), tmp_path, {})
    weights = load_file(tmp_path / "medusa_lm_head.safetensors")
    assert sum(VOCABULARY in value.shape for value in weights.values()) == 1
    assert {value.dtype for value in weights.values()} == {torch.bfloat16}


def broken(folder: Path, change: Callable[[dict[str, torch.Tensor]], object]) -> str:
    _, weights = published()
    change(weights)
    save_file(weights, folder / "medusa_lm_head.safetensors")
    return str(folder)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda weights: weights.pop("1.0.linear.bias"), r"'1\.0\.linear\.bias' is missing and should have \[6\]"),
        (lambda weights: weights.pop("0.1.weight"), r"'0\.1\.weight', the projection to the vocabulary, is missing"),
        (
            lambda weights: weights.update({"2.1.weight": torch.zeros(11, 5)}),
            r"has the shape \[11, 5\] and should have \[11, 6\]",
        ),
        (lambda weights: weights.update({"lm_head.weight": torch.zeros(11, 6)}), r"'lm_head\.weight' is not of the Medusa"),
        (lambda weights: weights.update({"0.4.linear.bias": torch.zeros(6)}), r"should not be there"),
        (lambda weights: weights.clear(), r"no heads"),
    ],
)
def test_files_of_another_form_are_refused(change: Callable[..., object], words: str, tmp_path: Path):
    with pytest.raises(InputError, match=words):
        open_heads(broken(tmp_path, change))


def test_files_that_are_no_files_of_tensors_are_refused(tmp_path: Path):
    with pytest.raises(InputError, match="no such file"):
        open_heads(str(tmp_path))
    (tmp_path / "medusa_lm_head.safetensors").write_bytes(b"\x10\x00\x00\x00\x00\x00\x00\x00{")
    with pytest.raises(InputError, match="no whole safetensors file"):
        open_heads(str(tmp_path))
    pickled = tmp_path / "evil.pt"
    pickled.write_bytes(pickle.dumps(Path("never built")))
    with pytest.raises(InputError, match="no file of tensors alone"):
        open_heads(str(pickled))
    torch.save({"0.1.weight": 3}, tmp_path / "numbers.pt")
    with pytest.raises(InputError, match="other things than tensors"):
        open_heads(str(tmp_path / "numbers.pt"))


@pytest.mark.parametrize("written", ['{"medusa_choices": [[0, 0]]}', '{"medusa_choices": 3}', "{"])
def test_a_configuration_that_makes_no_tree_is_refused(written: str, tmp_path: Path):
    save_heads(MedusaHeads(HIDDEN, VOCABULARY, HEADS), tmp_path, {})
    (tmp_path / "config.json").write_text(written)
    with pytest.raises(InputError, match=r"config\.json is not readable"):
        open_heads(str(tmp_path))


@pytest.mark.parametrize("choices", [[[0], [0]], [[1, 0]], [[]], [[0], [-1]], [[0], [0, 0], [0, 0, 0], [0, 0, 0, 0]]])
def test_rank_paths_that_make_no_tree_are_named(choices: list[list[int]]):
    with pytest.raises(InputError, match="choices has the path"):
        check_choices(choices, 3)


def test_a_model_of_other_sizes_is_named(tmp_path: Path):
    save_heads(MedusaHeads(HIDDEN, VOCABULARY, HEADS), tmp_path, {})
    source = HeadsSource(str(tmp_path))
    source.fits(Capabilities(vocabulary=VOCABULARY, hidden_size=HIDDEN))
    with pytest.raises(CapabilityError, match=r"hidden size 6 and 11 tokens, and the target has 7 and 11; .*train medusa"):
        source.fits(Capabilities(vocabulary=VOCABULARY, hidden_size=HIDDEN + 1))
    with pytest.raises(CapabilityError, match="has 6 and 12"):
        source.load(torch.zeros(1, HIDDEN), VOCABULARY + 1)


def test_random_heads_fit_every_model_and_are_always_the_same():
    before = torch.random.get_rng_state()
    source = HeadsSource(RANDOM)
    source.fits(Capabilities(vocabulary=5, hidden_size=3))
    states = torch.ones(2, 3, dtype=torch.float64)
    one, other = source.load(states, 5), HeadsSource(RANDOM).load(states, 5)
    assert one(states).dtype == torch.float64 and one(states).shape == (4, 2, 5)
    assert torch.equal(one(states), other(states))
    assert torch.equal(torch.random.get_rng_state(), before)
