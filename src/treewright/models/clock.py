"""The clock by which forwards are timed."""

from __future__ import annotations

import time

import torch


def settled_time(device: torch.device) -> float:
    """Seconds, once the device has done what it was given, so that seconds in the model are the model's."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter()
