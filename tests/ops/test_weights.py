"""Weights as logarithms: means, effective numbers, and who continues whom."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from treewright.ops.weights import effective_number, log_mean, relative, settled


def test_means_survive_weights_that_no_number_holds():
    assert log_mean(np.array([-1e5, -1e5 + np.log(3)])) == pytest.approx(-1e5 + np.log(2))
    assert log_mean(np.array([-np.inf, 0.0])) == pytest.approx(-np.log(2)) and log_mean(np.array([-np.inf])) == -np.inf
    assert relative(np.array([-np.inf, -np.inf])).tolist() == [0, 0]


def test_the_effective_number_counts_equal_weights():
    assert effective_number(np.full(5, -700.0)) == pytest.approx(5)
    assert effective_number(np.array([0.0, -np.inf, -np.inf])) == 1 and effective_number(np.array([-np.inf])) == 0


@given(st.integers(1, 7).flatmap(lambda n: st.lists(st.integers(0, n - 1), min_size=n, max_size=n)))
def test_sources_are_the_same_and_stay_where_they_are(sources):
    arranged = settled(sources)
    assert sorted(arranged) == sorted(sources)
    assert all(arranged[source] == source for source in sources)
