"""`treewright bench TASK ...`: a task is a module with `run(argv) -> int`."""

from __future__ import annotations

import importlib

from treewright.core.errors import InputError, choices

TASKS = {
    "speed": "our methods, plain decoding and transformers on the same prompts in one run",
    "spec": "the Spec-Bench protocol: every lossless drafter by task, accepted depths, and a cost model beside the measurement",
    "stream": "a method that adapts, over a stream whose kind of text changes, beside methods that do not",
    "predict": "speed-ups on another model or machine, from the counts of a run and a curve of costs",
    "draft": "which draft model and chain length pay by a curve of costs, and what acceptance a wanted gain takes",
    "profile": "acceptance by rank and times of calls of a target and its draft model, as `sequoia` reads them",
    "acceptance": "tokens per call of drafters on texts that no training saw; counts only",
    "verify-cost": "what a round over 1 to 96 claims costs, and which tree size pays",
    "masked": "accuracy and calls of the samplers of a masked model on list operations",
}


def run(task: str, argv: list[str]) -> int:
    """Runs one task with its own options (`--help` lists them) and returns the exit code.

    A Markdown table goes to standard output, progress to standard error, and with `--json FILE` one JSON record a line to
    FILE. Raises InputError for an unknown task or a wrong option, and what loading a model raises.
    """
    if task not in TASKS:
        raise InputError(f"unknown bench task '{task}'; {choices(task, TASKS)}")
    module = importlib.import_module(f"treewright.bench.{task.replace('-', '_')}")
    try:
        return module.run(argv)
    except SystemExit as ended:  # argparse ends the process after --help
        return int(ended.code or 0)
