"""Loading what a command line names. torch is imported here, after everything cheaper was checked."""

from __future__ import annotations

import os
from collections.abc import Collection, Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from treewright.api import Loaded


def quiet() -> None:
    """Keeps a command's standard error for its own lines; transformers and its hub read these when they are imported."""
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    os.environ.setdefault("HF_HUB_VERBOSITY", "error")


def load_models(
    model: str, others: Mapping[str, str], dtype: str | None = None, device: str | None = None, compiled: bool = False,
    *, scorers: Collection[str] = (),
) -> tuple[Loaded, dict[str, Any]]:  # fmt: skip
    """The target and the further models by role, all of one dtype and on one device; those of the roles `scorers` are reward
    models. Raises ModelError."""
    quiet()
    from treewright.api import load, load_reward

    def further(role: str, name: str) -> Any:
        if role in scorers:
            return load_reward(name, dtype=dtype, device=device)
        return load(name, dtype=dtype, device=device, compile=compiled)

    target = load(model, dtype=dtype, device=device, compile=compiled)
    return target, {role: further(role, name) for role, name in others.items()}
