"""The scan over a tree against a scan of each node's own path, token by token, in float64."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from treewright.core.claims import Shape
from treewright.models.tree_scan import convolved, replay, scan, windows

ROWS, HEADS, WIDTH, STATES, KERNEL = 2, 4, 3, 5, 4
EXACT = 1e-12


class Tree:
    """A random tree for each row and random inputs at its nodes; `groups` divides the heads."""

    def __init__(self, seed: int, nodes: int, groups: int = 1, chain: bool = False) -> None:
        random, draw = np.random.default_rng(seed), torch.Generator().manual_seed(seed)

        def normal(*shape: int) -> torch.Tensor:
            return torch.randn(*shape, generator=draw, dtype=torch.float64)

        above = np.arange(nodes) - 1
        self.parent = np.stack([above if chain else random.integers(0, np.maximum(above + 1, 1)) for _ in range(ROWS)])
        self.parent[:, 0] = -1
        self.shape = Shape.of(self.parent)
        self.sees = torch.from_numpy(self.shape.visible)
        self.x, self.state = normal(ROWS, nodes, HEADS, WIDTH), normal(ROWS, HEADS, WIDTH, STATES)
        self.dt, self.A, self.D = normal(ROWS, nodes, HEADS).exp(), -normal(HEADS).exp(), normal(HEADS)
        self.B, self.C = normal(ROWS, nodes, groups, STATES), normal(ROWS, nodes, groups, STATES)

    def path(self, row: int, node: int) -> list[int]:
        """From the root, which is a node like any other, to `node`."""
        return [0, *self.shape.path(row, node)]

    def walk(self, row: int, path: list[int]) -> tuple[torch.Tensor, torch.Tensor]:
        """Output [H, P] at the end of a path and the state [H, P, S] there, one node after another."""
        state, out, share = self.state[row], torch.zeros(HEADS, WIDTH), HEADS // self.B.shape[2]
        for node in path:
            dt, x = self.dt[row, node], self.x[row, node]
            b, c = (t[row, node].repeat_interleave(share, dim=0) for t in (self.B, self.C))
            state = (dt * self.A).exp()[:, None, None] * state + (dt[:, None] * x)[:, :, None] * b[:, None]
            out = (state * c[:, None]).sum(-1) + self.D[:, None] * x
        return out, state

    def scanned(self, asked: int, **other: Any) -> torch.Tensor:
        given = {name: getattr(self, name) for name in ("x", "dt", "A", "B", "D", "state", "sees")}
        return scan(C=self.C[:, -asked:], **given | other)


@pytest.mark.parametrize("groups", [1, 2, 4])
@pytest.mark.parametrize(("seed", "nodes"), [(0, 1), (1, 2), (2, 9), (3, 17), (4, 33)])
def test_each_node_is_the_end_of_its_own_path(seed, nodes, groups):
    tree = Tree(seed, nodes, groups)
    found = tree.scanned(nodes)
    for row in range(ROWS):
        for node in range(nodes):
            expected, _ = tree.walk(row, tree.path(row, node))
            assert (found[row, node] - expected).abs().max() <= EXACT * max(1.0, float(expected.abs().max()))


def test_the_last_nodes_alone_are_the_same():
    tree = Tree(5, 12)
    assert torch.allclose(tree.scanned(12)[:, -4:], tree.scanned(4), rtol=0, atol=EXACT)


def test_decays_of_other_branches_do_not_overflow():
    """Two siblings of which one forgets everything: its log decay is beyond what exp holds."""
    tree = Tree(6, 9)
    tree.dt[:, 3] = 1e4
    found = tree.scanned(9)
    assert found.isfinite().all()
    expected = torch.stack([tree.walk(0, tree.path(0, node))[0] for node in range(9)])
    assert (found[0] - expected).abs().max() <= EXACT * float(expected.abs().max())


@pytest.mark.parametrize("groups", [1, 2])
@pytest.mark.parametrize("seed", range(4))
def test_replay_is_the_state_at_the_end_of_the_path(seed, groups):
    tree, random = Tree(seed, 15, groups), np.random.default_rng(seed)
    paths = [tree.path(row, int(random.integers(0, 15))) for row in range(ROWS)]
    on_path = torch.zeros(ROWS, 15, dtype=torch.bool)
    for row, path in enumerate(paths):
        on_path[row, path] = True
    found = replay(tree.x, tree.dt, tree.A, tree.B, tree.state, on_path)
    for row, path in enumerate(paths):
        assert (found[row] - tree.walk(row, path)[1]).abs().max() <= EXACT * 10
    nothing = replay(tree.x, tree.dt, tree.A, tree.B, tree.state, torch.zeros_like(on_path))
    assert torch.equal(nothing, tree.state)


def test_a_chain_is_the_scan_of_transformers():
    """Its chunked scan, which computes in float32."""
    from transformers.models.mamba2.modeling_mamba2 import mamba2_chunk_scan

    tree = Tree(7, 11, groups=2, chain=True)
    given = (tree.x, tree.dt, tree.A, tree.B, tree.C)
    expected, last = mamba2_chunk_scan(*given, chunk_size=4, D=tree.D, initial_states=tree.state, return_final_states=True)
    assert (tree.scanned(11) - expected).abs().max() < 1e-4
    every = torch.ones(ROWS, 11, dtype=torch.bool)
    assert (replay(tree.x, tree.dt, tree.A, tree.B, tree.state, every) - last).abs().max() < 1e-4


@pytest.mark.parametrize(("seed", "nodes"), [(0, 1), (1, 3), (2, 14)])
def test_windows_hold_ancestors_and_then_the_text(seed, nodes):
    tree = Tree(seed, nodes)
    draw = torch.Generator().manual_seed(seed)
    inputs = torch.randn(ROWS, KERNEL + nodes, 6, generator=draw, dtype=torch.float64)
    weight, bias = torch.randn(6, KERNEL, generator=draw).double(), torch.randn(6, generator=draw).double()
    places = windows(tree.shape.visible, tree.shape.depth, KERNEL)
    found = convolved(inputs, torch.from_numpy(places), weight, bias)
    for row in range(ROWS):
        for node in range(nodes):
            read = [*range(KERNEL), *(KERNEL + step for step in tree.path(row, node))][-KERNEL:]
            assert places[row, node].tolist() == read
            expected = bias + (inputs[row, read].T * weight).sum(1)
            assert (found[row, node] - expected).abs().max() <= EXACT
