"""The largest entries of many rows of numbers."""

from __future__ import annotations

import numpy as np
import torch

from treewright.core import claims
from treewright.core.answers import Answers
from treewright.ops.bits import integers
from treewright.ops.jit import jit

BLOCK = 64
"""Entries that are looked through together."""


def tops(answers: Answers, count: int) -> np.ndarray:
    """The ids of the `count` largest logits of every claim, [R, N, count] as `top_ids` gives them; found once for all who ask."""
    known = answers.kept.get("tops")
    if known is None or known.shape[-1] < count:
        known = answers.kept["tops"] = top_ids(answers.logits, count)
    return known[..., :count]


def top_ids(logits: torch.Tensor, count: int) -> np.ndarray:
    """The ids of the `count` largest of logits [..., V], largest first, on the host: [..., count], ABSENT beyond a vocabulary of
    fewer and for ids that cannot be drawn."""
    ids, _ = largest(logits, count)
    missing = count - ids.shape[-1]
    return np.pad(ids, [(0, 0)] * (ids.ndim - 1) + [(0, missing)], constant_values=claims.ABSENT) if missing else ids


def largest(logits: torch.Tensor, count: int) -> tuple[np.ndarray, np.ndarray]:
    """Ids and values (float32) of the `count` largest of logits [..., V], largest first; [..., count] on the host, or [..., V]
    where V is smaller. Ids are ABSENT where the logit is -inf: those cannot be drawn. Of equal ones the lowest id comes first,
    on a GPU any may. Several times as fast as torch's `topk` on a CPU where vocabularies are large."""
    count = min(count, logits.shape[-1])
    if not count:
        return np.empty((*logits.shape[:-1], 0), np.int64), np.empty((*logits.shape[:-1], 0), np.float32)
    if logits.device.type != "cpu":
        found = logits.topk(count, dim=-1)
        return _drawable(found.indices.cpu().numpy(), found.values.cpu())
    ids, kind = np.empty((*logits.shape[:-1], count), np.int64), integers(logits.dtype)
    best = torch.empty(ids.shape, dtype=kind)
    bits, values = logits.view(kind).numpy(), best.numpy()
    if logits.ndim == 3 and not logits.is_contiguous():
        # Row by row, for a copy of all of them may be large.
        for row in range(len(bits)):
            largest_bits(np.ascontiguousarray(bits[row]), ids[row], values[row])
    else:
        largest_bits(bits.reshape(-1, bits.shape[-1]), ids.reshape(-1, count), values.reshape(-1, count))
    return _drawable(ids, best.view(logits.dtype))


def _drawable(ids: np.ndarray, values: torch.Tensor) -> tuple[np.ndarray, np.ndarray]:
    # Before float64 becomes float32, which has no number for the least of float64's.
    ids[(values == -torch.inf).numpy()] = claims.ABSENT
    return ids, values.float().numpy()


@jit
def ordered(bits: np.ndarray, place: int) -> np.signedinteger:
    """The bits of a float as a number of the same order: those of a negative float, all but its sign, are turned round."""
    flip, sign = bits.dtype.type(np.iinfo(bits.dtype).max), bits.dtype.type(8 * bits.itemsize - 1)
    return bits.dtype.type(bits[place] ^ (bits.dtype.type(bits[place] >> sign) & flip))


@jit
def block_maxima(bits: np.ndarray, maxima: np.ndarray) -> None:
    """The largest of every `BLOCK` entries of bits [V], by the order of the floats. Written so that it is vectorised."""
    least = bits.dtype.type(np.iinfo(bits.dtype).min)
    for block in range(len(bits) // BLOCK):
        most = least
        for place in range(block * BLOCK, block * BLOCK + BLOCK):
            most = max(most, ordered(bits, place))
        maxima[block] = most
    most = least
    for place in range(len(bits) // BLOCK * BLOCK, len(bits)):
        most = max(most, ordered(bits, place))
    if len(bits) % BLOCK:
        maxima[-1] = most


@jit
def largest_bits(bits: np.ndarray, ids: np.ndarray, values: np.ndarray) -> None:
    """Writes into ids and values [N, k] the largest numbers of each row of bits [N, V], which are those of floats."""
    rows, width = bits.shape
    maxima = np.empty((width + BLOCK - 1) // BLOCK, bits.dtype)
    blocks, all_blocks = np.empty(min(ids.shape[1], len(maxima)), np.int64), np.arange(len(maxima))
    places, order = np.empty(len(blocks) * BLOCK, np.int64), np.empty(width, bits.dtype)
    for row in range(rows):
        numbers = bits[row]
        block_maxima(numbers, maxima)
        # The largest numbers lie in the blocks with the largest maxima; in order, so that lower ids come first.
        keep_largest(maxima, all_blocks, blocks)
        blocks.sort()
        count = 0
        for block in blocks:
            for place in range(block * BLOCK, min(width, (block + 1) * BLOCK)):
                order[place] = ordered(numbers, place)
                places[count] = place
                count += 1
        keep_largest(order, places[:count], ids[row])
        for rank in range(ids.shape[1]):
            values[row, rank] = numbers[ids[row, rank]]


@jit
def keep_largest(numbers: np.ndarray, places: np.ndarray, kept: np.ndarray) -> None:
    """Writes into kept [k] those of `places` where the largest numbers stand, largest first, earlier ones first among equals."""
    count, least = 0, numbers[places[0]]
    for place in places:
        number = numbers[place]
        if count == len(kept):
            if number <= least:
                continue
            index = count - 1
        else:
            index = count
            count += 1
        while index and numbers[kept[index - 1]] < number:
            kept[index] = kept[index - 1]
            index -= 1
        kept[index] = place
        least = numbers[kept[count - 1]]
