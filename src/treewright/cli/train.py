"""`treewright train NAME`: trains a bundled model from its recipe."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

from treewright.cli.command import notes, run_command
from treewright.cli.models import quiet
from treewright.core.errors import InputError


def command(
    name: Annotated[str, typer.Argument(help="The recipe, such as default, default-draft or default-masked.")],
    data: Annotated[Path | None, typer.Option("--data", metavar="DIR", help="The folder that holds the corpora.")] = None,
    out: Annotated[Path | None, typer.Option("--out", metavar="DIR", help="Run folder: checkpoints and tokens.")] = None,
    tokens: Annotated[int | None, typer.Option("--tokens", min=1, help="Training tokens, instead of the recipe's.")] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on from the checkpoint in the run folder.")] = False,
    export: Annotated[Path | None, typer.Option("--export", metavar="DIR", help="Folder of the finished model.")] = None,
    teacher: Annotated[
        Path | None,
        typer.Option("--teacher", metavar="DIR", help="What a draft or a masked model starts from."),
    ] = None,
) -> None:
    """Train a bundled model from its recipe."""
    if data is not None and not data.is_dir():
        raise InputError(f"--data is '{data}', which is not a folder; give the folder that holds the corpora")
    quiet()
    from treewright.train.checkpoint import CheckpointError
    from treewright.train.recipes import find_recipe
    from treewright.train.recipes import run as train

    console = notes()
    try:
        finished = train(
            find_recipe(name), data, out, tokens=tokens, resume=resume, export=export, teacher=teacher,
            log=lambda line: console.print(line, soft_wrap=True),
        )  # fmt: skip
    except (ValueError, CheckpointError) as error:
        raise InputError(str(error)) from error
    print(finished)


def run(arguments: Sequence[str]) -> int:
    return run_command("train", command, arguments)
