"""Grammar masks are exactly the tokens after which some text of the grammar is left, however they are asked for; and every
lossless method, under every kind of grammar, emits the law of plain decoding under it."""

from __future__ import annotations

import re

import numpy as np
import pytest
from llguidance import LLMatcher, LLParserLimits

from treewright.core import grammar as grammars
from treewright.core.errors import ConstraintError
from treewright.core.request import Sampling
from treewright.core.roles import Parts
from treewright.parts.constrain.grammar import GrammarMasks, compile_grammar
from treewright.testing.bench import PROMPTS, Bench, Setting, parts_of
from treewright.testing.definition import plain_law
from treewright.testing.enumerate import exact_law, total_variation

JSON = {"type": "object", "properties": {"a": {"enum": [1, 11]}}, "required": ["a"], "additionalProperties": False}


def nested(text: bytes) -> bool:
    """As many a before the 1 as b after it."""
    return bool(re.fullmatch(rb"a*1b*", text)) and text.count(b"a") == text.count(b"b")


# The grammar, what it accepts, the longest prefix whose continuations brute force can see to their end, and what keeps
# brute force from spelling everything: a rough test of what a text of the language may begin with.
LANGUAGES = {
    "regex": (
        grammars.regex("(ab|b){1,2}1?"),
        lambda text: re.fullmatch(rb"(ab|b){1,2}1?", text),
        5,
        re.compile(rb"[ab]*1?$").match,
    ),
    "grammar": (grammars.grammar('start: "a" start "b" | "1"'), nested, 2, re.compile(rb"a*1?b*$").match),
    "JSON schema": (
        grammars.json_schema(JSON),
        lambda text: text in (b'{"a":1}', b'{"a":11}'),
        5,
        re.compile(rb'\{"a":1*\}?$').match,
    ),
    "choice": (
        grammars.choice(["ab", "abab", "b1"]),
        lambda text: text in (b"ab", b"abab", b"b1"),
        5,
        re.compile(rb"[ab]*1?$").match,
    ),
}
LONGEST_TEXT = 8
# Options with which each method drafts a tree that fits the claims of the bench.
SMALL = {
    "token_recycling": {"k": 2, "nodes": 4}, "prompt_lookup": {"tokens": 2}, "jacobi": {"block": 2},
    "lookahead": {"level": 3, "window": 2, "guesses": 1}, "speculative_sampling": {"tokens": 1}, "specinfer": {"expansion": [2]},
    "auto": {"nodes": 4}, "staged": {"nodes": 1},
}  # fmt: skip
KINDS = (
    "plain",
    "prompt_lookup",
    "token_recycling",
    "jacobi",
    "lookahead",
    "speculative_sampling",
    "specinfer",
    "auto",
    "staged",
)
"""Drafters of each kind; every lossless method's own law has a constraint on."""


def masks(grammar: grammars.Grammar, vocabulary, end: int) -> GrammarMasks:
    return GrammarMasks([compile_grammar(grammar, vocabulary)] * len(PROMPTS), (end,), end + 1)


@pytest.mark.parametrize("kind", LANGUAGES)
def test_masks_are_those_of_brute_force(kind, vocabulary, tokens):
    """Asked in an order that jumps between branches, so that states roll back and go on."""
    grammar, accepts, longest, begins = LANGUAGES[kind]
    end = len(tokens) - 1
    ours = masks(grammar, vocabulary, end)
    longer = spelled = {(): b""}
    while longer:
        longer = {(*ids, token): text + tokens[token] for ids, text in longer.items() for token in range(end)}
        longer = {ids: text for ids, text in longer.items() if len(text) <= LONGEST_TEXT and begins(text)}
        spelled = spelled | longer
    live = {ids[:cut] for ids, text in spelled.items() if accepts(text) for cut in range(len(ids) + 1)}
    assert len(live) > 4
    order = sorted(ids for ids in live if len(ids) <= longest)
    np.random.default_rng(1).shuffle(order)
    for ids in map(tuple, order):
        expected = [(*ids, token) in live for token in range(end)] + [bool(accepts(b"".join(tokens[i] for i in ids)))]
        found = ours.mask((0, 0), np.array(ids, np.int64))
        assert found.tolist() == expected, (ids, found, expected)


