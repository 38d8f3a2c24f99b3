"""Public names stay what they are, whatever else is imported."""

import subprocess
import sys


def test_methods_lists_cards_after_a_method_was_imported() -> None:
    code = "import treewright as tw, treewright.methods.speculate.plain as plain; print(len(tw.methods()), plain.CARD['year'])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert int(done.stdout.split()[0]) > 50
