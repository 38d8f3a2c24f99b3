"""Every two of drafter, constraint, steering and sampling meet in a composition that has plain decoding's law and tokens."""

from __future__ import annotations

import itertools
from dataclasses import replace
from functools import cache

import pytest

from treewright.core.errors import InputError
from treewright.models.loading import load
from treewright.parts.verify.sample_then_match import SampleThenMatch
from treewright.testing import matrix
from treewright.testing.certify import default_prompts, stand_in
from treewright.testing.laws import follows_plain
from treewright.testing.matrix import Cell, cells, certify_matrix, on_model, on_tables

KINDS = ("prompt_lookup", "token_recycling", "speculative_sampling", "rsd_s", "opt_tree", "layerskip", "auto")
"""A drafter of each kind: a chain and a tree without a model, a chain and a tree drawn from one, one that tries more than it
claims, a part of the layers, and a choice of sizes. The command runs all; each one's own law has a constraint
and a penalty on as well."""

PAIRWISE = cells(KINDS, pairwise=True)


@pytest.fixture(scope="module")
def model():
    return load("default", dtype="float32")


@cache
def follows(drafter: str) -> bool:
    return follows_plain(drafter)


def meetings(chosen: list[Cell]) -> set:
    return {pair for cell in chosen for pair in itertools.combinations(enumerate(cell.axes), 2)}


def test_the_selection_covers_every_pair():
    assert meetings(PAIRWISE) == meetings(cells(KINDS))
    assert 24 <= len(PAIRWISE) < len(cells(KINDS)) / 3
    assert {cell.drafter for cell in PAIRWISE} == set(KINDS) < {cell.drafter for cell in cells()}
    assert {"none", "penalties", "dexperts", "contrastive_decoding"} <= {cell.steering for cell in PAIRWISE}


@pytest.mark.parametrize("cell", PAIRWISE, ids=lambda cell: "-".join(cell.axes))
def test_a_composition_has_the_law_of_plain_decoding(cell):
    found = on_tables(cell)
    assert found.passed, found.detail
    assert found.numbers["proposed"] > 0
    assert (found.numbers["outcomes"] > 1) == (cell.sampling == "sampling")


@pytest.mark.parametrize("cell", PAIRWISE, ids=lambda cell: "-".join(cell.axes))
def test_a_composition_has_the_tokens_of_plain_decoding(cell, model):
    roles = {"draft": 0, "expert": 1, "anti_expert": 2, "amateur": 3}
    others = {role: stand_in(model, number) for role, number in roles.items()}
    found = on_model(cell, model, others, default_prompts(model, 0), new_tokens=10)
    assert found is None or found.passed, found.detail
    assert (found is None) == (cell.sampling == "sampling" and not follows(cell.drafter))


class Greedy(SampleThenMatch):
    """A planted bug: the walk takes the likeliest token whatever the law."""

    def verify(self, round, law):
        law.greedy = True
        return super().verify(round, law)


def test_a_broken_verifier_is_seen(monkeypatch):
    cell = Cell("prompt_lookup", "regex", "dexperts", "sampling")
    assert on_tables(cell).passed
    right = matrix.parts_of

    def broken(method, options):
        make, roles = right(method, options)
        return lambda: replace(make(), verify=Greedy()), roles

    monkeypatch.setattr(matrix, "parts_of", broken)
    assert not on_tables(cell).passed


def test_a_method_that_is_no_lossless_drafter_is_refused(model):
    with pytest.raises(InputError, match=r"dexperts.*token_recycling"):
        certify_matrix(model, ["dexperts"])


@pytest.mark.parametrize("control", ["disco", "specdec_pp"])
def test_a_controller_is_certified_with_a_drafter_beside_it_and_named_so(control, model, monkeypatch):
    recipe, right = f"speculative_sampling+{control}", matrix.cells
    named = [Cell(recipe, "none", "dexperts", "sampling"), Cell(recipe, "regex", "penalties", "greedy")]
    assert set(named) < set(right([control]))
    assert {cell.drafter for cell in right([control])} == {recipe} <= {cell.drafter for cell in right()}
    monkeypatch.setattr(matrix, "cells", lambda drafters, pairwise: [cell for cell in right(drafters) if cell in named])
    rows = certify_matrix(model, [control])
    assert len(rows) == 3 and all(row.passed for row in rows), [row.detail for row in rows]
    assert {row.method for row in rows} == {recipe, f"{recipe}+dexperts"}


def test_rows_come_with_their_cells(model, monkeypatch):
    told, chosen = [], cells(["prompt_lookup"], pairwise=True)[:3]
    monkeypatch.setattr(matrix, "cells", lambda drafters, pairwise: chosen)
    rows = certify_matrix(model, ["prompt_lookup"], pairwise=True, told=told.append)
    assert rows == told and all(row.passed for row in rows)
    assert {tuple(row.numbers["cell"]) for row in rows} == {cell.axes for cell in chosen}
