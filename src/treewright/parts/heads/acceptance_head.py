"""An acceptance head: reads a draft model's last hidden state and says how likely the target takes the token it has just read.

Residual blocks y = x + silu(Wx + b), then a linear map to two logits, refused and accepted (SpecDec++, Huang et al. 2024,
https://arxiv.org/abs/2405.19715).
"""

from __future__ import annotations

from torch import Tensor, nn

from treewright.parts.heads.medusa_heads import ResidualBlock


class AcceptanceHead(nn.Module):
    """`layers` residual blocks over states of `hidden_size`, and the output."""

    def __init__(self, hidden_size: int, layers: int = 3) -> None:
        super().__init__()
        self.hidden_size, self.layers = hidden_size, layers
        self.blocks = nn.Sequential(*[ResidualBlock(hidden_size) for _ in range(layers)])
        self.output = nn.Linear(hidden_size, 2)

    def forward(self, states: Tensor) -> Tensor:
        """Logits [..., 2] of refused and accepted for states [..., H]."""
        return self.output(self.blocks(states))  # type: ignore[no-any-return]

    def acceptance(self, states: Tensor) -> Tensor:
        """The probability that the token read last is accepted, [...]."""
        return self(states).float().softmax(-1)[..., 1]
