"""The command's entry point: finds the verb, imports that verb's file alone, and makes every user error one line."""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Sequence

from treewright import __version__
from treewright.core.errors import InputError, TreewrightError, choices

VERBS = {
    "methods": "list the installed methods",
    "show": "one method: its paper, options, claims and needs",
    "generate": "decode a prompt, or a file of prompts",
    "compare": "decode one prompt with several methods, side by side",
    "certify": "prove on a model that methods give what they claim",
    "plot": "draw how a text was decoded, from its trace",
    "train": "train a bundled model from its recipe",
    "bench": "measure speed and the cost of verification",
}
"""Each verb is the module of its name in this package, which has `run(arguments) -> exit code`."""

BAD_INPUT = 2
INTERRUPTED = 130
BROKEN_PIPE = 141


def main(argv: Sequence[str] | None = None) -> int:
    """Runs one command line (without the program's name; None for that of this process) and returns the exit code.

    0: done. 1: done, and what was checked does not hold (certify). 2: bad input, with one line on standard error.
    """
    arguments = list(sys.argv[1:] if argv is None else argv)
    try:
        return _dispatch(arguments)
    except TreewrightError as error:
        return _complain(arguments, str(error))
    except OSError as error:
        if isinstance(error, BrokenPipeError):
            # The reader has gone (`treewright methods | head`); keeps Python from complaining again at exit.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            return BROKEN_PIPE
        if error.filename is None:
            raise
        return _complain(arguments, f"cannot read or write '{error.filename}': {error.strerror}")
    except KeyboardInterrupt:
        return INTERRUPTED


def _dispatch(arguments: list[str]) -> int:
    if not arguments:
        raise InputError(f"give a command, one of: {', '.join(VERBS)}; `treewright --help` says what each does")
    verb = arguments[0]
    if verb in ("--help", "-h"):
        print(_overview())
        return 0
    if verb == "--version":
        print(f"treewright {__version__}")
        return 0
    if verb not in VERBS:
        raise InputError(f"unknown command '{verb}'; {choices(verb, VERBS)}")
    return importlib.import_module(f"treewright.cli.{verb}").run(arguments[1:])


def _overview() -> str:
    lines = [f"  {verb:<10}{summary}" for verb, summary in VERBS.items()]
    more = ["`treewright COMMAND --help` lists a command's options.", "`treewright --version` says which version this is."]
    return "\n".join(["usage: treewright COMMAND ...", "", *lines, "", *more])


def _complain(arguments: Sequence[str], sentence: str) -> int:
    verb = f"treewright {arguments[0]}" if arguments and arguments[0] in VERBS else "treewright"
    # A task of `bench` names itself, more closely than we could.
    prefix = "" if sentence.startswith(verb) else f"{verb}: "
    print(prefix + " ".join(sentence.splitlines()), file=sys.stderr)
    return BAD_INPUT


if __name__ == "__main__":
    sys.exit(main())
