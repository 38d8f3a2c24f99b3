"""Atomic checkpoints of a training run: killed at any moment, the last whole one remains."""

from __future__ import annotations

import os
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from .schedule import Schedule

FILE_NAME = "checkpoint.pt"


class CheckpointError(RuntimeError):
    """A run folder holds a checkpoint where none should be, or none where one is needed."""


@dataclass
class Progress:
    """Where a run stands.  `losses` holds one (tokens, {domain: nats per token}) per evaluation."""

    schedule: Schedule
    step: int = 0
    tokens: int = 0
    active_seconds: float = 0.0
    losses: list[tuple[int, dict[str, float]]] = field(default_factory=list)


def save(
    folder: Path,
    model: dict[str, Tensor],
    optimizer: dict[str, Any],
    progress: Progress,
) -> None:
    """Write the run's state; the file is replaced only once the new one is whole on disk."""
    temporary = folder / f"{FILE_NAME}.partial"
    with temporary.open("wb") as file:
        torch.save({"model": model, "optimizer": optimizer, "progress": asdict(progress)}, file)
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(folder / FILE_NAME)


def exists(folder: Path) -> bool:
    """Whether `folder` holds a checkpoint."""
    return (folder / FILE_NAME).is_file()


def load(folder: Path) -> tuple[dict[str, Tensor], dict[str, Any], Progress]:
    """Model state, optimizer state and progress of the last checkpoint in `folder`.

    Raises:
        CheckpointError: there is none.
    """
    if not exists(folder):
        raise CheckpointError(
            f"run folder {str(folder)!r} holds no {FILE_NAME!r} to resume from; start the run without resume first"
        )
    state = torch.load(folder / FILE_NAME, map_location="cpu", weights_only=True)
    stored = state["progress"]
    stored["schedule"] = Schedule(**stored["schedule"])
    stored["losses"] = [(tokens, losses) for tokens, losses in stored["losses"]]
    return state["model"], state["optimizer"], Progress(**stored)
