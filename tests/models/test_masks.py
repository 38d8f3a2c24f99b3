"""Masks against a loop over every pair of a column and a slot."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from treewright.core.claims import Shape
from treewright.models.masks import TreeMasks

CPU = torch.device("cpu")
CLOSED = torch.finfo(torch.float64).min


def masks_of(windows: dict[str, int | None], scratch: int = 16, dtype: torch.dtype = torch.float64) -> TreeMasks:
    return TreeMasks(windows, scratch, dtype, CPU)


def opened(mask: torch.Tensor) -> np.ndarray:
    """Which entries are open; every entry is 0 or the closed value."""
    assert ((mask == 0) | (mask == CLOSED)).all()
    return (mask == 0)[:, 0].numpy()


@given(start=st.integers(0, 6), columns=st.integers(1, 6), width=st.none() | st.integers(1, 5))
def test_prompt_chunk(start, columns, width):
    mask = opened(masks_of({"full_attention": width}).causal(start, columns))
    for column in range(columns):
        place = start + column
        for key in range(start + columns):
            assert mask[0, column, key] == (key <= place and (width is None or place - key < width))


@given(
    parents=st.lists(st.integers(0, 100), max_size=7), seed=st.integers(0, 99),
    width=st.none() | st.integers(1, 6), padding=st.integers(0, 3),
)  # fmt: skip
def test_any_block(parents, seed, width, padding):
    """One pending token and a tree for two rows with texts of different length; windows go by positions in the tree."""
    random = np.random.default_rng(seed)
    shape = Shape.frontier().grow([parent % (i + 1) for i, parent in enumerate(parents)])
    count, keys = shape.columns, 12
    stored = random.integers(0, keys + 1, size=2)
    seen = np.zeros((2, count, 16), bool)
    seen[:, :, :count] = shape.visible
    positions = stored[:, None] + shape.depth
    placed = np.zeros((2, 16), np.int64)
    placed[:, :count] = positions
    general = masks_of({"full_attention": None, "sliding_attention": width}).general(
        seen, stored, (positions, placed), 0, count + padding, keys
    )
    for name, limit in (("full_attention", None), ("sliding_attention", width)):
        mask = opened(general[name])
        for row in range(2):
            for column in range(count):
                near = [place for place in range(keys) if place < stored[row]]
                near = [place for place in near if limit is None or positions[row, column] - place < limit]
                above = [c for c in range(count) if shape.visible[0, column, c]]
                above = [c for c in above if limit is None or shape.depth[0, column] - shape.depth[0, c] < limit]
                expected = set(above) | {16 + place for place in near}
                assert set(np.flatnonzero(mask[row, column]).tolist()) == expected
            for column in range(count, count + padding):
                assert np.flatnonzero(mask[row, column]).tolist() == [column]


def test_growing_mask_equals_the_general_one():
    """The mask that is kept and opened slot by slot: over rounds, a row that moves on, and one that is replaced."""
    shape = Shape.frontier().grow([0, 0, 1, 3])
    masks = masks_of({"full_attention": None})
    seen = np.zeros((2, 5, 16), bool)
    seen[:, :, :5] = shape.visible
    nowhere = np.zeros((2, 5), np.int64), np.zeros((2, 16), np.int64)
    for stored in ([3, 0], [5, 1], [5, 4], [2, 9], [0, 0], [12, 12]):
        kept = masks.growing(shape, np.array(stored), 6, 12)
        fresh = masks_of({"full_attention": None}).general(seen, np.array(stored), nowhere, 0, 6, 12)
        assert torch.equal(kept[:, :, :5], fresh[:, :, :5])
        assert (kept[:, 0, 5, 5] == 0).all() and (kept[:, 0, 5, :5] < 0).all()


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32, torch.float64])
def test_growing_masks_of_all_dtypes_are_the_general_ones_whatever_stood_in_them(dtype):
    """Smaller trees after larger ones and the other way round, in a mask of one width."""
    masks, stored = masks_of({"full_attention": None}, dtype=dtype), np.array([4])
    for parents in ([0, 0, 1, 3], [0], [0, 1], [], [0, 1, 2, 3]):
        shape = Shape.frontier().grow(parents)
        count = shape.columns
        seen = np.zeros((1, count, 16), bool)
        seen[:, :, :count] = shape.visible
        nowhere = np.zeros((1, count), np.int64), np.zeros((1, 16), np.int64)
        kept = masks.growing(shape, stored, 6, 12)
        fresh = masks_of({"full_attention": None}, dtype=dtype).general(seen, stored, nowhere, 0, 6, 12)
        assert kept.dtype == dtype and torch.equal(kept[:, :, :count], fresh[:, :, :count])
        assert torch.equal(kept[:, :, count:, :16], fresh[:, :, count:, :16])


def test_growing_mask_is_made_anew_for_another_shape():
    first, second = Shape.frontier().grow([0, 1]), Shape.frontier().grow([0, 0])
    masks = masks_of({"full_attention": None})
    stored = np.array([4])
    before = masks.growing(first, stored, 3, 12).clone()
    assert not torch.equal(masks.growing(second, stored, 3, 12), before)
    assert torch.equal(masks.growing(first, stored, 3, 12), before)


def test_growing_mask_holds_a_tree_for_each_row_and_any_for_padding_rows():
    masks, nowhere = masks_of({"full_attention": None}), (np.zeros((2, 4), np.int64), np.zeros((2, 16), np.int64))
    for parents, stored in (([[0, 1, 1], [0, 0, -1]], [3, 0]), ([[0, 0, 0], [0, 1, 2]], [5, 2])):
        shape = Shape.of(np.array([[-1, *row] for row in parents]))
        seen = np.zeros((2, 4, 16), bool)
        seen[:, :, :4] = shape.visible
        kept = masks.growing(shape, np.array([*stored, 0, 0]), 4, 12)
        assert torch.equal(kept[:2], masks_of({"full_attention": None}).general(seen, np.array(stored), nowhere, 0, 4, 12))
        assert len(kept) == 4


@pytest.mark.parametrize(("windows", "windowed"), [({"full_attention": None}, False), ({"full_attention": 4}, True)])
def test_windowed(windows, windowed):
    assert masks_of(windows).windowed is windowed


def test_several_layer_types_get_a_mask_each():
    masks = masks_of({"full_attention": None, "sliding_attention": 3})
    assert set(masks.causal(0, 4)) == {"full_attention", "sliding_attention"}
    assert isinstance(masks_of({"full_attention": 3}).causal(0, 4), torch.Tensor)
