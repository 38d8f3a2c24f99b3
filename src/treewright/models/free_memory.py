"""How much memory is free."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import torch


def free_bytes(device: Any) -> int | None:
    """Bytes that are free on a device: of a GPU those of its memory, else those of the machine, or of the container that this
    process is in; None where nobody says."""
    if getattr(device, "type", "cpu") == "cuda":
        return int(torch.cuda.mem_get_info(device)[0])
    found = [given for given in (_available(), _allowed()) if given is not None]
    return min(found, default=None)


def _available() -> int | None:
    """What Linux says is available to a new process, else all the machine has."""
    path = Path("/proc/meminfo")
    if path.is_file():
        for line in path.read_text(encoding="ascii").splitlines():
            if line.startswith("MemAvailable:"):
                return int(line.split()[1]) * 1024
    if "SC_PHYS_PAGES" in getattr(os, "sysconf_names", {}):
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    return None


def _allowed() -> int | None:
    """The limit of the control group."""
    path = Path("/sys/fs/cgroup/memory.max")
    written = path.read_text(encoding="ascii").strip() if path.is_file() else "max"
    return int(written) if written.isdigit() else None
