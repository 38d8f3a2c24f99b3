from __future__ import annotations

import json

from treewright.core.registry import methods

FIELDS = ["name", "family", "title", "card", "lossless", "claims", "needs", "roles"]


def test_json_is_the_cards(run):
    listed = json.loads(run("methods", "--json").out)
    cards = methods()
    assert [list(record) for record in listed] == [FIELDS] * len(cards)
    for record, card in zip(listed, cards, strict=True):
        assert record["name"] == card.name and record["card"] == card.card
        assert record["lossless"] == ("lossless" in record["claims"])
        assert record["needs"] == list(card.needs) and record["roles"] == list(card.roles)
    assert next(record for record in listed if record["name"] == "token_recycling")["card"] == 2


def test_family(run, refused):
    listed = json.loads(run("methods", "--family", "speculate", "--json").out)
    assert listed and {record["family"] for record in listed} == {"speculate"}
    assert "unknown family 'speculat'" in refused("methods", "--family", "speculat")


def test_table_has_a_line_for_each(run):
    lines = run("methods").out.splitlines()
    for card in methods():
        assert any(line.startswith(f"{card.name} ") and card.family in line for line in lines)
