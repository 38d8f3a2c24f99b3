"""Medusa heads: small networks that read a target's last hidden state and guess tokens further ahead, all at once.

Head i maps the state that predicts token t + 1 to logits for token t + 2 + i: residual blocks y = x + silu(Wx + b), then a
projection to the vocabulary (Cai et al. 2024, https://arxiv.org/abs/2401.10774). The heads do not see each other's guesses.
A projection for each head is the paper's form; `tied` heads share one, which for a small model with a large vocabulary is
where nearly all of the parameters are.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional


class ResidualBlock(nn.Module):
    """y = x + silu(Wx + b). W and b begin at zero, so that an untrained head says what its projection says."""

    def __init__(self, hidden_size: int) -> None:
        super().__init__()
        self.linear = nn.Linear(hidden_size, hidden_size)
        nn.init.zeros_(self.linear.weight)
        nn.init.zeros_(self.linear.bias)

    def forward(self, states: Tensor) -> Tensor:
        return states + functional.silu(self.linear(states))


class MedusaHeads(nn.Module):
    """`heads` heads of `layers` residual blocks over states of `hidden_size`.

    blocks [heads][layers], projections: one for each head, or a single one that all share (`tied`).
    """

    def __init__(self, hidden_size: int, vocabulary: int, heads: int, layers: int = 1, tied: bool = True) -> None:
        super().__init__()
        self.hidden_size, self.vocabulary, self.heads, self.layers = hidden_size, vocabulary, heads, layers
        self.blocks = nn.ModuleList([nn.Sequential(*[ResidualBlock(hidden_size) for _ in range(layers)]) for _ in range(heads)])
        self.tied = tied
        count = 1 if tied else heads
        self.projections = nn.ModuleList([nn.Linear(hidden_size, vocabulary, bias=False) for _ in range(count)])

    def start_from(self, projection: Tensor) -> None:
        """Sets every projection to the target's own [V, H]: each head then says what the target says of the next token."""
        with torch.no_grad():
            for weight in self.projections.parameters():
                weight.copy_(projection)

    def logits(self, head: int, states: Tensor) -> Tensor:
        """Logits [..., V] of one head for states [..., H]."""
        return self.projections[0 if self.tied else head](self.blocks[head](states))  # type: ignore[operator, no-any-return]

    def forward(self, states: Tensor) -> Tensor:
        """Logits [K, ..., V] of all heads for states [..., H]."""
        if not self.tied:
            return torch.stack([self.logits(head, states) for head in range(self.heads)])
        return self.projections[0](torch.stack([blocks(states) for blocks in self.blocks]))  # type: ignore[no-any-return]
