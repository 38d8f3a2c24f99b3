"""The acceptance task: the bigram baseline against a loop, its tree against brute force, and a whole small run."""

from __future__ import annotations

import json
from itertools import product
from pathlib import Path

import numpy as np
import pytest

from treewright.api import Loaded, generate
from treewright.bench.acceptance import Counted, Drafter, count, figures, read_beginnings, run
from treewright.bench.bigram import BigramTree, bigram_parts, count_bigrams, read_streams
from treewright.core.errors import InputError


def test_bigrams_are_counted_source_by_source() -> None:
    one, other = np.array([0, 1, 0, 1, 0, 2]), np.array([0, 2, 2])
    best, shares = count_bigrams({"one": one, "other": other}, 4)
    weight = {(0, 1): 2 / 6, (1, 0): 2 / 6, (0, 2): 1 / 6 + 1 / 3, (2, 2): 1 / 3}
    assert best[0, :2].tolist() == [2, 1]
    assert shares[0, :2] == pytest.approx([weight[0, 2] / (weight[0, 1] + weight[0, 2]), weight[0, 1] / (2 / 6 + 1 / 2)])
    assert (best[1, 0], best[2, 0]) == (0, 2) and shares[1, 0] == shares[2, 0] == 1
    assert (shares[3] == 0).all()
    with pytest.raises(InputError, match="20000 tokens is too large"):
        count_bigrams({"one": one}, 20_000)


def test_the_bigram_tree_has_the_largest_products() -> None:
    shares = np.array([[0.6, 0.3, 0.1], [0.5, 0.4, 0.1], [0.9, 0.1, 0.0]])
    successors = np.array([[1, 2, 0], [0, 2, 1], [2, 0, 1]])
    parents, tokens = BigramTree(successors, shares, 9)._make_tree(0, 9)
    paths, products = [()], [1.0]
    for parent, token in zip(parents, tokens, strict=True):
        above = paths[parent][-1] if parent else 0
        paths.append((*paths[parent], token))
        products.append(products[parent] * shares[above][successors[above].tolist().index(token)])
    every = []
    for depth in range(1, 6):
        for path in product(range(3), repeat=depth):
            steps = zip((0, *path), path, strict=False)
            every.append(float(np.prod([shares[above][successors[above].tolist().index(token)] for above, token in steps])))
    assert sorted(products[1:], reverse=True) == pytest.approx(sorted(every, reverse=True)[:9])
    assert len(set(paths)) == 10


def test_a_short_table_leaves_claims_absent(tiny: Loaded) -> None:
    successors, shares = np.zeros((300, 1), np.int64), np.zeros((300, 1))
    shares[5] = 1.0
    parents, tokens = BigramTree(successors, shares, 4)._make_tree(5, 4)
    assert (parents, tokens) == ([0, 0, 0, 0], [0, -1, -1, -1])
    found = count(
        tiny, Drafter("bigram", "plain", {}, lambda: bigram_parts(successors, shares, 4)), read_beginnings(tiny, None, 0)[:2], 8
    )
    plain = [
        generate(tiny, beginning.ids, max_new_tokens=8, ignore_eos=True).tokens
        for beginning in read_beginnings(tiny, None, 0)[:2]
    ]
    assert [one.tokens for one in found] == plain


def test_figures_are_tokens_over_rounds() -> None:
    loop, text = [7] * 12, list(range(12))
    found = [Counted("prose", loop, 3), Counted("prose", text, 6), Counted("code", text, 12)]
    assert figures(found) == ["1.71", "1.33", "2.67", "1.00"]


def test_a_run_on_a_tiny_model(model_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for part, size in (("train", 2000), ("held_out", 400)):
        for name in ("one", "two"):
            np.save(tmp_path / f"{name}.{part}.npy", np.random.default_rng(size).integers(0, 300, size).astype(np.uint16))
    options = [
        "--model",
        str(model_folder),
        "--heads",
        "random",
        "--untrained",
        "random",
        "--tokens",
        str(tmp_path),
        "--held-out",
        "3",
    ]
    assert run([*options, "--nodes", "3", "--max-new-tokens", "6", "--json", str(tmp_path / "found.jsonl")]) == 0
    records = [json.loads(line) for line in (tmp_path / "found.jsonl").read_text().splitlines()]
    names = ["prompt_lookup", "token_recycling", "bigram table", "medusa, untrained", "medusa"]
    assert [record["drafter"] for record in records] == names
    assert all(record["texts"] == 27 and record["tokens_per_call"] >= 1 for record in records)
    assert "| bigram table" in capsys.readouterr().out


def test_a_folder_without_tokens_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"holds no \*\.train\.npy"):
        read_streams(tmp_path, "train")
