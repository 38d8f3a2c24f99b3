"""Guesses of what comes next, each with its chance, and the tree of the likeliest of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from heapq import heappop, heappush

from treewright.core.claims import ABSENT
from treewright.parts.propose.chances import COPIES, LENGTHS, PRIOR, RANKS, Chances
from treewright.parts.propose.successors import ORDERS, Successors

LONGEST = 12
"""Tokens to which a match is measured."""


class Writing:
    """A row's text so far, where each pair of tokens last stood in it, and how its chances have been.

    pointer: the place in the text whose token a copy would guess next, -1 for none; match: tokens that it continues.
    """

    def __init__(self, tokens: list[int]) -> None:
        self.tokens: list[int] = []
        self.pointer, self.match = -1, 0
        self.counts = Chances(fades=True)
        self._behind: dict[tuple[int, int], int] = {}
        self.extend(tokens)

    def append(self, token: int) -> None:
        """The text goes on."""
        self.pointer, self.match = self.moved(self.pointer, self.match, self.tokens[-1] if self.tokens else -1, token)
        self.tokens.append(token)
        if len(self.tokens) > 1:
            self._behind[self.tokens[-2], token] = len(self.tokens)
        self.counts.pass_on()

    def extend(self, tokens: Sequence[int]) -> None:
        """The text goes on with several."""
        for token in tokens:
            self.append(token)

    def moved(self, pointer: int, match: int, last: int, token: int) -> tuple[int, int]:
        """Pointer and match once `token` stands after `last`: one on where it was copied, else behind the last place of the
        pair."""
        if 0 <= pointer < len(self.tokens) and self.tokens[pointer] == token:
            return pointer + 1, match + 1
        pointer = self._behind.get((last, token), -1)
        return pointer, 0 if pointer < 0 else 2

    def copied(self, pointer: int) -> int:
        """The token that a copy guesses, ABSENT for none."""
        return self.tokens[pointer] if 0 <= pointer < len(self.tokens) else ABSENT


@dataclass(slots=True)
class Tree:
    """Claims of one row in the order they were taken: tokens, parents, and the chance that the text goes through each."""

    tokens: list[int] = field(default_factory=lambda: [ABSENT])
    parents: list[int] = field(default_factory=lambda: [ABSENT])
    chances: list[float] = field(default_factory=lambda: [1.0])

    def __len__(self) -> int:
        return len(self.tokens)


class Guesser:
    """What all texts of a model have taught: the target's predictions by context, and how guesses have been."""

    def __init__(self, successors: Successors) -> None:
        self._successors = successors
        self._counts = Chances(fades=False)

    def kinds(self, writing: Writing, before: Sequence[int], pointer: int, match: int) -> dict[int, int]:
        """The guesses after `before` (tokens, at least the last `ORDERS`), token: kind."""
        found, known = dict[int, int](), self._successors.after(before)
        for order in range(len(known) - 1, -1, -1):
            for kind, token in enumerate(known[order], order * RANKS):
                if token >= 0 and token not in found:
                    found[token] = kind
            if len(found) >= RANKS:
                break
        copied = writing.copied(pointer)
        if copied >= 0:
            found[copied] = found.get(copied, ORDERS * RANKS) + COPIES[min(match, LENGTHS[-1])]
        return found

    def tree(self, writing: Writing, most: int, deepest: int, worth: float) -> Tree:
        """The `most` likeliest claims, no deeper than `deepest`, as far as their chance is at least `worth`."""
        tree, heap = Tree(), list[tuple[float, int, int]]()
        places = [(writing.tokens[-ORDERS:], writing.pointer, writing.match, 0)]
        known = dict[int, float]()
        options = [self._options(writing, known, *places[0][:3])]
        if options[0] and deepest > 0:
            heap.append((-options[0][0][0], 0, 0))
        while heap and len(tree.tokens) <= most:
            value, above, rank = heappop(heap)
            if -value < worth:
                break
            siblings = options[above]
            token = siblings[rank][1]
            if rank + 1 < len(siblings):
                heappush(heap, (-tree.chances[above] * siblings[rank + 1][0], above, rank + 1))
            before, pointer, match, depth = places[above]
            node = len(tree.tokens)
            tree.tokens.append(token)
            tree.parents.append(above)
            tree.chances.append(-value)
            pointer, match = writing.moved(pointer, match, before[-1], token)
            places.append(([*before[1 - ORDERS :], token], pointer, match, depth + 1))
            # A child is never likelier than its parent, so what is not worth looking below is left.
            looked = depth + 1 < deepest and -value * 0.97 >= worth
            below = self._options(writing, known, *places[node][:3]) if looked else []
            options.append(below)
            if below:
                heappush(heap, (value * below[0][0], node, 0))
        return tree

    def _options(
        self, writing: Writing, known: dict[int, float], before: Sequence[int], pointer: int, match: int
    ) -> list[tuple[float, int]]:  # fmt: skip
        """(chance, token) of the guesses there, the likeliest first. known: chances by kind, the same in all of a tree."""
        found = []
        for token, kind in self.kinds(writing, before, pointer, match).items():
            chance = known.get(kind)
            if chance is None:
                chance = known[kind] = writing.counts.of(kind, self._counts.of(kind, PRIOR[kind]))
            found.append((chance, token))
        found.sort(reverse=True)
        return found

    def grade(self, writing: Writing, written: Sequence[int]) -> None:
        """The text went on with these tokens: counts what would have been guessed at each."""
        for token in written:
            for guess, kind in self.kinds(writing, writing.tokens[-ORDERS:], writing.pointer, writing.match).items():
                writing.counts.count(kind, guess == token)
                self._counts.count(kind, guess == token)
            writing.append(token)

    def learn(self, before: Sequence[int], tokens: Sequence[int], parents: Sequence[int], top: Sequence[list[int]]) -> None:
        """Keeps what the target predicted at each claim. before: the text's last tokens, the frontier among them."""
        contexts = [list(before)]
        for token, parent in zip(tokens[1:], parents[1:], strict=True):
            contexts.append([*contexts[parent], token][-ORDERS:])
        for column, predicted in enumerate(top):
            if column == 0 or tokens[column] != ABSENT:
                self._successors.learn(contexts[column], predicted)

    def read(self, prompt: Sequence[int], top: Sequence[list[int]]) -> None:
        """Keeps what the target predicted at each place of a prompt."""
        for place, predicted in enumerate(top):
            self._successors.learn(prompt[max(0, place + 1 - ORDERS) : place + 1], predicted)
