"""`treewright train NAME`: trains a bundled model from its recipe, or heads beside a model."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from treewright.cli.command import notes, run_command
from treewright.cli.models import quiet
from treewright.core.errors import InputError


def command(
    name: Annotated[str, typer.Argument(help="The recipe, such as default, or medusa and specdec_pp (heads for --model).")],
    data: Annotated[Path | None, typer.Option("--data", metavar="DIR", help="The folder that holds the corpora.")] = None,
    out: Annotated[Path | None, typer.Option("--out", metavar="DIR", help="Run folder: checkpoints and tokens.")] = None,
    tokens: Annotated[int | None, typer.Option("--tokens", min=0, help="Training tokens, instead of the recipe's.")] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on from the checkpoint in the run folder.")] = False,
    export: Annotated[Path | None, typer.Option("--export", metavar="DIR", help="Folder of the finished model.")] = None,
    teacher: Annotated[
        Path | None,
        typer.Option("--teacher", metavar="DIR", help="What a draft or a masked model starts from."),
    ] = None,
    model: Annotated[str | None, typer.Option("--model", help="The model that heads are trained for (else default).")] = None,
    draft: Annotated[str | None, typer.Option("--draft", help="The draft model of a head that is for a pair.")] = None,
) -> None:
    """Train a bundled model from its recipe, or heads beside a model that stays as it is."""
    if data is not None and not data.is_dir():
        raise InputError(f"--data is '{data}', which is not a folder; give the folder that holds the corpora")
    quiet()
    from treewright.train.checkpoint import CheckpointError
    from treewright.train.plug_in_recipes import PLUG_INS, run_plug_in
    from treewright.train.recipes import find_recipe
    from treewright.train.recipes import run as train

    console, plug_in = notes(), PLUG_INS.get(name)
    unused = "--teacher" if plug_in and teacher else "--model" if model and not plug_in else None
    unused = unused or ("--draft" if draft and not (plug_in and plug_in.draft) else None)
    if unused:
        raise InputError(f"{unused} was given with the recipe '{name}', which does not use it; leave it out")
    if tokens == 0 and plug_in is None:
        raise InputError(f"--tokens is 0, which leaves nothing of the recipe '{name}'; give an integer >= 1")
    settings: dict[str, Any] = dict(tokens=tokens, resume=resume, export=export)
    settings["log"] = lambda line: console.print(line, soft_wrap=True)
    try:
        if plug_in is not None:
            if data is None:
                raise InputError(f"recipe '{name}' needs the folder that holds the corpora; give --data DIR")
            finished = run_plug_in(plug_in, data, out, model=model or "default", draft=draft, **settings)
        else:
            finished = train(find_recipe(name), data, out, teacher=teacher, **settings)
    except (ValueError, CheckpointError) as error:
        raise InputError(str(error)) from error
    print(finished)


def run(arguments: Sequence[str]) -> int:
    return run_command("train", command, arguments)
