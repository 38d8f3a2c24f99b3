"""Where a figure was measured: machine, versions, threads, model. Part of every record, so that each line stands alone."""

from __future__ import annotations

import importlib.util
import os
import platform
from importlib import metadata
from pathlib import Path
from typing import Any

import torch

from treewright.api import Loaded

PACKAGES = ("treewright", "torch", "transformers", "numpy")
PEERS = ("openvino-genai",)
"""Packages of peers, which may be missing."""


def machine(device: torch.device) -> dict[str, Any]:
    """Processor, cores, threads, memory and operating system; the accelerator's name where one is used."""
    accelerator = torch.cuda.get_device_name(device) if device.type == "cuda" else None
    return {
        "processor": _processor(), "cores": os.cpu_count(), "threads": torch.get_num_threads(),
        "memory_gib": _memory_gib(), "system": f"{platform.system()} {platform.machine()}", "accelerator": accelerator,
        "bfloat16_instructions": _flags() & {"avx512_bf16", "amx_bf16"} != set(),
    }  # fmt: skip


def versions() -> dict[str, str]:
    """Versions of Python and the packages that decide speed, those of peers where they are installed."""
    peers = [name for name in PEERS if importlib.util.find_spec(name.replace("-", "_")) is not None]
    return {"python": platform.python_version(), **{name: metadata.version(name) for name in (*PACKAGES, *peers)}}


def model_record(loaded: Loaded, compiled: bool) -> dict[str, Any]:
    """Name, size, dtype and device of a model, and whether its verify step is compiled."""
    return {
        "model": loaded.name, "parameters": sum(weights.numel() for weights in loaded.model.parameters()),
        "dtype": str(loaded.model.dtype).removeprefix("torch."), "device": str(loaded.model.device), "compiled": compiled,
    }  # fmt: skip


def _cpuinfo() -> str:
    path = Path("/proc/cpuinfo")
    return path.read_text(encoding="utf-8") if path.is_file() else ""


def _field(name: str) -> str:
    lines = (line.partition(":") for line in _cpuinfo().splitlines())
    return next((value.strip() for key, _, value in lines if key.strip() == name), "")


def _processor() -> str:
    return _field("model name") or platform.processor() or platform.machine()


def _flags() -> set[str]:
    return set(_field("flags").split())


def _memory_gib() -> float | None:
    if not hasattr(os, "sysconf"):
        return None
    return round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1)
