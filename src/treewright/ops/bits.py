"""Floats as the integers that their bits are, for numpy and numba, which do not know all of torch's floats."""

from __future__ import annotations

import torch


def integers(dtype: torch.dtype) -> torch.dtype:
    """The signed integers of a dtype's width."""
    return {1: torch.int8, 2: torch.int16, 4: torch.int32, 8: torch.int64}[dtype.itemsize]
