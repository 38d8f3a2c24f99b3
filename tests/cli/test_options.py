from __future__ import annotations

import pytest

from treewright.cli.options import names, pairs, values
from treewright.core.errors import InputError


def test_values_are_json_where_they_can_be():
    written = ["a=3", "b.c=true", "d=latest", "e=[1, 2]", 'f="5"', "g=a=b"]
    assert values(written) == {"a": 3, "b.c": True, "d": "latest", "e": [1, 2], "f": "5", "g": "a=b"}


@pytest.mark.parametrize("written", ["draft", "=x", "draft=", "  =x"])
def test_a_pair_needs_both_sides(written):
    with pytest.raises(InputError, match="ROLE=MODEL"):
        pairs("--with", [written])


def test_a_key_comes_once():
    with pytest.raises(InputError, match="twice"):
        pairs("--set", ["a=1", "a=2"])


def test_names():
    assert names("--methods", "a, b+c,d") == ["a", "b+c", "d"]
    for wrong in ("", "a,,b", "a,a"):
        with pytest.raises(InputError, match="--methods"):
            names("--methods", wrong)
