"""The built-in prompts are fixed: changing one changes the hash, and the hash stands in committed results."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

from treewright.bench.prompts import BUILT_IN, WARM_UP, Prompt, prompt_hash

HASH = "737e9bb020264d35"


def test_the_built_in_set_is_the_one_that_was_published() -> None:
    assert prompt_hash(BUILT_IN) == HASH


def test_there_are_eight_prompts_a_domain_and_none_twice() -> None:
    assert Counter(prompt.domain for prompt in BUILT_IN) == {"prose": 8, "code": 8, "sql": 8}
    assert len({prompt.text for prompt in (*BUILT_IN, *WARM_UP)}) == len(BUILT_IN) + len(WARM_UP)


def test_the_hash_depends_on_texts_domains_and_order_only() -> None:
    first, second = Prompt("a", "one", "x"), Prompt("a", "two", "y")
    known = prompt_hash([first, second])
    assert prompt_hash([replace(first, name="other"), second]) == known
    changed = [[second, first], [first], [replace(first, text="x "), second], [replace(first, domain="b"), second]]
    assert all(prompt_hash(prompts) != known for prompts in changed)
