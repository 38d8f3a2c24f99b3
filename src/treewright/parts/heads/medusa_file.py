"""Reading and writing Medusa heads: the public checkpoint format, and the same with one projection that all heads share.

A folder holds `medusa_lm_head.safetensors` (or `medusa_lm_head.pt`, read with weights_only) and `config.json`. Keys are
`{head}.{block}.linear.weight`, `{head}.{block}.linear.bias` and, behind the last block, `{head}.{blocks}.weight` for the
projection; a `medusa_head.` in front of them is taken off. Ours writes a shared projection once, as `projection.weight`.
Numbers of heads and blocks are read off the keys: published configurations are known to be wrong about them.
"""

from __future__ import annotations

import json
import pickle
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor

from treewright.core.errors import InputError
from treewright.parts.heads.medusa_heads import MedusaHeads

BUNDLED = Path(__file__).resolve().parents[2] / "bundled"
STEM = "medusa_lm_head"
SUFFIXES = (".safetensors", ".pt")
CONFIG = "config.json"
PREFIX = "medusa_head."
SHARED = "projection.weight"
KEY = re.compile(r"(\d+)\.(\d+)\.(linear\.weight|linear\.bias|weight)")

Choices = tuple[tuple[int, ...], ...]


@dataclass(frozen=True, slots=True)
class HeadsFile:
    """A file of heads whose keys and shapes were checked. choices: rank paths of the tree measured for them, the best
    first, or () where the file has none. version: when the weights were written, in nanoseconds."""

    path: Path
    hidden_size: int
    vocabulary: int
    heads: int
    layers: int
    tied: bool
    choices: Choices
    version: int

    def load(self, device: torch.device | str = "cpu", dtype: torch.dtype = torch.float32) -> MedusaHeads:
        """The heads themselves, ready to answer. Costs one reading of the file."""
        # On the meta device nothing is initialised, so that torch's own random numbers are left alone.
        with torch.device("meta"):
            heads = MedusaHeads(self.hidden_size, self.vocabulary, self.heads, self.layers, self.tied)
        heads.load_state_dict({_own_name(key, self.layers): value for key, value in _tensors(self.path).items()}, assign=True)
        return heads.to(device=device, dtype=dtype).eval().requires_grad_(False)


def find_heads(name: str) -> Path:
    """The weights file that `name` means: a bundled name, a folder, or a file. Raises InputError."""
    bundled = sorted(path.parent.name for path in BUNDLED.glob(f"*/{STEM}.safetensors"))
    place = BUNDLED / name if name in bundled else Path(name).expanduser()
    if place.is_file() and place.suffix in SUFFIXES:
        return place
    found = [path for suffix in SUFFIXES if (path := place / f"{STEM}{suffix}").is_file()]
    if not found:
        raise InputError(
            f"heads is '{name}', which is no folder with {STEM}.safetensors or {STEM}.pt and no such file; bundled heads: "
            f"{', '.join(bundled) or 'none'}; `treewright train medusa` makes some for a model of yours"
        )
    return found[0]


def open_heads(name: str) -> HeadsFile:
    """Finds and checks the heads called `name` without building them. Raises InputError."""
    path = find_heads(name)
    version = path.stat().st_mtime_ns
    shapes = _shapes(path)
    parsed = {key: KEY.fullmatch(key) for key in shapes if key != SHARED}
    strange = next((key for key, match in parsed.items() if match is None), None)
    if strange is not None or not parsed:
        raise _bad(path, f"key '{strange}' is not of the Medusa format" if strange else "it holds no heads")
    heads = 1 + max(int(match[1]) for match in parsed.values() if match)
    layers = 1 + max((int(match[2]) for match in parsed.values() if match and match[3] == "linear.weight"), default=-1)
    tied = SHARED in shapes
    first = SHARED if tied else f"0.{layers}.weight"
    if len(shapes.get(first, ())) != 2:
        raise _bad(path, f"'{first}', the projection to the vocabulary, is missing or is no matrix")
    vocabulary, hidden_size = shapes[first]
    _check_shapes(path, shapes, _expected(hidden_size, vocabulary, heads, layers, tied))
    return HeadsFile(path, hidden_size, vocabulary, heads, layers, tied, _choices(path, heads), version)


