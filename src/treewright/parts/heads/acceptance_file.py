"""Files of acceptance heads: a folder with `acceptance_head.safetensors`, whose keys are `blocks.{block}.linear.weight`,
`blocks.{block}.linear.bias`, `output.weight` [2, H] and `output.bias`, and a `config.json` that says which pair they are for."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file

from treewright.core.errors import InputError
from treewright.parts.heads.acceptance_head import AcceptanceHead

BUNDLED = Path(__file__).resolve().parents[2] / "bundled"
FILE = "acceptance_head.safetensors"


@dataclass(frozen=True, slots=True)
class AcceptanceFile:
    """A file whose keys and shapes were checked. version: when it was written, in nanoseconds."""

    path: Path
    hidden_size: int
    layers: int
    version: int

    def load(self, device: torch.device | str = "cpu", dtype: torch.dtype = torch.float32) -> AcceptanceHead:
        """The head itself, ready to answer. Costs one reading of the file."""
        # On the meta device nothing is initialised, so that torch's own random numbers are left alone.
        with torch.device("meta"):
            head = AcceptanceHead(self.hidden_size, self.layers)
        head.load_state_dict(load_file(self.path), assign=True)
        return head.to(device=device, dtype=dtype).eval().requires_grad_(False)


def open_acceptance(name: str) -> AcceptanceFile:
    """Finds and checks the head called `name` (a bundled name, a folder or a file) without building it. Raises InputError."""
    bundled = sorted(path.parent.name for path in BUNDLED.glob(f"*/{FILE}"))
    place = BUNDLED / name if name in bundled else Path(name).expanduser()
    path = place / FILE if place.is_dir() else place
    if not path.is_file() or path.suffix != ".safetensors":
        raise InputError(
            f"head is '{name}', which is no folder with {FILE} and no such file; bundled heads: {', '.join(bundled) or 'none'}; "
            "`treewright train specdec_pp` makes one for a target and a draft of yours"
        )
    version = path.stat().st_mtime_ns
    try:
        with safe_open(path, "pt") as file:
            shapes = {key: tuple(file.get_slice(key).get_shape()) for key in file.keys()}  # noqa: SIM118
    except SafetensorError as error:
        raise _bad(path, f"it is no whole safetensors file ({error})") from error
    hidden_size = shapes.get("output.weight", (0, 0))[-1]
    layers = sum(key.endswith(".linear.weight") for key in shapes)
    with torch.device("meta"):
        expected = {key: tuple(value.shape) for key, value in AcceptanceHead(hidden_size, layers).state_dict().items()}
    for key in sorted(shapes.keys() | expected.keys()):
        if shapes.get(key) != expected.get(key):
            raise _bad(path, f"'{key}' has the shape {shapes.get(key)} and should have {expected.get(key)}")
    return AcceptanceFile(path, hidden_size, layers, version)


def _bad(path: Path, reason: str) -> InputError:
    return InputError(f"head file {path} cannot be used: {reason}; give one that `treewright train specdec_pp` wrote")


def save_acceptance(head: AcceptanceHead, folder: Path, config: Mapping[str, Any], dtype: torch.dtype = torch.bfloat16) -> None:
    """Writes weights and `config.json` (hidden size, blocks, and what `config` adds) to a folder."""
    folder.mkdir(parents=True, exist_ok=True)
    aside = folder / f"{FILE}.partial"
    save_file({key: value.detach().to("cpu", dtype).contiguous() for key, value in head.state_dict().items()}, aside)
    aside.chmod(0o644)
    aside.replace(folder / FILE)
    described = {"hidden_size": head.hidden_size, "layers": head.layers, **config}
    (folder / "config.json").write_text(json.dumps(described) + "\n", encoding="utf-8")
