"""By what it is noticed that a weight has changed since something was made of it."""

from __future__ import annotations

import numpy as np
import torch

from treewright.ops.bits import integers

SAMPLED = 61
"""Numbers of a weight that are compared one by one, beside the sum of its bits."""

Mark = tuple[int, int, int, bytes]


def mark(weight: torch.Tensor) -> Mark:
    """Address, torch's count of changes, the sum of all bits and some of the numbers. Cost: reading the weight once.

    What it misses is a change through `weight.data`, which torch does not count, that keeps the sum and the numbers compared.
    """
    address, version = weight.data_ptr(), -1 if weight.is_inference() else weight._version
    if weight.device.type != "cpu":
        flat = weight.detach().reshape(-1)
        return address, version, int(flat.view(integers(flat.dtype)).sum(dtype=torch.int64)), b""
    bits = weight.detach().contiguous().view(integers(weight.dtype)).numpy().reshape(-1)
    # Eight bytes at a time, which is as fast as memory is read.
    whole = len(bits) - len(bits) % (8 // bits.itemsize)
    total = int(bits[:whole].view(np.int64).sum()) + int(bits[whole:].sum(dtype=np.int64))
    # A stride that meets every column.
    step, width = max(1, len(bits) // SAMPLED), weight.shape[-1] if weight.ndim else 1
    while np.gcd(step, width) > 1:
        step += 1
    return address, version, total, bits[::step].tobytes()