def save_heads(heads: MedusaHeads, folder: Path, config: Mapping[str, Any], dtype: torch.dtype = torch.bfloat16) -> None:
    """Writes weights and `config.json` (with the numbers of heads and blocks, and what `config` adds) to a folder."""
    folder.mkdir(parents=True, exist_ok=True)
    weights = {_public_name(key, heads.layers, heads.tied): value for key, value in heads.state_dict().items()}
    described = {
        "medusa_num_heads": heads.heads, "medusa_num_layers": heads.layers, "hidden_size": heads.hidden_size,
        "vocab_size": heads.vocabulary, **config,
    }  # fmt: skip
    aside = folder / f"{STEM}.partial"
    save_file({key: value.detach().to("cpu", dtype).contiguous() for key, value in weights.items()}, aside)
    aside.chmod(0o644)
    aside.replace(folder / f"{STEM}.safetensors")
    (folder / CONFIG).write_text(json.dumps(described) + "\n", encoding="utf-8")


def check_choices(choices: Sequence[Sequence[int]], heads: int) -> None:
    """Raises InputError unless every rank path comes after its parent, once, and is at most `heads` deep."""
    seen: set[tuple[int, ...]] = {()}
    for path in map(tuple, choices):
        if not path or len(path) > heads or min(path) < 0 or path in seen or path[:-1] not in seen:
            raise InputError(
                f"choices has the path {list(path)}; allowed: rank paths of 1 to {heads} numbers >= 0, each once and after its "
                "parent, such as [[0],[0,0],[1]]"
            )
        seen.add(path)


def _expected(hidden_size: int, vocabulary: int, heads: int, layers: int, tied: bool) -> dict[str, tuple[int, ...]]:
    found: dict[str, tuple[int, ...]] = {SHARED: (vocabulary, hidden_size)} if tied else {}
    for head in range(heads):
        for block in range(layers):
            found[f"{head}.{block}.linear.weight"] = hidden_size, hidden_size
            found[f"{head}.{block}.linear.bias"] = (hidden_size,)
        if not tied:
            found[f"{head}.{layers}.weight"] = vocabulary, hidden_size
    return found


def _check_shapes(path: Path, shapes: Mapping[str, tuple[int, ...]], expected: Mapping[str, tuple[int, ...]]) -> None:
    for key in sorted(shapes.keys() | expected.keys()):
        if shapes.get(key) != expected.get(key):
            has = f"has the shape {list(shapes[key])}" if key in shapes else "is missing"
            wanted = f"should have {list(expected[key])}" if key in expected else "should not be there"
            raise _bad(path, f"'{key}' {has} and {wanted}")


def _bad(path: Path, reason: str) -> InputError:
    return InputError(f"heads file {path} cannot be used: {reason}; give Medusa heads as `treewright train medusa` writes them")


def _shapes(path: Path) -> dict[str, tuple[int, ...]]:
    """Shapes by key, without reading the weights of a safetensors file."""
    if path.suffix == ".pt":
        return {key: tuple(value.shape) for key, value in _tensors(path).items()}
    try:
        with safe_open(path, "pt") as file:
            return {key.removeprefix(PREFIX): tuple(file.get_slice(key).get_shape()) for key in file.keys()}  # noqa: SIM118
    except SafetensorError as error:
        raise _bad(path, f"it is no whole safetensors file ({error})") from error


def _tensors(path: Path) -> dict[str, Tensor]:
    if path.suffix == ".safetensors":
        return {key.removeprefix(PREFIX): value for key, value in load_file(path).items()}
    try:
        read = torch.load(path, map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, EOFError) as error:
        raise _bad(path, f"it is no file of tensors alone ({str(error).strip().splitlines()[0]})") from error
    if not isinstance(read, dict) or not all(isinstance(value, Tensor) for value in read.values()):
        raise _bad(path, "it holds other things than tensors by key")
    return {str(key).removeprefix(PREFIX): value for key, value in read.items()}


def _choices(path: Path, heads: int) -> Choices:
    config = path.with_name(CONFIG)
    if not config.is_file():
        return ()
    try:
        listed = json.loads(config.read_text(encoding="utf-8")).get("medusa_choices") or ()
        choices = tuple(tuple(map(int, choice)) for choice in listed)
        check_choices(choices, heads)
    except (ValueError, TypeError, AttributeError) as error:
        raise _bad(path, f"its {CONFIG} is not readable ({error})") from error
    return choices


def _own_name(key: str, layers: int) -> str:
    """A key of the public format as `MedusaHeads` names it."""
    if key == SHARED:
        return "projections.0.weight"
    head, block, rest = key.split(".", 2)
    return f"projections.{head}.weight" if int(block) == layers else f"blocks.{head}.{block}.{rest}"


def _public_name(key: str, layers: int, tied: bool) -> str:
    """A name of `MedusaHeads` as a key of the public format."""
    kind, head, rest = key.split(".", 2)
    if kind == "blocks":
        return f"{head}.{rest}"
    return SHARED if tied else f"{head}.{layers}.weight"
