"""What cannot fit is refused before anything is reserved, with a number that would fit."""

from __future__ import annotations

import re

import pytest

import treewright as tw
from treewright.api import memory
from treewright.core.errors import InputError
from treewright.core.request import Request
from treewright.core.roles import Parts
from treewright.engine.size import Size
from treewright.models.tables import Table

GIB = 1 << 30
HUGE = [
    ("beam", {"beams": 100_000}), ("diverse_beam", {"beams": 100_000}), ("stochastic_beam", {"beams": 100_000}),
    ("best_first_beam", {"beams": 100_000}), ("smc", {"particles": 10**9}),
    ("best_of_n", {"candidates": 10**9, "by": "likelihood"}), ("first_finish", {"candidates": 10**30}),
    ("beam", {"beams": 10**400}),
]  # fmt: skip


@pytest.fixture
def small(monkeypatch):
    monkeypatch.setattr(memory, "free_bytes", lambda device: GIB)


@pytest.mark.parametrize(("method", "options"), HUGE, ids=lambda given: str(given)[:40])
def test_what_is_huge_is_refused(untouched, small, method, options):
    with pytest.raises(
        InputError, match=rf"^{method} .* needs at least \d+.\d GiB of memory .*, and 1.0 GiB are free; .*"
    ) as caught:
        tw.generate(untouched, [1], method, options, temperature=1.0)
    assert len(str(caught.value)) < 2500


@pytest.mark.parametrize("settings", [dict(n=10**9, temperature=1.0), dict(max_new_tokens=10**9)], ids=str)
def test_so_are_settings(untouched, small, settings):
    with pytest.raises(InputError, match="GiB of memory"):
        tw.generate(untouched, [1], **settings)


def test_the_number_that_is_named_fits_and_the_next_does_not(untouched, small):
    with pytest.raises(InputError) as caught:
        tw.generate(untouched, [1], "beam", {"beams": 100_000})
    fit = int(re.search(r"at most about (\d+) rows fit", str(caught.value))[1])
    with pytest.raises(AssertionError, match="the model was opened"):
        tw.generate(untouched, [1], "beam", {"beams": fit})
    with pytest.raises(InputError, match="GiB of memory"):
        tw.generate(untouched, [1], "beam", {"beams": fit + 1})


def test_without_word_of_the_memory_nothing_is_refused(untouched, monkeypatch):
    monkeypatch.setattr(memory, "free_bytes", lambda device: None)
    with pytest.raises(AssertionError, match="the model was opened"):
        tw.generate(untouched, [1], "beam", {"beams": 1000})


def test_this_machine_has_memory():
    free = memory.free_bytes(None)
    assert free is None or 1 << 26 < free < 1 << 50


def test_the_size_is_that_of_the_engine(monkeypatch):
    """Rows and claims as sessions are opened with them."""
    opened = []

    class Noting(Table):
        def open(self, text, opening, record):
            opened.append(opening)
            return super().open(text, opening, record)

    model = tw.load(Noting(7, seed=0))
    for method, options, n, batch_rows, rows, claims in [
        ("plain", {}, 3, 4, 4, 1),
        ("beam", {"beams": 3}, 1, 4, 3, 1),
        ("beam", {"beams": 3}, 1, 64, 6, 1),
        ("prompt_lookup", {"tokens": 1000}, 1, 16, 2, 64),
        ("contrastive_search", {"k": 6}, 1, 16, 2, 7),
    ]:
        tw.generate(model, [[1], [2]], method, options, n=n, batch_rows=batch_rows, max_new_tokens=2, temperature=0.0)
        assert (opened[-1].rows, opened[-1].claims) == (rows, claims), method


@pytest.mark.parametrize(
    ("columns", "any_order", "claims"), [(None, False, 81), (64, False, 64), (64, True, 64), (100, False, 81)]
)
def test_claims_that_do_not_pay_are_not_counted(columns, any_order, claims):
    request = Request(prompts=((1,),))
    assert Size.of(request, Parts(claims=81), columns, any_order).claims == claims
    search = Size.of(request, Parts(claims=81, bonus=False), columns, any_order)
    assert search.claims == (64 if any_order else 81)
