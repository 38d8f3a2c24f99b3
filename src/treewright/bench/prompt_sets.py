"""Which prompts a run measures: the built-in ones, or the first part of public sets that lie in a data folder."""

from __future__ import annotations

import gzip
import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from treewright.bench.prompts import BUILT_IN, Prompt
from treewright.core.errors import InputError, choices

LONGEST = 1500
"""Characters of a prompt that are kept: summarisation articles do not fit small contexts. The cut is made in characters, so
that a set is the same, and has the same hash, for every model."""
STORY_WORDS = 30

Record = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Source:
    """A public set: its file below the data folder, what makes prompt texts of a record, and which records belong to it."""

    domain: str
    path: str
    text: Callable[[Record], str]
    holds: Callable[[Record], bool] = lambda record: True


def _story(record: Record) -> str:
    """The beginning of a story."""
    return " ".join(record["text"].split()[:STORY_WORDS])


def _question(record: Record) -> str:
    """A question as a comment, the way SQL scripts carry it."""
    return f"-- {record['question']}\nSELECT"


def _first_turn(record: Record) -> str:
    return str(record["turns"][0])


def _of_category(category: str | None, record: Record) -> bool:
    """Whether a record of Spec-Bench is of a category; None stands for those of MT-bench, which have names of their own."""
    own = {"translation", "summarization", "qa", "math_reasoning", "rag"}
    return record["category"] == category if category else record["category"] not in own


SPEC_BENCH = "spec_bench/question.jsonl.gz"
SOURCES: dict[str, Source] = {
    source.domain: source
    for source in (
        Source("prose", "tinystories_sample/valid.jsonl.gz", _story),
        Source("code", "humaneval/HumanEval.jsonl.gz", lambda record: record["prompt"]),
        Source("sql", "spider_dev/dev.jsonl.gz", _question),
        Source("spec-bench", SPEC_BENCH, _first_turn),
    )
}
"""What `bench speed` takes."""

CATEGORIES: dict[str, Source] = {
    domain: Source(domain, SPEC_BENCH, _first_turn, partial(_of_category, category))
    for domain, category in (
        ("multi-turn", None), ("translation", "translation"), ("summarization", "summarization"), ("qa", "qa"),
        ("math", "math_reasoning"), ("rag", "rag"),
    )
}  # fmt: skip
"""The six tasks of Spec-Bench; "multi-turn" is what it took from MT-bench, of which we ask the first turn."""


def read_prompts(data: Path | None, domains: Sequence[str], count: int) -> list[Prompt]:
    """`count` prompts of each domain, in the order of `domains`.

    Without `data` they come from the built-in set (prose, code, sql; 8 each). With a data folder they are spread evenly
    over the records of its files. Raises InputError for an unknown domain, a missing file or too few prompts.
    """
    sources = SOURCES | CATEGORIES
    known = sorted({prompt.domain for prompt in BUILT_IN}) if data is None else sorted(sources)
    prompts: list[Prompt] = []
    for domain in domains:
        if domain not in known:
            hint = f"; {domain} needs --data DIR" if data is None and domain in sources else ""
            raise InputError(f"unknown domain '{domain}'; {choices(domain, known)}{hint}")
        prompts += _built_in(domain, count) if data is None else _from_file(data, sources[domain], count)
    return prompts


def default_domains(data: Path | None) -> tuple[str, ...]:
    """All domains there are."""
    return ("prose", "code", "sql") if data is None else tuple(SOURCES)


def _built_in(domain: str, count: int) -> list[Prompt]:
    return _first([prompt for prompt in BUILT_IN if prompt.domain == domain], count, f"the built-in domain '{domain}'")


def _first(prompts: list[Prompt], count: int, where: str) -> list[Prompt]:
    if len(prompts) < count:
        raise InputError(f"{count} prompts were asked for but {where} has {len(prompts)}; lower --prompts, or give --data DIR")
    return prompts[:count]


def _from_file(data: Path, source: Source, count: int) -> list[Prompt]:
    path = data / source.path
    numbered = [(number, record) for number, record in enumerate(_records(path), start=1) if source.holds(record)]
    if len(numbered) < count:
        raise InputError(
            f"{count} prompts were asked for but {path} has {len(numbered)} records for '{source.domain}'; lower --prompts"
        )
    step = len(numbered) / count
    chosen = [numbered[int(index * step)] for index in range(count)]
    return [Prompt(source.domain, f"{source.path}:{number}", source.text(record)[:LONGEST]) for number, record in chosen]


def _records(path: Path) -> Iterator[Record]:
    if not path.is_file():
        raise InputError(f"data file {path} does not exist; give another --data DIR, or none for the built-in prompts")
    with gzip.open(path, "rt", encoding="utf-8") as lines:
        for number, line in enumerate(lines, start=1):
            try:
                yield json.loads(line)
            except json.JSONDecodeError as error:
                raise InputError(f"line {number} of {path} is not JSON ({error}); fetch the file again") from error
