"""The benchmark's own prompts, written for it: 8 beginnings for each of prose, code and SQL, and 3 for warming up.

They are fixed: `prompt_hash` of the set stands in every record, and figures of different hashes must not be compared.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Prompt:
    """One text to continue. `name` says where it comes from."""

    domain: str
    name: str
    text: str


def prompt_hash(prompts: Iterable[Prompt]) -> str:
    """16 hexadecimal digits of SHA-256 over domain and text of the prompts in order; names do not count."""
    listed = json.dumps([[prompt.domain, prompt.text] for prompt in prompts], ensure_ascii=True)
    return hashlib.sha256(listed.encode()).hexdigest()[:16]


_PROSE = (
    "Once upon a time there was a little fox named Milo who lived at the edge of a quiet forest. One morning",
    "The old clockmaker had promised the children a surprise, and when the door of his shop opened",
    "Anna wanted to build the tallest sand castle on the beach. She took her red bucket and",
    "It had rained for three days, and the river behind the mill was so high that the miller's son",
    'The bear looked at the empty honey jar and sighed. "Who has eaten all my honey?" he asked. The rabbit',
    "Tom and his sister Lily found a small wooden box under the stairs. Inside the box there was",
    "A king once had three daughters, and the youngest was the bravest of them all. When the dragon came",
    "On the first day of school, Ben was afraid that nobody would play with him. Then a girl with a blue hat",
)

_CODE = (
    'def is_palindrome(text):\n    """Return True if text reads the same forwards and backwards."""\n',
    (
        "import unittest\n\n\nclass TestStack(unittest.TestCase):\n    def setUp(self):\n"
        "        self.stack = Stack()\n\n    def test_push(self):\n"
    ),
    (
        'class Queue:\n    """A first-in first-out queue."""\n\n    def __init__(self, maxsize=0):\n'
        "        self.maxsize = maxsize\n"
    ),
    (
        'def read_config(path):\n    """Read a configuration file and return a dictionary.\n\n'
        '    Lines that start with \'#\' are comments.\n    """\n    result = {}\n    with open(path) as file:\n'
    ),
    "import os\nimport sys\nimport argparse\n\n\ndef main():\n    parser = argparse.ArgumentParser(description=",
    (
        'def merge_sorted(left, right):\n    """Merge two sorted lists into one sorted list."""\n    result = []\n'
        "    i = j = 0\n    while"
    ),
    "class Point:\n    def __init__(self, x, y):\n        self.x = x\n        self.y = y\n\n    def __eq__(self, other):\n",
    "def count_words(lines):\n    counts = {}\n    for line in lines:\n        for word in line.split():\n",
)

_SQL = (
    (
        "CREATE TABLE books (id INTEGER PRIMARY KEY, title TEXT, author TEXT, year INTEGER, price REAL);\n\n"
        "-- Which authors wrote more than 3 books?\nSELECT"
    ),
    (
        "CREATE TABLE employees (id INTEGER PRIMARY KEY, name TEXT, department TEXT, salary REAL);\n\n"
        "-- What is the average salary for each department of employees?\nSELECT"
    ),
    "-- List the name and city of customers with balance greater than 500\nSELECT",
    (
        "CREATE TABLE players (id INTEGER PRIMARY KEY, name TEXT, team TEXT, goals INTEGER);\n"
        "INSERT INTO players (id, name, team, goals) VALUES\n(1, 'Maria Lopez', 'Reds', 12),\n"
    ),
    (
        "-- Show the quantity of orders and the name of their product with price above 20\n"
        "SELECT orders.quantity, products.name FROM orders"
    ),
    (
        "CREATE TABLE flights (id INTEGER PRIMARY KEY, origin TEXT, destination TEXT, price REAL, departed_at DATE);\n\n"
        "-- What is the highest price of flights with origin Paris?\n"
    ),
    (
        "-- How many films came out after 1999?\nSELECT COUNT(*) FROM films WHERE year > 1999;\n\n"
        "-- What are the titles of the films by genre drama?\n"
    ),
    (
        "-- Delete the students with age lower than 18\nDELETE FROM students WHERE age < 18;\n\n"
        "-- Set the grade of students with name Omar Ali to 9\nUPDATE"
    ),
)

BUILT_IN: tuple[Prompt, ...] = tuple(
    Prompt(domain, f"{domain}/{number}", text)
    for domain, texts in (("prose", _PROSE), ("code", _CODE), ("sql", _SQL))
    for number, text in enumerate(texts, start=1)
)

WARM_UP: tuple[Prompt, ...] = (
    Prompt("prose", "warm-up/1", "There was once a boat that had never seen the sea. Every evening it asked the wind"),
    Prompt("code", "warm-up/2", 'def average(numbers):\n    """Return the arithmetic mean of a list of numbers."""\n    if'),
    Prompt("sql", "warm-up/3", "-- What is the total price of products with color red?\nSELECT"),
    Prompt("prose", "warm-up/4", "The baker's cat slept on the flour sacks. One morning it woke up and"),
    Prompt("code", "warm-up/5", "class Counter:\n    def __init__(self):\n        self.total = 0\n\n    def"),
    Prompt("sql", "warm-up/6", "-- How many teachers work at each school?\nSELECT"),
    Prompt("prose", "warm-up/7", "Grandmother kept an old key in a blue jar. When Ben asked what it opened, she"),
    Prompt("code", "warm-up/8", "def merge(first, second):\n    result = {}\n    for"),
    Prompt("sql", "warm-up/9", "-- List the titles of all books written after 1990\nSELECT"),
)
