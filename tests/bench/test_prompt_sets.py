"""Prompts from a data folder: spread evenly, cut in characters, and every mistake named."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import pytest

from treewright.bench.prompt_sets import LONGEST, SOURCES, STORY_WORDS, default_domains, read_prompts
from treewright.bench.prompts import BUILT_IN
from treewright.core.errors import InputError


@pytest.fixture
def data(tmp_path: Path) -> Path:
    records = {
        "prose": [{"text": " ".join(f"word{n}" for n in range(100))}] * 4,
        "code": [{"prompt": f"def f{number}():\n"} for number in range(10)],
        "sql": [{"question": f"How many {number}?"} for number in range(4)],
        "spec-bench": [{"turns": ["z" * 5000, "second turn"]}] * 4,
    }
    for domain, lines in records.items():
        path = tmp_path / SOURCES[domain].path
        path.parent.mkdir(parents=True)
        with gzip.open(path, "wt", encoding="utf-8") as file:
            file.write("\n".join(json.dumps(line) for line in lines))
    return tmp_path


def test_without_data_the_built_in_prompts_come_in_the_order_asked_for() -> None:
    found = read_prompts(None, ("sql", "prose"), 2)
    assert [prompt.name for prompt in found] == ["sql/1", "sql/2", "prose/1", "prose/2"]
    assert found[0] in BUILT_IN


def test_records_are_spread_evenly_over_a_file(data: Path) -> None:
    assert [prompt.text for prompt in read_prompts(data, ("code",), 5)] == [f"def f{n}():\n" for n in (0, 2, 4, 6, 8)]


def test_every_domain_of_a_data_folder_makes_its_own_kind_of_prompt(data: Path) -> None:
    story, code, question, bench = read_prompts(data, default_domains(data), 1)
    assert len(story.text.split()) == STORY_WORDS
    assert code.text == "def f0():\n"
    assert question.text == "-- How many 0?\nSELECT"
    assert bench.text == "z" * LONGEST


@pytest.mark.parametrize(
    ("domains", "count", "with_data", "message"),
    [
        (("proze",), 1, False, "unknown domain 'proze'.*did you mean 'prose'"),
        (("spec-bench",), 1, False, "spec-bench needs --data"),
        (("code",), 9, False, "9 prompts were asked for but the built-in domain 'code' has 8"),
        (("sql",), 5, True, "5 prompts were asked for but .*dev.jsonl.gz has 4 records"),
    ],
)
def test_what_cannot_be_read_is_refused(data: Path, domains: tuple[str, ...], count: int, with_data: bool, message: str) -> None:
    with pytest.raises(InputError, match=message):
        read_prompts(data if with_data else None, domains, count)


def test_missing_and_broken_files_are_named(data: Path) -> None:
    path = data / SOURCES["code"].path
    with gzip.open(path, "wt") as file:
        file.write('{"prompt": "ok"}\nnot json\n')
    with pytest.raises(InputError, match=r"line 2 of .*HumanEval\.jsonl\.gz is not JSON"):
        read_prompts(data, ("code",), 1)
    path.unlink()
    with pytest.raises(InputError, match=r"HumanEval\.jsonl\.gz does not exist"):
        read_prompts(data, ("code",), 1)
