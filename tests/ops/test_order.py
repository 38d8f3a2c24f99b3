"""Values in falling order, sorted only as far as somebody asks."""

from __future__ import annotations

from itertools import islice

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from treewright.ops.order import falling


@given(st.lists(st.sampled_from([-np.inf, -1.0, 0.0, 0.5, 2.0]), max_size=200))
def test_the_order_is_that_of_a_stable_sort_without_minus_infinity(values):
    expected = [i for i in sorted(range(len(values)), key=lambda i: -values[i]) if values[i] > -np.inf]
    assert list(falling(np.array(values, float))) == expected


@pytest.mark.parametrize("asked", [1, 16, 17, 400])
def test_a_prefix_of_the_order_is_the_same_however_much_is_asked(asked):
    values = np.random.default_rng(0).integers(0, 40, 1000).astype(float)
    assert list(islice(falling(values), asked)) == np.argsort(-values, kind="stable")[:asked].tolist()
