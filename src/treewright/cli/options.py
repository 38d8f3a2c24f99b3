"""The options that several verbs take, each written once, and reading their values."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from treewright.core import grammar as grammars
from treewright.core.errors import InputError
from treewright.core.grammar import Grammar
from treewright.core.recipe import Recipe, option_value

Texts = list[str] | None

ModelName = Annotated[str, typer.Option("--model", help="A bundled name, a transformers id, or a folder.")]
With = Annotated[Texts, typer.Option("--with", metavar="ROLE=MODEL", help="Such as draft=default-draft, reward=FOLDER[#LABEL].")]
Set = Annotated[Texts, typer.Option("--set", metavar="[METHOD.]KEY=VALUE", help="Method options; see `treewright show`.")]
Method = Annotated[str, typer.Option("--method", help="A method's name or alias, or some joined by '+'.")]
MaxNewTokens = Annotated[int, typer.Option("--max-new-tokens", help="New tokens at most.")]
MinNewTokens = Annotated[int, typer.Option("--min-new-tokens", help="New tokens at least.")]
Temperature = Annotated[float, typer.Option("--temperature", help="0 is greedy.")]
TopK = Annotated[int | None, typer.Option("--top-k", help="Sample from the K most probable tokens.")]
TopP = Annotated[float | None, typer.Option("--top-p", help="Sample from the most probable tokens that hold P of the mass.")]
MinP = Annotated[float | None, typer.Option("--min-p", help="Leave out tokens below P times the most probable one.")]
TypicalP = Annotated[float | None, typer.Option("--typical-p", help="Sample from the tokens nearest to the entropy that hold P.")]
RepetitionPenalty = Annotated[float, typer.Option("--repetition-penalty", help="Divides the logits of tokens seen before.")]
PresencePenalty = Annotated[float, typer.Option("--presence-penalty", help="Taken off the logit of a token generated before.")]
FrequencyPenalty = Annotated[float, typer.Option("--frequency-penalty", help="Taken off for each time it was generated.")]
Seed = Annotated[int, typer.Option("--seed", help="The same seed gives the same text on a model that has learned the same.")]
Samples = Annotated[int, typer.Option("-n", help="Samples of each prompt.")]
Stop = Annotated[Texts, typer.Option("--stop", metavar="TEXT", help="End the text before this; may be repeated.")]
IgnoreEos = Annotated[bool, typer.Option("--ignore-eos", help="Go on after an end-of-text token.")]
BudgetCalls = Annotated[int | None, typer.Option("--budget-calls", help="Model calls at most (for a file: of each batch).")]
BudgetSeconds = Annotated[float | None, typer.Option("--budget-seconds", help="Seconds at most (for a file: of each batch).")]
Dtype = Annotated[str | None, typer.Option("--dtype", help="float32, bfloat16, float16, float64; else the checkpoint's own.")]
Device = Annotated[str | None, typer.Option("--device", help="cpu, cuda or cuda:N.")]
Compile = Annotated[bool, typer.Option("--compile", help="Compile the model's step: seconds for each new shape, then faster.")]
BatchRows = Annotated[int, typer.Option("--batch-rows", help="Rows decoded at once.")]
InputFile = Annotated[Path | None, typer.Option("--input", metavar="FILE.jsonl", help='Lines with "prompt" or "tokens".')]
OutputFile = Annotated[Path | None, typer.Option("--output", metavar="FILE.jsonl", help="Answers; a cut-off run resumes.")]
TraceFile = Annotated[Path | None, typer.Option("--trace", metavar="FILE.json", help="Write the trace, for `treewright plot`.")]
Logprobs = Annotated[bool, typer.Option("--logprobs", help="JSON holds the log-probability of each token, warpers aside.")]
Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]
JsonSchema = Annotated[Path | None, typer.Option("--json-schema", metavar="FILE", help="Only JSON that is valid under this.")]
Regex = Annotated[str | None, typer.Option("--regex", metavar="PATTERN", help="Only text that this matches as a whole.")]
GrammarFile = Annotated[Path | None, typer.Option("--grammar", metavar="FILE.lark", help="Only text of this Lark grammar.")]
Choice = Annotated[Texts, typer.Option("--choice", metavar="TEXT", help="Only one of these texts; repeat it for each.")]
MethodNames = Annotated[str, typer.Option("--methods", "--method", metavar="A,B,C", help="Names separated by commas.")]


def pairs(option: str, written: Sequence[str] | None) -> dict[str, str]:
    """["a=b", ...] as {"a": "b", ...}. Raises InputError for one without '=' or a key that comes twice."""
    found: dict[str, str] = {}
    for text in written or ():
        key, equals, value = text.partition("=")
        if not equals or not key.strip() or not value:
            raise InputError(f"{option} is '{text}'; write {'ROLE=MODEL' if option == '--with' else '[METHOD.]KEY=VALUE'}")
        if key.strip() in found:
            raise InputError(f"{option} gives '{key.strip()}' twice ('{found[key.strip()]}' and '{value}'); give it once")
        found[key.strip()] = value
    return found


def values(written: Sequence[str] | None) -> dict[str, Any]:
    """The pairs of --set; a value that is JSON is read as JSON, any other is text."""
    return {key: option_value(text) for key, text in pairs("--set", written).items()}


def names(option: str, written: str) -> list[str]:
    """ "a,b" as ["a", "b"]. Raises InputError for an empty name or one that comes twice."""
    found = [name.strip() for name in written.split(",")]
    if not all(found):
        raise InputError(f"{option} is '{written}'; write names separated by commas, such as plain,token_recycling")
    twice = next((name for name in found if found.count(name) > 1), None)
    if twice is not None:
        raise InputError(f"{option} names '{twice}' twice; name it once")
    return found


def recipes(option: str, written: str) -> list[str]:
    """As `names`, aliases as the names of their methods. Raises UnknownMethod and CompositionError, too."""
    called: dict[str, str] = {}
    for name in names(option, written):
        recipe = Recipe.of(name).name
        if recipe in called:
            raise InputError(f"{option} names '{recipe}' twice ('{called[recipe]}' and '{name}'); name it once")
        called[recipe] = name
    return list(called)


def constraint(schema: Path | None, pattern: str | None, lark: Path | None, texts: Sequence[str] | None) -> Grammar | None:
    """The constraint that a command line asks for, None for none. Raises InputError for two of them, or a bad one."""
    given = {
        "--json-schema": None if schema is None else lambda: grammars.json_schema(_read("--json-schema", schema)),
        "--regex": None if pattern is None else lambda: grammars.regex(pattern),
        "--grammar": None if lark is None else lambda: grammars.grammar(_read("--grammar", lark)),
        "--choice": None if texts is None else lambda: grammars.choice(texts),
    }
    asked = {name: make for name, make in given.items() if make is not None}
    if len(asked) > 1:
        raise InputError(f"{' and '.join(asked)} were given; a text has one constraint, so choose one")
    return next((make() for make in asked.values()), None)


def _read(option: str, path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise InputError(f"{option} '{path}' is not UTF-8 ({error.reason} at byte {error.start}); encode it as UTF-8") from error
