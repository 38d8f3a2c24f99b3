"""What is particular to training Medusa heads: the loss, and the tree that suits what the heads have learned.

Labels are the target's own most probable tokens, which come from the same forward as the hidden states: a draft is accepted
when it agrees with the target, not with the corpus. Head i on h(t) is asked about token t + 2 + i. While decoding greedily
the tokens up to there are the target's own choices, so positions behind which a corpus has others teach nothing and cost
nothing.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor
from torch.nn import functional

from treewright.parts.heads.medusa_file import save_heads
from treewright.parts.heads.medusa_heads import MedusaHeads

from .plug_in import Finished, FrozenTarget, Seen

HEADS = 4
LAYERS = 1
TOP = 10
"""Ranks of a head's guesses that a tree may use."""
NODES = 63


def build(target: FrozenTarget) -> MedusaHeads:
    """Heads that say what the target says of the next token: their blocks do nothing yet, and the projection they share is
    a copy of the target's own."""
    vocabulary, hidden_size = target.projection.shape
    heads = MedusaHeads(hidden_size, vocabulary, HEADS, LAYERS)
    heads.start_from(target.projection)
    return heads.to(target.model.device)


def labels(seen: Seen, head: int) -> tuple[Tensor, Tensor]:
    """For the positions t that have them all: the target's choice of token t + 2 + head, [B, n], and whether tokens t + 1 to
    t + 1 + head are the target's own choices, [B, n] bool. n is T - 1 - head."""
    chosen = seen.chosen()
    kept = chosen.shape[1] - 1 - head
    own = seen.tokens[:, 1:] == chosen[:, :-1]
    on_path = torch.stack([own[:, ahead : ahead + kept] for ahead in range(head + 1)]).all(0)
    return chosen[:, 1 + head :], on_path


@dataclass(frozen=True)
class MedusaLoss:
    """Weighted mean cross-entropy of the heads, head i weighing decay**i (0.8 in the paper)."""

    decay: float = 0.8

    def __call__(self, module: MedusaHeads, seen: Seen) -> Tensor:
        """Nats per counted position, averaged over the heads."""
        states = seen.hidden.to(next(module.parameters()).dtype)
        total, weights = torch.zeros((), device=states.device), 0.0
        for head in range(module.heads):
            wanted, on_path = labels(seen, head)
            logits = module.logits(head, states[:, : wanted.shape[1]][on_path]).float()
            losses = functional.cross_entropy(logits, wanted[on_path], reduction="sum")
            total = total + self.decay**head * losses / on_path.sum().clamp(min=1)
            weights += self.decay**head
        return total / weights


@dataclass(frozen=True)
class Acceptance:
    """What was counted on held-out text: positions, and for each rank path how many of them it is right at."""

    positions: int
    right: Counter[tuple[int, ...]]

    def accuracies(self, heads: int) -> list[list[float]]:
        """[heads][TOP]: how often a head's guess of this rank is right where the guesses before it are."""
        table = []
        for depth in range(1, heads + 1):
            above = sum(count for path, count in self.right.items() if len(path) == depth - 1) if depth > 1 else self.positions
            ranks = [sum(n for path, n in self.right.items() if len(path) == depth and path[-1] == rank) for rank in range(TOP)]
            table.append([count / max(1, above) for count in ranks])
        return table

    def tree(self, nodes: int) -> list[tuple[int, ...]]:
        """The rank paths that together are right most often, best first. A path is right no more often than its parent, so
        the best `nodes` of them are a tree, and the first of them are the best smaller tree."""
        return sorted(self.right, key=lambda path: (-self.right[path], len(path), path))[:nodes]

    def mean_accepted(self, tree: list[tuple[int, ...]]) -> float:
        """Tokens of a round with this tree, the target's own included, averaged over all positions."""
        return 1 + sum(self.right[path] for path in tree) / max(1, self.positions)


@torch.no_grad()
def measure_acceptance(target: FrozenTarget, heads: MedusaHeads, rows: Tensor, at_once: int = 16) -> Acceptance:
    """Counts, over the positions of rows [n, T] behind which the text is the target's own choice, which rank path of the
    heads' guesses the text follows, as far as it does. Cost: one target forward for every `at_once` rows."""
    count, positions, right = heads.heads, 0, Counter[tuple[int, ...]]()
    for part in torch.split(rows, at_once):
        seen = target.read(part)
        _, on_path = labels(seen, count - 1)
        kept = on_path.shape[1]
        ranks = torch.stack([_ranks(heads, seen, head, kept)[on_path] for head in range(count)], dim=-1)
        positions += len(ranks)
        for path in ranks.tolist():
            reach = next((depth for depth, rank in enumerate(path) if rank < 0), count)
            right.update(tuple(path[:depth]) for depth in range(1, reach + 1))
    return Acceptance(positions, right)


def _ranks(heads: MedusaHeads, seen: Seen, head: int, kept: int) -> Tensor:
    """The rank of the label among a head's first TOP guesses, -1 beyond, [B, kept]."""
    wanted = labels(seen, head)[0][:, :kept]
    states = seen.hidden[:, :kept].to(next(heads.parameters()).dtype)
    guessed = heads.logits(head, states).topk(min(TOP, seen.logits.shape[-1]), dim=-1).indices == wanted[..., None]
    return torch.where(guessed.any(-1), guessed.int().argmax(-1), -1)


def export(module: MedusaHeads, target: FrozenTarget, finished: Finished, folder: Path) -> None:
    """Measures the heads on held-out text of the target's own, and writes weights, the tree that suits them, and a card."""
    found = measure_acceptance(target, module, finished.blocks.own_rows())
    best = found.tree(NODES)
    config = {
        "base_model_name_or_path": finished.target,
        "medusa_choices": best,
    }
    save_heads(module, folder, config)
    (folder / "README.md").write_text(_card(module, finished, found, best), encoding="utf-8")


def _card(module: MedusaHeads, finished: Finished, found: Acceptance, best: list[tuple[int, ...]]) -> str:
    parameters = sum(weight.numel() for weight in module.parameters())
    progress = finished.progress
    table = ["| head | first guess | second | third | any of the first 10 |", "|---|---|---|---|---|"]
    for head, ranks in enumerate(found.accuracies(module.heads), start=1):
        table.append(f"| {head} | " + " | ".join(f"{share:.3f}" for share in [*ranks[:3], sum(ranks)]) + " |")
    sizes = ", ".join(f"{found.mean_accepted(best[:nodes]):.2f} with {nodes} nodes" for nodes in (4, 15, 31, NODES))
    return f"""# Medusa heads for `{finished.target}`

{module.heads} heads of {module.layers} residual block, one vocabulary projection that they share (it began as a
copy of the target's own); {parameters:,} parameters, {2 * parameters / 1e6:.1f} MB in bfloat16. Cai et al. 2024,
https://arxiv.org/abs/2401.10774. The target was read and never changed.

Trained on {progress.tokens:,} tokens: windows of the target's own training corpora (their licences are in the target's card)
and greedy text that the target wrote itself; labels are the target's own most probable tokens.
{progress.active_seconds / 60:.0f} minutes of one CPU core. The recipe:

    treewright train medusa --model {finished.target} --data DIR --tokens {progress.schedule.total}

## Held-out text

How often a guess of each rank is right where the guesses before it are, over {found.positions:,} positions of greedy text that
the target wrote after beginnings from held-out documents:

{chr(10).join(table)}

Mean tokens of a round over all those positions: {sizes}. The tree was chosen on the same text.
"""
