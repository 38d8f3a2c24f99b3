"""Training beside a target and its draft: what both read against loops, the loss, and what is exported."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from treewright.api import Loaded, load
from treewright.parts.heads.acceptance_file import open_acceptance
from treewright.parts.heads.acceptance_head import AcceptanceHead
from treewright.train.frozen_pair import TEXT_SHARE, FrozenPair
from treewright.train.plug_in import PlugInObjective
from treewright.train.plug_in_recipes import PLUG_INS, PlugIn, run_plug_in
from treewright.train.recipes import Recipe, run
from treewright.train.self_text import SelfTextPlan
from treewright.train.specdec_pp import AcceptanceLoss, Rated, build
from treewright.train.token_store import Window

TOKENS_PER_STEP = 4 * 32


@pytest.fixture
def pair(recipe: Recipe, draft_recipe: Recipe) -> FrozenPair:
    return FrozenPair(recipe.architecture.build(3), draft_recipe.architecture.build(4))


def test_drafts_labels_and_states_are_those_of_a_loop(pair: FrozenPair):
    rows = torch.randint(0, 320, (3, 11), generator=torch.Generator().manual_seed(1))
    seen = pair.read(rows)
    assert torch.equal(seen.tokens, rows) and torch.equal(seen.mixed[:, 0], rows[:, 0])
    with torch.no_grad():
        read = pair.draft(input_ids=seen.mixed, output_hidden_states=True).hidden_states[-1]
        for row in range(3):
            for place in range(1, 11):
                if not seen.drafted[row, place - 1]:
                    assert seen.mixed[row, place] == rows[row, place]
                    continue
                token = seen.mixed[row, place]
                p, q = (
                    model(input_ids=rows[row : row + 1, :place]).logits[0, -1].softmax(-1)[token]
                    for model in (pair.model, pair.draft)
                )
                assert seen.acceptance[row, place - 1].item() == pytest.approx(min(1, (p / q).item()), rel=1e-4)
    torch.testing.assert_close(seen.states, read[:, 1:])


def test_drafts_are_a_function_of_the_rows(pair: FrozenPair):
    rows = torch.randint(0, 320, (2, 200), generator=torch.Generator().manual_seed(2))
    before, one, other = torch.get_rng_state(), pair.read(rows), pair.read(rows.clone())
    assert torch.equal(one.mixed, other.mixed) and torch.equal(torch.get_rng_state(), before)
    assert not torch.equal(pair.read(rows.flip(0)).mixed.flip(0), one.mixed)
    assert one.drafted.float().mean().item() == pytest.approx(1 - TEXT_SHARE, abs=0.06)


def test_drafts_follow_the_drafts_own_law(pair: FrozenPair):
    """The most probable token of a place, over many rows that begin alike."""
    rows = torch.randint(0, 320, (1, 3)).repeat(4000, 1)
    seen = pair.read(rows)
    law = pair.draft(input_ids=rows[:1]).logits[0, 0].softmax(-1)
    best = int(law.argmax())
    drawn = seen.mixed[seen.drafted[:, 0], 1]
    share, expected = (drawn == best).float().mean().item(), law[best].item()
    assert share == pytest.approx(expected, abs=4 * (expected / len(drawn)) ** 0.5)


def test_refusals_weigh_more_and_the_best_answer_is_known():
    loss, label = AcceptanceLoss(6.0), torch.tensor([0.8])
    chances = torch.linspace(0.01, 0.99, 981)
    losses = torch.stack([loss.of(torch.log(torch.stack([1 - one, one]))[None], label) for one in chances])
    expected = -(0.8 * chances.log() + 6 * 0.2 * (1 - chances).log())
    torch.testing.assert_close(losses, expected)
    best = chances[losses.argmin()]
    assert best.item() == pytest.approx(0.8 / (0.8 + 6 * 0.2), abs=1e-3)
    assert Rated(best[None], label).unweighted(6.0).item() == pytest.approx(0.8, abs=2e-3)


def test_the_loss_counts_drafts_alone_and_moves_the_head_alone(pair: FrozenPair):
    rows, head = torch.randint(0, 320, (2, 9)), build(pair)
    seen = pair.read(rows)
    changed = replace(seen, acceptance=torch.where(seen.drafted, seen.acceptance, torch.zeros(())))
    torch.testing.assert_close(AcceptanceLoss()(head, seen), AcceptanceLoss()(head, changed))
    torch.autograd.backward(PlugInObjective(pair, AcceptanceLoss())(head, rows))
    assert all(weight.grad is None for model in (pair.model, pair.draft) for weight in model.parameters())
    assert head.output.weight.grad is not None


def test_ranking_is_that_of_all_pairs():
    generator = torch.Generator().manual_seed(0)
    said, true = torch.rand(12, generator=generator), torch.rand(12, generator=generator)
    right = total = 0.0
    for better in range(12):
        for worse in range(12):
            if better != worse:
                weight = (true[better] * (1 - true[worse])).item()
                total += weight
                right += weight * (said[better] > said[worse]).item()
    assert Rated(said, true).ranking() == pytest.approx(right / total)


def test_a_head_learns_and_is_exported(recipe: Recipe, draft_recipe: Recipe, no_data: Path, tmp_path: Path):
    target = load(run(recipe, no_data, tmp_path / "target", tokens=2 * TOKENS_PER_STEP, log=lambda line: None), dtype="float32")
    draft = Loaded("tiny-draft", draft_recipe.architecture.build(5), None, target.protocol)
    optimization = replace(recipe.optimization, long_every=0, peak_learning_rate=2e-2, window=Window(4, 32), micro_sequences=4)
    plug_in: PlugIn = replace(
        PLUG_INS["specdec_pp"], optimization=optimization, mixture=recipe.mixture, tokens=20 * TOKENS_PER_STEP,
        self_text=SelfTextPlan(rows=8, prompt=6, continuation=26),
    )  # fmt: skip
    lines: list[str] = []
    place = run_plug_in(plug_in, no_data, tmp_path / "run", model=target, draft=draft, log=lines.append)
    own = [float(line.rsplit(" ", 1)[1]) for line in lines if line.startswith("held-out")]
    assert own[-1] < own[0]
    found = open_acceptance(str(place))
    assert (found.hidden_size, found.layers) == (8, 3)
    assert isinstance(found.load(), AcceptanceHead)
    assert "tiny-draft" in (place / "README.md").read_text()


def test_drafts_that_do_not_fit_are_refused(recipe: Recipe, no_data: Path, tmp_path: Path):
    target = Loaded("tiny", recipe.architecture.build(1), None, None)  # type: ignore[arg-type]
    other = Loaded("other", replace(recipe.architecture, vocabulary_size=64).build(1), None, None)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="vocabulary of 64 tokens"):
        run_plug_in(PLUG_INS["specdec_pp"], no_data, tmp_path / "run", model=target, draft=other)
    with pytest.raises(ValueError, match="uses no draft"):
        run_plug_in(PLUG_INS["medusa"], no_data, tmp_path / "run", model=target, draft=other)
