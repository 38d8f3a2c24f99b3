"""`treewright compare PROMPT`: the same prompt through several methods and peers, side by side."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.table import Table

from treewright.cli import options as option
from treewright.cli.command import PROMPT_HELP, check_folder, notes, output, print_json, read_prompt, run_command
from treewright.cli.models import load_models
from treewright.core.errors import UnknownOption
from treewright.core.recipe import Recipe
from treewright.plots import canvas

Against = Annotated[str | None, typer.Option("--against", metavar="PEER,...", help="Peers to run beside, such as transformers.")]
Plot = Annotated[Path | None, typer.Option("--plot", metavar="FILE", help="Draw the table: .png, .svg or .pdf.")]
Repeats = Annotated[int, typer.Option("--repeats", min=1, help="Runs of each; the median of their seconds counts.")]


def command(
    prompt: Annotated[str, typer.Argument(help=PROMPT_HELP)], methods: option.MethodNames,
    against: Against = None, model: option.ModelName = "default", others: option.With = None, method_options: option.Set = None,
    max_new_tokens: option.MaxNewTokens = 128, temperature: option.Temperature = 0.0, seed: option.Seed = 0,
    ignore_eos: option.IgnoreEos = False, repeats: Repeats = 3,
    schema: option.JsonSchema = None, regex: option.Regex = None, lark: option.GrammarFile = None, choice: option.Choice = None,
    dtype: option.Dtype = None, device: option.Device = None, compiled: option.Compile = False,
    plot: Plot = None, as_json: option.Json = False,
) -> None:  # fmt: skip
    """Decode one prompt with several methods, side by side.

    The first row is plain decoding, or llada where the model fills slots in any order: the others' texts and speeds are
    compared with its. Model calls are all forwards of the target, tokens per call the text's tokens over them.
    """
    names = option.recipes("--methods", methods)
    peers = option.names("--against", against) if against else []
    options, constraint = options_by_method(names, option.values(method_options)), option.constraint(schema, regex, lark, choice)
    if plot is not None:
        check_folder("--plot", plot)
        canvas.check(plot)
    prompt = read_prompt(prompt)
    scorers = {role for name in names for role in Recipe.of(name, options[name]).scorers()}
    target, models = load_models(model, option.pairs("--with", others), dtype, device, compiled, scorers=scorers)
    from treewright.interop.compare import compare

    rows = compare(
        target, prompt, names, against=peers, models=models, options=options, repeats=repeats,
        max_new_tokens=max_new_tokens, temperature=temperature, seed=seed, ignore_eos=ignore_eos,
        constraint=constraint,
    )  # fmt: skip
    if as_json:
        print_json([_record(row) for row in rows])
    else:
        _print(prompt, rows)
    if plot is not None:
        from treewright.plots.comparison import draw_comparison

        draw_comparison(rows, plot, title=prompt)
        notes().print(f"drew {plot}", soft_wrap=True)


def options_by_method(names: Sequence[str], values: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """The options each recipe gets: METHOD.KEY goes to that method, a bare KEY to every recipe that has such an option.
    Raises UnknownOption for one that no recipe has."""
    found: dict[str, dict[str, Any]] = {name: {} for name in names}
    for key, value in values.items():
        refusals = []
        for name in names:
            try:
                Recipe.of(name, {key: value})
            except UnknownOption as error:
                refusals.append(error)
            else:
                found[name][key] = value
        if len(refusals) == len(names):
            several = UnknownOption(f"option '{key}' belongs to none of {', '.join(names)}; see `treewright show METHOD`")
            raise refusals[0] if len(names) == 1 else several
    return found


def _record(row: Any) -> dict[str, Any]:
    return {field.name: getattr(row, field.name) for field in dataclasses.fields(row) if field.name != "trace"}


def _print(prompt: str, rows: Sequence[Any]) -> None:
    console = output()
    table = Table("method", box=None, pad_edge=False, header_style="bold")
    table.add_column("text")
    for title in ("model calls", "tokens per call", "seconds", f"to {rows[0].method}", "to peer"):
        table.add_column(title, justify="right")
    table.add_column("note")
    for row in rows:
        table.add_row(
            row.method, _verdict(row), _number(row.model_calls, "d"), _number(row.tokens_per_call, ".2f"),
            _number(row.seconds, ".3f"), _ratio(row.ratio_to_plain), _ratio(row.ratio_to_peer), row.note or "",
        )  # fmt: skip
    console.print(table)
    for names, text in _texts(rows).items():
        console.print(f"\n{names}", style="bold")
        console.print(prompt, style="dim", end="", soft_wrap=True)
        console.print(text, soft_wrap=True)


def _texts(rows: Sequence[Any]) -> dict[str, str]:
    """Each different text once, under the names of those that wrote it."""
    writers: dict[str, list[str]] = {}
    for row in rows:
        writers.setdefault(row.text, []).append(row.method)
    return {", ".join(names): text for text, names in writers.items()}


def _verdict(row: Any) -> str:
    """A row that is equal and has a note differs where the model's own rounding decides; the note says where."""
    return "differs" if not row.equal else "near tie" if row.note else "equal"


def _number(value: float | None, form: str) -> str:
    return "" if value is None else format(value, form)


def _ratio(value: float | None) -> str:
    return "" if value is None else f"{value:.2f}x"


def run(arguments: Sequence[str]) -> int:
    return run_command("compare", command, arguments)
