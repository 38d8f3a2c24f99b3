"""How much memory is free."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import torch


def free_bytes(device: Any) -> int | None:
    """Bytes that are free on a device: of a GPU those of its memory, else those of the machine, or what is left to the container
    that this process is in; None where nobody says."""
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


def _allowed(group: Path = Path("/sys/fs/cgroup")) -> int | None:
    """What the limit of the control group leaves: cached files make room when room is needed."""
    try:
        most, used = ((group / name).read_text(encoding="ascii").strip() for name in ("memory.max", "memory.current"))
        cached = dict(line.split() for line in (group / "memory.stat").read_text(encoding="ascii").splitlines())
        return max(0, int(most) - int(used) + int(cached.get("inactive_file", 0)))
    except (OSError, ValueError):
        return None
