"""Sizes of memory and of blocks, rounded up so that few different ones occur."""

from __future__ import annotations

KEY_STEP = 64
"""Slots of keys and values grow by as many."""


def rounded(size: int, step: int) -> int:
    """The multiple of `step` that holds `size`."""
    return -(-size // step) * step


def power_of_two(size: int) -> int:
    """The power of two that holds `size`."""
    return 1 << (size - 1).bit_length()
