"""Lists of words and what is to be done with them: the synthetic task of the bundled encoder-decoder.

    reverse: cat dog sun      ->   sun dog cat
    sort: dog cat sun         ->   cat dog sun
    copy: cat dog sun         ->   cat dog sun
    marked: cat * dog * sun   ->   dog sun

Every example is a pure function of (seed, step, number). Held-out lists, one in a hundred by a hash of the prompt's text, are
never trained on.
"""

from __future__ import annotations

from random import Random

from .corpus import is_held_out

OPERATIONS = ("copy", "reverse", "sort", "marked")
SHORTEST, LONGEST = 2, 8
# Each is one token of the bundled tokenizer behind a space.
WORDS = tuple(
    "bag ball bear bed bird blue boat book box boy brother bug bus cake car castle cat chair child cloud cup dad day dog door "
    "dress face farm father fire fish flower food forest friend frog game garden gift girl grass green hand hat head hill hole "
    "home horse house king lady lake leg light lion man milk mom mother mouse name nest night nose paper park party pond rabbit "
    "rain red river road rock room school sea ship shop sister sky snow song sound star stone story street summer sun table "
    "tail teacher team top tower town toy train tree truck voice wall water week wind window woman wood world yellow".split()
)


def solve(operation: str, words: list[str], marked: list[bool]) -> list[str]:
    """What the operation makes of the words."""
    if operation == "reverse":
        return words[::-1]
    if operation == "sort":
        return sorted(words)
    return words if operation == "copy" else [word for word, chosen in zip(words, marked, strict=True) if chosen]


def draw(random: Random, held_out: bool) -> tuple[str, str, str]:
    """An operation, the prompt's text and the answer's, each word of the answer behind a space."""
    while True:
        operation = random.choice(OPERATIONS)
        words = random.sample(WORDS, random.randint(SHORTEST, LONGEST))
        marked = [operation == "marked" and random.random() < 0.5 for _ in words]
        prompt = f"{operation}:" + "".join(f" * {w}" if m else f" {w}" for w, m in zip(words, marked, strict=True))
        if is_held_out(prompt) == held_out and (operation != "marked" or any(marked)):
            return operation, prompt, "".join(f" {word}" for word in solve(operation, words, marked))
