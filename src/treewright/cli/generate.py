"""`treewright generate`: one prompt from the command line, or a file of them (batches.py)."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import typer

from treewright.cli import options as option
from treewright.cli.answers import answer, sample
from treewright.cli.batches import Batches
from treewright.cli.command import PROMPT_HELP, check_folder, notes, print_json, read_prompt, run_command
from treewright.cli.models import load_models
from treewright.core.errors import InputError
from treewright.core.recipe import Recipe
from treewright.core.request import Budget, Request, Sampling


@dataclass(frozen=True, slots=True)
class Destination:
    """Where the answer goes."""

    as_json: bool
    trace: Path | None


def command(
    prompt: Annotated[str | None, typer.Argument(help=PROMPT_HELP)] = None,
    model: option.ModelName = "default", others: option.With = None,
    method: option.Method = "plain", method_options: option.Set = None,
    max_new_tokens: option.MaxNewTokens = 128, min_new_tokens: option.MinNewTokens = 0,
    temperature: option.Temperature = 0.0, top_k: option.TopK = None, top_p: option.TopP = None,
    min_p: option.MinP = None, typical_p: option.TypicalP = None, repetition_penalty: option.RepetitionPenalty = 1.0,
    presence_penalty: option.PresencePenalty = 0.0, frequency_penalty: option.FrequencyPenalty = 0.0,
    seed: option.Seed = 0, samples: option.Samples = 1, stop: option.Stop = None, ignore_eos: option.IgnoreEos = False,
    budget_calls: option.BudgetCalls = None, budget_seconds: option.BudgetSeconds = None,
    schema: option.JsonSchema = None, regex: option.Regex = None, lark: option.GrammarFile = None, choice: option.Choice = None,
    dtype: option.Dtype = None, device: option.Device = None, compiled: option.Compile = False,
    input_file: option.InputFile = None, output_file: option.OutputFile = None, batch_rows: option.BatchRows = 16,
    logprobs: option.Logprobs = False, trace: option.TraceFile = None, as_json: option.Json = False,
) -> None:  # fmt: skip
    """Decode a prompt, or a file of prompts.

    Tokens are those of all samples that come out; model calls the target's forwards for the prompt, those of rows that were
    not chosen included; tokens per call the one over the other.
    """
    sampling = Sampling(temperature, top_k, top_p, min_p, typical_p, repetition_penalty, presence_penalty, frequency_penalty)
    settings: dict[str, Any] = dict(
        max_new_tokens=max_new_tokens, min_new_tokens=min_new_tokens, sampling=sampling, seed=seed, samples=samples,
        stop=tuple(stop or ()), ignore_eos=ignore_eos, budget=Budget(None, budget_calls, budget_seconds), batch_rows=batch_rows,
        logprobs=logprobs,
    )  # fmt: skip
    Request(prompts=((0,),), **settings)  # refuses a wrong value before a model is loaded
    settings["constraint"] = option.constraint(schema, regex, lark, choice)
    if logprobs and not as_json and output_file is None:
        raise InputError("--logprobs was given, but text alone has no place for them; give --json, or --input and --output")
    check_folder("--trace", trace)
    check_folder("--output", output_file)
    recipe = Recipe.of(method, option.values(method_options))
    loading = (model, option.pairs("--with", others), dtype, device, compiled)
    if input_file is None and output_file is None:
        if prompt is None:
            raise InputError("no prompt; give PROMPT ('-' for standard input), or --input FILE.jsonl --output FILE.jsonl")
        _one(read_prompt(prompt), recipe, settings, loading, Destination(as_json, trace))
        return
    if input_file is None or output_file is None or prompt is not None or trace is not None:
        raise InputError("--input and --output go together, and without PROMPT and --trace")
    account = Batches(input_file, output_file, recipe, settings, loading).run(notes())
    if as_json:
        print_json(account)


class _Printer:
    """Listener that prints pieces of text as they come."""

    def hear(self, prompt: int, sample: int, tokens: list[int], piece: str, finished: bool) -> bool:
        print(piece, end="\n" if finished else "", flush=True)
        return True


def _one(prompt: str, recipe: Recipe, settings: dict[str, Any], loading: tuple[Any, ...], destination: Destination) -> None:
    target, others = load_models(*loading, scorers=recipe.scorers())
    from treewright.api import prepare

    job = prepare(target, [prompt], recipe.name, _method_options(recipe), others, settings)
    live = sys.stdout.isatty() and settings["samples"] == 1 and not destination.as_json
    result = job.finish(_Printer() if live else None)[0]
    trace = result.trace
    if destination.as_json:
        seconds = {"seconds": trace.seconds, "seconds_in_model": trace.seconds_in_model}
        samples = {"samples": [sample(one) for one in result.samples]}
        print_json({"prompt": prompt, "model": target.name, **recipe.to_json(), **answer(result), **seconds, **samples})
    elif not live:
        _print_samples([sample.text for sample in result.samples])
    if destination.trace is not None:
        _write_trace(destination.trace, prompt, result, target.tokenizer)
    notes().print(
        f"{recipe}: {_tokens(result)}, {trace.model_calls} model calls, {result.tokens_per_call:.2f} tokens per call, "
        f"{trace.seconds:.2f} s ({_endings(result, settings)})",
        soft_wrap=True,
    )


def _tokens(result: Any) -> str:
    """The new tokens that are printed, and among what they were chosen."""
    tokens, among = sum(len(one.tokens) for one in result.samples), result.trace.chosen_among
    several = f" in {len(result.samples)} samples" if len(result.samples) > 1 else ""
    return f"{tokens} tokens{several}" + ("" if among is None else f" (chosen among {among})")


def _endings(result: Any, settings: dict[str, Any]) -> str:
    """How the samples ended, and a warning where that leaves a constrained text unfinished, or a search found too few."""
    reasons = list(dict.fromkeys(sample.finish_reason for sample in result.samples))
    unfinished = settings["constraint"] is not None and reasons != ["stop"]
    sentence = ", ".join(reasons) + ("; what did not end with 'stop' is only the beginning of a valid text" if unfinished else "")
    given, wanted = len(result.samples), settings["samples"]
    return sentence + (f"; {given} of the {wanted} texts that were asked for, no other was found" if given < wanted else "")


def _method_options(recipe: Recipe) -> dict[str, Any]:
    return {f"{method}.{name}": value for method, name, value in recipe.options}


def _print_samples(texts: list[str]) -> None:
    for number, text in enumerate(texts, start=1):
        if len(texts) > 1:
            print(f"--- sample {number} of {len(texts)}")
        print(text)


def _write_trace(path: Path, prompt: str, result: Any, tokenizer: Any) -> None:
    """The trace with the words its token ids stand for, so that a picture of it can be read."""
    ids = sorted({token for step in result.trace.steps for token in (*step.token, *step.emitted) if token >= 0})
    result.trace.notes |= {
        "prompt": prompt, "text": result.text, "samples": len(result.samples),
        "pieces": {str(token): tokenizer.decode([token]) for token in ids},
    }  # fmt: skip
    path.write_text(result.trace.to_json(), encoding="utf-8")


def run(arguments: Sequence[str]) -> int:
    return run_command("generate", command, arguments)