@pytest.mark.parametrize("kind", LANGUAGES)
def test_asked_about_single_tokens_the_answers_are_those_of_the_mask(kind, vocabulary, tokens):
    """Along random texts to their end, and at branches in between; a matcher that only asks never computes a mask."""
    end, chance = len(tokens) - 1, np.random.default_rng(3)
    whole, single = masks(LANGUAGES[kind][0], vocabulary, end), masks(LANGUAGES[kind][0], vocabulary, end)
    ended = 0
    for _ in range(12):
        ids: list[int] = []
        while (mask := whole.mask((0, 0), np.array(ids, np.int64))).any() and len(ids) < LONGEST_TEXT:
            for asked in (ids, ids[:1]):
                before = np.array(asked, np.int64)
                answers = [single.allowed((0, 0), before, token) for token in range(end + 1)]
                assert answers == whole.mask((0, 0), before).tolist(), asked
            ids.append(int(chance.choice(np.flatnonzero(mask))))
        ended += ids[-1] == end
        assert ids[-1] != end or not any(single.allowed((0, 0), np.array(ids), token) for token in range(end + 1))
    assert ended


def test_nothing_follows_the_end(vocabulary, tokens):
    end = len(tokens) - 1
    ours = masks(LANGUAGES["choice"][0], vocabulary, end)
    assert not ours.mask((0, 0), np.array([2, end])).any()


def test_a_state_that_no_token_leads_out_of_is_a_dead_end_and_can_be_left(vocabulary, tokens):
    end = len(tokens) - 1
    ours = masks(grammars.regex("az|b"), vocabulary, end)
    begin = ours.mask((0, 0), np.array([], np.int64)).tolist()
    assert not ours.mask((0, 0), np.array([0])).any()
    assert ours.mask((0, 0), np.array([], np.int64)).tolist() == begin


def test_a_limit_of_the_engine_ends_the_row_and_nothing_else(vocabulary, tokens):
    """The longer the text of an ambiguous grammar, the more items a step has."""
    end = len(tokens) - 1
    ambiguous = grammars.grammar('start: e\ne: "a" | e e | e e e')
    limited = LLMatcher(vocabulary, ambiguous.lark, limits=LLParserLimits(step_max_items=200))
    ours = GrammarMasks([limited, compile_grammar(ambiguous, vocabulary)], (end,), end + 1)
    long, short = np.zeros(40, np.int64), np.zeros(1, np.int64)
    assert not ours.mask((0, 0), long).any()
    assert ours.mask((1, 0), long).any()
    assert ours.mask((0, 0), short).any()


def test_rows_keep_states_of_their_own(vocabulary, tokens):
    end = len(tokens) - 1
    ours = masks(LANGUAGES["regex"][0], vocabulary, end)
    first = ours.mask((0, 0), np.array([2])).tolist()
    ours.mask((0, 1), np.array([1, 1, 4]))
    assert ours.mask((0, 0), np.array([2])).tolist() == first


@pytest.mark.parametrize("temperature", [0.0, 0.9], ids=["greedy", "sampling"])
@pytest.mark.parametrize(("method", "kind"), [
    pytest.param(method, kind, marks=[pytest.mark.slow] if (method, kind) == ("specinfer", "JSON schema") else [])
    for method in KINDS for kind in ("regex", "grammar", "JSON schema")
])  # fmt: skip
def test_lossless_methods_keep_the_constrained_law(method, kind, temperature, vocabulary, tokens):
    end = len(tokens) - 1
    make, roles = parts_of(method, SMALL.get(method))
    sampling = Sampling(temperature, repetition_penalty=1.3, frequency_penalty=0.2)
    setting = Setting(
        kind,
        sampling,
        row=1,
        tokens=2 if roles and kind != "JSON schema" else 3,
        vocabulary=end + 1,
        stop_ids=(end,),
        fenced=False,
        warm=True,
    )

    def constrained() -> Parts:
        return make().join(Parts(constrain=(masks(LANGUAGES[kind][0], vocabulary, end),)))

    case = Bench(constrained, roles).case(setting)
    law, expected = exact_law(case), plain_law(case)
    assert total_variation(law, expected) < 1e-9
    assert temperature == 0 or len(law) > 1


@pytest.mark.parametrize(
    ("make", "named"),
    [
        (lambda: grammars.json_schema({"not": {"type": "string"}}), "not"),
        (lambda: grammars.json_schema({"type": "integer", "minimum": 5, "maximum": 3}), "minimum (5)"),
        (lambda: grammars.regex("("), "unclosed group"),
        (lambda: grammars.regex("a(?=b)"), "look-around"),
        (lambda: grammars.regex("z+"), "no text"),
        (lambda: grammars.grammar("start: missing"), "missing"),
    ],
    ids=["keyword", "unsatisfiable", "malformed", "look-around", "not spelled by any token", "rule"],
)
def test_bad_grammars_are_refused_with_the_fault_named(make, named, vocabulary):
    with pytest.raises(ConstraintError, match=re.escape(named)):
        compile_grammar(make(), vocabulary)
