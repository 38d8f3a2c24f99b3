"""Medusa: the released tree, and claims against heads that are computed by hand from the state behind the frontier."""

from __future__ import annotations

import os
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import treewright
from treewright.core.claims import ABSENT
from treewright.core.errors import CapabilityError, InputError, UnknownOption
from treewright.core.recipe import Recipe
from treewright.core.request import Sampling
from treewright.core.roles import Parts, Verdict
from treewright.methods.speculate.medusa import Config, paper_tree, tree
from treewright.models.loading import Loaded, load
from treewright.models.tables import HIDDEN_SIZE, Table
from treewright.parts.heads.medusa_file import save_heads
from treewright.parts.heads.medusa_heads import MedusaHeads
from treewright.parts.heads.source import random_heads
from treewright.parts.verify.sample_then_match import SampleThenMatch
from treewright.testing import laws

TABLE = Table(8, seed=2, order=2, sharpness=2.0)
PROMPTS = [(1, 2, 3, 4), (5,), (6, 7, 1)]
RANDOM: dict[str, Any] = {"heads": "random"}
# Children of each node of the released tree, by the ranks on the way to it.
CHILDREN = """
root:10
0:10 1:7 2:3 3:2 4:1 5:1 6:1 7:1 8:1 9:1
00:10 01:3 02:2 03:1 04:1 05:1 06:1 07:1 10:2 20:1
000:2
"""


def guesses(prefix: list[int], count: int, table: Table = TABLE) -> np.ndarray:
    """What each of the random heads says after `prefix` with its last token left out, by numpy, [heads, count]."""
    heads = random_heads(HIDDEN_SIZE, table.vocabulary).double()
    weights = {name: value.numpy() for name, value in heads.state_dict().items()}
    state, found = table.hidden(prefix[:-1]), []
    for head in range(4):
        z = weights[f"blocks.{head}.0.linear.weight"] @ state + weights[f"blocks.{head}.0.linear.bias"]
        logits = weights["projections.0.weight"] @ (state + z / (1 + np.exp(-z)))
        found.append(np.argsort(-logits, kind="stable")[:count])
    return np.array(found)


def test_released_tree_has_its_published_structure():
    paths = paper_tree()
    assert len(paths) == len(set(paths)) == 63
    assert Counter(map(len, paths)) == {1: 10, 2: 28, 3: 23, 4: 2}
    assert paths[:7] == ((0,), (0, 0), (1,), (0, 1), (2,), (0, 0, 0), (1, 0))
    counted = Counter(path[:-1] for path in paths)
    written = {name.replace("root", ""): int(count) for name, count in (entry.split(":") for entry in CHILDREN.split())}
    assert {"".join(map(str, parent)): count for parent, count in counted.items()} == written
    for parent, count in counted.items():
        assert {path[-1] for path in paths if path[:-1] == parent} == set(range(count))


@pytest.mark.parametrize(
    ("nodes", "heads", "vocabulary"), [(63, 4, 50), (1, 4, 50), (7, 4, 50), (24, 2, 50), (63, 3, 4), (200, 5, 50)]
)
def test_smaller_trees_are_the_beginning_of_the_list(nodes: int, heads: int, vocabulary: int):
    shape, head, rank = tree(paper_tree(), nodes, heads, vocabulary)
    usable = [path for path in paper_tree() if len(path) <= heads and max(path) < vocabulary]
    found = set()
    for column in range(1, shape.columns):
        path = shape.path(0, column)
        assert head[column - 1] == len(path) - 1
        found.add(tuple(int(rank[step - 1]) for step in path))
    assert found == set(usable[:nodes])
    assert len(found) == shape.columns - 1


def check_claims(outcome: Any, seen: list[int]) -> None:
    """Every claim of the round that could become text is the guess its rank path names, from the state behind the frontier."""
    round = outcome.round
    _, head, rank = tree(paper_tree(), 24, 4, 8)
    for row, emitted in enumerate(outcome.emitted):
        text = round.text.of(row).tolist()
        prefix = text[: len(text) - len(emitted)]
        claims = round.forest.token[row, 1:]
        if len(prefix) == 1:
            assert (claims == ABSENT).all()
            continue
        present = claims != ABSENT
        deepest = int(round.text.remaining()[row]) + len(emitted) - 1
        assert (present == (round.forest.shape.depth[0, 1:] <= deepest)).all()
        assert claims[present].tolist() == guesses(prefix, 10)[head, rank][present].tolist()
        seen.append(len(prefix))


@pytest.mark.parametrize("samples", [1, 3])
def test_claims_are_the_heads_guesses_behind_the_frontier(samples: int, decode: Any, watcher: Any):
    seen: list[int] = []
    watch = watcher(lambda outcome: check_claims(outcome, seen))
    settings = dict(samples=samples, batch_rows=2, sampling=Sampling(1.0), seed=1)
    decoded = decode(TABLE, "medusa", PROMPTS, RANDOM | {"nodes": 24}, observers=[watch], max_new_tokens=12, **settings)
    # From the first round on: reading the prompt has left the state that predicts its last token.
    assert {3, 4} <= set(seen)
    assert decoded.accepted() > 5


