"""How often which token followed the last n tokens, in a text that was given."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from treewright.core.errors import InputError


class NGrams:
    """Counts over a text of token ids [T]; a negative number stands between documents. Nothing is counted before it is asked for,
    so a text costs one sort of its tokens."""

    def __init__(self, text: np.ndarray) -> None:
        self._text = text
        self._order = np.argsort(text[:-1], kind="stable")
        self._sorted = text[:-1][self._order]

    def laws(self, context: Sequence[int], longest: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """For n = 1 .. longest, the tokens that followed the last n of `context` and their shares; empty where these n were not
        seen."""
        places = np.empty(0, np.int64)
        if context:
            ends = np.searchsorted(self._sorted, [context[-1], context[-1] + 1])
            places = self._order[ends[0] : ends[1]]
            places = places[self._text[places + 1] >= 0]
        for size in range(1, longest + 1):
            if size > len(context):
                places = places[:0]
            elif size > 1:
                places = places[places >= size - 1]
                places = places[self._text[places - (size - 1)] == context[-size]]
            tokens, counts = np.unique(self._text[places + 1], return_counts=True)
            yield tokens, counts / max(1, len(places))


def version_of(name: str) -> int:
    """When a file was written, in nanoseconds. Raises InputError where it is missing."""
    try:
        return Path(name).expanduser().stat().st_mtime_ns
    except OSError as error:
        raise _unreadable(name, error) from error


def read_tokens(name: str) -> np.ndarray:
    """The token ids [T] of a .npy file. Raises InputError."""
    path = Path(name).expanduser()
    try:
        text = np.load(path, allow_pickle=False)
    except (OSError, ValueError) as error:
        raise _unreadable(name, error) from error
    if not isinstance(text, np.ndarray) or text.ndim != 1 or not np.issubdtype(text.dtype, np.integer) or len(text) < 2:
        raise InputError(f"corpus is '{name}'; allowed: a .npy file of at least 2 token ids in one row, -1 between documents")
    return text.astype(np.int64)


def _unreadable(name: str, error: Exception) -> InputError:
    return InputError(f"corpus is '{name}', which cannot be read ({error}); give a .npy file of token ids")
