"""What is no recipe."""

from __future__ import annotations

import numpy as np
import pytest

from treewright.core.errors import InputError, UnknownOption
from treewright.core.recipe import Recipe, option_value


@pytest.mark.parametrize("method", [None, 5, b"plain", ["plain"]])
def test_a_method_is_a_name(method):
    with pytest.raises(InputError, match=r"method is .*; give a name"):
        Recipe.of(method)


@pytest.mark.parametrize("options", [[1], "k=3", {1: 2}, 7])
def test_options_are_a_mapping_of_names(options):
    with pytest.raises(InputError, match=r"options is .*; give a mapping of names to values"):
        Recipe.of("token_recycling", options)


def test_two_spellings_of_one_option_are_refused():
    with pytest.raises(
        UnknownOption, match=r"options 'alpha' and 'dola.alpha' are one, and 0.1 and 0.2 were given; give it once"
    ):
        Recipe.of("dola", {"alpha": 0.1, "dola.alpha": 0.2})
    assert Recipe.of("dola+momentum", {"dola.alpha": 0.1, "momentum.alpha": 0.2}).options_of("momentum") == {"alpha": 0.2}


def test_numbers_of_numpy_become_pythons():
    ((_, _, value),) = Recipe.of("token_recycling", {"nodes": np.int64(7)}).options
    assert value == 7 and type(value) is int


@pytest.mark.parametrize(
    ("written", "value"),
    [("True", True), ("False", False), ("None", None), ("true", True), ("null", None), ("[1, 2]", [1, 2]), ("Truer", "Truer")],
)
def test_an_options_value_is_read_as_json_or_as_python_spells_it(written, value):
    assert option_value(written) == value
