"""List operations with word items: easy one token at a time, and some of them impossible in parallel.

Where the answer is determined (copy, reverse, sort, an index), every slot can be filled at once. Where it is a set (shuffle, a
random place), two slots that are filled in one call know nothing of each other. The tasks follow the waiting line of
ParallelBench; prompts, words and generator are this project's.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from random import Random

from .corpus import is_held_out

WORDS = (
    "ball bear bed bird boat book box bus cake car cat chair cup dog door farm fish flower fox frog "
    "garden girl hat hill horse key lake lion milk mouse park star"
).split()  # fmt: skip
LONGEST_LIST = 6
LONGEST_ANSWER = LONGEST_LIST + 1

INSTRUCTIONS = {
    "copy": "Copy the list:",
    "reverse": "Reverse the list:",
    "sort": "Sort the list:",
    "shuffle": "Shuffle the list:",
    "replace_index": "Replace item {place} with {word}:",
    "replace_random": "Replace any item with {word}:",
    "insert_index": "Insert {word} at {place}:",
    "insert_random": "Insert {word} anywhere:",
    "remove_index": "Remove item {place}:",
    "remove_random": "Remove any item:",
}
SET_VALUED = ("shuffle", "replace_random", "insert_random", "remove_random")


@dataclass(frozen=True)
class Problem:
    """A list, an operation, and its arguments. `place` counts from 1."""

    task: str
    items: tuple[str, ...]
    place: int
    word: str

    @property
    def prompt(self) -> str:
        instruction = INSTRUCTIONS[self.task].format(place=self.place, word=self.word)
        return f"List: {' '.join(self.items)}\n{instruction}"

    def answers(self) -> Iterator[list[str]]:
        """Every right answer, but for `shuffle`, of which there are too many to list."""
        items, at = list(self.items), self.place - 1
        places = range(len(items)) if self.task.endswith("random") else (at,)
        match self.task.partition("_")[0]:
            case "copy":
                yield items
            case "reverse":
                yield items[::-1]
            case "sort":
                yield sorted(items)
            case "replace":
                yield from ([*items[:place], self.word, *items[place + 1 :]] for place in places)
            case "insert":
                places = range(len(items) + 1) if self.task.endswith("random") else (at,)
                yield from ([*items[:place], self.word, *items[place:]] for place in places)
            case "remove":
                yield from (items[:place] + items[place + 1 :] for place in places)

    def draw(self, random: Random) -> list[str]:
        """One right answer, uniformly among them."""
        if self.task != "shuffle":
            return random.choice(list(self.answers()))
        while True:
            shuffled = random.sample(self.items, len(self.items))
            if tuple(shuffled) != self.items:
                return shuffled

    def accepts(self, answer: Sequence[str]) -> bool:
        """Whether `answer` is right; a shuffled list is any other order of the same items."""
        if self.task == "shuffle":
            return sorted(answer) == sorted(self.items) and tuple(answer) != self.items
        return list(answer) in list(self.answers())


def make_problem(task: str, random: Random) -> Problem:
    """A random problem of 3 to 6 different items."""
    *items, word = random.sample(WORDS, random.randint(3, LONGEST_LIST) + 1)
    return Problem(task, tuple(items), random.randint(1, len(items)), word)


def problems(random: Random, held_out: bool, tasks: Sequence[str] = tuple(INSTRUCTIONS)) -> Iterator[Problem]:
    """Endless problems of the tasks in turn, of the training part or of the held-out 1 %, which share no prompt."""
    while True:
        for task in tasks:
            problem = make_problem(task, random)
            while is_held_out(problem.prompt) is not held_out:
                problem = make_problem(task, random)
            yield problem
