"""A suffix trie with counts that texts enter token by token and leave as a whole.

A node stands for a run of at most `depth` tokens and counts how often it occurs in all texts. Runs that occur rarely are not
spelled out: a *leaf* lists the places where its run occurs, and only a leaf with more than `bucket` places gets children (a
burst trie). So rare text costs one entry a token rather than one node for each of its suffixes' lengths, and what is below a
leaf is read from the texts. Nodes are numbers into flat lists.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple

Place = tuple[int, int]
"""A text's number and where in it the run begins."""

BUCKET = 8


class Occurrences(NamedTuple):
    """Where a run of `length` tokens occurs: `times` times, at a node of the trie, or (node -1) at these places."""

    times: int
    length: int
    node: int
    places: Sequence[Place] = ()


class SuffixTrie:
    """Counts of all runs of at most `depth` tokens of several texts."""

    def __init__(self, depth: int, bucket: int = BUCKET) -> None:
        self._depth, self._bucket = depth, bucket
        self._texts: dict[int, list[int]] = {}
        # Of each text: where those of its suffixes begin that end at a node with children, and the node.
        self._open: dict[int, list[tuple[int, int]]] = {}
        self._next, self._free = 0, list[int]()
        self._children: list[dict[int, int] | None] = [{}]
        self._places: list[list[Place]] = [[]]
        self._count = [0]

    @property
    def nodes(self) -> int:
        """Nodes in use, the root included."""
        return len(self._count) - len(self._free)

    @property
    def tokens(self) -> int:
        """Tokens of all texts."""
        return self._count[0]

    def text(self, number: int) -> list[int]:
        """The tokens of one text; not to be written to."""
        return self._texts[number]

    def begin(self) -> int:
        """The number of a new, empty text."""
        number, self._next = self._next, self._next + 1
        self._texts[number], self._open[number] = [], []
        return number

    def append(self, number: int, tokens: Iterable[int]) -> None:
        """Lets a text go on. Cost: for each token as many steps as its longest suffix that occurs elsewhere has tokens."""
        text = self._texts[number]
        for token in tokens:
            above, self._open[number] = self._open[number], []
            end = len(text)
            text.append(token)
            self._count[0] += 1
            for start, node in above:
                self._enter(node, token, end - start + 1, (number, start))
            self._enter(0, token, 1, (number, end))

    def remove(self, number: int) -> None:
        """Takes a text out, and every node that nothing else needs. Cost: `depth` steps for each of its tokens at most."""
        text = self._texts.pop(number)
        del self._open[number]
        self._count[0] -= len(text)
        for start in range(len(text)):
            node = 0
            for token in text[start : start + self._depth]:
                below = self._children[node]
                if below is None:
                    break
                child = below[token]
                self._count[child] -= 1
                if self._children[child] is None:
                    self._places[child].remove((number, start))
                if self._count[child] == 0:
                    del below[token]
                    self._free.append(child)
                node = child

    def _enter(self, node: int, token: int, length: int, place: Place) -> None:
        """Counts a run of `length` tokens at the child of `node`."""
        below = self._children[node]
        assert below is not None
        child = below.get(token)
        if child is None:
            child = below[token] = self._new_node(leaf=length < self._depth)
        self._count[child] += 1
        if self._children[child] is None:
            self._places[child].append(place)
            if len(self._places[child]) > self._bucket:
                self._burst(child, length)
        elif length < self._depth:
            self._open[place[0]].append((place[1], child))

    def _new_node(self, leaf: bool) -> int:
        children: dict[int, int] | None = None if leaf else {}
        if self._free:
            node = self._free.pop()
            self._children[node], self._places[node] = children, []
            return node
        self._children.append(children)
        self._places.append([])
        self._count.append(0)
        return len(self._count) - 1

    def _burst(self, node: int, length: int) -> None:
        places, self._places[node], self._children[node] = self._places[node], [], {}
        for number, start in places:
            text = self._texts[number]
            if start + length < len(text):
                self._enter(node, text[start + length], length + 1, (number, start))
            else:
                self._open[number].append((start, node))

    def find(self, run: Sequence[int]) -> Occurrences | None:
        """Where a run [m] occurs, m <= depth; None where it does not."""
        node = 0
        for length, token in enumerate(run, start=1):
            below = self._children[node]
            assert below is not None
            child = below.get(token)
            if child is None:
                return None
            if self._children[child] is None:
                rest = list(run[length:])
                places = [(n, at) for n, at in self._places[child] if self._texts[n][at + length : at + len(run)] == rest]
                return Occurrences(len(places), len(run), -1, places) if places else None
            node = child
        return Occurrences(self._count[node], len(run), node)

    def matches(self, tail: Sequence[int]) -> list[Occurrences]:
        """Where the last 1, 2, ... tokens of tail [m] occur with something behind them, up to the longest such run."""
        found: list[Occurrences] = []
        for size in range(1, min(len(tail), self._depth - 1) + 1):
            if found and found[-1].node < 0:
                # All places are known, so the longer run stands where the token before is the right one.
                token, texts = tail[len(tail) - size], self._texts
                places = [(n, at - 1) for n, at in found[-1].places if at > 0 and texts[n][at - 1] == token]
                match = Occurrences(len(places), size, -1, places) if places else None
            else:
                match = self.find(tail[len(tail) - size :])
            if match is None or not self.continues(match):
                break
            found.append(match)
        return found

    def continues(self, run: Occurrences) -> bool:
        """Whether anything follows a run."""
        if run.length >= self._depth:
            return False
        if run.node >= 0:
            return bool(self._children[run.node])
        return any(start + run.length < len(self._texts[number]) for number, start in run.places)

    def continuations(self, run: Occurrences) -> list[tuple[int, Occurrences]]:
        """The tokens that follow a run and the longer runs they make, the most frequent first, then by token."""
        longer = run.length + 1
        if longer > self._depth:
            return []
        found: list[tuple[int, Occurrences]]
        if run.node >= 0:
            children, found = self._children[run.node] or {}, []
            for token, child in children.items():
                places = self._places[child] if self._children[child] is None else None
                place = Occurrences(self._count[child], longer, child if places is None else -1, places or ())
                found.append((token, place))
        else:
            groups: dict[int, list[Place]] = {}
            for number, start in run.places:
                text = self._texts[number]
                if start + run.length < len(text):
                    groups.setdefault(text[start + run.length], []).append((number, start))
            found = [(token, Occurrences(len(places), longer, -1, places)) for token, places in groups.items()]
        return sorted(found, key=lambda entry: (-entry[1][0], entry[0])) if len(found) > 1 else found
