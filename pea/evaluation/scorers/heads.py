"""The head of ImageReward and of LAION's aesthetic score: five linear layers, with nothing between them."""

from __future__ import annotations

from torch import Tensor, nn


class LinearLayers(nn.Module):
    """A vector -> one number.

    Source: christophschuhmann/improved-aesthetic-predictor, simple_inference.py (`MLP`); numbers skip its dropout.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Linear(width, 1024),
            nn.Identity(),
            nn.Linear(1024, 128),
            nn.Identity(),
            nn.Linear(128, 64),
            nn.Identity(),
            nn.Linear(64, 16),
            nn.Linear(16, 1),
        )

    def forward(self, vectors: Tensor) -> Tensor:
        """`[B, width]` -> `[B]`."""
        answer: Tensor = self.layers(vectors).squeeze(-1)
        return answer