class Reverse(SampleThenMatch):
    """Rows change places in every round, as a search would have them."""

    def verify(self, round: Any, law: Any) -> Verdict:
        verdict, order = super().verify(round, law), list(range(round.rows))[::-1]
        return Verdict([verdict.paths[row] for row in order], [verdict.extra[row] for row in order], rows=order)


def test_the_state_moves_along_when_rows_are_forked(decode: Any, watcher: Any):
    from treewright.methods.speculate import medusa

    seen: list[int] = []
    watch = watcher(lambda outcome: check_claims(outcome, seen))
    parts = medusa.parts(Config(heads="random", nodes=24))
    forking = Parts(propose=parts.propose, verify=Reverse(), claims=parts.claims, hidden=True)
    prompts = [(1, 2, 3, 4), (6, 7, 1, 5)]
    decode(TABLE, forking, prompts, observers=[watch], max_new_tokens=10, sampling=Sampling(1.0))
    assert len(seen) >= 6


@pytest.mark.parametrize("options", [{"choices": ((0,), (0, 0), (0, 0, 0))}], ids=str)
def test_the_law_holds_for_other_trees(options: dict[str, Any]):
    report = laws.lossless("medusa", options)
    assert report.worst <= 1e-9
    assert 0 < report.total("accepted") < report.total("proposed")


def test_sampled_text_is_that_of_plain_sampling():
    assert laws.follows_plain("medusa")


@pytest.fixture(scope="module")
def tiny() -> Loaded:
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=60, hidden_size=32, intermediate_size=48, num_attention_heads=4, num_key_value_heads=2, head_dim=8,
        num_hidden_layers=2, max_position_embeddings=128, initializer_range=0.4, eos_token_id=None,
    )  # fmt: skip
    return load(LlamaForCausalLM(config).double())


@pytest.fixture(scope="module")
def alibi() -> Loaded:
    """A model without positions, which has no native trees."""
    from transformers import BloomConfig, BloomForCausalLM

    torch.manual_seed(4)
    config = BloomConfig(vocab_size=60, hidden_size=32, n_head=4, n_layer=2, initializer_range=0.3, eos_token_id=None)
    return load(BloomForCausalLM(config).double())


@pytest.mark.parametrize("family", ["tiny", "alibi"])
@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_ragged_batches_of_a_transformers_model_say_what_plain_says(family: str, temperature: float, request: Any):
    model = request.getfixturevalue(family)
    prompts = [[3, 14, 15, 9, 26], [5], [35, 8, 9, 7, 9, 3, 2, 3, 8]]
    settings = dict(max_new_tokens=16, temperature=temperature, seed=3)
    plain = treewright.generate(model, prompts, "plain", **settings)
    together = treewright.generate(model, prompts, "medusa", RANDOM | {"nodes": 20}, **settings)
    alone = [treewright.generate(model, prompt, "medusa", RANDOM | {"nodes": 20}, **settings) for prompt in prompts]
    assert [result.tokens for result in together] == [result.tokens for result in plain]
    if temperature == 0:
        assert [result.tokens for result in alone] == [result.tokens for result in plain]


@pytest.mark.parametrize("family", ["tiny", "alibi"])
def test_the_state_of_a_transformers_model_is_the_bare_model_s(family: str, decode: Any, watcher: Any, request: Any):
    """In every round of every row, the first too, claims come from the state that predicted the frontier."""
    model, heads = request.getfixturevalue(family), random_heads(32, 60).double()

    def look(outcome: Any) -> int:
        round, checked = outcome.round, 0
        for row, emitted in enumerate(outcome.emitted):
            text = round.text.of(row)
            prefix = text[: len(text) - len(emitted)]
            if len(prefix) > 1:
                with torch.no_grad():
                    output = model.model(torch.from_numpy(prefix)[None], output_hidden_states=True)
                expected = heads(output.hidden_states[-1][0, -2]).topk(2).indices[[0, 0, 1, 2], [0, 1, 0, 0]].numpy()
                claims = round.forest.token[row, 1:]
                # Claims too deep to become text are absent.
                assert ((claims == expected) | (claims == ABSENT)).all()
                checked += int((claims != ABSENT).all())
        return checked

    watch = watcher(look)
    options = RANDOM | {"choices": ((0,), (1,), (0, 0), (0, 0, 0))}
    prompts = [(3, 14, 15, 9, 26), (5,), (35, 8, 9, 7, 9, 3)]
    decode(model.protocol, "medusa", prompts, options, observers=[watch], max_new_tokens=14, batch_rows=2)
    assert watch.seen[0] == 1 and sum(watch.seen) > 20


