"""A bigram table as a drafter: the baseline that knows the last token and nothing else.

For each token it holds the successors that are most frequent in a corpus, with their shares. Below the frontier it grows the
tree whose paths have the largest products of shares, which is the best tree if the table were the truth.
"""

from __future__ import annotations

import heapq
from collections.abc import Mapping
from functools import cache
from pathlib import Path

import numpy as np

from treewright.core.errors import InputError
from treewright.core.roles import Parts, Round

SUCCESSORS = 10
DEEPEST = 8
MOST_TOKENS = 2_000_000
"""Tokens of each source that are counted."""
MOST_VOCABULARY = 16_384


def read_streams(folder: Path, part: str) -> dict[str, np.ndarray]:
    """The token streams of a training run's `tokens` folder, by source; part is "train" or "held_out". Raises InputError."""
    found = {
        path.name.removesuffix(f".{part}.npy"): np.load(path, mmap_mode="r") for path in sorted(folder.glob(f"*.{part}.npy"))
    }
    streams = {name: stream for name, stream in found.items() if stream.ndim == 1}
    if not streams:
        raise InputError(f"--tokens {folder} holds no *.{part}.npy; give the tokens folder of a `treewright train` run")
    return streams


def count_bigrams(streams: Mapping[str, np.ndarray], vocabulary: int) -> tuple[np.ndarray, np.ndarray]:
    """The most frequent successors of every token [V, k] and their shares [V, k], every source counting alike.

    Raises InputError for a vocabulary whose table of pairs would not fit into memory.
    """
    if vocabulary > MOST_VOCABULARY:
        raise InputError(f"a bigram table for {vocabulary} tokens is too large; the most is {MOST_VOCABULARY}")
    pairs = np.zeros(vocabulary * vocabulary, np.float32)
    for stream in streams.values():
        tokens = np.asarray(stream[:MOST_TOKENS], np.int64)
        pairs += np.bincount(tokens[:-1] * vocabulary + tokens[1:], minlength=len(pairs)).astype(np.float32) / len(tokens)
    table = pairs.reshape(vocabulary, vocabulary)
    best = np.argsort(-table, axis=1, kind="stable")[:, : min(SUCCESSORS, vocabulary)]
    shares = np.take_along_axis(table, best, axis=1) / np.maximum(table.sum(1, keepdims=True), 1e-12)
    return best, shares


class BigramTree:
    """Proposes the table's most probable tree under each row's frontier."""

    def __init__(self, successors: np.ndarray, shares: np.ndarray, nodes: int) -> None:
        self._successors, self._shares, self._nodes = successors.tolist(), shares.tolist(), nodes
        self._tree = cache(self._make_tree)

    def propose(self, round: Round) -> None:
        nodes = min(self._nodes, round.claims - 1)
        if nodes < 1:
            return
        trees = [self._tree(int(token), nodes) for token in round.forest.token[:, 0]]
        round.forest.grow(np.array([parents for parents, _ in trees]), np.array([tokens for _, tokens in trees]))

    def _make_tree(self, frontier: int, nodes: int) -> tuple[list[int], list[int]]:
        """Parents and tokens of the best `nodes` claims under a frontier; a claim is put in when its share is the largest
        left, so parents come first. Nodes that the table cannot fill are absent (-1)."""
        parents, tokens, waiting = list[int](), list[int](), list[tuple[float, int, int, int, int]]()

        def offer(share: float, column: int, token: int, depth: int, rank: int) -> None:
            if rank < len(self._shares[token]) and depth < DEEPEST and self._shares[token][rank] > 0:
                heapq.heappush(waiting, (-share * self._shares[token][rank], column, token, depth, rank))

        offer(1.0, 0, frontier, 0, 0)
        while waiting and len(tokens) < nodes:
            share, column, above, depth, rank = heapq.heappop(waiting)
            parents.append(column)
            tokens.append(self._successors[above][rank])
            offer(-share, len(tokens), tokens[-1], depth + 1, 0)
            offer(-share / self._shares[above][rank], column, above, depth, rank + 1)
        missing = nodes - len(tokens)
        return parents + [0] * missing, tokens + [-1] * missing


def bigram_parts(successors: np.ndarray, shares: np.ndarray, nodes: int) -> Parts:
    """The baseline as a proposer, to be joined to plain decoding's verifier."""
    return Parts(propose=BigramTree(successors, shares, nodes), claims=nodes + 1)
