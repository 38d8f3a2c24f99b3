"""Training beside a frozen target: labels against a loop, gradients, kill and resume, and what is exported."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import replace
from itertools import combinations
from pathlib import Path

import pytest
import torch
from transformers import LlamaForCausalLM

import treewright
from treewright.api import Loaded, load
from treewright.parts.heads.medusa_file import open_heads
from treewright.parts.heads.medusa_heads import MedusaHeads
from treewright.train import checkpoint, medusa
from treewright.train.checkpoint import CheckpointError
from treewright.train.medusa import Acceptance, MedusaLoss, labels, measure_acceptance
from treewright.train.plug_in import FrozenTarget, PlugInObjective, Seen
from treewright.train.plug_in_recipes import PLUG_INS, PlugIn, run_plug_in
from treewright.train.recipes import Recipe, run
from treewright.train.self_text import SelfTextPlan
from treewright.train.token_store import Window

TOKENS_PER_STEP = 4 * 32


def seen_by(chosen: list[list[int]], tokens: list[list[int]], vocabulary: int = 9) -> Seen:
    """A target that chose these tokens, position by position."""
    logits = torch.nn.functional.one_hot(torch.tensor(chosen), vocabulary).float()
    return Seen(torch.tensor(tokens), torch.zeros(*logits.shape[:2], 4), logits)


def test_labels_are_the_targets_choices_at_the_right_place():
    torch.manual_seed(0)
    chosen, tokens = torch.randint(3, (2, 2, 9)).tolist()
    for head in range(4):
        wanted, on_path = labels(seen_by(chosen, tokens), head)
        assert wanted.shape == on_path.shape == (2, 9 - 1 - head)
        for row in range(2):
            for t in range(9 - 1 - head):
                # chosen[s] is the target's choice of token s + 1, so that of token t + 2 + head stands at t + 1 + head.
                assert wanted[row, t] == chosen[row][t + 1 + head]
                assert on_path[row, t] == all(tokens[row][s + 1] == chosen[row][s] for s in range(t, t + head + 1))


def test_the_loss_counts_positions_on_the_targets_path_alone():
    heads = MedusaHeads(4, 9, 2)
    heads.start_from(torch.zeros(9, 4))
    own = [[1, 2, 3, 4, 5, 6]]
    assert MedusaLoss()(heads, seen_by(own, [[0, 1, 2, 3, 4, 5]])).item() == pytest.approx(torch.tensor(9.0).log().item())
    assert MedusaLoss()(heads, seen_by(own, [[0, 8, 8, 8, 8, 8]])).item() == 0


def naive_loss(heads: MedusaHeads, seen: Seen, decay: float) -> float:
    total = weight = 0.0
    for head in range(heads.heads):
        wanted, on_path = labels(seen, head)
        laws = heads.logits(head, seen.hidden[:, : wanted.shape[1]]).log_softmax(-1)
        kept = [-laws[r, t, wanted[r, t]].item() for r, t in on_path.nonzero().tolist()]
        total += decay**head * sum(kept) / max(1, len(kept))
        weight += decay**head
    return total / weight


@pytest.fixture
def target(recipe: Recipe) -> FrozenTarget:
    return FrozenTarget(recipe.architecture.build(3))


def digest(model: LlamaForCausalLM) -> str:
    return hashlib.sha256(b"".join(value.numpy().tobytes() for value in model.state_dict().values())).hexdigest()


def test_the_loss_is_a_weighted_mean_and_moves_the_module_alone(target: FrozenTarget):
    before, rows = digest(target.model), torch.randint(0, 320, (3, 12), generator=torch.Generator().manual_seed(1))
    seen = target.read(rows)
    assert seen.hidden.shape == (3, 12, 16) and seen.logits.shape == (3, 12, 320)
    torch.testing.assert_close(seen.hidden @ target.projection.T, seen.logits)
    heads = medusa.build(target)
    greedy = replace(seen, tokens=torch.cat([seen.tokens[:, :1], seen.chosen()[:, :-1]], dim=1))
    assert MedusaLoss(0.5)(heads, greedy).item() == pytest.approx(naive_loss(heads, greedy, 0.5), rel=1e-5)
    torch.autograd.backward(PlugInObjective(target, MedusaLoss())(heads, torch.zeros(2, 9, dtype=torch.long)))
    assert all(weight.grad is None for weight in target.model.parameters())
    assert digest(target.model) == before


def test_untrained_heads_guess_the_next_token(target: FrozenTarget):
    seen, heads = target.read(torch.randint(0, 320, (2, 7))), medusa.build(target)
    assert torch.equal(heads(seen.hidden).argmax(-1), seen.chosen().expand(4, -1, -1))


def test_acceptance_counts_what_a_loop_counts(target: FrozenTarget):
    rows = torch.randint(0, 4, (2, 10), generator=torch.Generator().manual_seed(2))
    heads = medusa.build(target)
    seen = target.read(rows)
    greedy = torch.cat([rows[:, :1], seen.chosen()[:, :-1]], dim=1)
    found = measure_acceptance(target, heads, greedy)
    seen = target.read(greedy)
    expected: dict[tuple[int, ...], int] = {}
    positions = 0
    for row in range(2):
        for t in range(10 - 1 - 3):
            if not all(seen.tokens[row, s + 1] == seen.chosen()[row, s] for s in range(t, t + 4)):
                continue
            positions += 1
            path: tuple[int, ...] = ()
            for head in range(4):
                guesses = heads.logits(head, seen.hidden[row, t]).topk(10).indices.tolist()
                wanted = int(seen.chosen()[row, t + 1 + head])
                if wanted not in guesses:
                    break
                path += (guesses.index(wanted),)
                expected[path] = expected.get(path, 0) + 1
    assert found.positions == positions
    assert dict(found.right) == expected


def test_the_measured_tree_is_the_best_tree():
    generator = torch.Generator().manual_seed(5)
    drawn = (torch.rand(40, 2, generator=generator) ** 2 * 4).int().tolist()
    found = Acceptance(50, medusa.Counter(tuple(path[:depth]) for path in drawn for depth in (1, 2)))
    for nodes in (1, 2, 3, 4):
        trees = [
            chosen for chosen in combinations(found.right, nodes)
            if all(len(path) == 1 or path[:-1] in chosen for path in chosen)
        ]  # fmt: skip
        assert found.mean_accepted(found.tree(nodes)) == max(found.mean_accepted(list(chosen)) for chosen in trees)
        assert found.tree(nodes) == found.tree(9)[:nodes]
    first, second = found.accuracies(2)
    assert sum(first) == pytest.approx(40 / 50) and sum(second) == pytest.approx(1)


@pytest.fixture
def trained(recipe: Recipe, no_data: Path, tmp_path: Path) -> Loaded:
    return load(run(recipe, no_data, tmp_path / "target", tokens=60 * TOKENS_PER_STEP, log=lambda line: None), dtype="float32")


@pytest.fixture
def plug_in(recipe: Recipe) -> PlugIn:
    optimization = replace(recipe.optimization, long_every=0, peak_learning_rate=2e-2, window=Window(4, 32))
    return replace(
        PLUG_INS["medusa"], optimization=optimization, mixture=recipe.mixture, tokens=20 * TOKENS_PER_STEP,
        self_text=SelfTextPlan(rows=8, prompt=6, continuation=26), self_share=0.5,
    )  # fmt: skip


def test_heads_learn_are_exported_and_draft(trained: Loaded, plug_in: PlugIn, no_data: Path, tmp_path: Path):
    before = digest(trained.model)
    place = run_plug_in(plug_in, no_data, tmp_path / "run", model=trained, log=lambda line: None)
    assert digest(trained.model) == before
    losses = checkpoint.load(tmp_path / "run")[2].losses
    assert set(losses[-1][1]) == {"json", "sql", "self"}
    assert losses[-1][1]["self"] < losses[0][1]["self"]
    found = open_heads(str(place))
    assert (found.hidden_size, found.vocabulary, found.heads, found.tied) == (16, 320, 4, True)
    assert found.choices and "treewright train medusa" in (place / "README.md").read_text()
    prompt = list(range(40, 60))
    plain = treewright.generate(trained, prompt, max_new_tokens=30, ignore_eos=True)
    drafted = treewright.generate(trained, prompt, "medusa", {"heads": str(place)}, max_new_tokens=30, ignore_eos=True)
    assert drafted.tokens == plain.tokens
    assert drafted.trace.tokens_per_call > 1


def test_no_tokens_export_heads_as_they_begin(trained: Loaded, plug_in: PlugIn, no_data: Path, tmp_path: Path):
    place = run_plug_in(plug_in, no_data, tmp_path / "run", model=trained, tokens=0, log=lambda line: None)
    heads = open_heads(str(place)).load()
    assert torch.equal(heads.projections[0].weight, trained.model.get_output_embeddings().weight.bfloat16().float())
    assert not any(weight.any() for weight in heads.blocks.parameters())


def kill_after(lines: int) -> Callable[[str], None]:
    seen: list[str] = []

    def log(line: str) -> None:
        seen.append(line)
        if len(seen) == lines:
            raise KeyboardInterrupt

    return log


def test_a_killed_and_resumed_run_gives_the_same_heads(trained: Loaded, plug_in: PlugIn, no_data: Path, tmp_path: Path):
    whole = run_plug_in(plug_in, no_data, tmp_path / "whole", model=trained, log=lambda line: None)
    with pytest.raises(CheckpointError, match="holds a checkpoint"):
        run_plug_in(plug_in, no_data, tmp_path / "whole", model=trained)
    with pytest.raises(KeyboardInterrupt):
        # Two lines say what is written, one describes the run; a report and an evaluation come every ten steps.
        run_plug_in(plug_in, no_data, tmp_path / "cut", model=trained, log=kill_after(7))
    assert checkpoint.load(tmp_path / "cut")[2].step == 10
    cut = run_plug_in(plug_in, no_data, tmp_path / "cut", model=trained, resume=True, log=lambda line: None)
    for name, weight in open_heads(str(whole)).load().state_dict().items():
        assert torch.equal(weight, open_heads(str(cut)).load().state_dict()[name]), name
    with pytest.raises(CheckpointError, match="start the run without resume"):
        run_plug_in(plug_in, no_data, tmp_path / "none", model=trained, resume=True)


def test_a_model_without_a_tokenizer_is_refused(trained: Loaded, plug_in: PlugIn, no_data: Path, tmp_path: Path):
    bare = load(trained.model)
    with pytest.raises(ValueError, match="no fast tokenizer"):
        run_plug_in(plug_in, no_data, tmp_path / "run", model=bare)


def test_the_recipe_is_small_enough_to_be_bundled():
    heads = MedusaHeads(256, 4096, medusa.HEADS, medusa.LAYERS)
    assert sum(weight.numel() for weight in heads.parameters()) * 2 < 3_000_000
