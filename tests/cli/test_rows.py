from __future__ import annotations

import json

import pytest

from treewright.cli.rows import OutputFile, read_rows
from treewright.core.errors import InputError

LINES = ['{"prompt": "a", "id": 7}', "", '{"tokens": [1, 2]}', '{"prompt": "", "x": null}']


@pytest.fixture
def source(tmp_path):
    file = tmp_path / "in.jsonl"
    file.write_text("\n".join(LINES))
    return file


def test_rows_keep_their_line_and_their_fields(source):
    rows = read_rows(source)
    assert [(row.line, row.prompt, row.fields) for row in rows] == [(1, "a", {"id": 7}), (3, (1, 2), {}), (4, "", {"x": None})]
    assert len({row.digest for row in rows}) == 3


@pytest.mark.parametrize(
    ("line", "fault"),
    [
        (b'{"prompt": "a"', "not JSON"),
        (b"[1, 2]", "a JSON list"),
        (b'"text"', "a JSON str"),
        (b'{"id": 1}', 'needs either "prompt" or "tokens"'),
        (b"{}", "no fields"),
        (b'{"prompt": "a", "tokens": [1]}', "has both"),
        (b'{"prompt": 5}', '"prompt" is 5'),
        (b'{"prompt": null}', '"prompt" is null'),
        (b'{"tokens": []}', '"tokens" is []'),
        (b'{"tokens": [1, -2]}', "[1, -2]"),
        (b'{"tokens": [true]}', "[true]"),
        (b'{"tokens": "1 2"}', '"1 2"'),
        (b'{"prompt": "a", "text": "b"}', 'field "text"'),
        (b'{"prompt": "caf\xe9"}', "not UTF-8"),
    ],
)
def test_a_malformed_line_is_named(tmp_path, line, fault):
    file = tmp_path / "in.jsonl"
    file.write_bytes(b'{"prompt": "fine"}\n' + line + b"\n")
    with pytest.raises(InputError) as error:
        read_rows(file)
    assert f"{file}, line 2: " in str(error.value) and fault in str(error.value)


def test_empty_and_missing_files(tmp_path):
    (tmp_path / "empty.jsonl").write_text("\n\n")
    with pytest.raises(InputError, match="holds no rows"):
        read_rows(tmp_path / "empty.jsonl")
    with pytest.raises(InputError, match="cannot read --input"):
        read_rows(tmp_path / "missing.jsonl")


def test_output_lines_carry_the_fields(source, tmp_path):
    output = OutputFile(tmp_path / "out.jsonl", read_rows(source), "s")
    output.append([(0, {"text": "ü"})])
    record = json.loads((tmp_path / "out.jsonl").read_text(encoding="utf-8"))
    assert record["id"] == 7 and record["text"] == "ü" and record["treewright"]["row"] == 0 and next(iter(record)) == "treewright"
    assert OutputFile(tmp_path / "out.jsonl", read_rows(source), "s").done == {0}


def test_every_cut_is_repaired(source, tmp_path):
    """Whatever byte a run was cut off at: what is whole stays, what is not goes, and then every row is there once."""
    rows, file = read_rows(source), tmp_path / "out.jsonl"
    answers = [(index, {"text": f"answer {index} \u00e9"}) for index in range(3)]
    OutputFile(file, rows, "s").append(answers)
    whole = file.read_bytes()
    for size in range(len(whole) + 1):
        file.write_bytes(whole[:size])
        output = OutputFile(file, rows, "s")
        assert len(output.done) == whole[:size].count(b"\n")
        output.append([answer for answer in answers if answer[0] not in output.done])
        assert file.read_bytes() == whole


@pytest.mark.parametrize("content", ["my notes", "my notes\n", '{"text": "a"}\n', '{"tree', '{"treewright": 5}\n', "5\n"])
def test_a_foreign_file_is_not_touched(source, tmp_path, content):
    file = tmp_path / "out.jsonl"
    file.write_text(content)
    if content == '{"tree':  # could be the beginning of a line of ours
        assert OutputFile(file, read_rows(source), "s").done == set()
    else:
        with pytest.raises(InputError, match="line 1: not a line of"):
            OutputFile(file, read_rows(source), "s")
    assert file.read_text() == content


def test_other_settings_and_other_prompts_are_refused(source, tmp_path):
    rows, file = read_rows(source), tmp_path / "out.jsonl"
    OutputFile(file, rows, "s").append([(1, {"text": ""})])
    with pytest.raises(InputError, match="line 1: decoded with another model, method or settings"):
        OutputFile(file, rows, "t")
    with pytest.raises(InputError, match="row 1 answers another prompt"):
        OutputFile(file, rows[1:], "s")
    with pytest.raises(InputError, match="row 1 answers another prompt"):
        OutputFile(file, rows[:1], "s")
