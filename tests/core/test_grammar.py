"""Grammars as data: what is refused before any vocabulary is known."""

from __future__ import annotations

import json

import pytest
from pydantic import BaseModel

from treewright.core.errors import ConstraintError
from treewright.core.grammar import choice, grammar, json_schema, regex


class Person(BaseModel):
    name: str
    age: int


def test_a_schema_is_given_as_a_mapping_as_text_or_as_a_class():
    schema = Person.model_json_schema()
    assert json_schema(schema) == json_schema(json.dumps(schema)) == json_schema(Person)


def test_a_users_own_options_for_the_engine_stay():
    assert grammar('%llguidance {}\nstart: "a"').lark == '%llguidance {}\nstart: "a"'
    assert "no_forcing" in grammar('start: "a"').lark


def test_slashes_and_newlines_of_a_regex_are_escaped_once():
    assert regex("a/b").lark == regex(r"a\/b").lark
    assert r"a\/b\n" in regex("a/b\n").lark


@pytest.mark.parametrize(
    ("make", "fault"),
    [
        (lambda: json_schema("{"), "not JSON"), (lambda: json_schema(3), "int"), (lambda: json_schema(int), "class int"),
        (lambda: regex(""), "regex is ''"), (lambda: grammar("  "), "empty"), (lambda: choice([]), r"\[\]"),
        (lambda: choice("yes"), "'yes'"), (lambda: choice(["yes", ""]), "yes"),
    ],
)  # fmt: skip
def test_what_is_no_grammar_is_refused(make, fault):
    with pytest.raises(ConstraintError, match=fault):
        make()