def test_a_head_that_knows_one_token_is_accepted_there(tiny: Loaded, tmp_path: Path):
    """A head that always guesses the text's most frequent token: its one claim is accepted where that token comes."""
    text = treewright.generate(tiny, [3, 14, 15], "plain", max_new_tokens=24).tokens
    heads = MedusaHeads(32, 60, 1).double().requires_grad_(False)
    favourite = Counter(text).most_common(1)[0][0]
    for weight in heads.parameters():
        weight.zero_()
    heads.blocks[0][0].linear.bias += 30.0
    heads.projections[0].weight[favourite] = 1.0
    save_heads(heads, tmp_path, {}, torch.float64)
    found = treewright.generate(tiny, [3, 14, 15], "medusa", {"heads": str(tmp_path), "nodes": 1}, max_new_tokens=24)
    assert found.tokens == text
    steps = found.trace.steps
    claimed = [step.token[1] for step in steps if len(step.token) > 1 and step.token[1] != ABSENT]
    assert set(claimed) == {favourite}
    assert sum(len(step.accepted) for step in steps) > 0


def test_heads_of_another_model_are_one_error_before_the_first_forward(tiny: Loaded, monkeypatch: pytest.MonkeyPatch):
    def forbidden(*arguments: Any, **settings: Any) -> None:
        raise AssertionError("the model was asked")

    monkeypatch.setattr(tiny.model, "forward", forbidden)
    with pytest.raises(CapabilityError, match=r"hidden size 256 and 4096 tokens.*has 32 and 60.*treewright train medusa"):
        treewright.generate(tiny, [1, 2], "medusa")
    with pytest.raises(InputError, match="bundled heads: default-medusa"):
        treewright.generate(tiny, [1, 2], "medusa", {"heads": "nix"})
    with pytest.raises(InputError, match=r"\[0, 0, 0, 0, 0\].*1 to 4 numbers"):
        deep = tuple((0,) * depth for depth in range(1, 6))
        treewright.generate(tiny, [1, 2], "medusa", RANDOM | {"choices": deep})


@pytest.mark.parametrize(
    ("options", "words"), [({"nodes": 0}, "nodes"), ({"choices": [[1, 0]]}, "choices"), ({"heads": ""}, "heads")]
)
def test_bad_options_are_named(options: dict[str, Any], words: str, tiny: Loaded):
    with pytest.raises((UnknownOption, InputError), match=words):
        treewright.generate(tiny, [1, 2], "medusa", options)


def test_heads_are_read_once_for_a_model(tiny: Loaded, tmp_path: Path):
    save_heads(random_heads(32, 60), tmp_path, {})
    model = Loaded(tiny.name, tiny.model, None, tiny.protocol)
    options = {"heads": str(tmp_path), "nodes": 4}
    first = treewright.generate(model, [1, 2, 3], "medusa", options, max_new_tokens=4)
    assert len(model.memories) == 1
    assert treewright.generate(model, [1, 2, 3], "medusa", options, max_new_tokens=4).tokens == first.tokens
    assert len(model.memories) == 1


def test_heads_that_are_written_again_are_read_again(tiny: Loaded, tmp_path: Path):
    heads, model = random_heads(32, 60), Loaded(tiny.name, tiny.model, None, tiny.protocol)
    options, claimed = {"heads": str(tmp_path), "nodes": 1}, []
    for version, sign in enumerate((1, -1)):
        for projection in heads.projections:
            projection.weight *= sign
        save_heads(heads, tmp_path, {})
        os.utime(tmp_path / "medusa_lm_head.safetensors", ns=(0, version))
        fresh = Loaded(tiny.name, tiny.model, None, tiny.protocol)
        again, alone = (treewright.generate(one, [1, 2, 3], "medusa", options, max_new_tokens=8) for one in (model, fresh))
        claimed.append([step.token for step in again.trace.steps])
        assert claimed[-1] == [step.token for step in alone.trace.steps]
    assert claimed[0] != claimed[1]


def test_the_card_says_what_laws_use_on_tables():
    assert dict(Recipe.of("medusa").cards()[0].tables) == RANDOM


@pytest.fixture(scope="module")
def bundled() -> Loaded:
    return load("default", dtype="float32")


@pytest.mark.parametrize("temperature", [0.0, 0.8])
def test_the_bundled_heads_draft_for_the_bundled_model(temperature: float, bundled: Loaded):
    prompts = ["Once upon a time there was a little", "def add(a, b):\n    return"]
    settings = dict(max_new_tokens=40, temperature=temperature, ignore_eos=True)
    plain = treewright.generate(bundled, prompts, **settings)
    found = treewright.generate(bundled, prompts, "medusa", {"nodes": 24}, **settings)
    assert [result.tokens for result in found] == [result.tokens for result in plain]
    assert all(result.trace.tokens_per_call > (1.5 if temperature == 0 else 1.1) for result in found)


def test_a_constraint_and_steering_go_with_it(bundled: Loaded):
    settings = dict(constraint=treewright.regex("[a-z]{2,9}( [a-z]{2,9}){4}"), max_new_tokens=30)
    prompt = "Once upon a time there was"
    plain = treewright.generate(bundled, prompt, "momentum", **settings)
    found = treewright.generate(bundled, prompt, "medusa+momentum", {"nodes": 12}, **settings)
    assert found.tokens == plain.tokens
