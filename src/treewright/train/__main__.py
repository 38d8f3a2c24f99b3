"""`python -m treewright.train NAME --data DIR`: a thin command over `recipes.run`."""

from __future__ import annotations

import argparse
from pathlib import Path

import torch

from .recipes import LIST_RECIPES, RECIPES, run


def main() -> None:
    """Parse the command line and run one recipe."""
    parser = argparse.ArgumentParser(prog="python -m treewright.train", description=__doc__)
    parser.add_argument("name", choices=sorted(RECIPES | LIST_RECIPES))
    parser.add_argument("--data", type=Path, help="folder with the corpora, for recipes that read them")
    parser.add_argument("--out", type=Path, help="run folder (checkpoints, tokens)")
    parser.add_argument("--tokens", type=int, help="token budget instead of the recipe's")
    parser.add_argument("--resume", action="store_true", help="continue from the checkpoint")
    parser.add_argument("--export", type=Path, help="folder of the finished model")
    parser.add_argument("--teacher", type=Path, help="exported model that a draft learns from")
    parser.add_argument("--preview", type=Path, help="folder of early exports")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    export = run(
        options.name,
        options.data,
        options.out,
        tokens=options.tokens,
        resume=options.resume,
        export=options.export,
        teacher=options.teacher,
        preview=options.preview,
    )
    print(f"exported to {export}")


if __name__ == "__main__":
    main()
