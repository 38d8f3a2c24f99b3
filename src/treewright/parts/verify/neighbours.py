"""Which tokens are nearly interchangeable: a table of each token's nearest ones, out of vectors or out of a file.

A table is an array [V, k] of token ids, row v holding the neighbours of v, nearest first, v itself left out. `nearest` makes one
from any vectors [V, D]: a code book of image tokens, or a text model's embedding matrix.
"""

from __future__ import annotations

import zipfile
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch
from safetensors import SafetensorError, safe_open

from treewright.core.errors import CapabilityError, InputError

RANDOM = "random"
RANDOM_SEED, RANDOM_SIZE = 0, 4
NEIGHBOURS, VECTORS = "neighbours", "vectors"
BLOCK = 1024
"""Tokens whose distances to all others are computed at once."""


def nearest(vectors: np.ndarray, k: int) -> np.ndarray:
    """The k nearest other rows of vectors [V, D] by Euclidean (L2) distance, [V, min(k, V - 1)] int64, nearest first, the
    lowest id on a tie. Cost: V^2 D multiplications, in blocks of 1024 tokens."""
    points = torch.from_numpy(np.ascontiguousarray(vectors)).to(torch.float64)
    count, size = min(k, len(points) - 1), (points**2).sum(-1)
    found = np.empty((len(points), count), np.int64)
    for start in range(0, len(points), BLOCK):
        block = points[start : start + BLOCK]
        distance = size - 2 * block @ points.T + size[start : start + BLOCK, None]
        distance[torch.arange(len(block)), torch.arange(start, start + len(block))] = torch.inf
        found[start : start + BLOCK] = distance.argsort(dim=-1, stable=True)[:, :count].numpy()
    return found


class Neighbours:
    """A table of neighbours by name: a file (.npy, .npz or .safetensors), or "random" for vectors that mean nothing, made for any
    vocabulary to show the mechanics. The file's shape is checked at once, its numbers are read when they are asked for.

    The array is the one called `key`; without one that called "neighbours" or "vectors", or the only one there is. Integers are
    a table, floating point numbers are vectors. Raises InputError for a file without such an array.
    """

    def __init__(self, name: str, key: str, k: int) -> None:
        self._name, self._k = name, k
        self._path = None if name in ("", RANDOM) else Path(name).expanduser()
        self._key = "" if self._path is None else _find_key(self._path, key)
        self._table: np.ndarray | None = None

    def load(self, vocabulary: int) -> np.ndarray:
        """The table [vocabulary, at most k]. Raises CapabilityError where it is for another vocabulary, InputError where it names
        tokens that are not there."""
        if self._table is None:
            self._table = self._read(vocabulary)
        if len(self._table) != vocabulary:
            raise CapabilityError(
                f"table '{self._name}' is for {len(self._table)} tokens and the target has {vocabulary}; give the table of "
                "its own vocabulary"
            )
        return self._table

    def _read(self, vocabulary: int) -> np.ndarray:
        if self._name == "":
            raise CapabilityError(
                "no table of similar tokens was given; set the option table to a file of neighbours or of vectors, such as the "
                "model's own safetensors file with key=model.embed_tokens.weight"
            )
        if self._path is None:
            return nearest(np.random.default_rng(RANDOM_SEED).normal(size=(vocabulary, RANDOM_SIZE)), self._k)
        array = _array(self._path, self._key)
        if array.ndim != 2:
            raise InputError(
                f"'{self._key}' in table {self._path} has shape {array.shape}; give neighbours [V, k] or vectors [V, D]"
            )
        if np.issubdtype(array.dtype, np.floating):
            return nearest(array, self._k)
        if array.size and not (array.min() >= 0 and array.max() < len(array)):
            raise InputError(
                f"table {self._path} names token {array.max()} of {len(array)}; neighbours are ids from 0 on, one row a token"
            )
        return array[:, : self._k].astype(np.int64)


def _names(path: Path) -> Mapping[str, None]:
    if path.suffix == ".npy":
        return {NEIGHBOURS: None}
    if path.suffix == ".npz":
        with np.load(path, allow_pickle=False) as file:
            return dict.fromkeys(file.files)
    with safe_open(path, "pt") as file:
        return dict.fromkeys(file.keys())


def _find_key(path: Path, key: str) -> str:
    if not path.is_file() or path.suffix not in (".npy", ".npz", ".safetensors"):
        raise InputError(f"table is '{path}'; allowed: \"random\", or a .npy, .npz or .safetensors file that exists")
    try:
        names = list(_names(path))
    except (OSError, ValueError, SafetensorError, zipfile.BadZipFile) as error:
        raise InputError(
            f"table is '{path}', which cannot be read ({error}); give neighbours [V, k] or vectors [V, D]"
        ) from error
    known = [name for name in ((key,) if key else (NEIGHBOURS, VECTORS)) if name in names]
    if not known and (key or len(names) != 1):
        listed = ", ".join(sorted(names)[:8])
        raise InputError(f"key is '{key}', and table {path} holds {listed}; give the name of the array that holds the table")
    return known[0] if known else names[0]


def _array(path: Path, key: str) -> np.ndarray:
    if path.suffix == ".npy":
        return np.load(path, allow_pickle=False)
    if path.suffix == ".npz":
        with np.load(path, allow_pickle=False) as file:
            return file[key]
    with safe_open(path, "pt") as file:
        tensor = file.get_tensor(key)
    return (tensor.float() if tensor.is_floating_point() else tensor).numpy()
