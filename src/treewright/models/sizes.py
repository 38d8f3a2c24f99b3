"""Sizes of memory and of blocks, rounded up so that few different ones occur."""

from __future__ import annotations

import torch

KEY_STEP = 64
"""Slots of keys and values grow by as many."""

BLOCK_STEP, CHUNK_STEP = 4, 16
"""Blocks of claims and of prompts in a 16-bit dtype on a CPU are made as many columns wide: for each width that it meets, torch
builds kernels anew (docs/log.md), which takes twice as long as a small model's forward. `KEY_STEP` is a multiple of both, so the
slots of a text have room for its padded prompt."""


def builds_kernels(device: torch.device, dtype: torch.dtype) -> bool:
    """Whether torch builds kernels for each width of a block that it meets."""
    return device.type == "cpu" and dtype.itemsize == 2


def rounded(size: int, step: int) -> int:
    """The multiple of `step` that holds `size`."""
    return -(-size // step) * step


def power_of_two(size: int) -> int:
    """The power of two that holds `size`."""
    return 1 << (size - 1).bit_length()
