"""Constraints from the command line and from the library, on a model that knows nothing of them."""

from __future__ import annotations

import json
import re

import jsonschema
import pytest

import treewright as tw

SCHEMA = {
    "type": "object",
    "properties": {
        "name": {"type": "string", "maxLength": 6},
        "tags": {"type": "array", "items": {"enum": ["a", "bb"]}, "minItems": 1, "maxItems": 2},
        "age": {"type": "integer", "minimum": 0, "maximum": 120},
    },
    "required": ["name", "tags", "age"],
    "additionalProperties": False,
}
PATTERN = r"[a-d]{2,6}(-[0-9]{2})?"


@pytest.fixture
def schema_file(tmp_path):
    path = tmp_path / "schema.json"
    path.write_text(json.dumps(SCHEMA))
    return path


@pytest.mark.parametrize("method", ["plain", "token_recycling", "prompt_lookup", "jacobi", "lookahead"])
@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_finished_texts_are_valid_and_those_of_plain_decoding(model, method, temperature):
    loaded = tw.load(model)
    constraints = [tw.json_schema(SCHEMA), None, tw.regex(PATTERN), tw.json_schema(SCHEMA)]
    prompts = ["A record: ", "free ", "a code: ", "x"]
    settings = {"max_new_tokens": 80, "temperature": temperature, "seed": 3, "constraint": constraints}
    results = tw.generate(loaded, prompts, method, **settings)
    assert [r.tokens for r in results] == [r.tokens for r in tw.generate(loaded, prompts, **settings)]
    for result, constraint in zip(results, constraints, strict=True):
        if constraint is not None:
            assert result.finish_reason == "stop"
    for index in (0, 3):
        jsonschema.validate(json.loads(results[index].text), SCHEMA)
    assert re.fullmatch(PATTERN, results[2].text)
    assert not re.fullmatch(PATTERN, results[1].text)


def test_an_unfinished_text_says_so(model):
    result = tw.generate(tw.load(model), "a", max_new_tokens=5, constraint=tw.json_schema(SCHEMA))
    assert result.finish_reason == "length"
    assert result.text == '{"nam'


def test_streamed_pieces_fit(model):
    assert "".join(tw.stream(tw.load(model), "a", constraint=tw.choice(["yes", "no"]))) in ("yes", "no")


def test_the_command_takes_each_kind(run, model, schema_file, tmp_path):
    lark = tmp_path / "sum.lark"
    lark.write_text('start: /[1-3]/ "+" /[4-6]/')
    arguments = ("generate", "x", "--model", model, "--max-new-tokens", 80)
    jsonschema.validate(json.loads(run(*arguments, "--json-schema", schema_file).out), SCHEMA)
    assert re.fullmatch(PATTERN, run(*arguments, "--regex", PATTERN).out.strip())
    assert re.fullmatch(r"[1-3]\+[4-6]", run(*arguments, "--grammar", lark).out.strip())
    assert run(*arguments, "--choice", "left", "--choice", "right").out.strip() in ("left", "right")


def test_a_file_of_prompts_under_a_constraint_resumes_only_under_the_same(run, model, tmp_path):
    source, answers = tmp_path / "in.jsonl", tmp_path / "out.jsonl"
    source.write_text('{"prompt": "a"}\n{"prompt": "b"}\n')
    arguments = ("generate", "--model", model, "--input", source, "--output", answers)
    assert run(*arguments, "--choice", "yes", "--choice", "no").code == 0
    assert all(json.loads(line)["text"] in ("yes", "no") for line in answers.read_text().splitlines())
    assert run(*arguments, "--choice", "up", "--choice", "down").code == 2


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--regex", "("), ("regex (", "unclosed group")),
        (("--regex", "a", "--choice", "b"), ("--regex and --choice",)),
        (("--json-schema", "nowhere.json"), ("nowhere.json", "No such file")),
        (("--choice", ""), ("''",)),
    ],
)
def test_bad_constraints_are_one_line(refused, model, arguments, words):
    sentence = refused("generate", "x", "--model", model, *arguments)
    assert all(word in sentence for word in words), sentence


def test_what_a_constraint_cannot_be(model):
    with pytest.raises(tw.TreewrightError, match="constraint is 'yes'"):
        tw.generate(tw.load(model), "a", constraint="yes")
    with pytest.raises(tw.TreewrightError, match="list of 2"):
        tw.generate(tw.load(model), ["a"], constraint=[tw.regex("a"), None])
    with pytest.raises(tw.TreewrightError, match="no tokenizer"):
        tw.generate(tw.load(tw.load(model).model), [[1, 2]], constraint=tw.regex("a"))


def test_compare_takes_a_constraint_and_peers_do_not(run, refused, model, schema_file):
    arguments = ("compare", "A record: ", "--methods", "token_recycling", "--model", model, "--max-new-tokens", 80)
    rows = json.loads(run(*arguments, "--json-schema", schema_file, "--repeats", 1, "--json").out)
    assert len({row["text"] for row in rows}) == 1
    jsonschema.validate(json.loads(rows[0]["text"]), SCHEMA)
    assert rows[1]["model_calls"] < rows[0]["model_calls"]
    message = refused(*arguments, "--regex", "a+", "--against", "transformers")
    assert "transformers" in message and "constraint" in message


def test_a_check_sees_the_text_that_comes_out(model):
    """Half a character at the end is one character of the text, which the check is asked about."""
    loaded = tw.load("default")
    for seed in range(6):
        settings = {"temperature": 1.0, "max_new_tokens": 30, "seed": seed}
        result = tw.generate(loaded, "Once upon a time", "awrs", constraint=tw.check(lambda text: len(text) < 6), **settings)
        assert result.finish_reason != "stop" or len(result.text) < 6
