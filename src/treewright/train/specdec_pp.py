"""What is particular to training the acceptance head of SpecDec++: the loss, and what is measured of the head.

The target's own text is read by the draft model with most of its tokens replaced by drafts of their places; the head is asked
at the drafts alone, and its label is the exact probability that the target accepts the draft. A refusal weighs six times.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor
from torch.nn import functional

from treewright.parts.heads.acceptance_file import save_acceptance
from treewright.parts.heads.acceptance_head import AcceptanceHead

from .frozen_pair import FrozenPair, SeenByPair
from .plug_in import Finished

LAYERS = 3
BINS = 5


def build(pair: FrozenPair) -> AcceptanceHead:
    """A head for the pair's draft model whose blocks do nothing yet."""
    return AcceptanceHead(pair.draft.config.hidden_size, LAYERS).to(pair.draft.device)


@dataclass(frozen=True)
class AcceptanceLoss:
    """Mean cross-entropy at the drafts, refusals weighing `weight` times (6 in the paper)."""

    weight: float = 6.0

    def __call__(self, module: AcceptanceHead, seen: SeenByPair) -> Tensor:
        """Nats per draft."""
        states = seen.states[seen.drafted].to(next(module.parameters()).dtype)
        return self.of(module(states).float(), seen.acceptance[seen.drafted])

    def of(self, logits: Tensor, acceptance: Tensor) -> Tensor:
        """The same of logits [n, 2] and labels [n]."""
        log_refused, log_accepted = functional.log_softmax(logits, -1).unbind(-1)
        return -(acceptance * log_accepted + self.weight * (1 - acceptance) * log_refused).mean()


@dataclass(frozen=True)
class Rated:
    """Drafts of held-out text: the head's word on each [n], and its true acceptance [n]."""

    said: Tensor
    true: Tensor

    def unweighted(self, weight: float) -> Tensor:
        """What the head would say if refusals had not weighed more: its answer is a / (a + weight (1 - a)) of that a."""
        return weight * self.said / (weight * self.said + 1 - self.said)

    def ranking(self) -> float:
        """How often the better of two drafts, one accepted and one refused by their true probabilities, is rated higher."""
        order = self.said.argsort()
        true = self.true[order].double()
        worse = torch.cumsum(1 - true, 0) - (1 - true)
        # A pair of one draft with itself is no pair.
        pairs = true.sum() * (1 - true).sum() - (true * (1 - true)).sum()
        return float((true * worse).sum() / pairs)


@torch.no_grad()
def rate(pair: FrozenPair, head: AcceptanceHead, rows: Tensor, at_once: int = 16) -> Rated:
    """Asks the head about the drafts of rows [n, T]. Cost: three forwards for every `at_once` rows."""
    said, true = [], []
    for part in torch.split(rows, at_once):
        seen = pair.read(part)
        said.append(head.acceptance(seen.states[seen.drafted].to(next(head.parameters()).dtype)))
        true.append(seen.acceptance[seen.drafted])
    return Rated(torch.cat(said), torch.cat(true))


def export(module: AcceptanceHead, target: FrozenPair, finished: Finished, folder: Path) -> None:
    """Measures the head on held-out text of the target's own, and writes weights and a card."""
    found = rate(target, module, finished.blocks.own_rows())
    save_acceptance(module, folder, {"target": finished.target, "draft": finished.draft})
    (folder / "README.md").write_text(_card(module, finished, found), encoding="utf-8")


def _card(module: AcceptanceHead, finished: Finished, found: Rated) -> str:
    parameters, progress = sum(weight.numel() for weight in module.parameters()), finished.progress
    weight = AcceptanceLoss().weight
    table = [
        "| the head says, refusals weighed once | drafts | mean of what it says | mean true acceptance |",
        "|---|---|---|---|",
    ]
    said = found.unweighted(weight)
    for low in range(BINS):
        inside = (said * BINS).long().clamp(max=BINS - 1) == low
        if inside.any():
            means = f"{said[inside].mean():.3f} | {found.true[inside].mean():.3f}"
            table.append(f"| {low / BINS:.1f} to {(low + 1) / BINS:.1f} | {int(inside.sum()):,} | {means} |")
    return f"""# Acceptance head for `{finished.target}` and its draft `{finished.draft}`

{module.layers} residual blocks over the draft's last hidden state and two outputs; {parameters:,} parameters,
{2 * parameters / 1e6:.2f} MB in bfloat16. Huang et al. 2024 (SpecDec++), https://arxiv.org/abs/2405.19715. Both models were
read and never changed.

Trained on {progress.tokens:,} tokens of greedy text that the target wrote itself, after beginnings from its own training corpora
(their licences are in the target's card), with drafts drawn at temperature 1 in the place of 85 % of the tokens;
{progress.active_seconds:.0f} seconds of one CPU core. The recipe:

    treewright train specdec_pp --model {finished.target} --draft {finished.draft} --data DIR --tokens {progress.schedule.total}

## Held-out text

{len(found.true):,} drafts drawn at temperature 1, whose mean true acceptance is {found.true.mean():.3f}. Of a draft that is
accepted and one that is refused the head rates the accepted one higher in {100 * found.ranking():.1f} % of the pairs.

{chr(10).join(table)}
"""
